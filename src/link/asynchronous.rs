//! The async client of the agent link, on tokio.
//!
//! Commands of many tasks go in through one channel, and are written in its order; commands that wait
//! together are written together. Messages of fifogate come out in [`Messages`]; the answer to a command
//! goes to the caller of [`AsyncLink::call`]. One task reads and one writes: fifogate stops reading
//! commands while its messages are not read, so neither direction may wait for the other.

use std::{
    io,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    process::{Child, Command},
    sync::{mpsc, oneshot},
};

use super::{
    AnswerMode, CallError, Event, LinkCodec, LinkError, Owner, Rejected, codec::InputBuffer,
    commands::command_methods,
};
use crate::pb::{
    agent_link::{self as link, from_agent::Content, to_agent},
    ank_base as pb,
};

/// Commands waiting to be written. Further callers wait with their commands.
const QUEUED_COMMANDS: usize = 256;
/// Commands are written together up to this number of bytes.
const MOST_TOGETHER: usize = 64 << 10;
/// Messages waiting for the agent. When full, fifogate is not read, and bounds its own queue.
const QUEUED_MESSAGES: usize = 256;

/// Waiter for the answer to a command.
type Caller = oneshot::Sender<Result<(), CallError>>;

/// A command waiting to be written.
type Queued = (Content, AnswerMode<Caller>);

/// The sending half of a link. Cheap to clone; the link closes with the last clone.
#[derive(Clone, Debug)]
pub struct AsyncLink {
    commands: mpsc::Sender<Queued>,
    run_dir: Arc<str>,
}

/// A message of fifogate, other than the answer to a call.
#[derive(Debug)]
pub enum Incoming {
    /// A message with content for the agent.
    Message(Box<to_agent::Content>),
    /// fifogate rejected a command of [`AsyncLink::send_step`].
    StepRejected(Rejected),
}

/// The receiving half of a link.
#[derive(Debug)]
pub struct Messages(mpsc::Receiver<Result<Incoming, LinkError>>);

impl Messages {
    /// Waits for the next message; `None` after fifogate has closed the link. Dropping this future
    /// loses no message.
    ///
    /// # Errors
    /// The link is broken; it is closed then.
    pub async fn recv(&mut self) -> Result<Option<Incoming>, LinkError> {
        self.0.recv().await.transpose()
    }
}

impl AsyncLink {
    /// Starts a fifogate and opens a link to it. `command` has its program and all options except
    /// `--agent-link`. The child shares standard error with this process.
    ///
    /// # Errors
    /// The program cannot be started, or does not send a compatible hello.
    pub async fn spawn(
        command: &mut Command,
        agent_name: &str,
    ) -> Result<(Self, Messages, Child), CallError> {
        command.args(["--agent-link", "stdio"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || io::Error::other("no pipe to the child");
        let reader = child.stdout.take().ok_or_else(missing)?;
        let writer = child.stdin.take().ok_or_else(missing)?;
        let (link, messages) = Self::open(reader, writer, agent_name).await?;
        Ok((link, messages, child))
    }

    /// Exchanges hellos with the fifogate at the other end of `reader` and `writer`, and starts the two
    /// tasks of the link. `agent_name` is the agent's name in the state.
    ///
    /// # Errors
    /// fifogate closes the link, sends another message first, speaks an incompatible version, or
    /// rejects the hello.
    pub async fn open(
        reader: impl AsyncRead + Unpin + Send + 'static,
        writer: impl AsyncWrite + Unpin + Send + 'static,
        agent_name: &str,
    ) -> Result<(Self, Messages), CallError> {
        let shared = Shared::default();
        // The codec is shared from the start: commands and answers meet in its list of waiters.
        let mut input = Input { reader, buffer: InputBuffer::default(), shared: shared.clone() };
        // Read here, not by the task: no command may be written before the version is known.
        let Some(Event::Hello(hello)) = input.next().await? else {
            return Err(LinkError::NoHello.into());
        };
        let (commands, queue) = mpsc::channel(QUEUED_COMMANDS);
        let (sender, messages) = mpsc::channel(QUEUED_MESSAGES);
        // Before the call below: its command and its answer go through these tasks.
        tokio::spawn(write(writer, queue, shared));
        tokio::spawn(read(input, sender));
        let link = Self { commands, run_dir: hello.run_dir.into() };
        link.call(LinkCodec::<Caller>::hello(agent_name)).await?;
        Ok((link, Messages(messages)))
    }

    /// The folder with fifogate's pairs.
    #[must_use]
    pub fn run_dir(&self) -> &str {
        &self.run_dir
    }

    /// Sends a command, and waits for its answer.
    ///
    /// # Errors
    /// fifogate rejects the command, or the link breaks before its answer.
    pub async fn call(&self, content: Content) -> Result<(), CallError> {
        let (caller, answer) = oneshot::channel();
        // An error: the writing task is gone, and the command was never written.
        let sent = self.commands.send((content, AnswerMode::Always(caller))).await;
        sent.map_err(|_| LinkError::Closed)?;
        answer.await.unwrap_or(Err(LinkError::Closed.into()))
    }

    /// Sends a command without an answer. [`Messages::recv`] reports a closed link.
    pub async fn send(&self, content: Content) {
        let _ = self.commands.send((content, AnswerMode::None)).await;
    }

    /// Sends a command on which later commands build, such as a step of the state. Its rejection is a
    /// message, [`Incoming::StepRejected`]; there is no other answer.
    pub async fn send_step(&self, content: Content) {
        let _ = self.commands.send((content, AnswerMode::OnRejection)).await;
    }

    command_methods! { [] [async] [.await] }
}

/// The codec of both tasks. It is locked for a frame or a batch, and never across an await.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<LinkCodec<Caller>>>);

impl Shared {
    fn codec(&self) -> MutexGuard<'_, LinkCodec<Caller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Queued>,
    shared: Shared,
) {
    while let Some(first) = queue.recv().await {
        let frames = together(&mut shared.codec(), first, &mut queue);
        let written = match writer.write_all(&frames).await {
            Ok(()) => writer.flush().await,
            failed => failed,
        };
        if written.is_err() {
            break; // the reading task reports the end of the link
        }
    }
    // Closed first: from here on no command can join those without an answer.
    queue.close();
    shared.codec().drop_waiters();
}

/// Encodes a command and those queued behind it for one write, so they wake fifogate only once. No
/// command is added from [`MOST_TOGETHER`] bytes on.
fn together(
    codec: &mut LinkCodec<Caller>,
    first: Queued,
    queue: &mut mpsc::Receiver<Queued>,
) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut next = Some(first);
    while let Some((content, mode)) = next {
        codec.encode(content, mode, &mut frames);
        // Without an await: commands not queued yet are not waited for.
        next = if frames.len() < MOST_TOGETHER { queue.try_recv().ok() } else { None };
    }
    frames
}

async fn read(
    mut input: Input<impl AsyncRead + Unpin>,
    messages: mpsc::Sender<Result<Incoming, LinkError>>,
) {
    let end = loop {
        let incoming = match input.next().await {
            Ok(Some(Event::Message(message))) => Incoming::Message(message),
            Ok(Some(Event::Answer { waiter: Some(caller), result, .. })) => {
                // The caller may have stopped waiting.
                let _ = caller.send(result.map_err(CallError::from));
                continue;
            }
            // Only a step is rejected without a waiter.
            Ok(Some(Event::Answer { result: Err(rejected), .. })) => {
                Incoming::StepRejected(rejected)
            }
            Ok(Some(Event::Answer { .. } | Event::Hello(_))) => continue,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        // Nobody takes messages any more: an unread fifogate would be held up, so the link ends.
        if messages.send(Ok(incoming)).await.is_err() {
            break None;
        }
    };
    // Each waiting caller sees the end of its channel as a closed link.
    input.shared.codec().drop_waiters();
    if let Some(error) = end {
        let _ = messages.send(Err(error)).await;
    }
}

/// A stream of fifogate's bytes.
struct Input<R> {
    reader: R,
    buffer: InputBuffer,
    shared: Shared,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Waits for the next event; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<Event<Caller>>, LinkError> {
        loop {
            // One read may bring many messages: the stream is read again only when all are out.
            let event = self.buffer.decode(|bytes| self.shared.codec().next_event(bytes))?;
            if event.is_some() {
                return Ok(event);
            }
            let count = self.reader.read(self.buffer.space()).await?;
            self.buffer.filled(count);
            if count == 0 {
                self.shared.codec().finish()?;
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::{
        frame::FrameDecoder,
        pb::agent_link::{Ack, AgentTrouble, FromAgent, GateHello, ReplaceState, ToAgent},
    };

    fn frame(content: to_agent::Content) -> Vec<u8> {
        ToAgent { content: Some(content) }.encode_length_delimited_to_vec()
    }

    fn greeting(version: &str) -> Vec<u8> {
        let (protocol_version, run_dir) = (version.to_owned(), "/run/gate".to_owned());
        frame(to_agent::Content::Hello(GateHello { protocol_version, run_dir }))
    }

    fn ack(id: u64) -> Vec<u8> {
        frame(to_agent::Content::Ack(Ack { id }))
    }

    /// A link to a fifogate that has said `answers`, and all that is written to it.
    async fn open(
        answers: &[u8],
    ) -> (Result<(AsyncLink, Messages), CallError>, DuplexStream, DuplexStream) {
        let (mut said, reader) = duplex(1 << 20);
        let (written, writer) = duplex(1 << 20);
        said.write_all(answers).await.unwrap();
        (AsyncLink::open(reader, writer, "agent_A").await, said, written)
    }

    fn trouble(len: usize) -> Queued {
        (Content::Trouble(AgentTrouble { reason: "x".repeat(len) }), AnswerMode::None)
    }

    #[test]
    fn no_command_is_added_to_what_is_as_long_as_may_be_written_together() {
        let mut codec = LinkCodec::default();
        let mut len_of = |(content, mode)| {
            let mut frame = Vec::new();
            codec.encode(content, mode, &mut frame);
            frame.len()
        };
        let beside_text = len_of(trouble(MOST_TOGETHER)) - MOST_TOGETHER;
        let short = len_of(trouble(1));
        for (len, left) in [(MOST_TOGETHER - 1, 1), (MOST_TOGETHER, 2), (MOST_TOGETHER + 1, 2)] {
            let (sender, mut queue) = mpsc::channel(2);
            sender.try_send(trouble(1)).unwrap();
            sender.try_send(trouble(MOST_TOGETHER)).unwrap();
            let mut codec = LinkCodec::default();
            let frames = together(&mut codec, trouble(len - beside_text), &mut queue);
            let added = short * (2 - left);
            assert_eq!((frames.len(), queue.len()), (len + added, left));
        }
    }

    #[tokio::test]
    async fn commands_that_are_written_together_all_arrive_in_their_order() {
        let (opened, _said, mut written) = open(&[greeting("1.0.0"), ack(1)].concat()).await;
        let (link, _messages) = opened.unwrap();
        // Together they exceed one write.
        let reasons: Vec<_> = (0..9).map(|at| at.to_string().repeat(MOST_TOGETHER / 4)).collect();
        for reason in reasons.clone() {
            link.send(Content::Trouble(AgentTrouble { reason })).await;
        }
        drop(link);
        let mut bytes = Vec::new();
        written.read_to_end(&mut bytes).await.unwrap();
        let (mut decoder, mut rest) = (FrameDecoder::new(bytes.len()), &bytes[..]);
        let mut arrived = Vec::new();
        while let Some(own) = decoder.next_frame(&mut rest).unwrap() {
            arrived.push(FromAgent::decode(own).unwrap().content.unwrap());
        }
        assert!(matches!(arrived.remove(0), Content::Hello(_)));
        let expected = reasons.into_iter().map(|reason| AgentTrouble { reason });
        assert_eq!(arrived, expected.map(Content::Trouble).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn step_that_is_rejected_is_a_message_and_answers_reach_their_callers() {
        let (opened, mut said, _written) = open(&[greeting("1.7.0"), ack(1)].concat()).await;
        let (link, mut messages) = opened.unwrap();
        assert_eq!(link.run_dir(), "/run/gate");
        link.send_step(Content::ReplaceState(ReplaceState::default())).await;
        let called = tokio::spawn({
            let link = link.clone();
            async move { link.replace_state(pb::CompleteState::default()).await }
        });
        tokio::task::yield_now().await;
        for (id, reason) in [(2, "out of step"), (3, "no state")] {
            let (reason, code) = (reason.to_owned(), link::RejectCode::Invalid.into());
            let rejected = link::Rejected { id, reason, code };
            said.write_all(&frame(to_agent::Content::Rejected(rejected))).await.unwrap();
        }
        match messages.recv().await.unwrap() {
            Some(Incoming::StepRejected(rejected)) => assert_eq!(rejected.reason, "out of step"),
            other => panic!("{other:?}"),
        }
        match called.await.unwrap() {
            Err(CallError::Rejected(rejected)) => {
                assert_eq!(rejected.code, link::RejectCode::Invalid);
                assert_eq!(rejected.to_string(), "fifogate refused: no state");
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn end_of_the_link_ends_calls_and_messages() {
        let (opened, said, _written) = open(&[greeting("1.0.0"), ack(1)].concat()).await;
        let (link, mut messages) = opened.unwrap();
        let called = tokio::spawn(async move { link.shutdown().await });
        tokio::task::yield_now().await;
        drop(said);
        assert!(messages.recv().await.unwrap().is_none());
        let error = called.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Link(LinkError::Closed)), "{error:?}");
    }

    #[tokio::test]
    async fn link_that_is_torn_or_incompatible_is_an_error() {
        let torn = [greeting("1.0.0"), ack(1), vec![9, 1]].concat();
        let (opened, said, _written) = open(&torn).await;
        let (_link, mut messages) = opened.unwrap();
        drop(said);
        assert!(matches!(messages.recv().await, Err(LinkError::Torn)));
        assert!(messages.recv().await.unwrap().is_none());
        let (opened, ..) = open(&greeting("2.0.0")).await;
        let error = opened.unwrap_err();
        assert!(matches!(&error, CallError::Link(LinkError::Version(own)) if own == "2.0.0"));
        let (opened, ..) = open(&ack(1)).await;
        assert!(matches!(opened.unwrap_err(), CallError::Link(LinkError::NoHello)));
    }
}
