//! Client of the agent link: spawns fifogate, writes commands, and routes acknowledgements.
//!
//! Commands of many tasks go in through one channel, and are written in its order. Messages of fifogate
//! come out as [`FromGate`]. An `Ack` or `Rejected` reaches the caller of its command, by id
//! (docs/agent-link.md#order-and-acknowledgements).

use std::{
    collections::VecDeque,
    ffi::OsString,
    fmt, io,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use fifogate::{
    agent::{MessageDecoder, VERSION},
    frame::encode,
    pb::agent_link::{AgentHello, FromAgent, from_agent, to_agent},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
};

/// Commands waiting to be written. Further callers wait with their commands.
const COMMANDS_THAT_WAIT: usize = 256;
/// Commands are written together up to this number of bytes.
const MOST_TOGETHER: usize = 64 << 10;
/// Messages waiting for the main loop. When full, fifogate is not read, and bounds its own queue.
const MESSAGES_THAT_WAIT: usize = 256;

/// Start parameters of fifogate.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// Its program.
    pub program: PathBuf,
    /// The run directory, with its pairs.
    pub run_dir: PathBuf,
    /// Name of this agent.
    pub agent_name: String,
    /// Further options of `fifogate run`.
    pub options: Vec<OsString>,
}

/// A message or event of fifogate.
#[derive(Debug)]
pub enum FromGate {
    /// A message other than an acknowledgement.
    Said(Box<to_agent::Content>),
    /// It rejected a step of the state, and needs the whole state.
    StateRejected(String),
    /// It is gone.
    Gone,
}

/// Reason of a failed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// fifogate rejected it, and did nothing of it.
    Rejected(String),
    /// This fifogate is gone.
    Gone,
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(reason) => write!(f, "fifogate refused: {reason}"),
            Self::Gone => f.write_str("fifogate has gone"),
        }
    }
}

impl std::error::Error for NotDone {}

/// Recipient of the acknowledgement of a command.
#[derive(Debug)]
enum Waiter {
    Nobody,
    Caller(Caller),
    /// A step of the state: all later steps build on it. fifogate answers it only by a rejection.
    State,
}

/// A command waiting to be written.
type Queued = (from_agent::Content, Waiter);

type Caller = oneshot::Sender<Result<(), NotDone>>;

/// Handle of one running fifogate. Cheap to clone; all clones belong to the same process.
#[derive(Clone, Debug)]
pub struct GateProcess {
    commands: mpsc::Sender<Queued>,
}

/// A fifogate just started: its handle, messages, and process.
#[derive(Debug)]
pub struct Started {
    /// Sends commands to it.
    pub gate: GateProcess,
    /// Its messages; the last one is [`FromGate::Gone`].
    pub messages: mpsc::Receiver<FromGate>,
    /// Its process.
    pub child: Child,
}

impl GateProcess {
    /// Starts a fifogate, and exchanges hellos. It ends with its link, so it never outlives this
    /// process.
    ///
    /// # Errors
    /// It cannot be started, or does not send a hello.
    pub async fn start(config: &GateConfig) -> io::Result<Started> {
        let mut command = Command::new(&config.program);
        command.args(["run", "--agent-link", "stdio", "--updates", "forward", "--run-dir"]);
        command.arg(&config.run_dir).args(&config.options);
        // A Ctrl-C in a terminal reaches only the agent this way; it ends fifogate last.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || io::Error::other("no pipe to fifogate");
        let mut reader = Reader::new(child.stdout.take().ok_or_else(missing)?);
        let writer = child.stdin.take().ok_or_else(missing)?;
        match reader.recv().await {
            Ok(Some(to_agent::Content::Hello(_))) => {}
            Ok(None) => return Err(io::Error::other("it ended at once")),
            Ok(_) => return Err(io::Error::other("it did not greet")),
            Err(error) => return Err(error),
        }
        let (commands, queue) = mpsc::channel(COMMANDS_THAT_WAIT);
        let (said, messages) = mpsc::channel(MESSAGES_THAT_WAIT);
        let waiters = Arc::new(Waiters::default());
        tokio::spawn(write(writer, queue, Arc::clone(&waiters)));
        tokio::spawn(read(reader, said, waiters));
        let gate = Self { commands };
        let agent_name = config.agent_name.clone();
        let hello = AgentHello { protocol_version: VERSION.to_owned(), agent_name };
        gate.call(from_agent::Content::Hello(hello)).await.map_err(io::Error::other)?;
        Ok(Started { gate, messages, child })
    }

    /// Sends a command, and waits for its acknowledgement.
    ///
    /// # Errors
    /// The command was rejected, or fifogate is gone.
    pub async fn call(&self, content: from_agent::Content) -> Result<(), NotDone> {
        let (sender, answer) = oneshot::channel();
        let sent = self.commands.send((content, Waiter::Caller(sender))).await;
        sent.map_err(|_| NotDone::Gone)?;
        answer.await.unwrap_or(Err(NotDone::Gone))
    }

    /// Sends a command without waiting for an acknowledgement.
    pub async fn tell(&self, content: from_agent::Content) {
        // A closed channel means fifogate is gone; the reader task reports it.
        let _ = self.commands.send((content, Waiter::Nobody)).await;
    }

    /// Sends a step of the state. A rejection arrives as [`FromGate::StateRejected`].
    pub async fn tell_state(&self, content: from_agent::Content) {
        let _ = self.commands.send((content, Waiter::State)).await;
    }
}

/// Callers waiting for acknowledgements, in the order of their commands.
#[derive(Debug, Default)]
struct Waiters(Mutex<VecDeque<(u64, Caller)>>);

impl Waiters {
    fn push(&self, id: u64, caller: Caller) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((id, caller));
    }

    fn take(&self, id: u64) -> Option<Caller> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Acknowledgements come in the order of commands, so only the first caller can match.
        let is_first = queue.front().is_some_and(|(own, _)| *own == id);
        if is_first { queue.pop_front().map(|(_, caller)| caller) } else { None }
    }

    /// Drops all callers. Each sees the end of its channel as [`NotDone::Gone`].
    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

async fn write(mut writer: ChildStdin, mut queue: mpsc::Receiver<Queued>, waiters: Arc<Waiters>) {
    let mut numbering = Numbering { last_id: 0, waiters: Arc::clone(&waiters) };
    while let Some(first) = queue.recv().await {
        let frames = numbering.frames(first, &mut queue);
        if writer.write_all(&frames).await.is_err() {
            break; // the reader tells that it has gone
        }
    }
    queue.close();
    waiters.clear();
}

/// Numbers the commands, and registers callers under these numbers.
struct Numbering {
    last_id: u64,
    waiters: Arc<Waiters>,
}

impl Numbering {
    /// Encodes a command and those queued behind it for one write, so they wake fifogate only once. No
    /// command is added from [`MOST_TOGETHER`] bytes on.
    fn frames(&mut self, first: Queued, queue: &mut mpsc::Receiver<Queued>) -> Vec<u8> {
        let mut frames = self.frame(first);
        while frames.len() < MOST_TOGETHER
            && let Ok(next) = queue.try_recv()
        {
            frames.extend(self.frame(next));
        }
        frames
    }

    fn frame(&mut self, (content, waiter): Queued) -> Vec<u8> {
        self.last_id += 1;
        let (id, rejections_only) = match waiter {
            Waiter::Nobody => (0, false),
            Waiter::State => (self.last_id, true),
            Waiter::Caller(caller) => {
                self.waiters.push(self.last_id, caller);
                (self.last_id, false)
            }
        };
        let message = FromAgent { id, content: Some(content), rejections_only };
        encode(&message.encode_to_vec()).into()
    }
}

async fn read(mut reader: Reader, said: mpsc::Sender<FromGate>, waiters: Arc<Waiters>) {
    loop {
        let (id, result) = match reader.recv().await {
            Ok(Some(to_agent::Content::Ack(ack))) => (ack.id, Ok(())),
            Ok(Some(to_agent::Content::Rejected(rejected))) => {
                (rejected.id, Err(NotDone::Rejected(rejected.reason)))
            }
            Ok(Some(other)) => match said.send(FromGate::Said(Box::new(other))).await {
                Ok(()) => continue,
                Err(_) => break,
            },
            Ok(None) => break,
            Err(error) => {
                log::error!("fifogate makes no sense: {error}");
                break;
            }
        };
        match (waiters.take(id), result) {
            (Some(caller), result) => {
                let _ = caller.send(result); // it may not wait any more
            }
            // Only a step of the state is rejected without a caller.
            (None, Err(error)) => {
                let _ = said.send(FromGate::StateRejected(error.to_string())).await;
            }
            (None, Ok(())) => {}
        }
    }
    waiters.clear();
    let _ = said.send(FromGate::Gone).await;
}

/// Decodes the messages of fifogate from its standard output.
#[derive(Debug)]
struct Reader {
    stdout: ChildStdout,
    decoder: MessageDecoder,
}

impl Reader {
    fn new(stdout: ChildStdout) -> Self {
        Self { stdout, decoder: MessageDecoder::default() }
    }

    async fn recv(&mut self) -> io::Result<Option<to_agent::Content>> {
        loop {
            if let Some(content) = self.decoder.next_message()? {
                return Ok(Some(content));
            }
            let read = self.stdout.read(self.decoder.space()).await?;
            self.decoder.filled(read)?;
            if read == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use fifogate::{
        frame::FrameDecoder,
        pb::agent_link::{Ack, AgentTrouble, GateHello, Rejected, ReplaceState, ToAgent},
    };
    use tempfile::TempDir;

    use super::*;

    fn frame(content: to_agent::Content) -> Vec<u8> {
        encode(&ToAgent { content: Some(content) }.encode_to_vec()).to_vec()
    }

    /// A fake fifogate: it greets, and writes `answers` after the first byte of the hello. It writes
    /// this byte to `seen`, and all others to `said`.
    fn pretender(folder: &TempDir, answers: &[u8]) -> GateConfig {
        let hello = GateHello { protocol_version: VERSION.to_owned(), ..Default::default() };
        fs::write(folder.path().join("greeting"), frame(to_agent::Content::Hello(hello))).unwrap();
        fs::write(folder.path().join("answers"), answers).unwrap();
        let program = folder.path().join("fifogate");
        let script = "#!/bin/sh\ncd \"${0%/*}\"\ncat greeting\nhead -c 1 > seen\ncat answers\n\
                      exec cat > said\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let (run_dir, agent_name) = (folder.path().to_owned(), "agent_A".to_owned());
        GateConfig { program, run_dir, agent_name, options: Vec::new() }
    }

    #[tokio::test]
    async fn step_of_the_state_that_is_refused_is_told_and_the_others_wake_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let rejected = Rejected { id: 2, reason: "out of step".to_owned(), ..Default::default() };
        let answers = [
            frame(to_agent::Content::Ack(Ack { id: 1 })),
            frame(to_agent::Content::Rejected(rejected)),
        ];
        let config = pretender(&folder, &answers.concat());
        let Started { gate, mut messages, .. } = GateProcess::start(&config).await.unwrap();
        gate.tell_state(from_agent::Content::ReplaceState(ReplaceState::default())).await;
        match messages.recv().await {
            Some(FromGate::StateRejected(reason)) => assert!(reason.contains("out of step")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_command_is_added_to_what_is_as_long_as_may_be_written_together() {
        let mut numbering = Numbering { last_id: 0, waiters: Arc::default() };
        let command = |len| {
            let reason = "x".repeat(len);
            (from_agent::Content::Trouble(AgentTrouble { reason }), Waiter::Nobody)
        };
        let beside_text = numbering.frame(command(MOST_TOGETHER)).len() - MOST_TOGETHER;
        for (len, left) in [(MOST_TOGETHER - 1, 1), (MOST_TOGETHER, 2), (MOST_TOGETHER + 1, 2)] {
            let (sender, mut queue) = mpsc::channel(2);
            sender.try_send(command(1)).unwrap();
            sender.try_send(command(MOST_TOGETHER)).unwrap();
            let frames = numbering.frames(command(len - beside_text), &mut queue);
            let added = numbering.frame(command(1)).len() * (2 - left);
            assert_eq!((frames.len(), queue.len()), (len + added, left));
        }
    }

    #[tokio::test]
    async fn commands_that_are_written_together_all_arrive_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let config = pretender(&folder, &frame(to_agent::Content::Ack(Ack { id: 1 })));
        let Started { gate, mut child, .. } = GateProcess::start(&config).await.unwrap();
        // Together they exceed one write.
        let reasons: Vec<_> = (0..9).map(|at| at.to_string().repeat(MOST_TOGETHER / 4)).collect();
        for reason in reasons.clone() {
            gate.tell(from_agent::Content::Trouble(AgentTrouble { reason })).await;
        }
        drop(gate);
        assert!(child.wait().await.unwrap().success());
        let parts = ["seen", "said"].map(|name| fs::read(folder.path().join(name)).unwrap());
        let said = parts.concat();
        let (mut decoder, mut rest) = (FrameDecoder::new(said.len()), &said[..]);
        let mut arrived = Vec::new();
        while let Some(own) = decoder.next_frame(&mut rest).unwrap() {
            arrived.push(FromAgent::decode(own).unwrap().content.unwrap());
        }
        assert!(matches!(arrived.remove(0), from_agent::Content::Hello(_)));
        let expected = reasons.into_iter().map(|reason| AgentTrouble { reason });
        assert_eq!(arrived, expected.map(from_agent::Content::Trouble).collect::<Vec<_>>());
    }
}
