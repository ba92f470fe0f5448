use pb::execution_state::ExecutionStateEnum as State;

use testkit::altered;

use super::*;

const CONFIG: &str = "command: 'true'";

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn wire_workload(agent: &str, config: &str) -> pb::Workload {
    pb::Workload {
        agent: text(agent),
        runtime: text("process"),
        runtime_config: text(config),
        ..Default::default()
    }
}

fn name(workload: &str, agent: &str, config: &str) -> pb::WorkloadInstanceName {
    let node = parts::workload_from_pb(&wire_workload(agent, config)).unwrap();
    model::instance_name(&Instance::of(workload, &node))
}

fn added(workload: &str, config: &str) -> AddedWorkload {
    let instance_name = Some(name(workload, "us", config));
    AddedWorkload { instance_name, workload: Some(wire_workload("us", config)) }
}

fn deleted(workload: &str, conditions: &[(&str, i32)]) -> DeletedWorkload {
    let dependencies = conditions.iter().map(|(name, own)| ((*name).to_owned(), *own)).collect();
    DeletedWorkload { instance_name: Some(name(workload, "us", CONFIG)), dependencies }
}

fn state(name: pb::WorkloadInstanceName, state: State, info: &str) -> pb::WorkloadState {
    let execution_state =
        Some(pb::ExecutionState { execution_state_enum: Some(state), additional_info: text(info) });
    pb::WorkloadState { instance_name: Some(name), execution_state }
}

/// A state with these workloads, each at its agent, and with their states.
fn complete(
    workloads: &[(&str, &str)],
    states: &[(&pb::WorkloadInstanceName, State)],
) -> pb::CompleteState {
    let map = workloads
        .iter()
        .map(|(name, agent)| ((*name).to_owned(), wire_workload(agent, CONFIG)))
        .collect();
    let desired = pb::State {
        api_version: "v1".to_owned(),
        workloads: Some(pb::WorkloadMap { workloads: map }),
        ..Default::default()
    };
    let mut tree = convert::from_pb(&pb::CompleteState {
        desired_state: Some(desired.clone()),
        effective_state: Some(desired),
        ..Default::default()
    })
    .unwrap();
    for (name, own) in states {
        tree = model::report(&tree, &[state((*name).clone(), *own, "")]).unwrap();
    }
    convert::to_pb(&tree, convert::Fill::Full)
}

fn state_at(view: &View, name: &pb::WorkloadInstanceName) -> Option<String> {
    let node = told(view.tree(), &model::instance(name))?;
    Some(format!("{}({})", node.str_at("state")?, node.str_at("subState")?))
}

fn runs(view: &View, name: &str) -> bool {
    let own = view.tree().get(&[EFFECTIVE_STATE, "workloads", name]);
    own.is_some_and(|own| own.str_at("agent") == Some("us"))
}

#[test]
fn workloads_of_this_agent_come_and_go_by_orders_and_not_by_the_state() {
    let mut view = View::new("us");
    assert!(view.greet(vec![added("one", CONFIG)]).is_empty());
    assert!(runs(&view, "one"));
    // The state says first what the order says later.
    view.replace(&complete(&[("one", "us"), ("two", "us"), ("far", "them")], &[])).unwrap();
    assert!(runs(&view, "one") && !runs(&view, "two"));
    assert!(view.tree().get(&[EFFECTIVE_STATE, "workloads", "far"]).is_some());
    assert!(view.tree().get(&[DESIRED_STATE, "workloads", "two"]).is_some());
    view.order(vec![added("two", CONFIG)], Vec::new());
    assert!(runs(&view, "two"));
    view.change(
        &pb::CompleteState::default(),
        &altered(&[], &[], &["effectiveState.workloads.one"]),
    )
    .unwrap();
    assert!(runs(&view, "one"), "its deletion is ordered later");
    view.order(Vec::new(), vec![deleted("one", &[("two", 1)])]);
    assert!(!runs(&view, "one"));
    let conditions = &view.delete_conditions()["one"];
    assert_eq!(conditions["two"], DeleteCondition::NotPendingNorRunning);
    // A name that moves from here to another agent.
    view.order(Vec::new(), vec![deleted("two", &[])]);
    view.replace(&complete(&[("two", "them")], &[])).unwrap();
    let two = view.tree().get(&[EFFECTIVE_STATE, "workloads", "two"]).unwrap();
    assert_eq!(two.str_at("agent"), Some("them"));
}

#[test]
fn order_of_no_use_is_told_and_loses_no_other() {
    let mut view = View::new("us");
    let mut bad = added("x", CONFIG);
    bad.instance_name.as_mut().unwrap().workload_name = "../x".to_owned();
    let mut empty = added("y", CONFIG);
    empty.workload.as_mut().unwrap().runtime = None;
    let faults = view.greet(vec![bad, added("one", CONFIG), empty]);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("../x") && faults[1].contains("no runtime"), "{faults:?}");
    assert!(runs(&view, "one"));
}

#[test]
fn reported_states_count_before_the_server_tells_them_and_whatever_it_tells_later() {
    let mut view = View::new("us");
    view.greet(vec![added("one", CONFIG)]);
    let one = name("one", "us", CONFIG);
    let whole = |own| complete(&[("one", "us")], &[(&one, own)]);
    view.replace(&whole(State::Pending(0))).unwrap();
    assert_eq!(state_at(&view, &one).unwrap(), "Pending(Initial)");
    assert!(view.report(&state(one.clone(), State::Running(0), "")));
    assert_eq!(state_at(&view, &one).unwrap(), "Running(Ok)");
    // An echo of an earlier report, and what the server says after a lost connection.
    view.hear(&[state(one.clone(), State::Pending(2), "")]);
    view.lose();
    view.replace(&whole(State::AgentDisconnected(0))).unwrap();
    assert_eq!(state_at(&view, &one).unwrap(), "Running(Ok)");
    let again = view.reports();
    assert_eq!(again, [state(one.clone(), State::Running(0), "")]);
}

#[test]
fn removed_instance_stays_removed_until_the_server_has_forgotten_it() {
    let mut view = View::new("us");
    view.greet(vec![added("one", CONFIG)]);
    let one = name("one", "us", CONFIG);
    view.replace(&complete(&[("one", "us")], &[(&one, State::Running(0))])).unwrap();
    view.order(Vec::new(), vec![deleted("one", &[])]);
    let removed = state(one.clone(), State::Removed(0), "");
    assert!(view.report(&removed) && !view.report(&removed), "once");
    assert_eq!(state_at(&view, &one), None);
    let echo = format!("workloadStates.us.one.{}.state", one.id);
    let stopping = complete(&[], &[(&one, State::Stopping(2))]);
    view.change(&stopping, &altered(&[], &[&echo], &[])).unwrap();
    assert_eq!(state_at(&view, &one), None, "it is an echo");
    assert_eq!(view.reports(), [removed], "the connection may be lost before the server hears it");
    view.change(&pb::CompleteState::default(), &altered(&[], &[], &["workloadStates.us.one"]))
        .unwrap();
    assert!(view.reports().is_empty());
}

#[test]
fn left_over_state_of_this_agent_is_found_and_one_that_is_to_be_ordered_is_not_shown() {
    let mut view = View::new("us");
    view.greet(vec![added("one", CONFIG)]);
    let [one, old, far] =
        [("one", "us"), ("old", "us"), ("far", "them")].map(|(own, at)| name(own, at, CONFIG));
    let all = [&one, &old, &far].map(|own| (own, State::AgentDisconnected(0)));
    view.replace(&complete(&[("one", "us")], &all)).unwrap();
    assert_eq!(view.left_over(), [model::instance(&old)]);
    assert_eq!(state_at(&view, &old), None);
    assert_eq!(state_at(&view, &far).unwrap(), "AgentDisconnected(AgentDisconnected)");
    // The state of a new workload comes before its order.
    let new = name("new", "us", CONFIG);
    let event = complete(&[("new", "us")], &[(&new, State::Pending(0))]);
    view.change(
        &event,
        &altered(&["workloadStates.us.new", "desiredState.workloads.new"], &[], &[]),
    )
    .unwrap();
    assert_eq!(state_at(&view, &new), None);
    view.order(vec![added("new", CONFIG)], Vec::new());
    assert_eq!(state_at(&view, &new).unwrap(), "Pending(Initial)");
}

#[test]
fn ids_of_the_server_count_at_the_server_and_those_of_the_config_here() {
    let mut view = View::new("us");
    let mut own = added("one", CONFIG);
    own.instance_name.as_mut().unwrap().id = "hash1".to_owned();
    view.greet(vec![own]);
    let ours = model::instance(&name("one", "us", CONFIG));
    let theirs = Instance { id: "hash1".to_owned(), ..ours.clone() };
    assert_eq!(view.given().out(&ours), theirs);
    assert_eq!(view.given().back(&theirs), ours);
    let told = model::instance_name(&theirs);
    view.replace(&complete(&[("one", "us")], &[(&told, State::Pending(0))])).unwrap();
    assert!(view.left_over().is_empty());
    assert_eq!(state_at(&view, &model::instance_name(&ours)).unwrap(), "Pending(Initial)");
}

#[test]
fn event_that_does_not_fit_changes_nothing() {
    let mut view = View::new("us");
    view.greet(Vec::new());
    view.replace(&complete(&[("far", "them")], &[])).unwrap();
    let before = view.tree().clone();
    let none = pb::CompleteState::default();
    for bad in [
        altered(&[], &[], &["workloadStates"]),
        altered(&[], &[], &["agents.nobody"]),
        altered(&["desiredState.configs.a.b"], &[], &[]),
        altered(&[], &["desiredState.apiVersion.x"], &["desiredState.workloads.far"]),
    ] {
        assert!(view.change(&none, &bad).is_err(), "{bad:?}");
        assert_eq!(view.tree(), &before);
    }
}

#[test]
fn tags_that_were_read_replace_those_of_known_agents_alone() {
    let agents = |tags: &[(&str, &str)]| {
        let tags = tags.iter().map(|(key, own)| ((*key).to_owned(), (*own).to_owned())).collect();
        let own = pb::AgentAttributes { tags: Some(pb::Tags { tags }), status: None };
        let agents = [("them".to_owned(), own.clone()), ("gone".to_owned(), own)].into();
        pb::CompleteState { agents: Some(pb::AgentMap { agents }), ..Default::default() }
    };
    let mut view = View::new("us");
    let mut whole = complete(&[], &[]);
    whole.agents = agents(&[("a", "1")]).agents;
    whole.agents.as_mut().unwrap().agents.remove("gone");
    view.replace(&whole).unwrap();
    view.refresh_agents(&agents(&[("a", "2")])).unwrap();
    assert_eq!(view.tree().get(&[AGENTS, "them", "tags", "a"]).unwrap().as_str(), Some("2"));
    assert!(view.tree().get(&[AGENTS, "gone"]).is_none());
}
