//! Keeper: this program again, between an agent with `--on-exit keep` and the shim of a process. It
//! outlives the agent (docs/process-runtime.md#outliving-the-agent).
//!
//! It starts the process, is the only writer of its log, and leaves its end in the [`KeeperFolder`]. The
//! agent that started it is connected by standard input, each later one by the socket. Lines of JSON go both
//! ways: [`KeeperEvent`] to the agent, [`KeeperOrder`] from it. As either side may be older than the other,
//! these may gain variants and fields, and lose none.

use std::{
    future::pending,
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixStream as StdStream},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use nix::unistd::setsid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    logs::{Captured, Ends, Layout, Log},
    runtime::{
        exec,
        shim::{Isolation, Plan},
    },
};

use super::{
    keeper_folder::{KeeperFolder, note_pid},
    running::{Exit, Process},
};

/// What a keeper is to keep: the first line to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Keep {
    pub(super) folder: KeeperFolder,
    pub(super) program: PathBuf,
    pub(super) isolation: Isolation,
    pub(super) plan: Plan,
    /// The folder of the log; `None` to discard the output.
    pub(super) log: Option<PathBuf>,
    pub(super) log_bytes: u64,
    /// Time for the process to end after SIGTERM to the keeper.
    pub(super) grace_ms: u64,
}

/// A message of a keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum KeeperEvent {
    /// The process runs. First in each connection.
    Running,
    /// The process was not started, for this reason.
    Failed(String),
    /// So much is in the log.
    Log(Layout),
    /// Output did not get into the log, for this reason.
    OutputLost(String),
    /// The process has ended, and all of its output is in the log. Last in each connection.
    Exited(Exit),
}

/// A message to a keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum KeeperOrder {
    /// End the process: by SIGTERM, and by SIGKILL after so many milliseconds.
    Stop(u64),
}

/// Least time between two reports about the log.
const LOG_PAUSE: Duration = Duration::from_millis(10);
/// Time for an agent to read a report. One that does not is let go, and connects again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection between an agent and a keeper, seen from either side.
#[derive(Debug)]
pub(super) struct Connection {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { lines: BufReader::new(reader).lines(), writer }
    }

    pub(super) fn from_std(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::new(UnixStream::from_std(stream)?))
    }

    /// The next message; `None` at the end. Messages that this program does not know are left out. If this
    /// is cancelled, no message is lost.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            let line = self.lines.next_line().await.ok()??;
            if let Ok(message) = serde_json::from_str(&line) {
                return Some(message);
            }
        }
    }

    pub(super) async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.writer.write_all(&line).await
    }
}

/// Keeps one process, as the first line on standard input says. Standard output is the lock.
#[must_use]
pub(crate) fn main() -> ExitCode {
    match exec::outlive_hangup()
        .and_then(|()| prepare())
        .and_then(|(runtime, agent)| runtime.block_on(keep(agent)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Of an agent it has none; a person may have started it.
            let text = "error: this is for fifogate-agent itself, which starts it with a socket";
            let _ = writeln!(io::stderr(), "{text}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> io::Result<(tokio::runtime::Runtime, StdStream)> {
    exec::close_inherited()?;
    // Neither the terminal of the agent nor its process group is the keeper's.
    setsid()?;
    let agent = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Nothing is written anywhere unless an agent is there.
    agent.local_addr()?;
    note_pid(&mut std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?))?;
    // One thread: the shim ends with the thread of its start.
    Ok((Builder::new_current_thread().enable_all().build()?, agent))
}

async fn keep(agent: StdStream) -> io::Result<()> {
    let mut agent = Connection::from_std(agent)?;
    let Some(keep) = agent.next::<Keep>().await else { return Ok(()) };
    let terminate = signal(SignalKind::terminate())?;
    let listener = keep.folder.listen()?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let started = Process::start(&keep.program, keep.isolation, &keep.plan).await;
    let (process, stdout, stderr) = match started {
        Ok(started) => started,
        Err(reason) => return agent.send(&KeeperEvent::Failed(reason)).await,
    };
    let (lost, losses) = mpsc::unbounded_channel();
    let log = keep.log.as_deref().map(|folder| Log::open(folder, keep.log_bytes)).transpose();
    let log = log.unwrap_or_else(|error| {
        let _ = lost.send(error.to_string());
        None
    });
    let tell_lost = move |error: &io::Error| _ = lost.send(error.to_string());
    let captured = Captured::begin(log.clone(), stdout, stderr, tell_lost);
    let ends = log.as_ref().map(Log::ends);
    let grace = Duration::from_millis(keep.grace_ms);
    let log_at = Instant::now();
    let mut keeper = Keeper {
        process,
        listener,
        terminate,
        losses,
        ends,
        log,
        grace,
        log_at,
        kills_at: None,
        agent: None,
    };
    keeper.greet(agent).await;
    let exit = keeper.until_exit().await;
    captured.drained().await;
    // Before it is told: an agent that ends in between leaves it to the next one.
    keep.folder.write_exit(exit)?;
    keeper.tell_log().await;
    keeper.tell(&KeeperEvent::Exited(exit)).await;
    Ok(())
}

/// A keeper at work.
struct Keeper {
    process: Process,
    listener: UnixListener,
    terminate: Signal,
    losses: mpsc::UnboundedReceiver<String>,
    ends: Option<Ends>,
    log: Option<Log>,
    grace: Duration,
    /// The agent, if it is connected.
    agent: Option<Connection>,
    /// When the log is reported again at the earliest.
    log_at: Instant,
    /// When the process is killed, after it was asked to end.
    kills_at: Option<Instant>,
}

/// What a keeper does next.
enum Turn {
    Exited(Exit),
    Accepted(UnixStream),
    /// `None`: the agent is gone.
    Ordered(Option<KeeperOrder>),
    Written,
    Lost(String),
    Terminated,
    Kill,
}

impl Keeper {
    async fn until_exit(&mut self) -> Exit {
        loop {
            match self.next().await {
                Turn::Exited(exit) => return exit,
                Turn::Accepted(stream) => self.greet(Connection::new(stream)).await,
                Turn::Ordered(Some(KeeperOrder::Stop(grace_ms))) => {
                    self.stop(Duration::from_millis(grace_ms)).await;
                }
                Turn::Ordered(None) => self.agent = None,
                Turn::Written => self.tell_log().await,
                Turn::Lost(reason) => self.tell(&KeeperEvent::OutputLost(reason)).await,
                Turn::Terminated => self.stop(self.grace).await,
                Turn::Kill => return self.process.kill().await,
            }
        }
    }

    /// Waits for what comes next. Each of these can be given up without a loss.
    async fn next(&mut self) -> Turn {
        let agent = &mut self.agent;
        let ordered = async {
            match agent {
                Some(agent) => agent.next().await,
                None => pending().await,
            }
        };
        let (ends, log_at) = (&mut self.ends, self.log_at);
        let written = async {
            sleep_until(log_at).await;
            let Some(ends) = ends else { return pending().await };
            if ends.changed().await.is_err() {
                pending().await
            }
        };
        let kills_at = self.kills_at;
        let kill = async {
            match kills_at {
                Some(time) => sleep_until(time).await,
                None => pending().await,
            }
        };
        tokio::select! {
            exit = self.process.wait() => Turn::Exited(exit),
            Ok((stream, _)) = self.listener.accept() => Turn::Accepted(stream),
            order = ordered => Turn::Ordered(order),
            () = written => Turn::Written,
            Some(reason) = self.losses.recv() => Turn::Lost(reason),
            Some(()) = self.terminate.recv() => Turn::Terminated,
            () = kill => Turn::Kill,
        }
    }

    /// Goes on with this agent, and with no other.
    async fn greet(&mut self, agent: Connection) {
        self.agent = Some(agent);
        self.tell(&KeeperEvent::Running).await;
        self.tell_log().await;
    }

    async fn tell_log(&mut self) {
        self.log_at = Instant::now() + LOG_PAUSE;
        if let Some(log) = &self.log {
            let layout = log.layout();
            self.tell(&KeeperEvent::Log(layout)).await;
        }
    }

    /// Tells the agent, if it is there and reads.
    async fn tell(&mut self, event: &KeeperEvent) {
        let Some(agent) = &mut self.agent else { return };
        if !matches!(timeout(PATIENCE, agent.send(event)).await, Ok(Ok(()))) {
            self.agent = None;
        }
    }

    async fn stop(&mut self, grace: Duration) {
        self.process.terminate().await;
        self.kills_at = Some(Instant::now() + grace);
    }
}
