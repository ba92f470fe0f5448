//! The messages between an agent and a server: nothing but the schema.

use std::collections::BTreeMap;

use fifogate::pb::ank_base::{self as pb, execution_state::ExecutionStateEnum};

/// A message of an agent.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ToServer {
    #[prost(oneof = "ToServerContent", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub(crate) content: Option<ToServerContent>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum ToServerContent {
    #[prost(message, tag = "1")]
    AgentHello(AgentHello),
    #[prost(message, tag = "2")]
    UpdateWorkloadState(UpdateWorkloadState),
    #[prost(message, tag = "3")]
    Request(pb::Request),
    #[prost(message, tag = "4")]
    Goodbye(Nothing),
    #[prost(message, tag = "5")]
    AgentLoadStatus(AgentLoadStatus),
    #[prost(message, tag = "6")]
    CommanderHello(CommanderHello),
    #[prost(message, tag = "7")]
    LogEntriesResponse(LogEntriesResponse),
    #[prost(message, tag = "8")]
    LogsStopResponse(LogsStopResponse),
}

/// A message of the server.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FromServer {
    #[prost(oneof = "FromServerContent", tags = "1, 2, 3, 4, 5, 6")]
    pub(crate) content: Option<FromServerContent>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum FromServerContent {
    #[prost(message, tag = "1")]
    UpdateWorkload(UpdateWorkload),
    #[prost(message, tag = "2")]
    UpdateWorkloadState(UpdateWorkloadState),
    #[prost(message, tag = "3")]
    Response(pb::Response),
    #[prost(message, tag = "4")]
    ServerHello(ServerHello),
    #[prost(message, tag = "5")]
    LogsRequest(LogsRequest),
    #[prost(message, tag = "6")]
    LogsCancelRequest(LogsCancelRequest),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AgentHello {
    #[prost(string, tag = "1")]
    pub(crate) agent_name: String,
    #[prost(string, tag = "2")]
    pub(crate) protocol_version: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) tags: Option<pb::Tags>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CommanderHello {
    #[prost(string, tag = "2")]
    pub(crate) protocol_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AgentLoadStatus {
    #[prost(string, tag = "1")]
    pub(crate) agent_name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) cpu_usage: Option<pb::CpuUsage>,
    #[prost(message, optional, tag = "3")]
    pub(crate) free_memory: Option<pb::FreeMemory>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ServerHello {
    #[prost(message, repeated, tag = "1")]
    pub(crate) added_workloads: Vec<AddedWorkload>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateWorkload {
    #[prost(message, repeated, tag = "1")]
    pub(crate) added_workloads: Vec<AddedWorkload>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) deleted_workloads: Vec<DeletedWorkload>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AddedWorkload {
    #[prost(message, optional, tag = "1")]
    pub(crate) instance_name: Option<pb::WorkloadInstanceName>,
    #[prost(message, optional, tag = "2")]
    pub(crate) workload: Option<pb::Workload>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeletedWorkload {
    #[prost(message, optional, tag = "1")]
    pub(crate) instance_name: Option<pb::WorkloadInstanceName>,
    #[prost(btree_map = "string, enumeration(DeleteCondition)", tag = "2")]
    pub(crate) dependencies: BTreeMap<String, i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum DeleteCondition {
    Running = 0,
    NotPendingNorRunning = 1,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateWorkloadState {
    #[prost(message, repeated, tag = "1")]
    pub(crate) workload_states: Vec<pb::WorkloadState>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LogsRequest {
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) logs_request: Option<pb::LogsRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LogsCancelRequest {
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LogEntriesResponse {
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) log_entries_response: Option<pb::LogEntriesResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LogsStopResponse {
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) logs_stop_response: Option<pb::LogsStopResponse>,
}

impl From<ToServerContent> for ToServer {
    fn from(content: ToServerContent) -> Self {
        Self { content: Some(content) }
    }
}

impl From<FromServerContent> for FromServer {
    fn from(content: FromServerContent) -> Self {
        Self { content: Some(content) }
    }
}

impl ToServer {
    pub(crate) fn hello(agent_name: &str, protocol_version: &str) -> Self {
        let [agent_name, protocol_version] = [agent_name, protocol_version].map(str::to_owned);
        let tags = Some(pb::Tags::default());
        ToServerContent::AgentHello(AgentHello { agent_name, protocol_version, tags }).into()
    }

    pub(crate) fn request(id: &str, content: pb::request::RequestContent) -> Self {
        let request_id = id.to_owned();
        let request = pb::Request { request_id, request_content: Some(content) };
        ToServerContent::Request(request).into()
    }

    pub(crate) fn states(workload_states: Vec<pb::WorkloadState>) -> Self {
        ToServerContent::UpdateWorkloadState(UpdateWorkloadState { workload_states }).into()
    }
}

impl FromServer {
    pub(crate) fn hello(added_workloads: Vec<AddedWorkload>) -> Self {
        FromServerContent::ServerHello(ServerHello { added_workloads }).into()
    }

    pub(crate) fn states(workload_states: Vec<pb::WorkloadState>) -> Self {
        FromServerContent::UpdateWorkloadState(UpdateWorkloadState { workload_states }).into()
    }

    pub(crate) fn response(id: &str, content: pb::response::ResponseContent) -> Self {
        let request_id = id.to_owned();
        let response = pb::Response { request_id, response_content: Some(content) };
        FromServerContent::Response(response).into()
    }
}

/// The parts of `workload.id.agent`.
pub(crate) fn instance_name(text: &str) -> pb::WorkloadInstanceName {
    let mut parts = text.splitn(3, '.').map(str::to_owned);
    let mut part = || parts.next().expect("workload.id.agent");
    let (workload_name, id, agent_name) = (part(), part(), part());
    pb::WorkloadInstanceName { workload_name, agent_name, id }
}

/// A state of `workload.id.agent`, with its text.
pub(crate) fn workload_state(
    instance: &str,
    state: ExecutionStateEnum,
    text: &str,
) -> pb::WorkloadState {
    pb::WorkloadState {
        instance_name: Some(instance_name(instance)),
        execution_state: Some(pb::ExecutionState {
            additional_info: Some(text.to_owned()),
            execution_state_enum: Some(state),
        }),
    }
}

/// A state as `Pending(Starting) Triggered at runtime.`; parts that a server needs and that are not there are
/// said to be missing.
pub(crate) fn state_text(state: &pb::ExecutionState) -> String {
    use ExecutionStateEnum as State;
    let kind = match &state.execution_state_enum {
        None => "nothing".to_owned(),
        Some(State::AgentDisconnected(_)) => "AgentDisconnected".to_owned(),
        Some(State::NotScheduled(_)) => "NotScheduled".to_owned(),
        Some(State::Removed(_)) => "Removed".to_owned(),
        Some(State::Running(_)) => "Running(Ok)".to_owned(),
        Some(State::Succeeded(_)) => "Succeeded(Ok)".to_owned(),
        Some(State::Pending(sub)) => match sub {
            0 => "Pending(Initial)".to_owned(),
            1 => "Pending(WaitingToStart)".to_owned(),
            2 => "Pending(Starting)".to_owned(),
            8 => "Pending(StartingFailed)".to_owned(),
            other => format!("Pending({other})"),
        },
        Some(State::Stopping(sub)) => match sub {
            0 => "Stopping(Stopping)".to_owned(),
            1 => "Stopping(WaitingToStop)".to_owned(),
            2 => "Stopping(RequestedAtRuntime)".to_owned(),
            8 => "Stopping(DeleteFailed)".to_owned(),
            other => format!("Stopping({other})"),
        },
        Some(State::Failed(sub)) => match sub {
            0 => "Failed(ExecFailed)".to_owned(),
            1 => "Failed(Unknown)".to_owned(),
            2 => "Failed(Lost)".to_owned(),
            other => format!("Failed({other})"),
        },
    };
    match state.additional_info.as_deref() {
        None => format!("{kind} without additionalInfo"),
        Some("") => kind,
        Some(text) => format!("{kind} {text}"),
    }
}
