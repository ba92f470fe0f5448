//! The client of the command interface: requests in, their responses out.

use std::time::Duration;

use fifogate::{
    pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    state::{Tree, convert},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{
    dial::{self, Target},
    grpc_api::{
        CommanderHello, FromServer, Goodbye, ToServer,
        command_connection_client::CommandConnectionClient, from_server, to_server,
    },
};

/// Version of the interface.
const VERSION: &str = "1.1.0";
/// Time for a connection, and for one response. An update of many workloads takes the agent some seconds.
const ANSWER: Duration = Duration::from_secs(30);

/// A request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClientError {
    /// The address or a file is of no use.
    #[error("{0}")]
    Unusable(String),
    /// The agent is not reached, or has refused the request.
    #[error("{0}")]
    Failed(String),
}

/// A stream to an agent.
#[derive(Debug)]
pub(crate) struct Client {
    address: String,
    to: mpsc::Sender<ToServer>,
    from: Streaming<FromServer>,
    last: u64,
    /// A response to another request than the awaited one has come: an event.
    woken: bool,
}

impl Client {
    /// Connects, and opens a stream.
    ///
    /// # Errors
    /// The address or a file is of no use, or no agent serves there.
    pub(crate) async fn connect(target: &Target) -> Result<Self, ClientError> {
        let address = target.address.clone();
        let away = |error: &dyn std::fmt::Display| {
            ClientError::Failed(format!("no agent is reached at {address}: {error}"))
        };
        let endpoint = target.endpoint().map_err(ClientError::Unusable)?;
        let channel = timeout(ANSWER, endpoint.connect()).await;
        let channel = channel.map_err(|_| away(&"it does not answer"))?;
        let channel: Channel = channel.map_err(|error| away(&dial::cause(&error)))?;
        let (to, messages) = mpsc::channel(16);
        let hello = CommanderHello { protocol_version: VERSION.to_owned() };
        let hello = ToServer { content: Some(to_server::Content::CommanderHello(hello)) };
        // A new queue has room.
        let _ = to.try_send(hello);
        let mut client =
            CommandConnectionClient::new(channel).max_decoding_message_size(usize::MAX);
        let opened = timeout(ANSWER, client.connect_command(ReceiverStream::new(messages))).await;
        let opened = opened.map_err(|_| away(&"it does not answer"))?;
        let from = opened.map_err(|status| away(&status.message()))?.into_inner();
        Ok(Self { address, to, from, last: 0, woken: false })
    }

    /// Sends a request, and returns its id.
    pub(crate) async fn send(&mut self, content: RequestContent) -> Result<String, ClientError> {
        self.last += 1;
        let id = self.last.to_string();
        self.send_as(&id, content).await?;
        Ok(id)
    }

    /// Sends a request under an id that is in use, to cancel what it stands for.
    pub(crate) async fn send_as(
        &self,
        id: &str,
        content: RequestContent,
    ) -> Result<(), ClientError> {
        let request = pb::Request { request_id: id.to_owned(), request_content: Some(content) };
        let message = ToServer { content: Some(to_server::Content::Request(request)) };
        let sent = self.to.send(message).await;
        sent.map_err(|_| self.failed("it has ended the connection"))
    }

    /// The next response to this request.
    pub(crate) async fn response(&mut self, id: &str) -> Result<ResponseContent, ClientError> {
        loop {
            let message = self.from.message().await;
            let message = message.map_err(|status| {
                self.failed(match status.message() {
                    // The words of the library for an agent that is gone.
                    text if text.starts_with("h2 protocol error") => "the connection is lost",
                    text => text,
                })
            })?;
            let message = message.ok_or_else(|| self.failed("it has ended the connection"))?;
            let Some(from_server::Content::Response(response)) = message.content else { continue };
            if response.request_id != id {
                self.woken = true;
                continue;
            }
            return match response.response_content {
                Some(ResponseContent::Error(error)) => Err(ClientError::Failed(error.message)),
                Some(content) => Ok(content),
                None => Err(self.failed("it has sent a response without content")),
            };
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(
        &mut self,
        content: RequestContent,
    ) -> Result<ResponseContent, ClientError> {
        let id = self.send(content).await?;
        match timeout(ANSWER, self.response(&id)).await {
            Ok(response) => response,
            Err(_) => Err(self.failed("it does not answer")),
        }
    }

    /// Reads a part of the state.
    pub(crate) async fn read(&mut self, masks: &[&str]) -> Result<Tree, ClientError> {
        let answer = self.ask(state_request(masks, false)).await?;
        let ResponseContent::CompleteStateResponse(answer) = answer else {
            return Err(self.unexpected());
        };
        let state = answer.complete_state.unwrap_or_default();
        convert::from_pb(&state).map_err(|error| self.failed(&error.to_string()))
    }

    /// Subscribes to changes, and returns the id of the subscription.
    pub(crate) async fn subscribe(&mut self, masks: &[&str]) -> Result<String, ClientError> {
        let id = self.send(state_request(masks, true)).await?;
        self.response(&id).await?;
        self.woken = false;
        Ok(id)
    }

    /// Waits for an event of the subscription since the last call.
    pub(crate) async fn event(&mut self, id: &str) -> Result<(), ClientError> {
        if !std::mem::take(&mut self.woken) {
            self.response(id).await?;
        }
        Ok(())
    }

    /// Sends an update.
    pub(crate) async fn update(
        &mut self,
        new_state: pb::CompleteState,
        update_mask: Vec<String>,
    ) -> Result<pb::UpdateStateSuccess, ClientError> {
        let update = pb::UpdateStateRequest { new_state: Some(new_state), update_mask };
        match self.ask(RequestContent::UpdateStateRequest(update)).await? {
            ResponseContent::UpdateStateSuccess(success) => Ok(success),
            _ => Err(self.unexpected()),
        }
    }

    /// Ends the stream, and everything that was asked for.
    pub(crate) async fn goodbye(mut self) {
        let goodbye = ToServer { content: Some(to_server::Content::Goodbye(Goodbye {})) };
        if self.to.send(goodbye).await.is_ok() {
            let end = async { while let Ok(Some(_)) = self.from.message().await {} };
            let _ = timeout(Duration::from_secs(1), end).await;
        }
    }

    pub(crate) fn unexpected(&self) -> ClientError {
        self.failed("it has answered something else")
    }

    fn failed(&self, what: &str) -> ClientError {
        ClientError::Failed(format!("the agent at {}: {what}", self.address))
    }
}

pub(crate) fn state_request(masks: &[&str], subscribe_for_events: bool) -> RequestContent {
    let field_mask = masks.iter().map(|&mask| mask.to_owned()).collect();
    let request = pb::CompleteStateRequest { field_mask, subscribe_for_events };
    RequestContent::CompleteStateRequest(request)
}
