//! What an operator does with `ank`.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testkit::{Podman, processes_with, wait_for};

use crate::{
    cluster::{Cluster, pruned},
    manifest::{LIVES, Workload, manifest},
};

/// Ends by itself, after some lines.
const LINES: &str = "for n in 1 2 3 4 5; do echo line $n; done";
/// Writes on until a file is there.
const MORE: &str = "echo first; while ! test -e $0.go; do sleep 0.05; done; echo last";

#[test]
fn an_agent_of_ours_joins_and_runs_what_is_applied() {
    let Some(cluster) = Cluster::new() else { return };
    let _ours = cluster.ours("ours", &["--tag", "place=here"]);
    let table = cluster.ank(&["get", "agents"]).good();
    assert!(table.lines().any(|line| line.starts_with("ours ")), "{table}");

    let marker = "314159.1";
    let one = Workload::process("ours", &format!("exec sleep {marker}"));
    let other = Workload::process("ours", LIVES).with("tags", json!({"t": "u"}));
    let text = manifest([("one", one.clone()), ("other", other)], &json!({"key": "value"}));
    let said = cluster.apply(&text);
    assert!(said.contains("Running(Ok)"), "ank waits for what it has applied: {said}");
    wait_for("its process", || (!processes_with(marker).is_empty()).then_some(()));

    let state = cluster.state();
    let ids = state["workloadStates"]["ours"]["one"].as_object().unwrap();
    let (id, own) = ids.iter().next().unwrap();
    assert_eq!(*own, json!({"state": "Running", "subState": "Ok", "additionalInfo": ""}));
    let hash = Sha256::digest(one.text("runtimeConfig"));
    assert_eq!(*id, hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(state["agents"]["ours"]["tags"], json!({"place": "here"}));
    assert!(state["agents"]["ours"]["status"]["freeMemory"].as_u64().unwrap() > 0);
    assert_eq!(state["desiredState"]["workloads"]["other"]["tags"], json!({"t": "u"}));

    let table = cluster.ank(&["get", "workloads"]).good();
    for name in ["one", "other"] {
        let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[1..4], ["ours", "process", "Running(Ok)"]);
    }
    let table = cluster.ank(&["get", "agents"]).good();
    let line = table.lines().find(|line| line.starts_with("ours ")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("2"), "its workloads: {table}");
    let table = cluster.ank(&["get", "configs"]).good();
    assert!(table.lines().any(|line| line.trim() == "key"), "{table}");

    // The same again changes nothing, and an update of one leaves the other alone.
    let before = processes_with(marker);
    cluster.apply(&text);
    cluster.apply(&manifest([("other", Workload::process("ours", "sleep 99"))], &json!({})));
    assert_eq!(processes_with(marker), before);
}

#[test]
fn a_workload_is_run_and_deleted_and_its_end_is_waited_for() {
    let Some(cluster) = Cluster::new() else { return };
    let _ours = cluster.ours("ours", &[]);
    let marker = "314159.2";
    let script = format!("trap \"sleep 1; exit\" TERM; sleep {marker} & wait");
    let config = format!("command: sh\nargs: [-c, '{script}']");
    let run = ["run", "workload", "--runtime", "process", "--agent", "ours", "--config"];
    let said = cluster.ank(&[&run[..], &[&config, "w"]].concat()).good();
    assert!(said.contains("Running(Ok)"), "{said}");
    wait_for("the process", || (!processes_with(marker).is_empty()).then_some(()));
    let said = cluster.ank(&["delete", "workload", "w"]).good();
    assert!(said.contains("Removed"), "{said}");
    assert_eq!(processes_with(marker), [0; 0], "its end was waited for");
    let state = cluster.state();
    assert_eq!(pruned(&state["workloadStates"]), json!({}));
    assert_eq!(pruned(&state["desiredState"]), json!({"apiVersion": "v1"}));
}

#[test]
fn a_workload_that_cannot_start_says_why() {
    let Some(cluster) = Cluster::new() else { return };
    let _ours = cluster.ours("ours", &[]);
    let none = Workload::process("ours", "").with("runtime", "warp");
    let broken = Workload::process("ours", "").with("runtimeConfig", "command: 1.5\nargs: x");
    let said = cluster.apply(&manifest([("none", none), ("broken", broken)], &json!({})));
    let of = |name: &str| {
        let last = said.lines().rfind(|line| line.starts_with(&format!("{name} ")));
        last.unwrap_or_default().to_owned()
    };
    for (name, reason) in [("none", "warp"), ("broken", "args")] {
        assert!(of(name).contains("Pending(StartingFailed)"), "{said}");
        assert!(of(name).contains(reason), "{said}");
    }
}

fn logs_are_shown(cluster: &Cluster, make: impl Fn(&str) -> Workload) {
    let go = cluster.path("go");
    let more = MORE.replace("$0.go", go.to_str().unwrap());
    cluster.add([("lines", make(LINES)), ("more", make(&more))]);
    cluster.until("ours", "lines", "Succeeded(Ok)");
    cluster.until("ours", "more", "Running(Ok)");
    let logs = |arguments: &[&str]| {
        let out = cluster.ank(&[&["logs"], arguments].concat()).good();
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(logs(&["lines"]), ["line 1", "line 2", "line 3", "line 4", "line 5"]);
    assert_eq!(logs(&["-t", "2", "lines"]), ["line 4", "line 5"]);
    assert_eq!(logs(&["-f", "-t", "1", "lines"]), ["line 5"], "follows to its end");
    assert_eq!(logs(&["--since", "2999-01-01T00:00:00Z", "lines"]), [""; 0]);
    assert_eq!(logs(&["more"]), ["first"], "of one that runs on");
    let mut both = logs(&["-n", "lines", "more"]);
    both.sort();
    assert_eq!(both.len(), 6);
    assert!(both[0].starts_with("lines") && both[5].starts_with("more"), "{both:?}");

    let mut follows = cluster.start_ank("followed", &["logs", "-f", "more"]);
    wait_for("the first line", || cluster.log("followed").contains("first\n").then_some(()));
    assert!(follows.try_wait().unwrap().is_none());
    std::fs::write(&go, "").unwrap();
    assert!(follows.wait_end().success(), "{}", cluster.log("followed"));
    assert_eq!(cluster.log("followed"), "first\nlast\n");
    // One that is ended by its reader, and the workload goes on.
    cluster.add([("on", make("echo on; sleep 100000"))]);
    cluster.until("ours", "on", "Running(Ok)");
    let mut follows = cluster.start_ank("ended", &["logs", "-f", "on"]);
    wait_for("the line", || cluster.log("ended").contains("on\n").then_some(()));
    follows.signal(Signal::SIGINT);
    assert!(follows.wait_end().success(), "{}", cluster.log("ended"));
    cluster.until("ours", "on", "Running(Ok)");
}

#[test]
fn logs_of_processes_are_shown_whole_by_their_end_and_followed() {
    let Some(cluster) = Cluster::new() else { return };
    let _ours = cluster.ours("ours", &[]);
    logs_are_shown(&cluster, |script| Workload::process("ours", script));
}

#[test]
fn logs_of_containers_are_shown_whole_by_their_end_and_followed() {
    let Some(cluster) = Cluster::new() else { return };
    let Some(podman) = Podman::new() else { return };
    let _ours = cluster.ours_with("ours", &[], &podman.env());
    let folder = cluster.path("").display().to_string();
    logs_are_shown(&cluster, |script| {
        let config = json!({
            "image": testkit::IMAGE,
            "commandOptions": ["--stop-signal=KILL", format!("--volume={folder}:{folder}")],
            "commandArgs": ["sh", "-c", script],
        });
        Workload::container("ours", "").with("runtimeConfig", config.to_string())
    });
    cluster.ank(&["delete", "workload", "lines", "more", "on"]).good();
    assert_eq!(podman.containers(), [Value::Null; 0]);
}

#[test]
fn the_log_of_a_workload_without_a_process_ends_at_once() {
    let Some(cluster) = Cluster::new() else { return };
    let _ours = cluster.ours("ours", &[]);
    cluster.add([("w", Workload::process("ours", "").after("never", "ADD_COND_RUNNING"))]);
    cluster.until("ours", "w", "Pending(WaitingToStart)");
    assert_eq!(cluster.ank(&["logs", "w"]).good(), "", "it does not hang");
}

#[test]
fn events_at_the_terminal_show_each_change_of_a_workload() {
    // Of the first workload of an agent, and of the last, the server tells such a mask nothing.
    let other = Workload::process("ours", LIVES);
    let Some(cluster) = Cluster::of(&manifest([("other", other)], &json!({}))) else { return };
    let _ours = cluster.ours("ours", &[]);
    let mut events =
        cluster.start_ank("events", &["get", "events", "-c", "-o", "json", "workloadStates.*.w"]);
    wait_for("the state of now", || (!cluster.log("events").is_empty()).then_some(()));
    cluster.apply(&manifest([("w", Workload::process("ours", LIVES))], &json!({})));
    cluster.ank(&["delete", "workload", "w"]).good();
    let seen = || {
        let text = cluster.log("events");
        let all = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        all.map_while(Result::ok).collect::<Vec<_>>()
    };
    let all = wait_for("the end in events", || {
        let all = seen();
        let is_end = |own: &Value| own["removedFields"] == json!(["workloadStates.ours.w"]);
        all.iter().any(is_end).then_some(all)
    });
    let text = all.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    for state in ["Initial", "Starting", "Running", "RequestedAtRuntime"] {
        assert!(text.contains(state), "{state} is not in {text}");
    }
    events.signal(Signal::SIGINT);
    assert!(events.wait_end().success());
}

#[test]
fn a_watch_of_workloads_follows_ours() {
    let Some(cluster) = Cluster::new() else { return };
    let _ours = cluster.ours("ours", &[]);
    let _watch = cluster.start_ank("watch", &["get", "workloads", "-w"]);
    wait_for("a table", || cluster.log("watch").contains("WORKLOAD NAME").then_some(()));
    cluster.add([("w", Workload::process("ours", "exit 3"))]);
    wait_for("its end in the table", || {
        cluster.log("watch").contains("exit status 3").then_some(())
    });
    assert!(cluster.log("watch").contains("Failed(ExecFailed)"));
}
