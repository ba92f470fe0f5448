//! `set`: paths inside of each other, workloads that may not read, and `--dry-run`.

use std::fs;

use fifogate::pb::{
    agent_link::{UpdateState, from_agent::Content},
    ank_base as pb,
};
use serde_json::{Value, json};
use testkit::{LinkAgent, TestServer, Transport};

use crate::{MANIFEST, run, run_as};

const MODE: &str = "desiredState.configs.mode";
const NODE: &str = "desiredState.configs.node";

/// Words and paths of the lines of an outcome.
type Lines<'a> = &'a [(&'a str, &'a str)];

/// The desired state, as the workload `op` sees it.
fn desired(gate: &TestServer) -> String {
    run_as(gate, "op", &["get", "desiredState"]).stdout
}

#[test]
fn mask_inside_of_another_is_refused_before_anything_is_sent() {
    let gate = TestServer::with(MANIFEST, &[]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.yaml");
    fs::write(&file, "desiredState: {apiVersion: v1, configs: {mode: fast}}\n").unwrap();
    for (masks, inner, outer) in [
        ([MODE, "desiredState.configs"], MODE, "desiredState.configs"),
        (["desiredState", NODE], NODE, "desiredState"),
        ([MODE, MODE], MODE, MODE),
    ] {
        let args = ["set", "-f", file.to_str().unwrap(), "--mask", masks[0], "--mask", masks[1]];
        let said = run_as(&gate, "op", &args);
        assert_eq!((said.code, &*said.stdout), (Some(2), ""), "{masks:?}");
        let text = format!("error: {inner}: is changed by {outer} already; give one of the two\n");
        assert_eq!(said.stderr, text);
    }
    assert_eq!(gate.status_of("op")["frames_in"], 0);
    // Neither is inside of the other: a name only begins like it.
    let args = ["set", "-f", file.to_str().unwrap(), "--mask", MODE, "desiredState.configs.mode2"];
    assert_eq!(run_as(&gate, "op", &args).code, Some(2), "mode2 is nowhere");
}

#[test]
fn workload_that_may_not_read_all_paths_hears_of_none_what_became_of_it() {
    let gate = TestServer::with(MANIFEST, &[]);
    let set = |args: &[&str]| {
        let said = run_as(&gate, "writer", &[&["set"], args].concat());
        assert_eq!((said.code, &*said.stderr), (Some(0), ""), "{args:?}");
        said.stdout
    };
    let (fast, gone) = (format!("{MODE}=fast"), format!("{NODE}-"));
    assert_eq!(set(&[&fast]), format!("changed: {MODE}\n"));
    assert_eq!(set(&[&fast, &gone]), format!("accepted: {MODE}\naccepted: {NODE}\n"));
    // Nothing is there any more, and it cannot know.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.yaml");
    fs::write(&file, "desiredState: {apiVersion: v1}\n").unwrap();
    let told = set(&["-f", file.to_str().unwrap(), "--mask", NODE]);
    assert_eq!(told, format!("accepted: {NODE}\n"));
}

#[test]
fn dry_run_says_what_an_update_would_do_and_does_not_do_it() {
    let gate = TestServer::with(MANIFEST, &[]);
    let before = desired(&gate);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.yaml");
    fs::write(&file, "desiredState: {apiVersion: v1, configs: {mode: slow}}\n").unwrap();
    let file = file.to_str().unwrap();
    let (fast, slow, gone) = (format!("{MODE}=fast"), format!("{MODE}=slow"), format!("{NODE}-"));
    let cases: [(&[&str], Lines<'_>); 6] = [
        (&[&fast, &gone], &[("changed", MODE), ("removed", NODE)]),
        (&[&slow], &[("unchanged", MODE)]),
        (&["desiredState.workloads.never-"], &[("unchanged", "desiredState.workloads.never")]),
        (&["agents.nobody.tags.k=v"], &[("unchanged", "agents.nobody.tags.k")]),
        (
            &["-f", file, "--mask", "desiredState.configs"],
            &[("changed", "desiredState.configs"), ("removed", NODE)],
        ),
        (&["-f", file, "--mask", MODE], &[("unchanged", MODE)]),
    ];
    for (args, expected) in cases {
        let args = [&["set", "--dry-run"], args].concat();
        let said = run_as(&gate, "op", &args);
        let lines: String =
            expected.iter().map(|(word, path)| format!("{word}: {path}\n")).collect();
        assert_eq!((said.code, said.stdout, &*said.stderr), (Some(0), lines, ""), "{args:?}");
        let json = run_as(&gate, "op", &[&args[..], &["--output", "json"]].concat()).stdout;
        let list = |word: &str| {
            let own = expected.iter().filter(|(own, _)| *own == word);
            own.map(|(_, path)| *path).collect::<Vec<_>>()
        };
        let (changed, unchanged, removed) = (list("changed"), list("unchanged"), list("removed"));
        let lists = json!({
            "changed": changed, "unchanged": unchanged, "removed": removed, "accepted": [],
        });
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), lists, "{args:?}");
    }
    let nowhere = ["set", "--dry-run", "-f", file, "--mask", "desiredState.configs.typo"];
    let said = run_as(&gate, "op", &nowhere);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert_eq!(desired(&gate), before);
    // The same update, made, says the same.
    let said = run_as(&gate, "op", &["set", &fast, &gone]);
    assert_eq!(said.stdout, format!("changed: {MODE}\nremoved: {NODE}\n"));
}

#[test]
fn dry_run_needs_the_right_to_read() {
    let gate = TestServer::with(MANIFEST, &[]);
    let before = desired(&gate);
    let said = run_as(&gate, "writer", &["set", "--dry-run", &format!("{MODE}=fast")]);
    assert_eq!((said.code, said.stdout), (Some(0), format!("changed: {MODE}\n")));
    let said = run_as(&gate, "writer", &["set", "--dry-run", &format!("{NODE}-")]);
    assert_eq!((said.code, &*said.stdout), (Some(1), ""));
    let hint =
        "hint: --dry-run compares with the state: this workload has to have the right to read ";
    assert!(
        said.stderr.contains(": Access denied\n") && said.stderr.contains(hint),
        "{}",
        said.stderr
    );
    assert_eq!(desired(&gate), before);
}

#[test]
fn dry_run_knows_which_agents_are_there() {
    let mut agent = LinkAgent::start(Transport::Unix, &[]);
    let attributes = pb::AgentAttributes::default();
    let agents = pb::AgentMap { agents: [("agent_A".to_owned(), attributes)].into() };
    let state = pb::CompleteState { agents: Some(agents), ..Default::default() };
    let (new_state, update_mask) = (Some(state), vec!["agents".to_owned()]);
    agent.call(Content::UpdateState(UpdateState { new_state, update_mask })).unwrap();
    let pair = agent.add("op", pb::ReadWriteEnum::RwReadWrite, &["*"]);
    let pair = pair.to_str().unwrap();
    for flags in [&["--dry-run"][..], &[]] {
        for (change, said) in [
            ("agents.agent_A.tags.k=v", "changed: agents.agent_A.tags.k\n"),
            ("agents.agent_B.tags.k=v", "unchanged: agents.agent_B.tags.k\n"),
            ("agents.agent_A.tags.l-", "unchanged: agents.agent_A.tags.l\n"),
        ] {
            let told = run(&[&["set", change], flags].concat(), pair);
            assert_eq!((told.code, &*told.stdout), (Some(0), said), "{flags:?} {}", told.stderr);
        }
    }
    let told = run(&["set", "--dry-run", "agents.agent_A.tags-"], pair);
    assert_eq!(told.stdout, "removed: agents.agent_A.tags\n", "{}", told.stderr);
}

#[test]
fn one_value_is_read_bare_and_only_if_it_is_there() {
    let gate = TestServer::with(MANIFEST, &[]);
    let said = run_as(&gate, "op", &["get", "--output", "value", MODE]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "slow\n"), "{}", said.stderr);
    let said = run_as(&gate, "op", &["get", "-o", "VALUE", "desiredState.configs.other"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    assert!(said.stderr.contains("error: there is no value at"), "{}", said.stderr);
    for masks in [&[][..], &[MODE, NODE]] {
        let said = run_as(&gate, "op", &[&["get", "-o", "value"][..], masks].concat());
        assert_eq!(said.code, Some(2), "{}", said.stderr);
    }
}

#[test]
fn watch_without_the_state_prints_events_alone() {
    let gate = TestServer::with(MANIFEST, &[]);
    let pair = gate.pair("op");
    let args = ["watch", "--no-state", "--count", "1", "-o", "json", MODE, "-d"];
    let mut watch = std::process::Command::new(testkit::fifogate());
    let watch = watch.args(args).arg(&pair).stdout(std::process::Stdio::piped()).spawn().unwrap();
    testkit::wait_for("the subscription", || {
        (gate.status()["totals"]["subscriptions"] == 1).then_some(())
    });
    assert_eq!(run_as(&gate, "writer", &["set", &format!("{MODE}=fast")]).code, Some(0));
    let output = watch.wait_with_output().unwrap();
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["alteredFields"]["updatedFields"], json!([MODE]));
}

#[test]
fn workload_that_removes_itself_hears_the_answer() {
    for _ in 0..20 {
        let gate = TestServer::with(MANIFEST, &[]);
        let said = run_as(&gate, "op", &["set", "desiredState.workloads.op-"]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert!(said.stdout.starts_with("removed: desiredState.workloads.op\ndeleted: op."));
    }
}
