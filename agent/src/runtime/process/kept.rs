//! A kept process on the agent's side: its keeper is started or found, followed, and ended.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::Command,
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    logs::{self, Log},
    runtime::{Change, Later, Unit},
};

use super::{
    keeper::{Connection, Keep, KeeperEvent, KeeperOrder},
    keeper_folder::{KeeperFolder, Record},
    running::Exit,
};

/// Time for a keeper to answer, and to end after its process.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at the lock of a keeper.
const LOOK: Duration = Duration::from_millis(20);

/// A process whose keeper this agent is connected to. Dropping it lets the process go on.
#[derive(Debug)]
pub(super) struct Kept {
    folder: KeeperFolder,
    orders: mpsc::UnboundedSender<KeeperOrder>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Kept {
    /// Starts a keeper, and by it a process.
    ///
    /// # Errors
    /// The process was not started, for this reason, and nothing keeps anything.
    pub(super) async fn start(
        program: &Path,
        record: &Record,
        keep: &Keep,
        log: Option<Log>,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot launch its keeper: {error}");
        let lock = keep.folder.make(record).map_err(failed)?;
        let (ours, theirs) = StdStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["keep", &record.instance().workload]);
        command.stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(lock)).stderr(Stdio::null());
        let spawned = command.spawn();
        // The command still holds the lock, and the keeper's end of the socket.
        drop(command);
        let mut child = spawned.map_err(failed)?;
        // It is reaped if it ends before this agent.
        tokio::spawn(async move { child.wait().await });
        let mut keeper = Connection::from_std(ours).map_err(failed)?;
        keeper.send(keep).await.map_err(failed)?;
        match keeper.next().await {
            Some(KeeperEvent::Running) => {
                Ok(Self::follow(keep.folder.clone(), keeper, log, record))
            }
            Some(KeeperEvent::Failed(reason)) => Err(reason),
            _ => Err("its keeper ended at once".to_owned()),
        }
    }

    /// Goes on with a process that an earlier agent has left, or with its end. `None` if it cannot be
    /// followed.
    pub(super) async fn find(
        folder: &KeeperFolder,
        log: Option<Log>,
        record: &Record,
    ) -> Option<Self> {
        if let Some(keeper) = connect(folder).await {
            return Some(Self::follow(folder.clone(), keeper, log, record));
        }
        // It may have ended just now.
        let exit = folder.exit().filter(|_| !folder.is_held())?;
        if let Some(log) = log {
            reread(&log, &record.instance().workload);
        }
        let (orders, _) = mpsc::unbounded_channel();
        Some(Self { folder: folder.clone(), orders, exit: watch::channel(Some(exit)).1 })
    }

    fn follow(folder: KeeperFolder, keeper: Connection, log: Option<Log>, record: &Record) -> Self {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (told, exit) = watch::channel(None);
        let workload = record.instance().workload;
        let follower = Follower { folder: folder.clone(), log, workload, ordered };
        tokio::spawn(async move {
            if let Some(exit) = follower.until_exit(keeper).await {
                told.send_replace(Some(exit));
            }
        });
        Self { folder, orders, exit }
    }

    async fn wait(&mut self) -> Exit {
        let exit = self.exit.wait_for(Option::is_some).await;
        // The task that follows the keeper ends with the agent.
        exit.ok().and_then(|exit| *exit).unwrap_or(Exit::Lost)
    }
}

impl Unit for Kept {
    fn change(&mut self) -> Later<'_, Change> {
        Box::pin(async { Change::Ended(self.wait().await.into()) })
    }

    fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> Later<'static, Result<String, String>> {
        Box::pin(async move {
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            // Without its follower it has ended already.
            let _ = self.orders.send(KeeperOrder::Stop(grace_ms));
            let exit = match timeout(grace + logs::DRAIN + PATIENCE, self.wait()).await {
                Ok(exit) => exit,
                Err(_) => Exit::Lost,
            };
            end(&self.folder).await?;
            Ok(exit.to_string())
        })
    }
}

/// Ends a keeper that does not end by itself, and removes its folder.
///
/// # Errors
/// It goes on, or its folder cannot be removed, for this reason.
pub(super) async fn end(folder: &KeeperFolder) -> Result<(), String> {
    if !is_free(folder).await {
        folder.kill();
        if !is_free(folder).await {
            return Err("its keeper cannot be killed".to_owned());
        }
    }
    folder.remove().map_err(|error| error.to_string())
}

/// Waits until no keeper holds the folder, for a bounded time.
async fn is_free(folder: &KeeperFolder) -> bool {
    let until = Instant::now() + PATIENCE;
    while folder.is_held() {
        if Instant::now() > until {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

/// Connects to a keeper that lives, and waits for its greeting. `None` if there is none.
async fn connect(folder: &KeeperFolder) -> Option<Connection> {
    let until = Instant::now() + PATIENCE;
    // One that was just started does not listen yet.
    while folder.is_held() && Instant::now() < until {
        if let Ok(stream) = folder.connect()
            && let Ok(mut keeper) = Connection::from_std(stream)
            && let Ok(Some(KeeperEvent::Running)) = timeout(PATIENCE, keeper.next()).await
        {
            return Some(keeper);
        }
        sleep(LOOK).await;
    }
    None
}

fn reread(log: &Log, workload: &str) {
    if let Err(error) = log.reread() {
        logs::report_loss(workload, error);
    }
}

/// Follows one keeper.
struct Follower {
    folder: KeeperFolder,
    log: Option<Log>,
    workload: String,
    ordered: mpsc::UnboundedReceiver<KeeperOrder>,
}

impl Follower {
    /// Passes on orders to the keeper until the process has ended. `None` if nobody asks any more.
    async fn until_exit(mut self, mut keeper: Connection) -> Option<Exit> {
        loop {
            tokio::select! {
                event = keeper.next() => match event {
                    Some(KeeperEvent::Exited(exit)) => return Some(exit),
                    Some(event) => self.note(event),
                    None => match connect(&self.folder).await {
                        // It has let go of an agent that did not read for a while.
                        Some(again) => keeper = again,
                        None => return Some(self.lost()),
                    },
                },
                order = self.ordered.recv() => {
                    // If it is gone, the end of the connection comes next.
                    let _ = keeper.send(&order?).await;
                }
            }
        }
    }

    fn note(&self, event: KeeperEvent) {
        match (event, &self.log) {
            (KeeperEvent::Log(layout), Some(log)) => {
                if let Err(error) = log.follow(&layout) {
                    logs::report_loss(&self.workload, error);
                }
            }
            (KeeperEvent::OutputLost(reason), _) => logs::report_loss(&self.workload, reason),
            _ => {}
        }
    }

    /// The end of a process whose keeper is gone.
    fn lost(&self) -> Exit {
        if let Some(log) = &self.log {
            reread(log, &self.workload);
        }
        self.folder.exit().unwrap_or(Exit::Lost)
    }
}

#[cfg(test)]
mod tests {
    use fifogate::state::Instance;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn keeper_that_let_go_of_its_agent_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance { workload: "w".into(), agent: "agent_A".into(), id: "1".into() };
        let record = Record::new(&instance, false);
        let folder = KeeperFolder::of(dir.path());
        let lock = folder.make(&record).unwrap();
        let listener = folder.listen().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = UnixListener::from_std(listener).unwrap();
        let accept = async || {
            let mut agent = Connection::new(listener.accept().await.unwrap().0);
            agent.send(&KeeperEvent::Running).await.unwrap();
            agent
        };
        let (found, first) = tokio::join!(Kept::find(&folder, None, &record), accept());
        let mut kept = found.unwrap();
        drop(first);
        let mut second = accept().await;
        // A message of a later version is no fault.
        second.send(&serde_json::json!({ "Later": 1 })).await.unwrap();
        let grace = Duration::from_millis(70);
        kept.orders.send(KeeperOrder::Stop(70)).unwrap();
        assert_eq!(second.next().await, Some(KeeperOrder::Stop(70)));
        assert!(!kept.has_ended());
        second.send(&KeeperEvent::Exited(Exit::Code(5))).await.unwrap();
        assert_eq!(kept.wait().await, Exit::Code(5));
        drop(lock);
        assert_eq!(Box::new(kept).stop(grace).await, Ok("exit status 5".to_owned()));
        assert_eq!(folder.record(), None, "nothing is left of it");
    }
}
