//! Masks and paths of nothing: `get`, `watch`, `set` and `check` say so.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
};

use testkit::TestServer;

use crate::{MANIFEST, Said, fifogate, run_as, start};

#[test]
fn unknown_first_name_is_refused_before_anything_is_sent() {
    let gate = TestServer::with(MANIFEST, &[]);
    for command in ["get", "watch"] {
        for mask in ["desiredstate", "desiredState2.configs", "foo.*", ".desiredState", "workloads"]
        {
            let Said { code, stdout, stderr } = run_as(&gate, "op", &[command, "agents", mask]);
            assert_eq!((code, &*stdout), (Some(2), ""), "{command} {mask}");
            let text = format!(
                "error: unknown mask '{mask}': a mask begins with one of desiredState, \
                 workloadStates, agents, effectiveState\n"
            );
            assert_eq!(stderr, text);
        }
    }
    assert_eq!(gate.status_of("op")["frames_in"], 0);
}

#[test]
fn mask_without_a_match_is_noted_and_no_failure() {
    let gate = TestServer::with(MANIFEST, &[]);
    for (masks, notes) in [
        (
            &["desiredState.workloads.engin"][..],
            "note: nothing is at desiredState.workloads.engin\n",
        ),
        (
            &["desiredState.configs.mode", "workloadStates.*.engin"],
            "note: nothing is at workloadStates.*.engin\n",
        ),
        (
            &["desiredState.configs.node.hosts.0"],
            "note: nothing is at desiredState.configs.node.hosts.0\n",
        ),
        (
            &["desiredState.config.mode"],
            "note: nothing is at desiredState.config.mode: desiredState has no field `config`, only \
             apiVersion, workloads, configs\n",
        ),
        (&["desiredState.workloads.engine", "workloadStates.agent_A", "*", ""], ""),
        (&["desiredState.*.mode", "desiredState.workloads.*.tags"], ""),
        (&[], ""),
    ] {
        for command in [&["get"][..], &["watch", "--count", "0"]] {
            let Said { code, stdout, stderr } = run_as(&gate, "op", &[command, masks].concat());
            assert_eq!((code, &*stderr), (Some(0), notes), "{command:?} {masks:?}");
            assert!(!stdout.is_empty());
        }
    }
    let Said { stdout, stderr, .. } = run_as(&gate, "op", &["-qq", "get", "agents.a"]);
    assert_eq!((&*stdout, &*stderr), ("{}\n", ""));
}

#[test]
fn set_says_what_it_changed_and_removed_and_what_was_so_before() {
    let gate = TestServer::with(MANIFEST, &[]);
    let set = |args: &[&str]| {
        let Said { code, stdout, stderr } = run_as(&gate, "op", &[&["set"], args].concat());
        assert_eq!((code, &*stderr), (Some(0), ""), "{args:?}");
        stdout
    };
    let mode = "desiredState.configs.mode";
    assert_eq!(set(&[&format!("{mode}=fast")]), format!("changed: {mode}\n"));
    assert_eq!(set(&[&format!("{mode}=fast")]), format!("unchanged: {mode}\n"));
    assert_eq!(set(&[&format!("{mode}-")]), format!("removed: {mode}\n"));
    assert_eq!(set(&[&format!("{mode}-")]), format!("unchanged: {mode}\n"));
    let never = "desiredState.workloads.never";
    assert_eq!(set(&[&format!("{never}-")]), format!("unchanged: {never}\n"));
    assert_eq!(set(&["agents.nobody.tags.k=v"]), "unchanged: agents.nobody.tags.k\n");
    let node = "desiredState.configs.node";
    let told = set(&["--yaml", &format!("{node}={{hosts: [h1]}}"), &format!("{mode}=x")]);
    assert_eq!(told, format!("changed: {node}\nchanged: {mode}\nremoved: {node}.name\n"));
    let tags = "desiredState.workloads.engine.tags";
    let told = set(&["--yaml", &format!("{tags}={{k: v}}")]);
    assert!(
        told.starts_with(&format!("changed: {tags}\nremoved: {tags}.l\nadded: engine.")),
        "{told}"
    );
    let json = set(&["--output", "json", &format!("{mode}=x"), &format!("{node}-")]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({
        "changed": [], "unchanged": [mode], "removed": [node], "accepted": [],
        "addedWorkloads": [], "deletedWorkloads": [],
    });
    assert_eq!(json, expected);
}

#[test]
fn set_by_a_workload_that_may_not_read_is_made_and_said_to_be_accepted() {
    let gate = TestServer::with(MANIFEST, &[]);
    let Said { code, stdout, stderr } =
        run_as(&gate, "blind", &["set", "desiredState.configs.mode=x"]);
    assert_eq!((code, &*stdout, &*stderr), (Some(0), "accepted: desiredState.configs.mode\n", ""));
    let Said { stdout, .. } = run_as(&gate, "op", &["set", "desiredState.configs.mode=x"]);
    assert_eq!(stdout, "unchanged: desiredState.configs.mode\n");
}

#[test]
fn mask_that_is_neither_in_the_file_nor_in_the_state_is_refused() {
    let gate = TestServer::with(MANIFEST, &[]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.yaml");
    let engine = "agent: agent_A, runtime: process, runtimeConfig: z";
    fs::write(
        &file,
        format!(
            "desiredState: {{apiVersion: v1, workloads: {{engine: {{{engine}}}}}, configs: {{}}}}\n"
        ),
    )
    .unwrap();
    let set = |masks: &[&str]| {
        run_as(&gate, "op", &[&["set", "-f", file.to_str().unwrap(), "--mask"], masks].concat())
    };
    let before = run_as(&gate, "op", &["get", "desiredState"]);
    for masks in [
        &["desiredState.workloads.engin"][..],
        &["desiredState.workloads.engine", "desiredState.workloads.engin"],
        &["desiredState.configs.node.hots"],
        &["desiredState.workloads.engine.configs.alias"],
    ] {
        let Said { code, stdout, stderr } = set(masks);
        assert_eq!((code, &*stdout), (Some(2), ""), "{masks:?}");
        let typo = masks.last().unwrap();
        let text = format!(
            "error: --mask {typo}: this is neither in FILE nor in the state; nothing was changed\n"
        );
        assert_eq!(stderr, text);
    }
    assert_eq!(run_as(&gate, "op", &["get", "desiredState"]), before);
    let Said { code, stdout, .. } = set(&["desiredState.workloads.engine"]);
    assert_eq!(code, Some(0));
    let tags = "desiredState.workloads.engine.tags";
    assert!(
        stdout.starts_with(&format!("changed: desiredState.workloads.engine\nremoved: {tags}\n")),
        "{stdout}"
    );
    // The file has them, empty.
    let Said { code, stdout, .. } = set(&["desiredState.configs"]);
    assert_eq!((code, &*stdout), (Some(0), "removed: desiredState.configs\n"));
    let kept = format!(
        "desiredState: {{apiVersion: v1, workloads: {{op: {{{}, controlInterfaceAccess: {{allowRules: [{{\
         type: StateRule, operation: ReadWrite, filterMasks: ['*']}}]}}}}}}}}\n",
        engine.replace("z", "x")
    );
    fs::write(&file, kept).unwrap();
    let Said { code, stdout, stderr } = set(&["desiredState.workloads"]);
    assert_eq!(code, Some(0), "{stderr}");
    for name in ["engine", "writer"] {
        assert!(
            stdout.contains(&format!("\nremoved: desiredState.workloads.{name}\n")),
            "{stdout}"
        );
        assert!(stdout.contains(&format!("\ndeleted: {name}.")), "{stdout}");
    }
}

#[test]
fn check_and_run_warn_of_masks_of_rules_that_name_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.yaml");
    let masks = "[desiredstate, desiredState.config.speed, 'desiredState.workloads.*.tag', 'workloadStates.*', '*']";
    let text = MANIFEST.replace("['*']", masks);
    fs::write(&file, &text).unwrap();
    let path = file.to_str().unwrap();
    let output = fifogate(&["check", path]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    let gate = TestServer::with(&text, &[]);
    let line = text.lines().position(|line| line.contains("desiredstate")).unwrap() + 1;
    for (log, file) in [(&said, path), (&gate.log(), "manifest.yaml")] {
        for (mask, why) in [
            (
                "desiredstate",
                "unknown mask 'desiredstate': a mask begins with one of desiredState, workloadStates, agents, effectiveState",
            ),
            (
                "desiredState.config.speed",
                "desiredState has no field `config`, only apiVersion, workloads, configs",
            ),
            (
                "desiredState.workloads.*.tag",
                "desiredState.workloads.* has no field `tag`, only agent, restartPolicy, dependencies, tags, runtime, runtimeConfig, controlInterfaceAccess, configs, files",
            ),
        ] {
            let place = format!("{file}:{line}:");
            let text = format!("the mask '{mask}' of a rule names nothing: {why}");
            assert!(
                log.lines().any(|line| line.contains(&place) && line.ends_with(&text)),
                "{log}"
            );
        }
        assert_eq!(log.matches("names nothing").count(), 3, "{log}");
    }
}

#[test]
fn pair_of_the_environment_is_the_default() {
    let gate = TestServer::with(MANIFEST, &[]);
    let run = |args: &[&str], dir: &str| {
        fifogate(args).env("CONTROL_INTERFACE_DIR", dir).output().unwrap()
    };
    let pair = gate.pair("op");
    let pair = pair.to_str().unwrap();
    for args in [
        &["get", "desiredState.configs.mode"][..],
        &["watch", "--count", "0", "desiredState.configs.mode"],
        &["set", "desiredState.configs.mode=fast"],
    ] {
        let output = run(args, pair);
        assert!(output.status.success(), "{args:?} {}", String::from_utf8_lossy(&output.stderr));
    }
    // What is given precedes it.
    let output = run(&["get", "-d", pair, "agents"], "/nowhere");
    assert!(output.status.success());
    let output = run(&["get"], "/nowhere");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let hint = "hint: the folder comes from $CONTROL_INTERFACE_DIR; -d names another\n";
    assert!(said.starts_with("error: /nowhere: no such folder") && said.ends_with(hint), "{said}");
    let given = run(&["get", "-d", "/nowhere"], pair);
    assert!(!String::from_utf8(given.stderr).unwrap().contains("CONTROL_INTERFACE_DIR"));
}

#[test]
fn watch_with_a_note_goes_on_and_shows_what_comes_there() {
    let gate = TestServer::with(MANIFEST, &["--subscribe-grace-ms", "0"]);
    let (pair, mask) = (gate.pair("op"), "desiredState.configs.later");
    let args = ["watch", "--output", "json", "--count", "1", "-d", pair.to_str().unwrap(), mask];
    let mut watch = start(&args);
    let mut notes = BufReader::new(watch.stderr.take().unwrap());
    let mut note = String::new();
    notes.read_line(&mut note).unwrap();
    assert_eq!(note, format!("note: nothing is at {mask}\n"));
    run_as(&gate, "blind", &["set", &format!("{mask}=x")]);
    let mut shown = String::new();
    watch.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert!(shown.contains(r#""addedFields":["desiredState.configs.later"]"#), "{shown}");
    let mut rest = String::new();
    notes.read_to_string(&mut rest).unwrap();
    assert_eq!((watch.wait().unwrap().code(), &*rest), (Some(0), ""));
}
