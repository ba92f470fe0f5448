//! An agent that has joined a scripted server.

use std::time::Duration;

use fifogate::{
    manifest,
    pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    state::{
        Instance, Node,
        convert::{Fill, to_pb},
    },
};
use testkit::Agent;

use super::server::{
    AddedWorkload, AgentHello, DeleteCondition, DeletedWorkload, FromServer, FromServerContent,
    Port, Stream, ToServerContent, UpdateWorkload, instance_name,
};

/// The agent's name.
pub(crate) const US: &str = "agent_A";

/// An agent, and its stream to the server.
pub(crate) struct Joined {
    pub(crate) agent: Agent,
    pub(crate) stream: Stream,
    pub(crate) port: Port,
    /// The id of the agent's subscription.
    pub(crate) subscription: String,
}

impl Joined {
    /// The server knows these workloads alone, all of them of the agent.
    pub(crate) fn with(workloads: &str) -> Self {
        Self::start(Port::open(), &["--insecure"], workloads)
    }

    pub(crate) fn start(port: Port, options: &[&str], workloads: &str) -> Self {
        let agent = Agent::join(&port.url(), options);
        let (stream, subscription) = take(&port, workloads).1;
        Self { agent, stream, port, subscription }
    }

    /// Takes the next stream of the agent, as the first one.
    pub(crate) fn take_again(&mut self, workloads: &str) -> AgentHello {
        let (hello, (stream, subscription)) = take(&self.port, workloads);
        (self.stream, self.subscription) = (stream, subscription);
        hello
    }

    pub(crate) fn order(&self, added: Vec<AddedWorkload>, deleted: Vec<DeletedWorkload>) {
        let update = UpdateWorkload { added_workloads: added, deleted_workloads: deleted };
        self.stream.send(FromServerContent::UpdateWorkload(update));
    }

    /// Sends an event to the agent's subscription.
    pub(crate) fn tell(&self, state: pb::CompleteState, altered: pb::AlteredFields) {
        let response = pb::CompleteStateResponse {
            complete_state: Some(state),
            altered_fields: Some(altered),
        };
        let content = ResponseContent::CompleteStateResponse(response);
        self.stream.send(FromServer::response(&self.subscription, content));
    }

    /// The next request that the agent passes on, and not one of its own.
    pub(crate) fn forwarded(&mut self) -> pb::Request {
        loop {
            let content = self.stream.next_but_load();
            if let ToServerContent::Request(request) = content
                && !request.request_id.starts_with('.')
            {
                return request;
            }
        }
    }

    /// Answers the agent's own reads until one of them: it shows the agent that an update is done.
    pub(crate) fn answer_read(&mut self) {
        loop {
            if let ToServerContent::Request(request) = self.stream.next_but_load()
                && let Some(RequestContent::CompleteStateRequest(_)) = request.request_content
            {
                let none = pb::CompleteStateResponse::default();
                let none = ResponseContent::CompleteStateResponse(none);
                return self.stream.send(FromServer::response(&request.request_id, none));
            }
        }
    }

    /// The states reported of a workload so far.
    pub(crate) fn states_of(&self, workload: &str) -> Vec<String> {
        self.port.record().states_of(workload)
    }

    pub(crate) fn wait_for_state(&self, workload: &str, text: &str) {
        self.port.record().wait_for_state(workload, text);
    }
}

fn take(port: &Port, workloads: &str) -> (AgentHello, (Stream, String)) {
    let mut stream = port.accept();
    let hello = stream.greet(added(workloads));
    let subscription = answer_subscription(&mut stream, state(workloads));
    (hello, (stream, subscription))
}

/// Answers the request for the whole state, and returns its id.
pub(crate) fn answer_subscription(stream: &mut Stream, state: pb::CompleteState) -> String {
    loop {
        let ToServerContent::Request(request) = stream.next_but_load() else { continue };
        let Some(RequestContent::CompleteStateRequest(asked)) = &request.request_content else {
            continue;
        };
        if !asked.subscribe_for_events {
            continue;
        }
        assert!(asked.field_mask.is_empty(), "{asked:?}");
        let answer =
            pb::CompleteStateResponse { complete_state: Some(state), altered_fields: None };
        let content = ResponseContent::CompleteStateResponse(answer);
        stream.send(FromServer::response(&request.request_id, content));
        return request.request_id;
    }
}

/// The state with these workloads, as in a manifest.
pub(crate) fn state(workloads: &str) -> pb::CompleteState {
    let text = format!("apiVersion: v1\nworkloads:\n{workloads}");
    let text = if workloads.is_empty() { "apiVersion: v1\n".to_owned() } else { text };
    let tree = manifest::parse("state.yaml", &text).unwrap().updated.tree;
    let desired = tree.get(&["desiredState"]).unwrap().clone();
    to_pb(&tree.with("effectiveState", Some(desired)), Fill::Full)
}

/// The state with these execution states.
pub(crate) fn with_states(
    mut state: pb::CompleteState,
    all: &[pb::WorkloadState],
) -> pb::CompleteState {
    let states = state.workload_states.get_or_insert_default();
    for own in all.iter().cloned() {
        let name = own.instance_name.unwrap_or_default();
        let of_agent = states.agent_state_map.entry(name.agent_name).or_default();
        let of_workload = of_agent.wl_name_state_map.entry(name.workload_name).or_default();
        of_workload.id_state_map.insert(name.id, own.execution_state.unwrap_or_default());
    }
    state
}

/// The workloads of the agent among these, with their ids.
pub(crate) fn added(workloads: &str) -> Vec<AddedWorkload> {
    let all = state(workloads).desired_state.unwrap_or_default().workloads.unwrap_or_default();
    let all = all.workloads.into_iter().filter(|(_, own)| own.agent() == US);
    all.map(|(name, workload)| AddedWorkload {
        instance_name: Some(instance_name(&instance(&name, &workload))),
        workload: Some(workload),
    })
    .collect()
}

/// The deletion of these workloads, with conditions by names.
pub(crate) fn deleted(
    workloads: &str,
    conditions: &[(&str, DeleteCondition)],
) -> Vec<DeletedWorkload> {
    let all = added(workloads).into_iter().map(|own| DeletedWorkload {
        instance_name: own.instance_name,
        dependencies: conditions
            .iter()
            .map(|(name, own)| ((*name).to_owned(), i32::from(*own)))
            .collect(),
    });
    all.collect()
}

/// `workload.id.agent`
fn instance(name: &str, workload: &pb::Workload) -> String {
    let node = Node::map([
        ("agent", Node::text(workload.agent())),
        ("runtimeConfig", Node::text(workload.runtime_config())),
    ]);
    Instance::of(name, &node).to_string()
}

/// Longer than the pause between two attempts to connect.
pub(crate) const LONG: Duration = Duration::from_secs(20);
