//! Workloads that a server orders: their states, in order, and what they wait for.

use fifogate::pb::ank_base::execution_state::ExecutionStateEnum as State;
use testkit::{processes_with, wait_for, workload};

use super::{
    joined::{Joined, added, answer_subscription, deleted, state},
    server::{
        DeleteCondition, DeletedWorkload, FromServer, FromServerContent, Port, ToServerContent,
        UpdateWorkload, workload_state,
    },
};

fn sleeper(name: &str, fields: &str) -> String {
    workload(name, "exec sleep 1000", fields)
}

/// The states of a workload, once the last one is this.
fn states(joined: &Joined, name: &str, last: &str) -> Vec<String> {
    joined.wait_for_state(name, last);
    joined.states_of(name)
}

#[test]
fn states_of_each_operation_are_reported_in_the_order_of_ankaios() {
    let ends = |name: &str, code: i32| workload(name, &format!("exit {code}"), "");
    let mut bad = sleeper("bad", "");
    bad = bad.replace("runtime: process", "runtime: nonsense");
    let all = [sleeper("one", ""), ends("good", 0), ends("poor", 7), bad].concat();
    let joined = Joined::with(&all);
    let starts = "Pending(Starting) Triggered at runtime.";
    assert_eq!(states(&joined, "one", "Running(Ok)"), [starts, "Running(Ok)"]);
    assert_eq!(states(&joined, "good", "Succeeded(Ok)").first().unwrap(), starts);
    let poor = states(&joined, "poor", "Failed(ExecFailed) exit status 7");
    assert_eq!(poor.first().unwrap(), starts);
    let bad = joined.port.record().wait("the end of it", |_| {
        let all = joined.states_of("bad");
        all.last().is_some_and(|last| last.starts_with("Pending(StartingFailed) ")).then_some(all)
    });
    assert_eq!(bad.first().unwrap(), starts);
    // Deleted, one that has ended too.
    joined.order(Vec::new(), deleted(&(sleeper("one", "") + &ends("good", 0)), &[]));
    let gone = ["Stopping(RequestedAtRuntime)", "Removed"];
    assert_eq!(states(&joined, "one", "Removed")[2..], gone);
    let good = states(&joined, "good", "Removed");
    assert_eq!(good[good.len() - 2..], gone);
    // One that nobody knows.
    joined.order(Vec::new(), deleted(&sleeper("unknown", ""), &[]));
    assert_eq!(states(&joined, "unknown", "Removed"), ["Removed"]);
    // Never without the text that a server needs.
    let all = ["one", "good", "poor", "bad", "unknown"].map(|name| joined.states_of(name)).concat();
    assert!(all.iter().all(|own| !own.contains("without additionalInfo")), "{all:?}");
}

#[test]
fn update_ends_the_old_instance_before_the_new_one_starts() {
    let old = workload("one", "exec sleep 10021", "");
    let new = workload("one", "exec sleep 10022", "");
    let joined = Joined::with(&old);
    joined.wait_for_state("one", "Running(Ok)");
    joined.order(added(&new), deleted(&old, &[]));
    let record = joined.port.record();
    let all = record.wait("the new one", |_| {
        let all = joined.states_of("one");
        (all.iter().filter(|own| *own == "Running(Ok)").count() == 2).then_some(all)
    });
    let starts = "Pending(Starting) Triggered at runtime.";
    let gone = ["Stopping(RequestedAtRuntime)", "Removed"];
    assert_eq!(all, [starts, "Running(Ok)", gone[0], gone[1], starts, "Running(Ok)"]);
    assert!(processes_with("sleep\u{0}10021").is_empty());
    assert_eq!(processes_with("sleep\u{0}10022").len(), 1);
    // Other fields of the same instance: the id stays, and nothing is removed.
    let tagged = workload("one", "exec sleep 10022", ", tags: {a: b}");
    joined.order(added(&tagged), deleted(&new, &[]));
    let all = record.wait("its third process", |_| {
        let all = joined.states_of("one");
        (all.iter().filter(|own| *own == "Running(Ok)").count() == 3).then_some(all)
    });
    assert_eq!(all[6..], [gone[0], starts, "Running(Ok)"]);
    // One that it has already.
    joined.order(added(&tagged), Vec::new());
    joined.order(added(&sleeper("two", "")), Vec::new());
    joined.wait_for_state("two", "Running(Ok)");
    assert_eq!(joined.states_of("one").len(), 9);
}

#[test]
fn workload_waits_for_any_state_of_its_dependency_that_fits() {
    let needs = |name: &str, condition: &str| {
        sleeper(name, &format!(", dependencies: {{far: ADD_COND_{condition}}}"))
    };
    let all = needs("a", "RUNNING") + &needs("b", "SUCCEEDED") + &needs("c", "FAILED");
    let joined = Joined::with(&all);
    for name in ["a", "b", "c"] {
        joined.wait_for_state(name, "Pending(WaitingToStart)");
    }
    let tell = |id: &str, agent: &str, own| {
        let state = workload_state(&format!("far.{id}.{agent}"), own, "");
        joined.stream.send(FromServer::states(vec![state]));
    };
    let waits = |name: &str| joined.states_of(name) == ["Pending(WaitingToStart)"];
    // None of these fits: a state that is not known is no failure.
    tell("1", "agent_B", State::Pending(2));
    tell("2", "agent_C", State::Failed(1));
    tell("3", "agent_C", State::AgentDisconnected(0));
    tell("1", "agent_B", State::Running(0));
    joined.wait_for_state("a", "Running(Ok)");
    assert!(waits("b") && waits("c"));
    // Another instance of the name.
    tell("2", "agent_C", State::Succeeded(0));
    joined.wait_for_state("b", "Running(Ok)");
    assert!(waits("c"));
    tell("1", "agent_B", State::Failed(0));
    joined.wait_for_state("c", "Running(Ok)");
    // Its own states count before the server says them.
    let near = sleeper("near", "");
    let next = sleeper("next", ", dependencies: {near: ADD_COND_RUNNING}");
    joined.order(added(&(near + &next)), Vec::new());
    joined.wait_for_state("next", "Running(Ok)");
}

#[test]
fn deleted_workload_waits_for_the_conditions_of_its_order() {
    let all = sleeper("db", "") + &sleeper("cache", "") + &sleeper("web", "");
    let joined = Joined::with(&all);
    let not_running = DeleteCondition::NotPendingNorRunning;
    for name in ["db", "cache", "web"] {
        joined.wait_for_state(name, "Running(Ok)");
    }
    let tell = |own| {
        let state = workload_state("far.1.agent_B", own, "");
        joined.stream.send(FromServer::states(vec![state]));
    };
    tell(State::Running(0));
    joined.order(Vec::new(), deleted(&sleeper("db", ""), &[("far", not_running)]));
    // Any condition about a name without a state is fulfilled.
    let both = [("nobody", not_running), ("web", DeleteCondition::Running)];
    joined.order(Vec::new(), deleted(&sleeper("cache", ""), &both));
    joined.wait_for_state("cache", "Removed");
    joined.wait_for_state("db", "Stopping(WaitingToStop)");
    tell(State::Pending(2));
    // It passes the state of the one that it waits for: as good as not there.
    tell(State::Pending(1));
    joined.wait_for_state("db", "Removed");
    let all = joined.states_of("db");
    let gone = ["Stopping(WaitingToStop)", "Stopping(RequestedAtRuntime)", "Removed"];
    assert_eq!(all[2..], gone);
    // A new one of its name does not inherit the condition.
    tell(State::Running(0));
    joined.order(added(&sleeper("db", "")), Vec::new());
    let ran = |count| {
        let all = joined.states_of("db");
        (all.iter().filter(|own| *own == "Running(Ok)").count() == count).then_some(())
    };
    joined.port.record().wait("it runs again", |_| ran(2));
    joined.order(Vec::new(), deleted(&sleeper("db", ""), &[]));
    joined.wait_for_state("db", "Removed");
    assert!(joined.states_of("db").iter().filter(|own| own.contains("WaitingToStop")).count() == 1);
}

#[test]
fn restart_by_policy_is_reported_and_the_instance_stays() {
    let joined =
        Joined::with(&workload("one", "sleep 0.05; exit 3", ", restartPolicy: ON_FAILURE"));
    let all = joined.port.record().wait("a restart", |_| {
        let all = joined.states_of("one");
        (all.iter().filter(|own| *own == "Running(Ok)").count() >= 2).then_some(all)
    });
    let failed = "Failed(ExecFailed) exit status 3";
    let at = all.iter().position(|own| own == failed).unwrap();
    assert!(all[at + 1].starts_with("Pending(Starting) "), "{all:?}");
    assert!(!all.contains(&"Removed".to_owned()));
}

#[test]
fn ids_of_the_server_are_used_as_they_are() {
    let one = sleeper("one", "");
    let port = Port::open();
    let agent = testkit::Agent::join(&port.url(), &["--insecure"]);
    let mut stream = port.accept();
    let mut own = added(&one);
    own[0].instance_name.as_mut().unwrap().id = "hash1".to_owned();
    stream.greet(own.clone());
    answer_subscription(&mut stream, state(&one));
    port.record().wait_for_state("one", "Running(Ok)");
    let ids = |port: &Port| {
        let all = port.record().all().into_iter();
        let states = all.filter_map(|own| match own.message.content {
            Some(ToServerContent::UpdateWorkloadState(own)) => Some(own.workload_states),
            _ => None,
        });
        states.flatten().map(|own| own.instance_name.unwrap().id).collect::<Vec<_>>()
    };
    assert!(ids(&port).iter().all(|id| id == "hash1"));
    let deleted =
        DeletedWorkload { instance_name: own[0].instance_name.clone(), ..Default::default() };
    stream.send(FromServerContent::UpdateWorkload(UpdateWorkload {
        added_workloads: Vec::new(),
        deleted_workloads: vec![deleted],
    }));
    port.record().wait_for_state("one", "Removed");
    assert!(ids(&port).iter().all(|id| id == "hash1"));
    drop(agent);
}

#[test]
fn order_that_cannot_be_run_is_told_and_loses_no_other() {
    let joined = Joined::with("");
    let mut bad = added(&sleeper("bad", ""));
    bad[0].instance_name.as_mut().unwrap().workload_name = "../bad".to_owned();
    let mut none = added(&sleeper("none", ""));
    none[0].workload.as_mut().unwrap().runtime_config = None;
    joined.order([bad, none, added(&sleeper("one", ""))].concat(), Vec::new());
    joined.wait_for_state("one", "Running(Ok)");
    let log = wait_for("both faults", || {
        let log = joined.agent.log();
        (log.matches("orders what cannot be run").count() == 2).then_some(log)
    });
    assert!(log.contains("../bad") && log.contains("no runtimeConfig"), "{log}");
}
