//! Ends and new beginnings of an agent of ours and of the server.

use serde_json::json;
use testkit::{processes_with, wait_for};

use crate::{
    cluster::Cluster,
    manifest::{LIVES, Workload, manifest},
};

#[test]
fn an_agent_of_ours_that_was_killed_comes_back_and_the_server_knows_both() {
    let text = manifest([("w", Workload::process("ours", LIVES).spoken_for())], &json!({}));
    let Some(cluster) = Cluster::of(&text) else { return };
    let mut ours = cluster.ours("ours", &[]);
    cluster.until("ours", "w", "Running(Ok)");
    ours.process.kill();
    cluster.until("ours", "w", "AgentDisconnected(AgentDisconnected)");
    cluster.until_connected("ours", false);
    let ours = cluster.ours("ours", &[]);
    cluster.until("ours", "w", "Running(Ok)");
    ours.connect("w");
    // In order, too: the server does not notice every kind of end.
    ours.process.signal(nix::sys::signal::Signal::SIGTERM);
    cluster.until_connected("ours", false);
    drop(ours);
}

#[test]
fn workloads_run_on_without_the_server_and_it_hears_of_them_again() {
    let marker = "314159.2";
    let runs = Workload::process("ours", &format!("exec sleep {marker}"));
    let ended = Workload::process("ours", "exit 5");
    let text = manifest(
        [("w", Workload::process("ours", LIVES).spoken_for()), ("runs", runs), ("ended", ended)],
        &json!({}),
    );
    let Some(mut cluster) = Cluster::of(&text) else { return };
    let ours = cluster.ours("ours", &[]);
    cluster.until("ours", "runs", "Running(Ok)");
    cluster.until("ours", "ended", "Failed(ExecFailed)");
    let processes = processes_with(marker);
    cluster.kill_server();
    wait_for("word of it", || ours.log().contains("the store is unreachable").then_some(()));
    assert_eq!(ours.state("w", &["desiredState"])["desiredState"]["apiVersion"], "v1");
    let refused = ours.speak("w", "set", &["desiredState.configs.a=b"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    cluster.start_server(&text);
    cluster.until("ours", "runs", "Running(Ok)");
    cluster.until("ours", "ended", "Failed(ExecFailed)");
    assert_eq!(processes_with(marker), processes);
    ours.speak("w", "set", &["desiredState.configs.a=b"]).good();
    assert_eq!(cluster.state()["desiredState"]["configs"], json!({"a": "b"}));
    // One that comes back with nothing: nothing is to run then.
    cluster.kill_server();
    cluster.start_server(&manifest([], &json!({})));
    cluster.until_connected("ours", true);
    wait_for("the end of all", || processes_with(marker).is_empty().then_some(()));
    cluster.until_gone("ours", "runs");
}

#[test]
fn tags_that_an_operator_sets_are_read_by_a_workload_of_ours() {
    let text = manifest([("w", Workload::process("ours", LIVES).spoken_for())], &json!({}));
    let Some(cluster) = Cluster::of(&text) else { return };
    let ours = cluster.ours("ours", &["--tag", "place=here"]);
    cluster.until("ours", "w", "Running(Ok)");
    let path = cluster.path("tags.json");
    std::fs::write(&path, json!({"agents": {"ours": {"tags": {"place": "there"}}}}).to_string())
        .unwrap();
    cluster.ank(&["set", "state", "agents.ours.tags", path.to_str().unwrap()]).good();
    wait_for("the tag", || {
        let state = ours.state("w", &["agents.ours.tags"]);
        (state["agents"]["ours"]["tags"] == json!({"place": "there"})).then_some(())
    });
}
