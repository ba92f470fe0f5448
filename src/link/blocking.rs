//! The blocking client of the agent link.
//!
//! Commands go out and messages come in over any stream, without an async runtime. [`AgentLink::call`]
//! sends a command and waits for its answer; messages received meanwhile are kept in order.
//! [`AgentLink::split`] gives the two halves to two threads.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::{
    AnswerMode, CallError, Event, LinkCodec, LinkError, Owner, Rejected,
    codec::MessageDecoder,
    codec::{InputBuffer, next_id, put_command},
    commands::command_methods,
};
use crate::pb::{
    agent_link::{self as link, FromAgent, from_agent::Content, to_agent},
    ank_base as pb,
};

/// A stream of fifogate's bytes.
#[derive(Debug)]
struct Input<R> {
    reader: R,
    buffer: InputBuffer,
}

impl<R: Read> Input<R> {
    fn new(reader: R) -> Self {
        Self { reader, buffer: InputBuffer::default() }
    }

    /// Reads until `decode` returns something; `None` at the end of the stream.
    fn next<T>(
        &mut self,
        mut decode: impl FnMut(&mut &[u8]) -> Result<Option<T>, LinkError>,
    ) -> Result<Option<T>, LinkError> {
        loop {
            if let Some(decoded) = self.buffer.decode(&mut decode)? {
                return Ok(Some(decoded));
            }
            let count = loop {
                match self.reader.read(self.buffer.space()) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            self.buffer.filled(count);
            if count == 0 {
                return Ok(None);
            }
        }
    }
}

/// The sending half of a link, for commands.
#[derive(Debug)]
pub struct CommandSender<W> {
    writer: W,
    last_id: u64,
}

impl<W: Write> CommandSender<W> {
    /// A sender at the beginning of a stream.
    pub fn new(writer: W) -> Self {
        Self { writer, last_id: 0 }
    }

    /// Sends a command under a new id, and returns the id; the answer to the command repeats it.
    ///
    /// # Errors
    /// fifogate has closed the link.
    pub fn send(&mut self, content: Content) -> Result<u64, LinkError> {
        let (id, mut frame) = (next_id(&mut self.last_id), Vec::new());
        let command = FromAgent { id, content: Some(content), rejections_only: false };
        put_command(command, &mut frame);
        self.writer.write_all(&frame)?;
        self.writer.flush()?;
        Ok(id)
    }
}

/// The receiving half of a link, for messages of fifogate.
#[derive(Debug)]
pub struct MessageReceiver<R> {
    input: Input<R>,
    decoder: MessageDecoder,
}

impl<R: Read> MessageReceiver<R> {
    /// A receiver at the beginning of a stream.
    pub fn new(reader: R) -> Self {
        Self { input: Input::new(reader), decoder: MessageDecoder::default() }
    }

    /// Waits for the next message; `None` after fifogate has closed the link.
    ///
    /// # Errors
    /// The stream cannot be read, ends in the middle of a message, or has broken framing. After a
    /// read with a timeout, `recv` can be called again.
    pub fn recv(&mut self) -> Result<Option<to_agent::Content>, LinkError> {
        let message = self.input.next(|bytes| self.decoder.next_message(bytes))?;
        if message.is_none() {
            self.decoder.finish()?;
        }
        Ok(message)
    }
}

/// A connection to a fifogate.
#[derive(Debug)]
pub struct AgentLink<R, W> {
    input: Input<R>,
    writer: W,
    codec: LinkCodec<()>,
    /// Messages received while `call` waited for an answer.
    early: VecDeque<to_agent::Content>,
    run_dir: String,
}

impl AgentLink<ChildStdout, ChildStdin> {
    /// Starts a fifogate and opens a link to it. `command` has its program and all options except
    /// `--agent-link`. The child shares standard error with this process.
    ///
    /// # Errors
    /// The program cannot be started, or does not send a compatible hello.
    pub fn spawn(command: &mut Command, agent_name: &str) -> Result<(Self, Child), CallError> {
        command.args(["--agent-link", "stdio"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || io::Error::other("no pipe to the child");
        let reader = child.stdout.take().ok_or_else(missing)?;
        let writer = child.stdin.take().ok_or_else(missing)?;
        Ok((Self::open(reader, writer, agent_name)?, child))
    }
}

impl<R: Read, W: Write> AgentLink<R, W> {
    /// Exchanges hellos with the fifogate at the other end of `reader` and `writer`. `agent_name`
    /// is the agent's name in the state.
    ///
    /// # Errors
    /// fifogate closes the link, sends another message first, speaks an incompatible version, or
    /// rejects the hello.
    pub fn open(reader: R, writer: W, agent_name: &str) -> Result<Self, CallError> {
        let (input, codec) = (Input::new(reader), LinkCodec::default());
        let (early, run_dir) = (VecDeque::new(), String::new());
        let mut link = Self { input, writer, codec, early, run_dir };
        let Some(Event::Hello(hello)) = link.next_event()? else {
            return Err(LinkError::NoHello.into());
        };
        link.run_dir = hello.run_dir;
        // The hello is a command as well: fifogate may reject the name or the version.
        link.call(LinkCodec::<()>::hello(agent_name))?;
        Ok(link)
    }

    /// The folder with fifogate's pairs.
    #[must_use]
    pub fn run_dir(&self) -> &str {
        &self.run_dir
    }

    /// Sends a command without waiting for its answer. [`AgentLink::recv`] returns the answer, an `Ack`
    /// or a `Rejected` with the returned id.
    ///
    /// # Errors
    /// fifogate has closed the link.
    pub fn send(&mut self, content: Content) -> Result<u64, LinkError> {
        let mut frame = Vec::new();
        let id = self.codec.encode(content, AnswerMode::Always(()), &mut frame);
        self.writer.write_all(&frame)?;
        self.writer.flush()?;
        Ok(id)
    }

    /// Waits for the next message; `None` after fifogate has closed the link.
    ///
    /// # Errors
    /// As [`MessageReceiver::recv`].
    pub fn recv(&mut self) -> Result<Option<to_agent::Content>, LinkError> {
        match self.early.pop_front() {
            Some(message) => Ok(Some(message)),
            None => Ok(self.next_event()?.map(message_of)),
        }
    }

    /// Sends a command and waits for its answer. Other messages are kept for [`AgentLink::recv`].
    ///
    /// # Errors
    /// fifogate rejects the command, or the link breaks before its answer.
    pub fn call(&mut self, content: Content) -> Result<(), CallError> {
        // The link answers in order, so answers to earlier commands come first.
        let called = self.send(content)?;
        loop {
            match self.next_event()? {
                None => return Err(LinkError::Closed.into()),
                Some(Event::Answer { id, result, .. }) if id == called => return Ok(result?),
                // Other answers too: their commands were sent by `send`, and `recv` returns them.
                Some(other) => self.early.push_back(message_of(other)),
            }
        }
    }

    command_methods! { [mut] [] [] }

    /// Splits the link for two threads. Handle the messages of the iterator first: they came
    /// earlier.
    pub fn split(
        self,
    ) -> (MessageReceiver<R>, CommandSender<W>, impl Iterator<Item = to_agent::Content>) {
        // The halves match answers by their ids, so the waiters of the codec are not needed any more.
        let receiver = MessageReceiver { input: self.input, decoder: self.codec.decoder };
        let sender = CommandSender { writer: self.writer, last_id: self.codec.last_id };
        (receiver, sender, self.early.into_iter())
    }

    fn next_event(&mut self) -> Result<Option<Event<()>>, LinkError> {
        let event = self.input.next(|bytes| self.codec.next_event(bytes))?;
        if event.is_none() {
            self.codec.finish()?;
        }
        Ok(event)
    }
}

/// The message of an event, for a receiver that matches answers by their ids.
fn message_of(event: Event<()>) -> to_agent::Content {
    match event {
        Event::Hello(hello) => to_agent::Content::Hello(hello),
        Event::Answer { id, result: Ok(()), .. } => to_agent::Content::Ack(link::Ack { id }),
        Event::Answer { id, result: Err(Rejected { code, reason }), .. } => {
            to_agent::Content::Rejected(link::Rejected { id, reason, code: code.into() })
        }
        Event::Message(message) => *message,
    }
}
