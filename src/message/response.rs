//! Messages to a workload, and their encoding.
//!
//! A response is a request id and a [`ResponseBody`]. The body is encoded once and shared by all
//! recipients.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::{
    pb::{
        ank_base::{self as pb, response::ResponseContent},
        control_api::{
            ConnectionClosed, ControlInterfaceAccepted, FromAnkaios, from_ankaios::FromAnkaiosEnum,
        },
    },
    state::{
        Altered, Instance, Tree,
        convert::{Fill, LeafCache, Writer, write_state},
    },
};

use super::{
    fault::CommandFault,
    outgoing::{Frame, encoded_len},
};

/// Text of the error for a request that the rules do not allow (docs/protocol.md#access-rules).
const ACCESS_DENIED: &str = "Access denied";
/// Number of `Response.completeStateResponse`.
const COMPLETE_STATE_RESPONSE: u32 = 4;
/// Number of `CompleteStateResponse.completeState`.
const COMPLETE_STATE: u32 = 1;
/// Number of `CompleteStateResponse.alteredFields`.
const ALTERED_FIELDS: u32 = 2;

/// A message to a workload. [`ToWorkload::into_frame`] has its bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ToWorkload {
    /// The session is open.
    Accepted,
    /// The session is over, or was not opened.
    Closed {
        /// The reason, as the workload gets it.
        reason: String,
    },
    /// An answer or an event.
    Response {
        /// Id of its request.
        request_id: Arc<str>,
        /// The answer or event.
        body: ResponseBody,
    },
}

impl ToWorkload {
    /// The message as it is written.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        match self {
            Self::Response { request_id, body } => Frame::to_workload(request_id, body),
            Self::Accepted | Self::Closed { .. } => {
                Frame::whole(self.session().encode_length_delimited_to_vec().into())
            }
        }
    }

    /// The bytes of the message, without its length in front.
    pub(super) fn into_message(self) -> Bytes {
        let len = self.encoded_len();
        let frame = Bytes::from(self.into_frame().to_vec());
        frame.slice(frame.len() - len..)
    }

    /// The message about the session; empty for a response.
    fn session(&self) -> FromAnkaios {
        let content = match self {
            Self::Accepted => {
                Some(FromAnkaiosEnum::ControlInterfaceAccepted(ControlInterfaceAccepted {}))
            }
            Self::Closed { reason } => {
                Some(FromAnkaiosEnum::ConnectionClosed(ConnectionClosed { reason: reason.clone() }))
            }
            // Not reached: both callers ask only about the other two.
            Self::Response { .. } => None,
        };
        FromAnkaios { from_ankaios_enum: content }
    }

    /// How many bytes the message has, without its length in front.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Response { request_id, body } => encoded_len(request_id, body.len()),
            Self::Accepted | Self::Closed { .. } => self.session().encoded_len(),
        }
    }
}

/// The content of a response, encoded, without a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseBody(Bytes);

/// Kind of the agent's answer to a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// It failed; nothing more will come.
    Error,
    /// As [`ReplyKind::Error`]: the rules do not allow it.
    Denied,
    /// An update was made.
    Updated,
    /// Logs of these instances will come.
    LogsAccepted(Vec<Instance>),
    /// Some of the logs.
    LogEntries,
    /// No more logs of this instance.
    LogsStop(Instance),
    /// No more logs at all.
    LogsCancelled,
}

impl ResponseBody {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same with its bytes held in another way.
    pub(crate) fn map_bytes(self, hold: impl FnOnce(Bytes) -> Bytes) -> Self {
        Self(hold(self.0))
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    pub(super) fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The agent's own answer, to be passed on.
    pub(crate) fn of_forwarded(
        content: ResponseContent,
    ) -> Result<(ReplyKind, Vec<Self>), CommandFault> {
        let name = |name: &Option<pb::WorkloadInstanceName>| {
            let name = name.clone().ok_or(CommandFault::Missing("a workloadName"))?;
            let (workload, agent) = (name.workload_name, name.agent_name);
            Ok::<_, CommandFault>(Instance { workload, agent, id: name.id })
        };
        let kind = match &content {
            ResponseContent::Error(error) if error.message == ACCESS_DENIED => ReplyKind::Denied,
            ResponseContent::Error(_) => ReplyKind::Error,
            ResponseContent::UpdateStateSuccess(_) => ReplyKind::Updated,
            ResponseContent::LogsRequestAccepted(accepted) => {
                let names = accepted.workload_names.iter().cloned().map(Some);
                let names = names.map(|own| name(&own)).collect::<Result<_, _>>()?;
                ReplyKind::LogsAccepted(names)
            }
            ResponseContent::LogEntriesResponse(entries) => {
                // An SDK breaks on an entry that names nobody (docs/protocol.md#rust-sdk).
                for entry in &entries.log_entries {
                    name(&entry.workload_name)?;
                }
                ReplyKind::LogEntries
            }
            ResponseContent::LogsStopResponse(stop) => {
                ReplyKind::LogsStop(name(&stop.workload_name)?)
            }
            ResponseContent::LogsCancelAccepted(_) => ReplyKind::LogsCancelled,
            ResponseContent::CompleteStateResponse(_)
            | ResponseContent::EventsCancelAccepted(_) => {
                return Err(CommandFault::WrongKind);
            }
        };
        let bodies = match content {
            ResponseContent::LogEntriesResponse(entries) => {
                // An entry has no bound of its own (docs/protocol.md#size-of-log-entries).
                let parts = super::logs::split(entries).into_iter();
                parts.map(|part| Self::of(ResponseContent::LogEntriesResponse(part))).collect()
            }
            other => vec![Self::of(other)],
        };
        Ok((kind, bodies))
    }

    fn of(content: ResponseContent) -> Self {
        // Without the id: recipients have one each, and the head of the frame carries it.
        let response = pb::Response { request_id: String::new(), response_content: Some(content) };
        Self(response.encode_to_vec().into())
    }

    /// The rules do not allow the request.
    #[must_use]
    pub(crate) fn denied() -> Self {
        Self::error(ACCESS_DENIED)
    }

    /// The request failed.
    #[must_use]
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::of(ResponseContent::Error(pb::Error { message: message.into() }))
    }

    /// The answer to a read. `leaf_cache` holds encoded parts of similar answers, if more of them are
    /// likely.
    #[doc(hidden)] // its cache is internal
    #[must_use]
    pub fn state(state: &Tree, fill: Fill, leaf_cache: Option<&mut LeafCache>) -> Self {
        let mut writer = leaf_cache.map_or_else(Writer::default, |own| Writer::with(own, fill));
        writer.message(COMPLETE_STATE_RESPONSE, |own| {
            // Also if empty: an SDK panics without it (docs/protocol.md#sdk-requirements).
            own.message(COMPLETE_STATE, |own| write_state(own, state, fill));
        });
        Self::written(writer, fill)
    }

    fn written(writer: Writer<'_>, fill: Fill) -> Self {
        let (buffer, start) = writer.finish(fill);
        // No copy: `finish` leaves at most a small unused front.
        Self(Bytes::from(buffer).slice(start..))
    }

    /// An event: a change of subscribed parts.
    #[must_use]
    pub(crate) fn event(state: &Tree, altered: &Altered) -> Self {
        // By descending number, because the writer fills its buffer from the end.
        let lists = [(3, &altered.removed), (2, &altered.updated), (1, &altered.added)];
        let mut writer = Writer::default();
        writer.message(COMPLETE_STATE_RESPONSE, |own| {
            own.message(ALTERED_FIELDS, |own| {
                for (field, paths) in lists {
                    own.texts(field, paths.iter().map(String::as_str));
                }
            });
            // Also if empty, as in `state`.
            own.message(COMPLETE_STATE, |own| write_state(own, state, Fill::Sparse));
        });
        Self::written(writer, Fill::Sparse)
    }

    /// The answer to an update: the instances it started and ended.
    #[must_use]
    pub(crate) fn updated(added: Vec<String>, deleted: Vec<String>) -> Self {
        Self::of(ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess {
            added_workloads: added,
            deleted_workloads: deleted,
        }))
    }

    /// No event under this id will come any more.
    #[must_use]
    pub(crate) fn events_cancelled() -> Self {
        Self::of(ResponseContent::EventsCancelAccepted(pb::EventsCancelAccepted {}))
    }

    /// No log under this id was asked for any more.
    #[must_use]
    pub(crate) fn logs_cancelled() -> Self {
        Self::of(ResponseContent::LogsCancelAccepted(pb::LogsCancelAccepted {}))
    }
}

#[cfg(test)]
impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::varint_len;
    use crate::state::{ChangeSet, MaskSet, Node, convert::to_pb};

    fn decode(message: &ToWorkload) -> FromAnkaios {
        let frame = message.clone().into_frame().to_vec();
        assert_eq!(frame.len(), varint_len(message.encoded_len() as u64) + message.encoded_len());
        FromAnkaios::decode_length_delimited(&*frame).unwrap()
    }

    #[test]
    fn head_and_body_together_are_the_message_for_ids_of_any_length() {
        for len in [0, 1, 127, 128, 20_000] {
            let request_id: Arc<str> = "i".repeat(len).into();
            let body = ResponseBody::error("e".repeat(len));
            let message = ToWorkload::Response { request_id: Arc::clone(&request_id), body };
            let Some(FromAnkaiosEnum::Response(response)) = decode(&message).from_ankaios_enum
            else {
                panic!("no response");
            };
            assert_eq!(*response.request_id, *request_id);
            let error = ResponseContent::Error(pb::Error { message: "e".repeat(len) });
            assert_eq!(response.response_content, Some(error));
        }
    }

    #[test]
    fn event_and_state_are_the_messages_that_the_schema_spells() {
        let old = Tree::initial();
        let new = old.with("agents", Some(Node::map([("a", Node::map([("", Node::Unset); 0]))])));
        let altered = ChangeSet::between(&old, &new).altered(&MaskSet::parse([""; 0])).unwrap();
        for (body, fill, altered_fields) in [
            (ResponseBody::state(&new, Fill::Full, None), Fill::Full, None),
            (
                ResponseBody::event(&new, &altered),
                Fill::Sparse,
                Some(pb::AlteredFields {
                    added_fields: altered.added.clone(),
                    updated_fields: altered.updated.clone(),
                    removed_fields: altered.removed.clone(),
                }),
            ),
        ] {
            let complete_state = Some(to_pb(&new, fill));
            let content = pb::CompleteStateResponse { complete_state, altered_fields };
            assert_eq!(body, ResponseBody::of(ResponseContent::CompleteStateResponse(content)));
        }
    }

    #[test]
    fn accepted_is_the_documented_bytes() {
        assert_eq!(ToWorkload::Accepted.into_frame().to_vec(), [0x02, 0x22, 0x00][..]);
        let closed = ToWorkload::Closed { reason: "why".to_owned() };
        let expected = FromAnkaiosEnum::ConnectionClosed(ConnectionClosed { reason: "why".into() });
        assert_eq!(decode(&closed).from_ankaios_enum, Some(expected));
    }
}
