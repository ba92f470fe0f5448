//! The state by the agent's command, and the agent's own requests.

use fifogate::pb::{
    agent_link::{UpdateState, UpdateWorkloadStates, from_agent::Content},
    ank_base::{self as pb, execution_state::ExecutionStateEnum, response::ResponseContent},
};
use pb::request::RequestContent;

use testkit::{BOTH, LinkAgent, Transport, configs, instance};

/// A workload with this tag.
pub(super) fn tagged(tag: &str) -> pb::Workload {
    pb::Workload {
        agent: Some("agent_A".to_owned()),
        runtime: Some("process".to_owned()),
        runtime_config: Some(String::new()),
        tags: Some(pb::Tags { tags: [("t".to_owned(), tag.to_owned())].into() }),
        ..Default::default()
    }
}

/// A desired state of so many workloads, in which the tag of these differs.
pub(super) fn state_of(count: usize, odd: &[usize]) -> pb::CompleteState {
    let tag = |n| if odd.contains(&n) { "odd" } else { "even" };
    let workloads = (0..count).map(|n| (format!("w{n}"), tagged(tag(n)))).collect();
    let mut state = configs(&[]);
    state.desired_state.as_mut().unwrap().workloads = Some(pb::WorkloadMap { workloads });
    state
}

#[test]
fn state_of_10_000_workloads_in_which_three_leaves_differ_tells_those_three() {
    let mut agent = LinkAgent::start(Transport::Unix, &["--subscribe-grace-ms", "0"]);
    agent.link.replace_state(state_of(10_000, &[])).unwrap();
    let mut workload = agent.workload("observer");
    workload.read("s", &["desiredState.workloads"], true);
    workload.state_response();
    agent.link.replace_state(state_of(10_000, &[])).unwrap();
    agent.link.replace_state(state_of(10_000, &[3, 500, 9_999])).unwrap();
    let event = workload.state_response();
    let altered = event.altered_fields.unwrap();
    let expected = [3, 500, 9_999].map(|n| format!("desiredState.workloads.w{n}.tags.t"));
    assert_eq!(altered.updated_fields, expected);
    assert!(altered.added_fields.is_empty() && altered.removed_fields.is_empty());
}

#[test]
fn every_part_can_be_set_and_is_told_once() {
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &["--subscribe-grace-ms", "0"]);
        let mut observer = agent.workload("observer");
        observer.read("s", &[], true);
        observer.response();
        let status = pb::AgentStatus {
            cpu_usage: Some(pb::CpuUsage { cpu_usage: 7 }),
            free_memory: Some(pb::FreeMemory { free_memory: 1 << 40 }),
        };
        let attributes = pb::AgentAttributes { status: Some(status), tags: None };
        let agents = pb::AgentMap { agents: [("agent_A".to_owned(), attributes)].into() };
        let new_state = pb::CompleteState { agents: Some(agents.clone()), ..Default::default() };
        let update_mask = vec!["agents.agent_A".to_owned()];
        let update = UpdateState { new_state: Some(new_state), update_mask };
        agent.call(Content::UpdateState(update)).unwrap();
        let effective = pb::State { api_version: "v1".to_owned(), ..Default::default() };
        let new_state =
            pb::CompleteState { effective_state: Some(effective), ..Default::default() };
        let update_mask = vec!["effectiveState".to_owned()];
        agent
            .call(Content::UpdateState(UpdateState { new_state: Some(new_state), update_mask }))
            .unwrap();
        let running = |state| pb::WorkloadState {
            instance_name: Some(instance("w")),
            execution_state: Some(pb::ExecutionState {
                additional_info: Some(String::new()),
                execution_state_enum: Some(state),
            }),
        };
        for state in [ExecutionStateEnum::Running(0), ExecutionStateEnum::Removed(0)] {
            let workload_states = vec![running(state)];
            agent
                .call(Content::UpdateWorkloadStates(UpdateWorkloadStates { workload_states }))
                .unwrap();
        }
        let mut told = Vec::new();
        for _ in 0..4 {
            let event = observer.state_response();
            let altered = event.altered_fields.unwrap();
            told.push(
                [altered.added_fields, altered.updated_fields, altered.removed_fields].concat(),
            );
        }
        let expected = [
            "agents.agent_A",
            "effectiveState",
            "workloadStates.agent_A",
            "workloadStates.agent_A",
        ];
        assert_eq!(told, expected.map(|path| vec![path.to_owned()]));
        assert_eq!(agent.read(&["agents"]).agents, Some(agents));
    }
}

#[test]
fn agent_has_all_rights_in_its_own_requests() {
    for transport in BOTH {
        let mut agent = LinkAgent::start(transport, &["--updates", "forward"]);
        let field_mask = vec!["desiredState.configs.*".to_owned()];
        let ask = pb::CompleteStateRequest { field_mask, subscribe_for_events: true };
        agent.ask("s", RequestContent::CompleteStateRequest(ask));
        assert!(matches!(agent.response("s"), ResponseContent::CompleteStateResponse(_)));
        let update_mask = vec!["desiredState.configs".to_owned()];
        let update =
            pb::UpdateStateRequest { new_state: Some(configs(&[("k", "v")])), update_mask };
        agent.ask("u", RequestContent::UpdateStateRequest(update));
        let ResponseContent::CompleteStateResponse(event) = agent.response("s") else { panic!() };
        assert_eq!(event.altered_fields.unwrap().added_fields, ["desiredState.configs.k"]);
        assert!(matches!(agent.response("u"), ResponseContent::UpdateStateSuccess(_)));
        agent.ask("s", RequestContent::EventsCancelRequest(pb::EventsCancelRequest {}));
        assert!(matches!(agent.response("s"), ResponseContent::EventsCancelAccepted(_)));
    }
}
