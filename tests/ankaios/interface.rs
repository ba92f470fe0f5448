//! What a workload of ours sees of the cluster, and does to it, by its pair.

use std::collections::BTreeMap;

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};
use serde_json::{Value, json};
use testkit::{Session, fifogate, processes_with, removal_of, wait_for};

use crate::{
    cluster::{Cluster, pruned},
    manifest::{LIVES, Workload, all_rights, manifest},
};

/// The update that has a workload in the desired state.
pub(crate) fn update_of(name: &str, own: &Workload) -> RequestContent {
    let text = |field: &str| Some(own.text(field));
    let workload = pb::Workload {
        agent: text("agent"),
        runtime: text("runtime"),
        runtime_config: text("runtimeConfig"),
        restart_policy: Some(pb::RestartPolicy::Never.into()),
        ..Default::default()
    };
    let workloads = BTreeMap::from([(name.to_owned(), workload)]);
    let workloads = Some(pb::WorkloadMap { workloads });
    let desired = pb::State { api_version: "v1".to_owned(), workloads, ..Default::default() };
    let new_state = pb::CompleteState { desired_state: Some(desired), ..Default::default() };
    RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
        new_state: Some(new_state),
        update_mask: vec![format!("desiredState.workloads.{name}")],
    })
}

/// The state of the one instance of a workload, as `Running`, in a part of the state.
pub(crate) fn told(state: &pb::CompleteState, agent: &str, workload: &str) -> Option<String> {
    let tree = fifogate::state::convert::from_pb(state).unwrap();
    let ids = tree.entries(&["workloadStates", agent, workload]);
    Some(ids.iter().next()?.1.str_at("state")?.to_owned())
}

/// Reads events until a workload is in a state; gives the states before it.
#[track_caller]
fn until_told(session: &mut Session, agent: &str, workload: &str, wanted: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        let (_, ResponseContent::CompleteStateResponse(own)) = session.response() else { continue };
        let Some(state) = told(&own.complete_state.unwrap_or_default(), agent, workload) else {
            continue;
        };
        if state == wanted {
            return before;
        }
        before.push(state);
    }
}

#[test]
fn a_workload_of_ours_reads_the_same_state_as_the_operator() {
    let lives = Workload::process("ours", LIVES);
    let elsewhere = Workload::process("elsewhere", LIVES).after("w", "ADD_COND_SUCCEEDED");
    let text = manifest(
        [("w", lives.clone().spoken_for()), ("other", lives), ("elsewhere", elsewhere)],
        &json!({"key": {"a": ["b", "c"]}}),
    );
    let Some(cluster) = Cluster::of(&text) else { return };
    let ours = cluster.ours("ours", &["--tag", "a=b"]);
    cluster.until("ours", "other", "Running(Ok)");
    cluster.until("ours", "w", "Running(Ok)");
    let read = pruned(&ours.state("w", &[]));
    let state = pruned(&cluster.state());
    assert_eq!(read, state);
    assert_eq!(read["agents"]["ours"]["tags"], json!({"a": "b"}));
    let masks = ["workloadStates.elsewhere", "desiredState.configs.key"];
    let part = ours.state("w", &masks);
    let of_server = cluster.ank(&[&["get", "state", "-o", "json"][..], &masks].concat()).good();
    let of_server: Value = serde_json::from_str(&of_server).unwrap();
    assert_eq!(pruned(&part), pruned(&of_server));
}

#[test]
fn a_workload_of_ours_is_told_what_an_operator_does() {
    let text = manifest([("w", Workload::process("ours", LIVES).spoken_for())], &json!({}));
    let Some(cluster) = Cluster::of(&text) else { return };
    let ours = cluster.ours("ours", &[]);
    let mut session = ours.connect("w");
    session.subscribe(&["workloadStates.*.*.*.state", "desiredState.configs"]);
    let first = session.state_response();
    assert_eq!(first.altered_fields, None);
    cluster.apply(&manifest([("new", Workload::process("ours", LIVES))], &json!({"k": "v"})));
    until_told(&mut session, "ours", "new", "Running");
    cluster.ank(&["delete", "workload", "new"]).good();
    let end = wait_for("the removal", || {
        let altered = session.state_response().altered_fields?;
        altered.removed_fields.first().cloned()
    });
    assert!(end.starts_with("workloadStates.ours.new."), "{end}");
    cluster.ank(&["delete", "configs", "k"]).good();
    wait_for("the removal of the config", || {
        let altered = session.state_response().altered_fields?;
        (altered.removed_fields == ["desiredState.configs.k"]
            || altered.removed_fields == ["desiredState.configs"])
        .then_some(())
    });
    cluster.add([("end", Workload::process("ours", "exit 7"))]);
    until_told(&mut session, "ours", "end", "Failed");
}

#[test]
fn a_workload_of_ours_updates_configs_and_workloads() {
    let text = manifest([("w", Workload::process("ours", LIVES).spoken_for())], &json!({}));
    let Some(cluster) = Cluster::of(&text) else { return };
    let ours = cluster.ours("ours", &[]);
    let mut session = ours.connect("w");
    session.subscribe(&["desiredState.configs"]);
    session.state_response();
    // A subscriber has a time of grace before its first event.
    session.set_config("first", "key", "other");
    let both = [session.response().0, session.response().0];
    assert!(both.contains(&"first".to_owned()), "{both:?}");
    session.set_config("u", "key", "value");
    let event = session.state_response();
    assert!(event.altered_fields.is_some(), "the event of an update comes before its answer");
    let (id, answer) = session.response();
    assert_eq!(id, "u");
    assert!(matches!(answer, ResponseContent::UpdateStateSuccess(_)), "{answer:?}");
    assert_eq!(cluster.state()["desiredState"]["configs"], json!({"key": "value"}));

    let id = session.ask(update_of("made", &Workload::process("ours", LIVES)));
    let ResponseContent::UpdateStateSuccess(success) = session.answer(&id) else { panic!() };
    assert_eq!(success.added_workloads.len(), 1);
    assert!(success.added_workloads[0].starts_with("made."));
    cluster.until("ours", "made", "Running(Ok)");
    let id = session.ask(removal_of("made"));
    let ResponseContent::UpdateStateSuccess(success) = session.answer(&id) else { panic!() };
    assert_eq!(success.deleted_workloads.len(), 1);
    cluster.until_gone("ours", "made");

    // What the server refuses, and why.
    let bad = Workload::process("ours", LIVES).with("agent", "no.name");
    let id = session.ask(update_of("made", &bad));
    let ResponseContent::Error(error) = session.answer(&id) else { panic!() };
    assert!(error.message.contains("no.name"), "{error:?}");
}

#[test]
fn a_workload_of_ours_removes_itself() {
    let text = manifest([("w", Workload::process("ours", LIVES).spoken_for())], &json!({}));
    let Some(cluster) = Cluster::of(&text) else { return };
    let ours = cluster.ours("ours", &[]);
    ours.connect("w").ask(removal_of("w"));
    cluster.until_gone("ours", "w");
}

#[test]
fn a_workload_of_ours_without_the_right_to_it_changes_nothing() {
    let rights = json!({"allowRules": [
        {"type": "StateRule", "operation": "Read", "filterMasks": ["desiredState"]}
    ]});
    let own = Workload::process("ours", LIVES).with("controlInterfaceAccess", rights);
    let Some(cluster) = Cluster::of(&manifest([("w", own)], &json!({"k": "v"}))) else { return };
    let ours = cluster.ours("ours", &[]);
    let mut session = ours.connect("w");
    session.set_config("u", "k", "other");
    let (_, text) = session.error();
    assert!(text.contains("ccess"), "{text}");
    assert_eq!(cluster.state()["desiredState"]["configs"], json!({"k": "v"}));
}

#[test]
fn a_program_in_a_workload_of_ours_watches_and_sets() {
    let script = format!("exec {} watch --no-state -o json desiredState.configs", fifogate());
    let watcher = Workload::process("ours", &script).with("controlInterfaceAccess", all_rights());
    let setter = format!("{} set desiredState.configs.seen=yes", fifogate());
    let setter = Workload::process("ours", &setter)
        .with("controlInterfaceAccess", all_rights())
        .after("watcher", "ADD_COND_RUNNING");
    let Some(cluster) = Cluster::new() else { return };
    let _ours = cluster.ours("ours", &[]);
    cluster.add([("watcher", watcher)]);
    cluster.until("ours", "watcher", "Running(Ok)");
    let _follows = cluster.start_ank("followed", &["logs", "-f", "watcher"]);
    cluster.add([("setter", setter)]);
    cluster.until("ours", "setter", "Succeeded(Ok)");
    assert_eq!(cluster.state()["desiredState"]["configs"], json!({"seen": "yes"}));
    // It may have read its first state later than that.
    wait_for("an event in the log", || {
        cluster.ank(&["--no-wait", "delete", "configs", "seen"]).good();
        cluster.apply(&manifest([], &json!({"seen": "again"})));
        cluster.log("followed").contains("again").then_some(())
    });
}

#[test]
fn a_workload_of_ours_reads_the_log_of_another_as_it_grows() {
    let script = "echo first; while ! test -e $0; do sleep 0.05; done; echo last";
    let Some(cluster) = Cluster::new() else { return };
    let go = cluster.path("go");
    let writer = Workload::process("ours", &script.replace("$0", go.to_str().unwrap()));
    let ours = cluster.ours("ours", &[]);
    cluster.add([("writer", writer), ("w", Workload::process("ours", LIVES).spoken_for())]);
    cluster.until("ours", "writer", "Running(Ok)");
    let mut session = ours.connect("w");
    let lines = followed(&mut session, &cluster, "ours", "writer", || {
        std::fs::write(&go, "").unwrap();
    });
    assert_eq!(lines, ["first", "last"]);
    assert_eq!(processes_with(go.to_str().unwrap()), [0; 0]);
}

/// Follows the log of a workload to its end; `then` is done after the first line.
pub(crate) fn followed(
    session: &mut Session,
    cluster: &Cluster,
    agent: &str,
    workload: &str,
    then: impl FnOnce(),
) -> Vec<String> {
    let state = cluster.state();
    let ids = state["workloadStates"][agent][workload].as_object().unwrap();
    let instance = pb::WorkloadInstanceName {
        workload_name: workload.to_owned(),
        agent_name: agent.to_owned(),
        id: ids.keys().next().unwrap().clone(),
    };
    let request = pb::LogsRequest {
        workload_names: vec![instance],
        follow: Some(true),
        tail: Some(-1),
        ..Default::default()
    };
    session.request("log", RequestContent::LogsRequest(request));
    let (mut lines, mut then) = (Vec::new(), Some(then));
    loop {
        match session.answer("log") {
            ResponseContent::LogsRequestAccepted(own) => assert_eq!(own.workload_names.len(), 1),
            ResponseContent::LogEntriesResponse(own) => {
                lines.extend(own.log_entries.into_iter().map(|entry| entry.message));
                if let Some(then) = then.take() {
                    then();
                }
            }
            ResponseContent::LogsStopResponse(_) => return lines,
            other => panic!("{other:?}"),
        }
    }
}
