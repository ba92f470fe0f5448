//! `get`, `watch` and `set` with a fifogate that serves them.

use std::{
    fs,
    io::{BufRead, BufReader},
};

use predicates::str::contains;
use serde_json::{Value, json};

use testkit::TestServer;

use crate::{fifogate, start};

const MANIFEST: &str = "
apiVersion: v1
workloads:
  all:
    runtime: process
    agent: agent_A
    runtimeConfig: |
      command: all
      args: [\"1\"]
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: ReadWrite, filterMasks: [\"*\"] }
  reader:
    runtime: process
    agent: agent_A
    runtimeConfig: reader
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: Read, filterMasks: [desiredState.configs] }
configs:
  mode: slow
";

/// A command as the workload `name`.
fn as_workload(gate: &TestServer, name: &str, args: &[&str]) -> assert_cmd::Command {
    let mut command = fifogate(args);
    command.arg("--dir").arg(gate.pair(name));
    command
}

fn json_of(gate: &TestServer, mask: &str) -> Value {
    let mut get = as_workload(gate, "all", &["get", "--output=json", mask]);
    let output = get.assert().success().get_output().stdout.clone();
    assert_eq!(output.iter().filter(|byte| **byte == b'\n').count(), 1);
    serde_json::from_slice(&output).unwrap()
}

#[test]
fn get_prints_the_tree_that_the_masks_name() {
    let gate = TestServer::with(MANIFEST, &[]);
    let masks = ["desiredState.workloads.all.runtimeConfig", "desiredState.configs"];
    let expected = "\
desiredState:
  apiVersion: v1
  configs:
    mode: slow
  workloads:
    all:
      runtimeConfig: |
        command: all
        args: [\"1\"]
";
    as_workload(&gate, "all", &[&["get"], &masks[..]].concat()).assert().success().stdout(expected);
    let states = &json_of(&gate, "workloadStates")["workloadStates"]["agent_A"]["reader"];
    let state = states.as_object().unwrap().values().next().unwrap();
    assert_eq!((&state["state"], &state["subState"]), (&json!("Pending"), &json!("Initial")));
    as_workload(&gate, "all", &["get", "agents.no.such"]).assert().success().stdout("{}\n");
    as_workload(&gate, "reader", &["get"]).assert().code(1).stderr(contains("Access denied"));
}

#[test]
fn set_changes_what_it_names_and_prints_what_started_and_ended() {
    let gate = TestServer::with(MANIFEST, &[]);
    let set = |args: &[&str]| as_workload(&gate, "all", &[&["set"], args].concat()).assert();
    let new = "desiredState.workloads.new";
    let started = set(&[
        &format!("{new}.agent=agent_A"),
        &format!("{new}.runtime=process"),
        &format!("{new}.runtimeConfig=x"),
        &format!("{new}.restartPolicy=ALWAYS"),
        "desiredState.configs.mode=",
    ]);
    // SHA-256 of `x`.
    let id = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let instance = format!("new.{id}.agent_A");
    let fields = ["agent", "runtime", "runtimeConfig", "restartPolicy"];
    let changed: String = fields.map(|field| format!("changed: {new}.{field}\n")).concat();
    let changed = changed + "changed: desiredState.configs.mode\n";
    started.success().stdout(format!("{changed}added: {instance}\n")).stderr("");
    let state = json_of(&gate, "desiredState");
    assert_eq!(state["desiredState"]["workloads"]["new"]["restartPolicy"], "ALWAYS");
    assert_eq!(state["desiredState"]["configs"], json!({ "mode": "" }));

    let ended = set(&["--output=json", &format!("{new}-"), "desiredState.configs.mode-"]);
    let removed = [new, "desiredState.configs.mode"];
    let outcome = json!({
        "changed": [], "unchanged": [], "removed": removed, "accepted": [],
        "addedWorkloads": [], "deletedWorkloads": [instance],
    });
    ended.success().stdout(format!("{outcome}\n"));
    assert_eq!(
        json_of(&gate, "desiredState.configs.mode")["desiredState"],
        json!({
            "apiVersion": "v1",
        })
    );

    let set_node = set(&["--yaml", "desiredState.configs.node={name: a, hosts: [h1]}"]);
    set_node.success().stdout("changed: desiredState.configs.node\n");
    let node = &json_of(&gate, "desiredState.configs.node")["desiredState"]["configs"]["node"];
    assert_eq!(node, &json!({ "hosts": ["h1"], "name": "a" }));
    set(&[&format!("{new}.tags.a=b")]).code(1).stdout("").stderr(contains("Update rejected"));
}

#[test]
fn state_that_was_printed_can_be_edited_and_given_back() {
    let gate = TestServer::with(MANIFEST, &[]);
    let before = json_of(&gate, "desiredState");
    let mut get = as_workload(&gate, "all", &["get"]);
    let state = String::from_utf8(get.output().unwrap().stdout).unwrap();
    let set = |stdin: String| {
        let mut set = as_workload(&gate, "all", &["set", "-f", "-", "--mask", "desiredState"]);
        set.write_stdin(stdin);
        set.assert()
    };
    set(state.clone()).success().stdout("unchanged: desiredState\n").stderr("");
    assert_eq!(json_of(&gate, "desiredState"), before);
    set(state.replace("mode: slow", "mode: fast")).success();
    assert_eq!(json_of(&gate, "desiredState")["desiredState"]["configs"]["mode"], "fast");
}

#[test]
fn unusable_state_file_is_told_with_its_line_and_nothing_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.yaml");
    fs::write(&file, "desiredState:\n  configs:\n    port: 80\n").unwrap();
    let path = file.to_str().unwrap();
    let run = |mask: &str| fifogate(&["set", "-f", path, "--mask", mask]).assert().code(2);
    let wrong = format!("error: {path}:3: desiredState.configs.port is a number");
    run("desiredState.configs.port").stderr(contains(wrong));
    fs::write(&file, "desiredState: {}").unwrap();
    run("desiredState.*").stderr(contains("an update cannot use `*`"));
    run("workloadStates").stderr(contains("a path begins with desiredState"));
    run("desiredState.config").stderr(contains("has no field `config`"));
    fs::remove_file(&file).unwrap();
    run("desiredState").stderr(contains(format!("error: {path}: No such file")));
}

#[test]
fn watch_prints_the_state_and_then_each_event_until_there_are_enough() {
    let gate = TestServer::with(MANIFEST, &["--subscribe-grace-ms", "0"]);
    let pair = gate.pair("reader");
    let dir = pair.to_str().unwrap();
    let mask = "desiredState.configs.mode";
    let mut watch = start(&["watch", "-d", dir, "--output", "json", "--count", "2", mask]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let state = |value: &str| json!({ "desiredState": { "apiVersion": "v1", "configs": { "mode": value } } });
    assert_eq!(next(), json!({ "completeState": state("slow") }));
    for value in ["fast", "faster"] {
        let change = format!("{mask}={value}");
        as_workload(&gate, "all", &["set", &change]).assert().success();
        let altered = json!({ "addedFields": [], "updatedFields": [mask], "removedFields": [] });
        assert_eq!(next(), json!({ "alteredFields": altered, "completeState": state(value) }));
    }
    assert!(lines.next().is_none());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_separates_yaml_documents() {
    let gate = TestServer::with(MANIFEST, &["--subscribe-grace-ms", "0"]);
    let pair = gate.pair("reader");
    let dir = pair.to_str().unwrap();
    let mut watch = start(&["watch", "-d", dir, "--count", "1", "desiredState.configs"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut take = |count| {
        let lines: Vec<_> = lines.by_ref().take(count).map(Result::unwrap).collect();
        lines.join("\n")
    };
    let first = "\
completeState:
  desiredState:
    apiVersion: v1
    configs:
      mode: slow";
    assert_eq!(take(5), first);
    let removal = ["set", "desiredState.configs.mode-"];
    as_workload(&gate, "all", &removal).assert().success();
    let event = "\
---
alteredFields:
  addedFields: []
  updatedFields: []
  removedFields:
    - desiredState.configs
completeState:
  desiredState:
    apiVersion: v1";
    assert_eq!(take(100), event);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn count_of_0_is_the_state_alone() {
    let gate = TestServer::with(MANIFEST, &[]);
    let mut watch = as_workload(&gate, "reader", &["watch", "--count=0", "desiredState.configs"]);
    let first =
        "completeState:\n  desiredState:\n    apiVersion: v1\n    configs:\n      mode: slow\n";
    watch.assert().success().stdout(first).stderr("");
}

#[test]
fn watch_goes_on_with_the_next_fifogate_that_serves_the_pair() {
    let mut gate = TestServer::with(MANIFEST, &[]);
    let pair = gate.pair("reader");
    let mut watch = start(&["watch", "-d", pair.to_str().unwrap(), "desiredState.configs"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.by_ref().take(5).last().unwrap(), "      mode: slow");
    gate.kill_and_restart();
    let again: Vec<_> = lines.by_ref().take(6).collect();
    assert_eq!((&*again[0], &*again[1], &*again[5]), ("---", "completeState:", "      mode: slow"));
    watch.kill().unwrap();
    watch.wait().unwrap();
}
