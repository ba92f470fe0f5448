//! The agent link without I/O: commands become bytes, and bytes become events.
//!
//! In go commands, and the bytes of fifogate in any pieces; out come frames and [`Event`]s. Invariant:
//! fifogate answers in the order of the commands, so only the oldest waiting command can match.

use std::{collections::VecDeque, ops::Range};

use prost::{DecodeError, Message};
use semver::Version;

use super::{LinkError, Rejected};
use crate::{
    frame::FrameDecoder,
    pb::{
        agent_link::{
            AgentHello, ForwardedRequest, FromAgent, GateHello, ToAgent, from_agent, to_agent,
        },
        ank_base as pb,
    },
};

/// Version of the agent link spoken by this client.
pub(super) const VERSION: &str = "1.2.0";

/// Major number of the compatible versions.
const MAJOR: u64 = 1;

/// Longest accepted message of fifogate: a forwarded request, or an answer with up to the whole
/// state.
const MAX_FRAME: usize = 256 << 20;

/// Most characters logged of a decoding error, from its end.
const LONGEST_CAUSE: usize = 200;

/// Bytes read at a time.
const READ_BUFFER: usize = 64 << 10;

/// The answer wanted for a command.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnswerMode<T> {
    /// None: the command has id 0.
    None,
    /// Only a rejection, as an [`Event::Answer`] without a waiter. It spares both sides a message for
    /// each applied command.
    OnRejection,
    /// An `Ack` or a `Rejected`, as an [`Event::Answer`] with this waiter.
    Always(T),
}

/// A message of fifogate; `T` stands for the waiter of an answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<T> {
    /// The hello of fifogate, with a compatible version. It is the first event.
    Hello(GateHello),
    /// The answer to a command.
    Answer {
        /// Id of the command.
        id: u64,
        /// Waiter of the command; `None` for one without.
        waiter: Option<T>,
        /// The command was applied or rejected.
        result: Result<(), Rejected>,
    },
    /// Any other message.
    Message(Box<to_agent::Content>),
}

/// One agent link: numbers commands, matches answers, decodes messages and checks the hello.
///
/// An agent sends its [`LinkCodec::hello`] after [`Event::Hello`], before all other commands.
#[derive(Debug)]
pub struct LinkCodec<T> {
    pub(super) decoder: MessageDecoder,
    pub(super) last_id: u64,
    /// Waiters by the ids of their commands, in the order of the commands.
    waiting: VecDeque<(u64, T)>,
    greeted: bool,
}

impl<T> Default for LinkCodec<T> {
    fn default() -> Self {
        let decoder = MessageDecoder::default();
        Self { decoder, last_id: 0, waiting: VecDeque::new(), greeted: false }
    }
}

impl<T> LinkCodec<T> {
    /// The first command of an agent.
    #[must_use]
    pub fn hello(agent_name: &str) -> from_agent::Content {
        let (protocol_version, agent_name) = (VERSION.to_owned(), agent_name.to_owned());
        from_agent::Content::Hello(AgentHello { protocol_version, agent_name })
    }

    /// Appends the frame of a command to `out`, and returns the id of the command.
    pub fn encode(
        &mut self,
        content: from_agent::Content,
        mode: AnswerMode<T>,
        out: &mut Vec<u8>,
    ) -> u64 {
        // With an id all the same: a `Rejected` names it.
        let rejections_only = matches!(mode, AnswerMode::OnRejection);
        let id = match mode {
            AnswerMode::None => 0,
            AnswerMode::OnRejection | AnswerMode::Always(_) => next_id(&mut self.last_id),
        };
        if let AnswerMode::Always(waiter) = mode {
            self.waiting.push_back((id, waiter));
        }
        put_command(FromAgent { id, content: Some(content), rejections_only }, out);
        id
    }

    /// The next event, if `input` has all of it. Takes the bytes of the event from the front of `input`,
    /// or all bytes if they end within a message.
    ///
    /// # Errors
    /// The framing is broken, or fifogate does not begin with a compatible hello.
    pub fn next_event(&mut self, input: &mut &[u8]) -> Result<Option<Event<T>>, LinkError> {
        let Some(content) = self.decoder.next_message(input)? else { return Ok(None) };
        if !self.greeted {
            return self.greet(content).map(Some);
        }
        Ok(Some(match content {
            to_agent::Content::Ack(ack) => self.answer(ack.id, Ok(())),
            to_agent::Content::Rejected(rejected) => self.answer(rejected.id, Err(rejected.into())),
            other => Event::Message(Box::new(other)),
        }))
    }

    /// Checks the place where the stream has ended.
    ///
    /// # Errors
    /// The stream has ended in the middle of a message, or before the hello.
    pub fn finish(&self) -> Result<(), LinkError> {
        self.decoder.finish()?;
        // A fifogate unable to start closes its end without a hello.
        if self.greeted { Ok(()) } else { Err(LinkError::NoHello) }
    }

    /// Drops the waiters of all commands: no answer comes any more.
    pub fn drop_waiters(&mut self) {
        self.waiting.clear();
    }

    fn greet(&mut self, content: to_agent::Content) -> Result<Event<T>, LinkError> {
        let to_agent::Content::Hello(hello) = content else { return Err(LinkError::NoHello) };
        match Version::parse(&hello.protocol_version) {
            Ok(version) if version.major == MAJOR => {
                self.greeted = true;
                Ok(Event::Hello(hello))
            }
            // A version without SemVer is of an unknown major number.
            _ => Err(LinkError::Version(hello.protocol_version)),
        }
    }

    fn answer(&mut self, id: u64, result: Result<(), Rejected>) -> Event<T> {
        // An answer without this waiter belongs to a step, rejected between two calls.
        let is_first = self.waiting.front().is_some_and(|(own, _)| *own == id);
        let waiter = if is_first { self.waiting.pop_front() } else { None };
        Event::Answer { id, waiter: waiter.map(|(_, waiter)| waiter), result }
    }
}

/// Ids start at 1: a command with id 0 gets no answer.
pub(super) fn next_id(last_id: &mut u64) -> u64 {
    *last_id += 1;
    *last_id
}

/// Appends the frame of a command.
pub(super) fn put_command(command: FromAgent, out: &mut Vec<u8>) {
    // It fails only in a buffer that cannot grow.
    let _ = command.encode_length_delimited(out);
}

/// Decoder of fifogate's messages alone, without the rules of the link.
///
/// An undecodable message is logged and skipped: the framing is intact, and a fifogate in service
/// for all workloads is not given up for it. If it is a forwarded request with readable sender and
/// id, a [`to_agent::Content::Request`] without `request_content` comes in its place, and the agent
/// answers it with an error.
#[derive(Debug)]
pub(super) struct MessageDecoder {
    frames: FrameDecoder,
    /// Number of undecodable messages so far.
    undecodable: u64,
}

impl Default for MessageDecoder {
    fn default() -> Self {
        Self { frames: FrameDecoder::new(MAX_FRAME), undecodable: 0 }
    }
}

impl MessageDecoder {
    /// The next message, if `input` has all of it; see [`LinkCodec::next_event`].
    ///
    /// # Errors
    /// The framing is broken, so no later message can be found.
    pub(super) fn next_message(
        &mut self,
        input: &mut &[u8],
    ) -> Result<Option<to_agent::Content>, LinkError> {
        while let Some(body) = self.frames.next_frame(input)? {
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
        Ok(None)
    }

    /// Checks the place where the stream has ended.
    ///
    /// # Errors
    /// The stream has ended in the middle of a message.
    pub(super) fn finish(&self) -> Result<(), LinkError> {
        if self.frames.is_mid_frame() { Err(LinkError::Torn) } else { Ok(()) }
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
            log::error!("undecodable message no. {count} of fifogate is skipped: {cause}");
        }
    }
}

/// Sender and id of a forwarded request. Decoding this type skips the content of the request by its
/// length, so neither its errors nor its depth matter.
#[derive(Clone, PartialEq, Message)]
struct RequestHead {
    // The number of `ForwardedRequest` in `ToAgent`, in proto/agent_link.proto.
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
    // Without its sender the request cannot be answered, so it is only logged.
    let instance_name = Some(forwarded.instance_name?);
    Some(to_agent::Content::Request(ForwardedRequest { instance_name, request: Some(request) }))
}

/// Bytes read from fifogate, up to the next event. A client reads into [`InputBuffer::space`] once
/// [`InputBuffer::decode`] has returned nothing: all bytes are used up then.
#[derive(Debug)]
pub(super) struct InputBuffer {
    bytes: Vec<u8>,
    unread: Range<usize>,
}

impl Default for InputBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; READ_BUFFER], unread: 0..0 }
    }
}

impl InputBuffer {
    pub(super) fn decode<T>(&mut self, decode: impl FnOnce(&mut &[u8]) -> T) -> T {
        let mut rest = &self.bytes[self.unread.clone()];
        let decoded = decode(&mut rest);
        // Counted from the end: `decode` takes bytes from the front only.
        self.unread.start = self.unread.end - rest.len();
        decoded
    }

    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Accepts the first `count` bytes of the buffer as read.
    pub(super) fn filled(&mut self, count: usize) {
        self.unread = 0..count.min(self.bytes.len());
    }
}
