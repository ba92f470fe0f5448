//! Denied requests: the workload hears that its access is denied, and no more; the log and the status
//! name the request, the mask and the rule; a command line adds a hint.

use std::process::Command;

use fifogate::{
    pb::ank_base::{self as pb, request::RequestContent},
    state::convert::{self, Fill},
};
use predicates::str::contains;
use serde_json::{Value, json};
use testkit::{Session, TestServer, wait_for};

use crate::fifogate;

const MANIFEST: &str = "
apiVersion: v1
workloads:
  my:
    runtime: process
    agent: agent_A
    runtimeConfig: x
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: Write, filterMasks: [desiredState.configs.answer, desiredState.workloads] }
        - { type: StateRule, operation: Read, filterMasks: [workloadStates] }
        - { type: LogRule, workloadNames: ['db*'] }
      denyRules:
        - { type: StateRule, operation: ReadWrite, filterMasks: [workloadStates.agent_B, desiredState.workloads.locked] }
        - { type: LogRule, workloadNames: ['dbsecret'] }
  quiet:
    runtime: process
    agent: agent_A
    runtimeConfig: y
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: Read, filterMasks: [agents] }
configs:
  secret: hush
";

/// The log of a fifogate without the time in front of each line.
fn lines(gate: &TestServer, about: &str) -> Vec<String> {
    let log = gate.log();
    let lines = log.lines().filter_map(|line| line.split_once("] ").map(|(_, text)| text));
    lines.filter(|text| text.contains(about)).map(str::to_owned).collect()
}

fn denied(session: &mut Session, content: RequestContent) {
    let id = session.ask(content);
    assert_eq!(session.error(), (id, "Access denied".to_owned()));
}

/// An update from the YAML of a desired state.
fn update(desired: &str, masks: &[&str]) -> RequestContent {
    let text = format!("apiVersion: v1\n{desired}\n");
    let tree = fifogate::manifest::parse("desired", &text).unwrap().updated.tree;
    RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
        new_state: Some(convert::to_pb(&tree, Fill::Sparse)),
        update_mask: masks.iter().map(|mask| (*mask).to_owned()).collect(),
    })
}

fn read(masks: &[&str], subscribe_for_events: bool) -> RequestContent {
    let field_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
    RequestContent::CompleteStateRequest(pb::CompleteStateRequest {
        field_mask,
        subscribe_for_events,
    })
}

fn logs(workloads: &[&str]) -> RequestContent {
    let name = |workload: &&str| pb::WorkloadInstanceName {
        workload_name: (*workload).to_owned(),
        agent_name: "agent_A".to_owned(),
        id: "1".to_owned(),
    };
    let workload_names = workloads.iter().map(name).collect();
    RequestContent::LogsRequest(pb::LogsRequest { workload_names, ..Default::default() })
}

/// Each kind of denied request, and its reason behind `denied `.
fn cases() -> Vec<(RequestContent, &'static str)> {
    let own = "{agent: agent_A, runtime: process, runtimeConfig: x";
    let grants = format!(
        "workloads: {{my: {own}, controlInterfaceAccess: {{allowRules: [{{type: StateRule, operation: \
         ReadWrite, filterMasks: ['*']}}]}}}}}}"
    );
    let refers =
        format!("workloads: {{new: {own}, configs: {{s: secret}}}}}}\nconfigs: {{secret: hush}}");
    vec![
        (
            update("configs: {other: x}", &["desiredState.configs.answer", "desiredState.configs"]),
            "update of desiredState.configs: no rule allows it (allowed to write: \
             desiredState.configs.answer, desiredState.workloads)",
        ),
        (
            update("workloads: {}", &["desiredState.workloads"]),
            "update of desiredState.workloads: the deny rule desiredState.workloads.locked forbids it",
        ),
        (
            update(&grants, &["desiredState.workloads.my"]),
            "update of desiredState.workloads.my.controlInterfaceAccess: a workload cannot change its \
             own access rules",
        ),
        (
            update(&refers, &["desiredState.workloads.new"]),
            "update of desiredState.workloads.new: it refers to desiredState.configs.secret: no rule \
             allows it (allowed to read: workloadStates)",
        ),
        (
            read(&[], false),
            "read of everything: no rule allows it (allowed to read: workloadStates)",
        ),
        (
            read(&["workloadStates.agent_A", "workloadStates.*.my"], false),
            "read of workloadStates.*.my: the deny rule workloadStates.agent_B forbids it",
        ),
        (
            read(&["agents"], true),
            "subscription of agents: no rule allows it (allowed to read: workloadStates)",
        ),
        (logs(&["db1", "web"]), "log request of web: no log rule allows it (allowed: db*)"),
        (logs(&["dbsecret"]), "log request of dbsecret: the deny rule dbsecret forbids it"),
    ]
}

#[test]
fn log_and_status_say_what_was_denied_and_why() {
    for (content, reason) in cases() {
        let gate = TestServer::with(MANIFEST, &[]);
        denied(&mut gate.connect("my"), content);
        let line = wait_for(reason, || lines(&gate, " denied ").pop()).to_owned();
        let (name, text) = line.split_once(": denied ").unwrap();
        assert_eq!(text, reason);
        assert!(name.starts_with("my.") && name.ends_with(".agent_A"), "{line}");
        let own = gate.status_of("my");
        assert_eq!(own["denied"], 1);
        let told = |key: &str| own["last_denial"][key].as_str().unwrap_or("?").to_owned();
        let joined = format!("{} of {}: {}", told("request"), told("what"), told("reason"));
        assert_eq!(joined, reason);
        assert_eq!(gate.status_of("quiet")["last_denial"], Value::Null);
    }
}

#[test]
fn status_as_text_has_the_last_denial_of_each_workload() {
    let gate = TestServer::with(MANIFEST, &[]);
    let shown = || {
        let mut status = Command::new(testkit::fifogate());
        let output = status.args(["status", "--run-dir"]).arg(&gate.run_dir).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!shown().contains("last denial"), "{}", shown());
    let (mut my, mut quiet) = (gate.connect("my"), gate.connect("quiet"));
    denied(&mut my, read(&[], false));
    denied(&mut quiet, read(&["workloadStates"], false));
    denied(&mut my, read(&["agents"], false));
    let text = shown();
    for line in [
        "last denial of my: read of agents: no rule allows it (allowed to read: workloadStates)\n",
        "last denial of quiet: read of workloadStates: no rule allows it (allowed to read: agents)\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("everything"), "{text}");
}

#[test]
fn denials_of_one_workload_are_logged_up_to_a_limit_and_all_of_them_with_verbose() {
    for (options, logged) in [(&[][..], 10), (&["-v"], 25), (&["-vv"], 25)] {
        let gate = TestServer::with(MANIFEST, options);
        let mut my = gate.connect("my");
        for _ in 0..25 {
            denied(&mut my, read(&["agents"], false));
        }
        denied(&mut gate.connect("quiet"), read(&[], false));
        // The other workload has lines of its own, behind those of the first.
        wait_for("the line of another workload", || {
            lines(&gate, "quiet.").iter().any(|line| line.contains(": denied ")).then_some(())
        });
        let mine = lines(&gate, "my.")
            .iter()
            .filter(|line| line.contains(": denied read of agents"))
            .count();
        assert_eq!(mine, logged, "{options:?}");
        assert_eq!(gate.status_of("my")["denied"], 25);
    }
}

#[test]
fn each_message_is_logged_at_trace_and_no_value_of_it() {
    for (options, is_logged) in [(&["-v"][..], false), (&["-vv"], true)] {
        let gate = TestServer::with(MANIFEST, options);
        let mut my = gate.connect("my");
        my.request(
            "u",
            update("configs: {answer: confidential}", &["desiredState.configs.answer"]),
        );
        my.success();
        my.read("r", &["workloadStates.agent_A"], true);
        my.state_response();
        denied(&mut my, logs(&["web"]));
        wait_for("the denial", || lines(&gate, ": denied log request of web").pop());
        let log = gate.log();
        for part in [
            " sent Hello, version 1.0.0",
            " sent update of desiredState.configs.answer, id ",
            " sent subscription of workloadStates.agent_A, id r",
            " sent log request of web, id ",
            " is sent ControlInterfaceAccepted",
            " is sent UpdateStateSuccess, id ",
            " is sent CompleteStateResponse, id r, ",
            " is sent Error, id ",
        ] {
            assert_eq!(log.contains(part), is_logged, "{options:?} {part}");
        }
        assert!(!log.contains("confidential"), "{log}");
    }
}

#[test]
fn texts_of_a_workload_stay_short_in_the_log_and_the_status() {
    let gate = TestServer::with(MANIFEST, &["--max-mask-length", "100000"]);
    let mut my = gate.connect("my");
    let long = format!("agents.\u{1b}[2J\n{}", "x".repeat(50_000));
    denied(&mut my, read(&[&long], false));
    denied(&mut my, logs(&[&long]));
    let told = lines(&gate, ": denied ");
    assert!(told.len() == 2 && told.iter().all(|line| line.len() < 1_000), "{told:?}");
    assert!(told.iter().all(|line| !line.contains('\u{1b}')));
    assert!(gate.status_of("my")["last_denial"].to_string().len() < 1_000);
}

#[test]
fn command_line_hints_at_what_to_do_about_a_denial() {
    let gate = TestServer::with(MANIFEST, &[]);
    let run = |args: &[&str]| {
        let mut command = fifogate(args);
        let output = command.arg("-d").arg(gate.pair("my")).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for command in ["get", "watch"] {
        let said = run(&[command]);
        let hint = format!(
            "hint: without a MASK, {command} asks for everything, and the rules of this workload do \
             not allow that; name what it may read, for example: fifogate {command} \
             desiredState.configs.NAME\n"
        );
        assert!(said.contains(": Access denied\n") && said.ends_with(&hint), "{said}");
    }
    for args in [
        &["get", "agents"][..],
        &["watch", "agents"],
        &["set", "desiredState.configs.other=x"],
        &["set", "desiredState.workloads.locked.tags.a=b"],
    ] {
        let said = run(args);
        let hint = "hint: the log of fifogate and `fifogate status` name the rule\n";
        assert!(said.contains(": Access denied\n") && said.ends_with(hint), "{args:?}: {said}");
    }
    let other = fifogate(&["set", "desiredState.workloads.no.tags.a=b"])
        .arg("-d")
        .arg(gate.pair("my"))
        .assert()
        .code(1);
    let said = String::from_utf8(other.get_output().stderr.clone()).unwrap();
    assert!(said.contains("Update rejected") && !said.contains("hint"), "{said}");
    let json = gate.status_of("my")["last_denial"].clone();
    assert_ne!(json, json!(null));
    fifogate(&["get", "workloadStates.agent_A"])
        .arg("-d")
        .arg(gate.pair("my"))
        .assert()
        .success()
        .stderr(predicates::prelude::PredicateBooleanExt::not(contains("hint")));
}
