//! A connection to a server: it is opened, greeted, and carries messages in both directions.

use std::time::Duration;

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};
use prost::Message;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming};

use super::Options;
use crate::{
    dial,
    grpc_api::{
        AgentHello, FromServer, LogEntriesResponse, LogsStopResponse, ToServer,
        UpdateWorkloadState, agent_connection_client::AgentConnectionClient, from_server,
        to_server,
    },
};

/// Version of the protocol between agent and server. A server takes any with its own first number.
pub(crate) const PROTOCOL_VERSION: &str = "1.1.0";

/// Most bytes of a message to a server: it ends the connection of who sends more.
pub(super) const MOST_BYTES: usize = 4 << 20;

/// Time for a connection, and for the response headers.
const ANSWER: Duration = Duration::from_secs(10);

/// Most messages that wait for a server that does not read.
const MOST_WAITING: usize = 1024;

/// Most messages with entries of logs that wait. They are as large as 128 KiB.
const MOST_LOGS_WAITING: usize = 4;

/// Why there is no connection any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It may be there later.
    #[error("{0}")]
    Away(String),
    /// The server ended the stream in order.
    #[error("it has ended the connection")]
    Ended,
    /// The server will never take this agent.
    #[error("{0}")]
    Refused(String),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        let text = match status.message() {
            "" => status.code().to_string(),
            text => text.to_owned(),
        };
        match status.code() {
            Code::FailedPrecondition => Self::Refused(text),
            _ => Self::Away(text),
        }
    }
}

/// A response for a log request of the server, with its request id.
pub(super) type LogPiece = (String, ResponseContent);

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    to: mpsc::Sender<ToServer>,
    from: Streaming<FromServer>,
    /// Takes the pieces of logs that the server has asked for.
    pub(super) logs: mpsc::Sender<LogPiece>,
}

impl Connection {
    /// Connects to the server, and says hello.
    pub(super) async fn open(options: &Options) -> Result<Self, Trouble> {
        let silent = |_| Trouble::Away("it does not answer".to_owned());
        let endpoint = options.target.endpoint().map_err(Trouble::Away)?;
        let channel = timeout(ANSWER, endpoint.connect()).await.map_err(silent)?;
        let channel = channel.map_err(|error| Trouble::Away(dial::cause(&error)))?;
        let (to, messages) = mpsc::channel(MOST_WAITING);
        let (logs, pieces) = mpsc::channel(MOST_LOGS_WAITING);
        let tags = pb::Tags { tags: options.tags.clone().into_iter().collect() };
        let hello = AgentHello {
            agent_name: options.agent.clone(),
            protocol_version: PROTOCOL_VERSION.to_owned(),
            tags: Some(tags),
        };
        // A new queue has room.
        let _ = to.try_send(message(to_server::Content::AgentHello(hello)));
        // Two queues: lines of a log never take the room of states and answers.
        let messages = ReceiverStream::new(messages);
        let messages = messages.merge(ReceiverStream::new(pieces).filter_map(log_message));
        let mut client = AgentConnectionClient::new(channel).max_decoding_message_size(usize::MAX);
        let opened = timeout(ANSWER, client.connect_agent(messages)).await.map_err(silent)?;
        Ok(Self { to, from: opened?.into_inner(), logs })
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Result<from_server::Content, Trouble> {
        loop {
            match self.from.message().await {
                // One of a later version has no content that is known here.
                Ok(Some(message)) => match message.content {
                    Some(content) => return Ok(content),
                    None => log::debug!("the server has sent a message of an unknown kind"),
                },
                Ok(None) => return Err(Trouble::Ended),
                Err(status) => return Err(status.into()),
            }
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The server does not read, or the connection has ended.
    pub(super) fn send(&self, content: to_server::Content) -> Result<(), Trouble> {
        let message = message(content);
        if message.encoded_len() > MOST_BYTES {
            log::error!(
                "a message of more than 4 MiB is not sent: the server would end the connection"
            );
            return Ok(());
        }
        self.to.try_send(message).map_err(|error| {
            let text = match error {
                mpsc::error::TrySendError::Full(_) => "it does not read its messages",
                mpsc::error::TrySendError::Closed(_) => "the connection has ended",
            };
            Trouble::Away(text.to_owned())
        })
    }

    /// Sends a request.
    pub(super) fn request(&self, id: String, content: RequestContent) -> Result<(), Trouble> {
        let request = pb::Request { request_id: id, request_content: Some(content) };
        self.send(to_server::Content::Request(request))
    }

    /// Sends a request for parts of the state.
    pub(super) fn read(
        &self,
        id: String,
        masks: &[&str],
        subscribe_for_events: bool,
    ) -> Result<(), Trouble> {
        let field_mask = masks.iter().map(|&mask| mask.to_owned()).collect();
        let asked = pb::CompleteStateRequest { field_mask, subscribe_for_events };
        self.request(id, RequestContent::CompleteStateRequest(asked))
    }

    /// Ends a subscription of this agent.
    pub(super) fn cancel_events(&self, id: String) -> Result<(), Trouble> {
        self.request(id, RequestContent::EventsCancelRequest(pb::EventsCancelRequest {}))
    }

    /// Ends a log request.
    pub(super) fn cancel_logs(&self, id: String) -> Result<(), Trouble> {
        self.request(id, RequestContent::LogsCancelRequest(pb::LogsCancelRequest {}))
    }

    /// Reports a state. The server drops one without `additionalInfo`.
    pub(super) fn send_state(
        &self,
        name: pb::WorkloadInstanceName,
        mut state: pb::ExecutionState,
    ) -> Result<(), Trouble> {
        state.additional_info.get_or_insert_default();
        let state = pb::WorkloadState { instance_name: Some(name), execution_state: Some(state) };
        let update = UpdateWorkloadState { workload_states: vec![state] };
        self.send(to_server::Content::UpdateWorkloadState(update))
    }

    /// Ends the connection so that the server notices: it takes a message without content for the end of the
    /// agent, and neither `Goodbye` nor the end of the stream.
    pub(super) async fn leave(mut self) {
        if self.to.send(ToServer { content: None }).await.is_ok() {
            let end = async { while let Ok(Some(_)) = self.from.message().await {} };
            let _ = timeout(Duration::from_secs(1), end).await;
        }
    }
}

fn message(content: to_server::Content) -> ToServer {
    ToServer { content: Some(content) }
}

/// The message of a piece of a log; a server has no place for others.
fn log_message((request_id, content): LogPiece) -> Option<ToServer> {
    Some(message(match content {
        ResponseContent::LogEntriesResponse(entries) => {
            let log_entries_response = Some(entries);
            to_server::Content::LogEntriesResponse(LogEntriesResponse {
                request_id,
                log_entries_response,
            })
        }
        ResponseContent::LogsStopResponse(stop) => {
            let logs_stop_response = Some(stop);
            to_server::Content::LogsStopResponse(LogsStopResponse {
                request_id,
                logs_stop_response,
            })
        }
        _ => return None,
    }))
}
