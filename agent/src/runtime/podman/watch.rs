//! States of all containers of this node, as podman reports them.
//!
//! `podman events` runs as long as this agent and says when to look; each look is one `podman ps`. It is
//! looked, too, at the start, after the events broke off, and now and then, as events may get lost.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::command::{self, Listed, PodmanError};

/// The longest time between two looks.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// Events seldom come alone: a look waits this long for more of them.
const GATHER: Duration = Duration::from_millis(50);
/// Pause before the events are asked for again after they broke off.
const PAUSE: Duration = Duration::from_secs(1);
/// Looks that have to fail, one after the other, until the states count as unknown.
const FAILURES: usize = 2;

/// What podman said at one time.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The time of the question: what has begun later may be missing.
    pub(super) asked: Instant,
    /// All containers by their id; `None` if podman does not answer.
    pub(super) containers: Option<Arc<BTreeMap<String, Listed>>>,
}

/// The view of all containers. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    seen: watch::Receiver<Seen>,
    look: Arc<Notify>,
}

impl Watch {
    /// Begins to watch, until all clones are dropped.
    pub(super) fn start() -> Self {
        let (to, seen) = watch::channel(Seen { asked: Instant::now(), containers: None });
        let look = Arc::new(Notify::new());
        tokio::spawn(follow(to, Arc::clone(&look)));
        Self { seen, look }
    }

    /// Asks for a look soon.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    pub(super) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }
}

async fn follow(to: watch::Sender<Seen>, look: Arc<Notify>) {
    let mut failures = 0;
    let mut events: Option<Events> = None;
    let mut is_told = false;
    loop {
        if events.is_none() {
            match Events::start() {
                Ok(started) => events = Some(started),
                Err(error) if !is_told => {
                    log::warn!("states of containers come late: podman events: {error}");
                    is_told = true;
                }
                Err(_) => {}
            }
        }
        let asked = Instant::now();
        match command::list(None).await {
            Ok(all) => {
                failures = 0;
                let all = all.into_iter().map(|own| (own.id.clone(), own)).collect();
                to.send_replace(Seen { asked, containers: Some(Arc::new(all)) });
            }
            Err(error) => {
                failures += 1;
                if failures == FAILURES {
                    log::warn!("states of containers are unknown: podman ps: {error}");
                }
                if failures >= FAILURES {
                    to.send_replace(Seen { asked, containers: None });
                }
            }
        }
        // A failed look is repeated soon, and one at a time.
        let longest = if failures > 0 { PAUSE } else { AT_LEAST_EVERY };
        tokio::select! {
            () = to.closed() => return,
            () = next_reason(&mut events, &mut is_told, &look) => sleep(GATHER).await,
            () = sleep(longest) => {}
        }
        if let Some(events) = &mut events {
            events.skip_waiting().await;
        }
    }
}

/// Waits for an event or a request. If the events break off, waits a little, and lets them be started.
async fn next_reason(events: &mut Option<Events>, is_told: &mut bool, look: &Notify) {
    let event = async {
        match events {
            Some(events) => events.next().await,
            // Tried again with the next look.
            None => {
                sleep(PAUSE).await;
                None
            }
        }
    };
    let has_event = tokio::select! {
        event = event => event.is_some(),
        () = look.notified() => true,
    };
    if has_event {
        *is_told = false;
        return;
    }
    if events.take().is_some() {
        if !*is_told {
            log::warn!("podman events ended; it is started again");
            *is_told = true;
        }
        sleep(PAUSE).await;
    }
}

/// A running `podman events`, killed when it is dropped.
#[derive(Debug)]
struct Events {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Events {
    fn start() -> Result<Self, PodmanError> {
        // From a moment ago: podman takes a while until it follows, and what happens meanwhile would be
        // lost.
        let args =
            ["events", "--stream", "--since=1s", "--format={{.ID}}", "--filter=type=container"];
        // Those that change a state, and not, say, a command run in a container again and again.
        let kinds = [
            "create", "init", "start", "died", "cleanup", "remove", "stop", "pause", "unpause",
            "restart",
        ];
        let kinds = kinds.map(|kind| format!("--filter=event={kind}"));
        let mut command =
            command::command(args.iter().copied().chain(kinds.iter().map(String::as_str)));
        command.stderr(std::process::Stdio::null());
        let mut child = command.spawn().map_err(PodmanError::from)?;
        let stdout = child.stdout.take().ok_or_else(PodmanError::no_pipe)?;
        Ok(Self { _child: child, lines: BufReader::new(stdout).lines() })
    }

    async fn next(&mut self) -> Option<()> {
        self.lines.next_line().await.ok()?.map(|_| ())
    }

    /// Skips the events that are there: one look is enough for all of them.
    async fn skip_waiting(&mut self) {
        while let Ok(Some(())) = timeout(Duration::ZERO, self.next()).await {}
    }
}
