//! A blocking client of the agent link, for agents written in Rust (docs/agent-link.md).
//!
//! [`AgentLink`] is one connection to a fifogate: commands go out, messages come in.
//! [`AgentLink::call`] sends a command and waits for its `Ack` or `Rejected`. Messages received
//! meanwhile are kept in order. No async runtime is needed; [`AgentLink::split`] gives the two
//! halves to two threads. See `examples/agent.rs`.

use std::{
    collections::VecDeque,
    fmt, io,
    io::{Read, Write},
    ops::Range,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use prost::{DecodeError, Message};

use crate::{
    frame::{FrameDecoder, encode},
    pb::{
        agent_link::{
            AddWorkload, AgentHello, ForwardedRequest, ForwardedResponse, FromAgent, ReplaceState,
            ToAgent, UpdateState, from_agent::Content, to_agent,
        },
        ank_base as pb,
    },
};

/// Version of the agent link spoken by this client.
pub const VERSION: &str = "1.0.0";

/// Longest accepted message of fifogate: a forwarded request, or an answer with up to the whole
/// state.
const MAX_FRAME: usize = 256 << 20;

/// Most characters logged of a decoding error, from its end.
const LONGEST_CAUSE: usize = 200;

/// Bytes read at a time.
const READ_BUFFER: usize = 64 << 10;

/// fifogate rejected a command, and applied no part of it. The text is its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected(pub String);

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fifogate refused: {}", self.0)
    }
}

impl std::error::Error for Rejected {}

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
    pub fn send(&mut self, content: Content) -> io::Result<u64> {
        // Ids start at 1: a command with id 0 gets no answer.
        self.last_id += 1;
        let (id, content) = (self.last_id, Some(content));
        let message = FromAgent { id, content, rejections_only: false };
        self.writer.write_all(&encode(&message.encode_to_vec()))?;
        self.writer.flush()?;
        Ok(self.last_id)
    }
}

/// Decoder of fifogate's messages, without I/O: for a client with its own way to read.
///
/// [`MessageDecoder::next_message`] returns the next decoded message. If it returns `None`, read
/// into [`MessageDecoder::space`], and pass the number of bytes to [`MessageDecoder::filled`].
///
/// An undecodable message is logged and skipped: the framing is intact, and a fifogate in service
/// for all workloads is not given up for it. If it is a forwarded request with readable sender and
/// id, a [`to_agent::Content::Request`] without `request_content` comes in its place, and the agent
/// answers it with an error.
#[derive(Debug)]
pub struct MessageDecoder {
    decoder: FrameDecoder,
    buffer: Vec<u8>,
    /// Range of `buffer` with undecoded bytes.
    unread: Range<usize>,
    /// Number of undecodable messages so far.
    undecodable: u64,
}

/// Sender and id of a forwarded request. Decoding this type skips the content of the request by its
/// length, so neither its errors nor its depth matter.
#[derive(Clone, PartialEq, Message)]
struct RequestHead {
    #[prost(message, optional, tag = "6")]
    forwarded: Option<ForwardedHead>,
}

#[derive(Clone, PartialEq, Message)]
struct ForwardedHead {
    #[prost(message, optional, tag = "1")]
    instance_name: Option<pb::WorkloadInstanceName>,
    #[prost(message, optional, tag = "2")]
    request: Option<IdOfRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct IdOfRequest {
    #[prost(string, tag = "1")]
    request_id: String,
}

/// The forwarded request in `body`, reduced to sender and id.
fn salvage(body: &[u8]) -> Option<to_agent::Content> {
    let forwarded = RequestHead::decode(body).ok()?.forwarded?;
    let request_id = forwarded.request?.request_id;
    let request = pb::Request { request_id, request_content: None };
    let instance_name = Some(forwarded.instance_name?);
    Some(to_agent::Content::Request(ForwardedRequest { instance_name, request: Some(request) }))
}

impl Default for MessageDecoder {
    fn default() -> Self {
        let (decoder, buffer) = (FrameDecoder::new(MAX_FRAME), vec![0; READ_BUFFER]);
        Self { decoder, buffer, unread: 0..0, undecodable: 0 }
    }
}

impl MessageDecoder {
    /// The next message, if it has been read completely.
    ///
    /// # Errors
    /// The framing is broken, so no later message can be found.
    pub fn next_message(&mut self) -> io::Result<Option<to_agent::Content>> {
        loop {
            let mut rest = &self.buffer[self.unread.clone()];
            let frame = self.decoder.next_frame(&mut rest).map_err(io::Error::other)?;
            self.unread.start = self.unread.end - rest.len();
            let Some(body) = frame else { return Ok(None) };
            let content = match ToAgent::decode(&*body) {
                Ok(message) => message.content,
                Err(error) => {
                    self.note_undecodable(&error);
                    salvage(&body)
                }
            };
            // A message without content is of a type added by a later fifogate: skip it.
            if content.is_some() {
                return Ok(content);
            }
        }
    }

    /// Logs the first, second, fourth, eighth ... undecodable message, so no workload can fill the
    /// log.
    fn note_undecodable(&mut self, error: &DecodeError) {
        self.undecodable += 1;
        if self.undecodable.is_power_of_two() {
            // The decoder prefixes the cause with one name for each level: keep the end.
            let text = error.to_string();
            let cause: String = text.chars().rev().take(LONGEST_CAUSE).collect();
            let cause: String = cause.chars().rev().collect();
            let count = self.undecodable;
            log::error!("message {count} of fifogate that does not decode is skipped: {cause}");
        }
    }

    /// Buffer for the next read. Call it only when all earlier bytes are decoded: it is
    /// overwritten.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Accepts the first `bytes` bytes of the buffer as read; 0 is the end of the stream.
    ///
    /// # Errors
    /// The stream has ended in the middle of a message.
    pub fn filled(&mut self, bytes: usize) -> io::Result<()> {
        self.unread = 0..bytes.min(self.buffer.len());
        if bytes == 0 && self.decoder.is_mid_frame() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// The receiving half of a link, for messages of fifogate.
#[derive(Debug)]
pub struct MessageReceiver<R> {
    reader: R,
    decoder: MessageDecoder,
}

impl<R: Read> MessageReceiver<R> {
    /// A receiver at the beginning of a stream.
    pub fn new(reader: R) -> Self {
        Self { reader, decoder: MessageDecoder::default() }
    }

    /// Waits for the next message; `None` after fifogate has closed the link.
    ///
    /// # Errors
    /// The stream cannot be read, ends in the middle of a message, or has broken framing. After a
    /// read with a timeout, `recv` can be called again.
    pub fn recv(&mut self) -> io::Result<Option<to_agent::Content>> {
        loop {
            if let Some(content) = self.decoder.next_message()? {
                return Ok(Some(content));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads once, and returns the number of bytes.
    fn fill(&mut self) -> io::Result<usize> {
        let bytes = loop {
            match self.reader.read(self.decoder.space()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.decoder.filled(bytes)?;
        Ok(bytes)
    }
}

/// A connection to a fifogate.
#[derive(Debug)]
pub struct AgentLink<R, W> {
    receiver: MessageReceiver<R>,
    sender: CommandSender<W>,
    /// Messages received while `call` waited for an answer.
    early: VecDeque<to_agent::Content>,
    run_dir: String,
}

impl AgentLink<ChildStdout, ChildStdin> {
    /// Starts a fifogate and opens a link to it. `command` has its program and all options except
    /// `--agent-link`. The child shares standard error with this process.
    ///
    /// # Errors
    /// The program cannot be started, or does not send its hello.
    pub fn spawn(command: &mut Command, agent_name: &str) -> io::Result<(Self, Child)> {
        command.args(["--agent-link", "stdio"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || io::Error::other("no pipe to the child");
        let reader = child.stdout.take().ok_or_else(missing)?;
        let writer = child.stdin.take().ok_or_else(missing)?;
        Ok((Self::open(reader, writer, agent_name)?, child))
    }
}

impl<R: Read, W: Write> AgentLink<R, W> {
    /// Exchanges hellos with the fifogate at the other end of `reader` and `writer`.
    ///
    /// # Errors
    /// fifogate closes the link, sends another message first, or rejects the hello.
    pub fn open(reader: R, writer: W, agent_name: &str) -> io::Result<Self> {
        let mut receiver = MessageReceiver::new(reader);
        let run_dir = match receiver.recv()? {
            Some(to_agent::Content::Hello(hello)) => hello.run_dir,
            _ => return Err(io::Error::other("fifogate did not greet")),
        };
        let sender = CommandSender::new(writer);
        let mut link = Self { receiver, sender, early: VecDeque::new(), run_dir };
        let hello =
            AgentHello { protocol_version: VERSION.to_owned(), agent_name: agent_name.to_owned() };
        link.call(Content::Hello(hello))?.map_err(io::Error::other)?;
        Ok(link)
    }

    /// The folder with fifogate's pairs.
    #[must_use]
    pub fn run_dir(&self) -> &str {
        &self.run_dir
    }

    /// Sends a command without waiting for its answer.
    ///
    /// # Errors
    /// fifogate has closed the link.
    pub fn send(&mut self, content: Content) -> io::Result<u64> {
        self.sender.send(content)
    }

    /// Waits for the next message; `None` after fifogate has closed the link.
    ///
    /// # Errors
    /// As [`MessageReceiver::recv`].
    pub fn recv(&mut self) -> io::Result<Option<to_agent::Content>> {
        match self.early.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.receiver.recv(),
        }
    }

    /// Sends a command and waits for its answer. Other messages are kept for [`AgentLink::recv`].
    ///
    /// # Errors
    /// The outer error: the link is closed or broken. The inner error: fifogate rejected the
    /// command.
    pub fn call(&mut self, content: Content) -> io::Result<Result<(), Rejected>> {
        let id = self.send(content)?;
        loop {
            match self.receiver.recv()? {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(to_agent::Content::Ack(ack)) if ack.id == id => return Ok(Ok(())),
                Some(to_agent::Content::Rejected(rejected)) if rejected.id == id => {
                    return Ok(Err(Rejected(rejected.reason)));
                }
                Some(other) => self.early.push_back(other),
            }
        }
    }

    /// Opens a pair for an instance, or replaces the rules of an open pair.
    ///
    /// # Errors
    /// As [`AgentLink::call`].
    pub fn add_workload(
        &mut self,
        instance: pb::WorkloadInstanceName,
        access: pb::ControlInterfaceAccess,
    ) -> io::Result<Result<(), Rejected>> {
        self.call(Content::AddWorkload(AddWorkload {
            instance_name: Some(instance),
            access: Some(access),
            uid: None,
            gid: None,
        }))
    }

    /// Replaces the whole state; subscribers get an event with the difference.
    ///
    /// # Errors
    /// As [`AgentLink::call`].
    pub fn replace_state(&mut self, state: pb::CompleteState) -> io::Result<Result<(), Rejected>> {
        self.call(Content::ReplaceState(ReplaceState { state: Some(state) }))
    }

    /// Replaces the parts of the state named by `masks`.
    ///
    /// # Errors
    /// As [`AgentLink::call`].
    pub fn update_state(
        &mut self,
        new_state: pb::CompleteState,
        masks: Vec<String>,
    ) -> io::Result<Result<(), Rejected>> {
        let update = UpdateState { new_state: Some(new_state), update_mask: masks };
        self.call(Content::UpdateState(update))
    }

    /// Answers a forwarded request.
    ///
    /// # Errors
    /// As [`AgentLink::call`].
    pub fn respond(
        &mut self,
        instance: pb::WorkloadInstanceName,
        response: pb::Response,
    ) -> io::Result<Result<(), Rejected>> {
        let (instance_name, response) = (Some(instance), Some(response));
        self.call(Content::Response(ForwardedResponse { instance_name, response }))
    }

    /// Splits the link for two threads. Handle the messages of the iterator first: they came
    /// earlier.
    pub fn split(
        self,
    ) -> (MessageReceiver<R>, CommandSender<W>, impl Iterator<Item = to_agent::Content>) {
        (self.receiver, self.sender, self.early.into_iter())
    }
}
