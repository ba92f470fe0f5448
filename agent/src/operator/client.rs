//! The client of the command interface: requests in, their responses out.

use std::{fs, path::Path, time::Duration};

use fifogate::{
    pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    state::{Tree, convert},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::args::ConnectArgs;
use crate::{
    cli::{CliError, default_run_dir},
    command_interface::{
        SOCKET,
        api::{CommanderHello, FromServer, Goodbye, ToServer, from_server, to_server},
        client::command_connection_client::CommandConnectionClient,
        private_file,
    },
};

/// Version of the interface.
const VERSION: &str = "1.1.0";
/// Name in the certificate of every server.
const SERVER: &str = "ank-server";
/// Time for a connection, and for one response. An update of many workloads takes the agent some seconds.
const ANSWER: Duration = Duration::from_secs(30);

/// A stream to an agent.
#[derive(Debug)]
pub(super) struct Client {
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
    pub(super) async fn connect(args: &ConnectArgs) -> Result<Self, CliError> {
        let address = match &args.connect {
            Some(address) => address.clone(),
            None => format!("unix:{}", default_run_dir()?.join(SOCKET).display()),
        };
        let away = |error: &dyn std::fmt::Display| {
            CliError::Failed(format!("no agent is reached at {address}: {error}"))
        };
        let endpoint = endpoint(&address, args)?;
        let channel = timeout(ANSWER, endpoint.connect()).await;
        let channel = channel.map_err(|_| away(&"it does not answer"))?;
        let channel: Channel = channel.map_err(|error| away(&cause(&error)))?;
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
    pub(super) async fn send(&mut self, content: RequestContent) -> Result<String, CliError> {
        self.last += 1;
        let id = self.last.to_string();
        self.send_as(&id, content).await?;
        Ok(id)
    }

    /// Sends a request under an id that is in use, to cancel what it stands for.
    pub(super) async fn send_as(&self, id: &str, content: RequestContent) -> Result<(), CliError> {
        let request = pb::Request { request_id: id.to_owned(), request_content: Some(content) };
        let message = ToServer { content: Some(to_server::Content::Request(request)) };
        let sent = self.to.send(message).await;
        sent.map_err(|_| self.failed("it has ended the connection"))
    }

    /// The next response to this request.
    pub(super) async fn response(&mut self, id: &str) -> Result<ResponseContent, CliError> {
        loop {
            let message = self.from.message().await;
            let message = message.map_err(|status| self.failed(status.message()))?;
            let message = message.ok_or_else(|| self.failed("it has ended the connection"))?;
            let Some(from_server::Content::Response(response)) = message.content else { continue };
            if response.request_id != id {
                self.woken = true;
                continue;
            }
            return match response.response_content {
                Some(ResponseContent::Error(error)) => Err(CliError::Failed(error.message)),
                Some(content) => Ok(content),
                None => Err(self.failed("it has sent a response without content")),
            };
        }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(
        &mut self,
        content: RequestContent,
    ) -> Result<ResponseContent, CliError> {
        let id = self.send(content).await?;
        match timeout(ANSWER, self.response(&id)).await {
            Ok(response) => response,
            Err(_) => Err(self.failed("it does not answer")),
        }
    }

    /// Reads a part of the state.
    pub(super) async fn read(&mut self, masks: &[&str]) -> Result<Tree, CliError> {
        let answer = self.ask(state_request(masks, false)).await?;
        let ResponseContent::CompleteStateResponse(answer) = answer else {
            return Err(self.unexpected());
        };
        let state = answer.complete_state.unwrap_or_default();
        convert::from_pb(&state).map_err(|error| self.failed(&error.to_string()))
    }

    /// Subscribes to changes, and returns the id of the subscription.
    pub(super) async fn subscribe(&mut self, masks: &[&str]) -> Result<String, CliError> {
        let id = self.send(state_request(masks, true)).await?;
        self.response(&id).await?;
        self.woken = false;
        Ok(id)
    }

    /// Waits for an event of the subscription since the last call.
    pub(super) async fn event(&mut self, id: &str) -> Result<(), CliError> {
        if !std::mem::take(&mut self.woken) {
            self.response(id).await?;
        }
        Ok(())
    }

    /// Sends an update.
    pub(super) async fn update(
        &mut self,
        new_state: pb::CompleteState,
        update_mask: Vec<String>,
    ) -> Result<pb::UpdateStateSuccess, CliError> {
        let update = pb::UpdateStateRequest { new_state: Some(new_state), update_mask };
        match self.ask(RequestContent::UpdateStateRequest(update)).await? {
            ResponseContent::UpdateStateSuccess(success) => Ok(success),
            _ => Err(self.unexpected()),
        }
    }

    /// Ends the stream, and everything that was asked for.
    pub(super) async fn goodbye(mut self) {
        let goodbye = ToServer { content: Some(to_server::Content::Goodbye(Goodbye {})) };
        if self.to.send(goodbye).await.is_ok() {
            let end = async { while let Ok(Some(_)) = self.from.message().await {} };
            let _ = timeout(Duration::from_secs(1), end).await;
        }
    }

    pub(super) fn unexpected(&self) -> CliError {
        self.failed("it has answered something else")
    }

    fn failed(&self, what: &str) -> CliError {
        CliError::Failed(format!("the agent at {}: {what}", self.address))
    }
}

pub(super) fn state_request(masks: &[&str], subscribe_for_events: bool) -> RequestContent {
    let field_mask = masks.iter().map(|&mask| mask.to_owned()).collect();
    let request = pb::CompleteStateRequest { field_mask, subscribe_for_events };
    RequestContent::CompleteStateRequest(request)
}

fn endpoint(address: &str, args: &ConnectArgs) -> Result<Endpoint, CliError> {
    let unusable = |what: &str| CliError::Unusable(format!("--connect {address}: {what}"));
    let is_known =
        ["unix:", "http://", "https://"].iter().any(|scheme| address.starts_with(scheme));
    if !is_known {
        return Err(unusable("expected unix:PATH, http://HOST:PORT or https://HOST:PORT"));
    }
    let endpoint = Endpoint::from_shared(address.to_owned());
    let endpoint = endpoint.map_err(|_| unusable("this is no address"))?;
    if !address.starts_with("https:") {
        return Ok(endpoint);
    }
    let Some(ca) = &args.ca_pem else {
        return Err(unusable("https needs --ca-pem, --crt-pem and --key-pem"));
    };
    let mut tls =
        ClientTlsConfig::new().domain_name(SERVER).ca_certificate(Certificate::from_pem(pem(ca)?));
    if let (Some(crt), Some(key)) = (&args.crt_pem, &args.key_pem) {
        let key = private_file(key).map_err(|error| CliError::Unusable(error.to_string()))?;
        tls = tls.identity(Identity::from_pem(pem(crt)?, key));
    }
    endpoint
        .tls_config(tls)
        .map_err(|_| unusable("the PEM files do not fit together, or one of them is none"))
}

fn pem(path: &Path) -> Result<Vec<u8>, CliError> {
    fs::read(path).map_err(|error| CliError::Unusable(format!("{}: {error}", path.display())))
}

/// The innermost cause: the others say that a transport has failed.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
