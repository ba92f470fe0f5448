//! The messages of each command of `ank` and of the SDKs, in their order.

use std::collections::BTreeSet;

use fifogate::pb::ank_base::{
    self as pb, execution_state::ExecutionStateEnum as State, request::RequestContent,
    response::ResponseContent,
};
use testkit::{Agent, Authority, Etcd, workload};

use super::{
    client::{ANK, Client, TOOL, name, state, with_workload},
    tls::{free_port, options},
};

#[tokio::test]
async fn get_state_and_tables_have_every_sub_message_and_additional_info() {
    let agent = Agent::start(&workload("w", "exec sleep 100000", ""), &[]);
    let mut client = Client::connect(&agent, ANK).await;
    let complete = client.read(&[]).await;
    let desired = complete.desired_state.unwrap();
    assert_eq!(desired.api_version, "v1");
    let own = &desired.workloads.unwrap().workloads["w"];
    assert!(own.tags.is_some() && own.files.is_some() && own.configs.is_some());
    assert!(own.dependencies.is_some() && own.control_interface_access.is_some());
    assert!(complete.effective_state.is_some());
    assert!(complete.agents.unwrap().agents.contains_key("agent_A"));
    let states = complete.workload_states.unwrap().agent_state_map;
    let all = states.values().flat_map(|own| own.wl_name_state_map.values());
    let all: Vec<_> = all.flat_map(|own| own.id_state_map.values()).collect();
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|own| own.additional_info.is_some()));
    // Unknown masks are left out.
    let part = client.read(&["desiredState.configs", "nonsense.x", "desiredState.nothing"]).await;
    assert_eq!(part.workload_states, None);
    client.goodbye().await;
}

#[tokio::test]
async fn apply_waits_for_unasked_states_and_so_does_its_deletion() {
    let agent = Agent::start("", &[]);
    let mut client = Client::connect(&agent, ANK).await;
    client.read(&[]).await;
    let new_state = with_workload("w", "exec sleep 100000");
    let mask = ["desiredState.workloads.w"];
    let success = client.update(new_state, &mask).await.unwrap();
    assert!(success.deleted_workloads.is_empty());
    let [instance] = &success.added_workloads[..] else { panic!("{success:?}") };
    client.read(&[]).await;
    client.until_state(instance, |state| matches!(state, State::Running(_))).await;
    client.goodbye().await;

    let mut client = Client::connect(&agent, ANK).await;
    client.read(&[]).await;
    let success = client.update(pb::CompleteState::default(), &mask).await.unwrap();
    assert_eq!(&success.deleted_workloads, std::slice::from_ref(instance));
    client.read(&[]).await;
    client.until_state(instance, |state| matches!(state, State::Removed(_))).await;
    client.goodbye().await;
}

#[tokio::test]
async fn update_against_a_rule_is_an_error_and_changes_nothing() {
    let agent = Agent::start("", &[]);
    let mut client = Client::connect(&agent, ANK).await;
    let before = client.read(&["desiredState"]).await;
    let mut wrong = with_workload("w", "exit");
    wrong.desired_state.as_mut().unwrap().api_version = "v7".to_owned();
    let error = client.update(wrong, &[]).await.unwrap_err();
    assert!(error.contains("v7"), "{error}");
    assert_eq!(client.read(&["desiredState"]).await, before);
    client.goodbye().await;
}

#[tokio::test]
async fn operator_may_change_rules_and_use_configs_that_workloads_may_not() {
    let agent = Agent::start("", &[]);
    let mut client = Client::connect(&agent, TOOL).await;
    let config = pb::ConfigItem {
        config_item_enum: Some(pb::config_item::ConfigItemEnum::String("exec sleep 9999".into())),
    };
    let mut new_state = with_workload("w", "{{script}}");
    let desired = new_state.desired_state.as_mut().unwrap();
    desired.configs = Some(pb::ConfigMap { configs: [("c".to_owned(), config)].into() });
    let own = desired.workloads.as_mut().unwrap().workloads.get_mut("w").unwrap();
    own.configs = Some(pb::ConfigMappings { configs: [("script".into(), "c".into())].into() });
    let rule = pb::StateRule {
        operation: pb::ReadWriteEnum::RwReadWrite.into(),
        filter_masks: vec!["*".to_owned()],
    };
    let rule = pb::access_rights_rule::AccessRightsRuleEnum::StateRule(rule);
    own.control_interface_access = Some(pb::ControlInterfaceAccess {
        allow_rules: vec![pb::AccessRightsRule { access_rights_rule_enum: Some(rule) }],
        deny_rules: Vec::new(),
    });
    let masks = ["desiredState.workloads.w", "desiredState.configs.c"];
    let success = client.update(new_state, &masks).await.unwrap();
    assert_eq!(success.added_workloads.len(), 1);
    agent.connect_as("w");
}

#[tokio::test]
async fn logs_of_several_instances_end_with_a_stop_for_each() {
    let both = workload("a", "echo from a", "") + &workload("b", "echo from b", "");
    let agent = Agent::start(&both, &[]);
    let mut client = Client::connect(&agent, ANK).await;
    let instances = loop {
        let states = client.read(&["workloadStates"]).await.workload_states.unwrap();
        let mut found = Vec::new();
        for (workload, ids) in &states.agent_state_map["agent_A"].wl_name_state_map {
            for (id, state) in &ids.id_state_map {
                if matches!(state.execution_state_enum, Some(State::Succeeded(_))) {
                    found.push(pb::WorkloadInstanceName {
                        workload_name: workload.clone(),
                        agent_name: "agent_A".to_owned(),
                        id: id.clone(),
                    });
                }
            }
        }
        if found.len() == 2 {
            break found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let logs = pb::LogsRequest { workload_names: instances.clone(), ..Default::default() };
    let id = client.ask(RequestContent::LogsRequest(logs)).await;
    let ResponseContent::LogsRequestAccepted(accepted) = client.answer(&id).await else {
        panic!("not accepted");
    };
    assert_eq!(accepted.workload_names, instances, "all of them, or `ank` waits for ever");
    let (mut lines, mut stops) = (Vec::new(), 0);
    while stops < 2 {
        match client.answer(&id).await {
            ResponseContent::LogEntriesResponse(entries) => lines.extend(entries.log_entries),
            ResponseContent::LogsStopResponse(_) => stops += 1,
            other => panic!("{other:?}"),
        }
    }
    let mut lines: Vec<_> = lines.into_iter().map(|entry| entry.message).collect();
    lines.sort();
    assert_eq!(lines, ["from a", "from b"]);
    client.goodbye().await;
}

#[tokio::test]
async fn followed_log_is_cancelled_under_its_id_and_goodbye_ends_what_runs() {
    let agent = Agent::start(&workload("w", "echo one; exec sleep 100000", ""), &[]);
    let mut client = Client::connect(&agent, ANK).await;
    let id_of_w = agent.connect().until_state("w", "Running(Ok)");
    let instance = pb::WorkloadInstanceName {
        workload_name: "w".to_owned(),
        agent_name: "agent_A".to_owned(),
        id: id_of_w,
    };
    let logs = pb::LogsRequest {
        workload_names: vec![instance],
        follow: Some(true),
        ..Default::default()
    };
    let id = client.ask(RequestContent::LogsRequest(logs)).await;
    let first = client.answer(&id).await;
    assert!(matches!(first, ResponseContent::LogsRequestAccepted(_)), "{first:?}");
    let second = client.answer(&id).await;
    assert!(matches!(second, ResponseContent::LogEntriesResponse(_)), "{second:?}");
    let cancel = RequestContent::LogsCancelRequest(pb::LogsCancelRequest {});
    client.send(super::client::request(&id, cancel)).await;
    let third = client.answer(&id).await;
    assert!(matches!(third, ResponseContent::LogsCancelAccepted(_)), "{third:?}");
    client.goodbye().await;
}

#[tokio::test]
async fn events_follow_the_first_answer_until_they_are_cancelled() {
    let agent = Agent::start("", &[]);
    let mut author = Client::connect(&agent, TOOL).await;
    let mut client = Client::connect(&agent, ANK).await;
    let id = client.ask(state(&["desiredState.workloads.*.agent"], true)).await;
    let ResponseContent::CompleteStateResponse(first) = client.answer(&id).await else {
        panic!("no state");
    };
    assert_eq!(first.altered_fields, None);
    let mask = ["desiredState.workloads.w"];
    author.update(with_workload("w", "exec sleep 100000"), &mask).await.unwrap();
    let ResponseContent::CompleteStateResponse(event) = client.answer(&id).await else {
        panic!("no event");
    };
    let altered = event.altered_fields.unwrap();
    assert_eq!(altered.added_fields, ["desiredState.workloads.w.agent"]);
    let cancel = RequestContent::EventsCancelRequest(pb::EventsCancelRequest {});
    client.send(super::client::request(&id, cancel)).await;
    let end = client.answer(&id).await;
    assert!(matches!(end, ResponseContent::EventsCancelAccepted(_)), "{end:?}");
    author.update(pb::CompleteState::default(), &mask).await.unwrap();
    client.goodbye().await;
}

#[tokio::test]
async fn tool_hears_responses_alone_and_its_own_subscription_before_its_own_success() {
    let agent = Agent::start("", &[]);
    let mut client = Client::connect(&agent, TOOL).await;
    let subscription = client.ask(state(&["desiredState.configs"], true)).await;
    client.answer(&subscription).await;
    // Of the grace time: an event in it would be merged into its end.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let config = pb::ConfigItem {
        config_item_enum: Some(pb::config_item::ConfigItemEnum::String("v".into())),
    };
    let configs = Some(pb::ConfigMap { configs: [("c".to_owned(), config)].into() });
    let desired_state = pb::State { api_version: "v1".to_owned(), configs, ..Default::default() };
    let new_state =
        pb::CompleteState { desired_state: Some(desired_state), ..pb::CompleteState::default() };
    let update_mask = vec!["desiredState.configs.c".to_owned()];
    let update = pb::UpdateStateRequest { new_state: Some(new_state), update_mask };
    let id = client.ask(RequestContent::UpdateStateRequest(update)).await;
    let event = client.answer(&subscription).await;
    assert!(matches!(event, ResponseContent::CompleteStateResponse(_)), "{event:?}");
    let success = client.answer(&id).await;
    assert!(matches!(success, ResponseContent::UpdateStateSuccess(_)), "{success:?}");
    // A workload changes: `ank` would be told, a tool is not.
    client.update(with_workload("w", "exit"), &["desiredState.workloads.w"]).await.unwrap();
    agent.connect().until_state("w", "Succeeded(Ok)");
    client.read(&["desiredState.configs"]).await;
    assert!(client.states.is_empty());
}

#[tokio::test]
async fn read_over_a_limit_is_an_error_for_a_tool_and_an_empty_state_for_ank() {
    let agent = Agent::start("", &["--", "--max-masks", "2"]);
    let masks = ["a", "b", "c"];
    let mut tool = Client::connect(&agent, TOOL).await;
    let id = tool.ask(state(&masks, false)).await;
    let answer = tool.answer(&id).await;
    assert!(matches!(answer, ResponseContent::Error(_)), "{answer:?}");
    let mut ank = Client::connect(&agent, ANK).await;
    assert_eq!(ank.read(&masks).await, pb::CompleteState::default());
}

/// Masks of the workloads of [`near_and_far`].
const BOTH: [&str; 2] = ["desiredState.workloads.near", "desiredState.workloads.far"];

/// Two nodes that share their state and fetch logs from each other.
struct TwoNodes {
    first: Agent,
    _second: Agent,
    _etcd: Etcd,
    // Its files are read again for each connection.
    _authority: Authority,
}

fn two_nodes() -> TwoNodes {
    let (etcd, authority) = (Etcd::start(), Authority::new());
    authority.issue("ank-server");
    let endpoint = etcd.endpoint();
    let start = |name: &str| {
        let mut all = ["--etcd", &endpoint, "--name", name].map(str::to_owned).to_vec();
        all.extend(options(&authority, "ank-server", free_port()));
        Agent::start("", &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let first = start("agent_A");
    first.connect();
    TwoNodes { first, _second: start("agent_B"), _etcd: etcd, _authority: authority }
}

/// A workload of each node.
fn near_and_far(script: &str) -> pb::CompleteState {
    let mut both = with_workload("near", script);
    let own = &mut both.desired_state.as_mut().unwrap().workloads.as_mut().unwrap().workloads;
    let agent = Some("agent_B".to_owned());
    own.insert("far".to_owned(), pb::Workload { agent, ..own["near"].clone() });
    both
}

/// Waits until each of these instances was told of in such a state.
async fn until_each(client: &mut Client, instances: &[String], is: impl Fn(&State) -> bool) {
    let mut left: BTreeSet<_> = instances.iter().cloned().collect();
    assert_eq!(left.len(), 2);
    loop {
        for state in std::mem::take(&mut client.states) {
            if is(&state.execution_state.unwrap().execution_state_enum.unwrap()) {
                left.remove(&name(&state.instance_name.unwrap()));
            }
        }
        if left.is_empty() {
            return;
        }
        let message = client.next().await.unwrap().expect("the stream ended");
        client.states.extend(message.states.expect("nothing was asked for").states);
    }
}

#[tokio::test]
async fn apply_and_delete_wait_for_the_workloads_of_two_nodes() {
    let nodes = two_nodes();
    let mut client = Client::connect(&nodes.first, ANK).await;
    client.read(&[]).await;
    let success = client.update(near_and_far("exec sleep 100000"), &BOTH).await.unwrap();
    client.read(&[]).await;
    let added = success.added_workloads;
    until_each(&mut client, &added, |state| matches!(state, State::Running(_))).await;
    client.goodbye().await;

    let mut client = Client::connect(&nodes.first, ANK).await;
    client.read(&[]).await;
    let success = client.update(pb::CompleteState::default(), &BOTH).await.unwrap();
    client.read(&[]).await;
    let deleted = success.deleted_workloads;
    until_each(&mut client, &deleted, |state| matches!(state, State::Removed(_))).await;
    client.goodbye().await;
}

/// What came next under a request for logs: lines with their workloads, or the stop of one.
async fn next_of_logs(client: &mut Client, id: &str) -> Result<Vec<(String, String)>, String> {
    match client.answer(id).await {
        ResponseContent::LogEntriesResponse(own) => Ok(own
            .log_entries
            .into_iter()
            .map(|own| (own.workload_name.unwrap().workload_name, own.message))
            .collect()),
        ResponseContent::LogsStopResponse(own) => Err(own.workload_name.unwrap().workload_name),
        other => panic!("{other:?}"),
    }
}

/// All lines of both, and a stop for each; none where the other node is not known yet.
async fn whole_logs(client: &mut Client, request: &pb::LogsRequest) -> Vec<(String, String)> {
    let id = client.ask(RequestContent::LogsRequest(request.clone())).await;
    match client.answer(&id).await {
        ResponseContent::LogsRequestAccepted(own) => assert_eq!(own.workload_names.len(), 2),
        ResponseContent::Error(_) => return Vec::new(),
        other => panic!("{other:?}"),
    }
    let (mut lines, mut stops) = (Vec::new(), BTreeSet::new());
    while stops.len() < 2 {
        match next_of_logs(client, &id).await {
            Ok(more) => lines.extend(more),
            Err(stopped) => assert!(stops.insert(stopped), "stopped twice"),
        }
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn logs_of_workloads_of_two_nodes_are_followed_from_their_last_line_to_a_stop_for_each() {
    let nodes = two_nodes();
    let mut client = Client::connect(&nodes.first, TOOL).await;
    let script = "echo one; echo two; exec sleep 100000";
    let success = client.update(near_and_far(script), &BOTH).await.unwrap();
    let instance = |own: &String| {
        let [workload, id, agent] = own.split('.').collect::<Vec<_>>()[..] else { panic!("{own}") };
        let [workload_name, id, agent_name] = [workload, id, agent].map(str::to_owned);
        pb::WorkloadInstanceName { workload_name, id, agent_name }
    };
    let workload_names = success.added_workloads.iter().map(instance).collect();
    let all = pb::LogsRequest { workload_names, ..Default::default() };
    let end = tokio::time::Instant::now() + super::client::PATIENCE;
    while whole_logs(&mut client, &all).await.len() < 4 {
        assert!(tokio::time::Instant::now() < end, "the lines did not come");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let line = |name: &str, line: &str| (name.to_owned(), line.to_owned());
    let last = [line("far", "two"), line("near", "two")];
    let tail = pb::LogsRequest { tail: Some(1), ..all.clone() };
    assert_eq!(whole_logs(&mut client, &tail).await, last);

    let mut ank = Client::connect(&nodes.first, ANK).await;
    let followed = pb::LogsRequest { follow: Some(true), ..tail };
    let id = ank.ask(RequestContent::LogsRequest(followed.clone())).await;
    let first = ank.answer(&id).await;
    assert!(matches!(first, ResponseContent::LogsRequestAccepted(_)), "{first:?}");
    let mut lines = Vec::new();
    while lines.len() < 2 {
        lines.extend(next_of_logs(&mut ank, &id).await.unwrap());
    }
    lines.sort();
    assert_eq!(lines, last);
    // A second stream of both is cancelled; the first one goes on.
    let mut other = Client::connect(&nodes.first, ANK).await;
    let cancelled = other.ask(RequestContent::LogsRequest(followed)).await;
    let begun = other.answer(&cancelled).await;
    assert!(matches!(begun, ResponseContent::LogsRequestAccepted(_)), "{begun:?}");
    let mut heard = 0;
    while heard < 2 {
        heard += next_of_logs(&mut other, &cancelled).await.unwrap().len();
    }
    let cancel = RequestContent::LogsCancelRequest(pb::LogsCancelRequest {});
    other.send(super::client::request(&cancelled, cancel)).await;
    let end = other.answer(&cancelled).await;
    assert!(matches!(end, ResponseContent::LogsCancelAccepted(_)), "{end:?}");
    other.goodbye().await;
    client.update(pb::CompleteState::default(), &BOTH).await.unwrap();
    let stops = [next_of_logs(&mut ank, &id).await, next_of_logs(&mut ank, &id).await];
    let stops: BTreeSet<_> = stops.map(Result::unwrap_err).into();
    assert_eq!(stops, ["far", "near"].map(str::to_owned).into());
    ank.goodbye().await;
}
