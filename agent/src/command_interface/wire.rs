//! Messages of the command interface, opened only as far as the agent has to know them.
//!
//! The numbers are those of `proto/grpc_api.proto`. A request or response stays encoded: fifogate decodes the
//! one and has encoded the other, once for all subscribers of a group.

use bytes::Bytes;
use fifogate::pb::ank_base::{self as pb, response::ResponseContent};
use prost::Message;

use crate::grpc_api::{CommanderHello, Goodbye, UpdateWorkloadState};

/// A message of a client.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FromCommander {
    /// The first message of an agent of Ankaios, which has no business here.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(crate) agent_hello: Option<Bytes>,
    /// An encoded request.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(crate) request: Option<Bytes>,
    /// The end.
    #[prost(message, optional, tag = "4")]
    pub(crate) goodbye: Option<Goodbye>,
    /// The first message.
    #[prost(message, optional, tag = "6")]
    pub(crate) hello: Option<CommanderHello>,
}

/// A message to a client.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ToCommander {
    /// Changed execution states.
    #[prost(message, optional, tag = "2")]
    pub(crate) states: Option<UpdateWorkloadState>,
    /// An encoded response.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(crate) response: Option<Bytes>,
}

/// A message as a workload writes it (`control_api.ToAnkaios`).
#[derive(Clone, PartialEq, Message)]
pub(super) struct ToFifogate {
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(super) request: Option<Bytes>,
}

/// A message as a workload reads it (`control_api.FromAnkaios`).
#[derive(Clone, PartialEq, Message)]
pub(super) struct FromFifogate {
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(super) response: Option<Bytes>,
    #[prost(message, optional, tag = "5")]
    pub(super) closed: Option<fifogate::pb::control_api::ConnectionClosed>,
}

/// The kind of a request, and its id. Decoding skips the content.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestHead {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    update: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    read: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    logs: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    cancel_logs: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    cancel_events: Option<Bytes>,
}

impl RequestHead {
    /// True for a read or a subscription.
    pub(super) fn is_read(&self) -> bool {
        self.read.is_some()
    }

    /// True if the request asks for something.
    pub(super) fn has_content(&self) -> bool {
        let contents =
            [&self.update, &self.read, &self.logs, &self.cancel_logs, &self.cancel_events];
        contents.iter().any(|content| content.is_some())
    }
}

/// The kind of a response, and the id of its request. Decoding skips the content.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ResponseHead {
    #[prost(string, tag = "1")]
    pub(super) request_id: String,
    #[prost(message, optional, tag = "3")]
    pub(super) error: Option<pb::Error>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    logs_accepted: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    log_entries: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    logs_stop: Option<Bytes>,
}

impl ResponseHead {
    /// True for the beginning of a campaign.
    pub(super) fn begins_logs(&self) -> bool {
        self.logs_accepted.is_some()
    }

    /// True for lines of a log, and for its end.
    pub(super) fn is_of_a_log(&self) -> bool {
        self.log_entries.is_some() || self.logs_stop.is_some()
    }
}

/// The answer to a read without any state.
pub(super) fn empty_state(request_id: String) -> Bytes {
    let content = ResponseContent::CompleteStateResponse(pb::CompleteStateResponse::default());
    let response = pb::Response { request_id, response_content: Some(content) };
    response.encode_to_vec().into()
}
