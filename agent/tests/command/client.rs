//! A client with nothing but the schema.

use std::time::Duration;

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};
use testkit::Agent;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// Time for any one message.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const ANK: &str = "/grpc_api.CliConnection/ConnectCli";
pub(crate) const TOOL: &str = "/grpc_api.CommandConnection/ConnectCommand";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ToServer {
    #[prost(message, optional, tag = "1")]
    pub(crate) agent_hello: Option<Hello>,
    #[prost(message, optional, tag = "3")]
    pub(crate) request: Option<pb::Request>,
    #[prost(message, optional, tag = "4")]
    pub(crate) goodbye: Option<Nothing>,
    #[prost(message, optional, tag = "6")]
    pub(crate) commander_hello: Option<Hello>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hello {
    #[prost(string, tag = "2")]
    pub(crate) protocol_version: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FromServer {
    #[prost(message, optional, tag = "2")]
    pub(crate) states: Option<States>,
    #[prost(message, optional, tag = "3")]
    pub(crate) response: Option<pb::Response>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct States {
    #[prost(message, repeated, tag = "1")]
    pub(crate) states: Vec<pb::WorkloadState>,
}

pub(crate) fn hello(version: &str) -> ToServer {
    let commander_hello = Some(Hello { protocol_version: version.to_owned() });
    ToServer { commander_hello, ..ToServer::default() }
}

pub(crate) fn request(id: &str, content: RequestContent) -> ToServer {
    let request = pb::Request { request_id: id.to_owned(), request_content: Some(content) };
    ToServer { request: Some(request), ..ToServer::default() }
}

/// A connection to the local socket.
pub(crate) async fn channel(agent: &Agent) -> Channel {
    let socket = agent.path("run/command.sock");
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(error) => assert!(tokio::time::Instant::now() < end, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Opens a stream, with these messages sent before its headers are there.
pub(crate) async fn open(
    channel: Channel,
    method: &'static str,
    first: Vec<ToServer>,
) -> Result<(mpsc::Sender<ToServer>, Streaming<FromServer>), Status> {
    let (to, messages) = mpsc::channel(64);
    for message in first {
        to.send(message).await.unwrap();
    }
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let request = Request::new(ReceiverStream::new(messages));
    let codec = ProstCodec::<ToServer, FromServer>::default();
    let path = PathAndQuery::from_static(method);
    let answer = timeout(PATIENCE, grpc.streaming(request, path, codec)).await.expect("no headers");
    Ok((to, answer?.into_inner()))
}

/// A stream after its hello.
pub(crate) struct Client {
    to: mpsc::Sender<ToServer>,
    from: Streaming<FromServer>,
    last: u32,
    /// States that came meanwhile.
    pub(crate) states: Vec<pb::WorkloadState>,
}

impl Client {
    pub(crate) async fn connect(agent: &Agent, method: &'static str) -> Self {
        Self::over(channel(agent).await, method).await
    }

    pub(crate) async fn over(channel: Channel, method: &'static str) -> Self {
        let (to, from) = open(channel, method, vec![hello("1.1.0-pre")]).await.unwrap();
        Self { to, from, last: 0, states: Vec::new() }
    }

    pub(crate) async fn send(&self, message: ToServer) {
        self.to.send(message).await.unwrap();
    }

    /// Sends a request, and returns its id.
    pub(crate) async fn ask(&mut self, content: RequestContent) -> String {
        self.last += 1;
        let id = format!("id-{}", self.last);
        self.send(request(&id, content)).await;
        id
    }

    /// The next message; `None` at an end in order.
    pub(crate) async fn next(&mut self) -> Result<Option<FromServer>, Status> {
        timeout(PATIENCE, self.from.message()).await.expect("no message came")
    }

    /// The next response, which is one to this request. States are put aside.
    pub(crate) async fn answer(&mut self, id: &str) -> ResponseContent {
        loop {
            let message = self.next().await.unwrap().expect("the stream ended");
            if let Some(states) = message.states {
                self.states.extend(states.states);
                continue;
            }
            let response = message.response.unwrap();
            assert_eq!(response.request_id, id);
            return response.response_content.unwrap();
        }
    }

    pub(crate) async fn read(&mut self, masks: &[&str]) -> pb::CompleteState {
        let id = self.ask(state(masks, false)).await;
        match self.answer(&id).await {
            ResponseContent::CompleteStateResponse(response) => {
                assert_eq!(response.altered_fields, None, "no event");
                response.complete_state.unwrap_or_default()
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn update(
        &mut self,
        new_state: pb::CompleteState,
        masks: &[&str],
    ) -> Result<pb::UpdateStateSuccess, String> {
        let update_mask = masks.iter().map(|&mask| mask.to_owned()).collect();
        let update = pb::UpdateStateRequest { new_state: Some(new_state), update_mask };
        let id = self.ask(RequestContent::UpdateStateRequest(update)).await;
        match self.answer(&id).await {
            ResponseContent::UpdateStateSuccess(success) => Ok(success),
            ResponseContent::Error(error) => Err(error.message),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until this instance is reported in a state that `is` accepts.
    pub(crate) async fn until_state(
        &mut self,
        instance: &str,
        is: impl Fn(&pb::execution_state::ExecutionStateEnum) -> bool,
    ) {
        loop {
            for state in std::mem::take(&mut self.states) {
                let execution = state.execution_state.unwrap();
                assert!(execution.additional_info.is_some(), "clients drop states without it");
                if name(&state.instance_name.unwrap()) == instance
                    && is(&execution.execution_state_enum.unwrap())
                {
                    return;
                }
            }
            let message = self.next().await.unwrap().expect("the stream ended");
            self.states.extend(message.states.expect("nothing was asked for").states);
        }
    }

    /// Says goodbye, and waits for the end of the stream.
    pub(crate) async fn goodbye(mut self) {
        self.send(ToServer { goodbye: Some(Nothing {}), ..ToServer::default() }).await;
        while self.next().await.unwrap().is_some() {}
    }
}

pub(crate) fn name(name: &pb::WorkloadInstanceName) -> String {
    format!("{}.{}.{}", name.workload_name, name.id, name.agent_name)
}

pub(crate) fn state(masks: &[&str], subscribe_for_events: bool) -> RequestContent {
    let field_mask = masks.iter().map(|&mask| mask.to_owned()).collect();
    RequestContent::CompleteStateRequest(pb::CompleteStateRequest {
        field_mask,
        subscribe_for_events,
    })
}

/// A state with this workload of agent_A, as a manifest has it.
pub(crate) fn with_workload(name: &str, script: &str) -> pb::CompleteState {
    let config = serde_json::json!({ "command": "sh", "args": ["-c", script] });
    let workload = pb::Workload {
        agent: Some("agent_A".to_owned()),
        runtime: Some("process".to_owned()),
        runtime_config: Some(config.to_string()),
        ..pb::Workload::default()
    };
    let workloads = pb::WorkloadMap { workloads: [(name.to_owned(), workload)].into() };
    let desired_state = Some(pb::State {
        api_version: "v1".to_owned(),
        workloads: Some(workloads),
        ..pb::State::default()
    });
    pb::CompleteState { desired_state, ..pb::CompleteState::default() }
}
