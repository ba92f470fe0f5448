//! Workloads from their start to their end, as the state wants it and as it tells of them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;

use fifogate::{pb::ank_base::response::ResponseContent, state::convert};
use nix::sys::signal::Signal;
use testkit::{Agent, processes_with, shell, state_of, update, wait_for, workload};

#[test]
fn an_update_starts_replaces_and_stops_a_process() {
    let agent = Agent::start("", &[]);
    let mut ctl = agent.connect();
    let one = format!("workloads:\n{}", workload("w", "exec sleep 71001", ""));
    let success = ctl.update(&one, &["desiredState.workloads.w"]).unwrap();
    assert_eq!((success.added_workloads.len(), success.deleted_workloads.len()), (1, 0));
    ctl.until_state("w", "Running(Ok)");
    wait_for("the process", || (processes_with("71001").len() == 1).then_some(()));
    let two = format!("workloads:\n{}", workload("w", "exec sleep 71002", ""));
    let success = ctl.update(&two, &["desiredState.workloads.w"]).unwrap();
    assert_eq!((success.added_workloads.len(), success.deleted_workloads.len()), (1, 1));
    ctl.until_state("w", "Running(Ok)");
    assert_eq!((processes_with("71001").len(), processes_with("71002").len()), (0, 1));
    ctl.update("", &["desiredState.workloads.w"]).unwrap();
    ctl.until("its end", |tree| state_of(tree, "w").is_none().then_some(()));
    assert!(processes_with("71002").is_empty());
}

#[test]
fn states_are_told_in_order_from_start_to_removal() {
    let agent = Agent::start("", &["--", "--subscribe-grace-ms", "0"]);
    let mut ctl = agent.connect();
    let events = ctl.subscribe(&["workloadStates.agent_A.w"]);
    ctl.answer(&events);
    let text = format!("workloads:\n{}", workload("w", "trap 'exit 0' TERM; sleep 100 & wait", ""));
    ctl.ask(update(&text, &["desiredState.workloads.w"]));
    let mut seen = Vec::new();
    let mut removed = false;
    while !removed {
        let (id, content) = ctl.response();
        let ResponseContent::CompleteStateResponse(event) = content else { continue };
        assert_eq!(id, events);
        let tree = convert::from_pb(&event.complete_state.unwrap_or_default()).unwrap();
        removed = event.altered_fields.is_some_and(|fields| !fields.removed_fields.is_empty());
        if let Some((_, state, _)) = state_of(&tree, "w") {
            if state == "Running(Ok)" {
                ctl.ask(update("", &["desiredState.workloads.w"]));
            }
            seen.push(state);
        }
    }
    let expected =
        ["Pending(Initial)", "Pending(Starting)", "Running(Ok)", "Stopping(RequestedAtRuntime)"];
    assert_eq!(seen, expected);
}

#[test]
fn a_workload_is_restarted_as_its_policy_says() {
    let count = |name: &str, exit: u8| format!("echo x >> $dir/{name}; exit {exit}");
    let dir = tempfile::tempdir().unwrap();
    let in_dir = |text: String| text.replace("$dir", dir.path().to_str().unwrap());
    let policy = |policy: &str| format!(", restartPolicy: {policy}");
    let workloads = [
        workload("never", &in_dir(count("never", 3)), &policy("NEVER")),
        workload("good", &in_dir(count("good", 0)), &policy("ON_FAILURE")),
        workload("bad", &in_dir(count("bad", 3)), &policy("ON_FAILURE")),
        workload("always", &in_dir(count("always", 0)), &policy("ALWAYS")),
    ];
    let agent = Agent::start(&workloads.concat(), &[]);
    let mut ctl = agent.connect();
    let lines =
        |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default().len() / 2;
    for name in ["bad", "always"] {
        wait_for(name, || (lines(name) >= 3).then_some(()));
    }
    ctl.until_state("good", "Succeeded(Ok)");
    ctl.until_state("never", "Failed(ExecFailed)");
    assert_eq!((lines("good"), lines("never")), (1, 1));
    let info = state_of(&ctl.state(), "never").unwrap().2;
    assert_eq!(info, "exit status 3");
}

#[test]
fn dependencies_are_waited_for_and_who_depends_ends_first() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let first = format!("until test -e {}; do sleep 0.02; done", go.display());
    let last = format!(
        "trap 'echo db >> {}/ends' EXIT; trap 'exit 0' TERM; sleep 1000 & wait",
        dir.path().display()
    );
    let web = format!(
        "trap 'sleep 0.3; echo web >> {0}/ends; exit 0' TERM; : > {0}/ready; sleep 1000 & wait",
        dir.path().display()
    );
    let workloads = [
        workload("first", &first, ""),
        workload("db", &last, ", dependencies: {first: ADD_COND_SUCCEEDED}"),
        workload("web", &web, ", dependencies: {db: ADD_COND_RUNNING}"),
        workload("fails", "exit 1", ""),
        workload("after", "exec sleep 1000", ", dependencies: {fails: ADD_COND_FAILED}"),
    ];
    let agent = Agent::start(&workloads.concat(), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("after", "Running(Ok)");
    ctl.until_state("db", "Pending(WaitingToStart)");
    ctl.until_state("web", "Pending(WaitingToStart)");
    fs::write(&go, "").unwrap();
    ctl.until_state("first", "Succeeded(Ok)");
    ctl.until_state("web", "Running(Ok)");
    wait_for("its trap", || dir.path().join("ready").exists().then_some(()));
    let cycle = format!(
        "workloads:\n{}",
        workload("db", "true", ", dependencies: {web: ADD_COND_RUNNING}")
    );
    let refused = ctl.update(&cycle, &["desiredState.workloads.db"]).unwrap_err();
    assert!(refused.contains("part of a cycle"), "{refused}");
    ctl.update("", &["desiredState.workloads.db", "desiredState.workloads.web"]).unwrap();
    ctl.until_state("db", "Stopping(WaitingToStop)");
    ctl.until("the end", |tree| state_of(tree, "db").is_none().then_some(()));
    assert_eq!(fs::read_to_string(dir.path().join("ends")).unwrap(), "web\ndb\n");
}

#[test]
fn what_cannot_be_started_says_why() {
    let wrong = |name: &str, config: &str, fields: &str| {
        format!(
            "  {name}: {{runtime: process, agent: agent_A, runtimeConfig: '{config}'{fields}}}\n"
        )
    };
    let workloads = [
        wrong("missing", "{command: /does/not/exist}", ""),
        wrong("unknown", "{command: \"true\", image: x}", ""),
        wrong("yaml", "{command: [", ""),
        wrong("folder", "{command: \"true\", workingDir: /does/not/exist}", ""),
        wrong("user", "{command: \"true\", user: nobody-of-that-name}", ""),
        "  engine: {runtime: containerd, agent: agent_A, runtimeConfig: 'image: x'}\n".to_owned(),
    ];
    let agent = Agent::start(&workloads.concat(), &[]);
    let mut ctl = agent.connect();
    for (name, expected) in [
        ("missing", "command '/does/not/exist' cannot be started"),
        ("unknown", "line 1, column 19: unknown key 'image'"),
        ("yaml", "runtimeConfig, line 1, column 11: unclosed bracket '['"),
        ("folder", "workingDir /does/not/exist is no folder"),
        ("user", "there is no user 'nobody-of-that-name'"),
        ("engine", "unknown runtime 'containerd'"),
    ] {
        ctl.until_state(name, "Pending(StartingFailed)");
        let info = state_of(&ctl.state(), name).unwrap().2;
        assert!(info.contains(expected), "{name}: {info}");
    }
    let info = state_of(&ctl.state(), "missing").unwrap().2;
    assert!(info.starts_with("No more retries: "), "{info}");
}

#[test]
fn who_ignores_sigterm_is_killed_with_all_that_it_started() {
    let script = "trap '' TERM; sleep 72001 & setsid sleep 72002 & while :; do sleep 1; done";
    let agent = Agent::start(&workload("deaf", script, ""), &["--grace", "0.3"]);
    let mut ctl = agent.connect();
    ctl.until_state("deaf", "Running(Ok)");
    let started =
        || processes_with("sleep\u{0}72001").len() + processes_with("sleep\u{0}72002").len();
    wait_for("its children", || (started() == 2).then_some(()));
    ctl.update("", &["desiredState.workloads.deaf"]).unwrap();
    ctl.until("its end", |tree| state_of(tree, "deaf").is_none().then_some(()));
    wait_for("the end of all", || (started() == 0).then_some(()));
}

#[test]
fn a_change_of_a_tag_alone_replaces_the_process_and_keeps_its_pair_and_its_id() {
    let rights = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: Read, \
                  filterMasks: ['*']}]}";
    let agent = Agent::start(&workload("w", "exec sleep 79001", rights), &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Running(Ok)");
    let process = || processes_with("sleep\u{0}79001");
    let before = wait_for("its process", || process().first().copied());
    // The session goes on: the pair is the same, only its owner is another process.
    let mut session = agent.connect_as("w");
    let text = format!(
        "workloads:\n{}",
        workload("w", "exec sleep 79001", &format!("{rights}, tags: {{colour: blue}}"))
    );
    let success = ctl.update(&text, &["desiredState.workloads.w"]).unwrap();
    assert_eq!(success.added_workloads, success.deleted_workloads);
    wait_for("another process", || {
        let now = process();
        (now.len() == 1 && now[0] != before).then_some(())
    });
    assert_eq!(ctl.until_state("w", "Running(Ok)"), id);
    let tree = session.state();
    let tag = tree.get(&["effectiveState", "workloads", "w", "tags", "colour"]);
    assert_eq!(tag.and_then(|tag| tag.as_str()), Some("blue"));
}

#[test]
fn a_workload_that_floods_its_output_disturbs_no_other() {
    let agent = Agent::start(&workload("flood", "exec yes", ""), &["--log-bytes", "1000000"]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("flood", "Running(Ok)");
    let folder = agent.path("run/agent/logs").join(format!("flood.{id}"));
    // The name of a file is how much was written before it.
    let written = || {
        let entries = fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
        let starts = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        starts.max().unwrap_or(0)
    };
    wait_for("ten times what is kept", || (written() > 10_000_000).then_some(()));
    for number in 0..50 {
        let text = format!("configs: {{n: '{number}'}}");
        ctl.update(&text, &["desiredState.configs.n"]).unwrap();
    }
    let kept: u64 = fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum();
    assert!(kept <= 2_000_000, "{kept}");
    ctl.update("", &["desiredState.workloads.flood"]).unwrap();
    ctl.until("its end", |tree| state_of(tree, "flood").is_none().then_some(()));
}

#[test]
fn a_workload_finds_its_pair_and_its_files_where_it_looks_and_no_other_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let (seen, node) = (dir.path().join("seen"), dir.path().join("node"));
    fs::create_dir(&node).unwrap();
    let (conf, made) = (node.join("test.conf"), node.join("made"));
    let script = format!(
        "{{ cat {1}; cat {2}/for/this; cd $CONTROL_INTERFACE_DIR && pwd \
         && ls; ls -A $HIDDEN | wc -l; }} > {0}.part 2>&1; mv {0}.part {0}; exec sleep 1000",
        seen.display(),
        conf.display(),
        made.display()
    );
    let fields = format!(
        ", controlInterfaceAccess: {{allowRules: [{{type: StateRule, operation: Read, filterMasks: \
         ['*']}}]}}, files: [{{mountPoint: {}, data: \"one\\n\"}}, {{mountPoint: {}/for/this, \
         binaryData: dHdvCg==}}]",
        conf.display(),
        made.display()
    );
    let mut agent = Agent::start("", &[]);
    let mut ctl = agent.connect();
    let script = script.replace("$HIDDEN", agent.path("run").to_str().unwrap());
    let text = format!("workloads:\n{}", workload("w", &script, &fields));
    ctl.update(&text, &["desiredState.workloads.w"]).unwrap();
    let text = wait_for("what it saw", || fs::read_to_string(&seen).ok());
    assert_eq!(text, "one\ntwo\n/run/ankaios/control_interface\ninput\noutput\n0\n");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    assert_eq!(fs::read_dir(&node).unwrap().count(), 0, "something is left on the host");
}

#[test]
fn templates_are_rendered_in_the_effective_state_and_an_update_that_does_not_render_is_refused() {
    let text = "  t: {runtime: process, agent: '{{n.name}}', configs: {n: node}, runtimeConfig: \
                '{command: sleep, args: [\"{{n.time}}\"]}'}\nconfigs:\n  node: {name: agent_A, time: \
                '73001'}\n";
    let agent = Agent::start(text, &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("t", "Running(Ok)");
    let tree = ctl.state();
    let field = |part: &str, field: &str| {
        let node = tree.get(&[part, "workloads", "t", field]);
        node.and_then(|node| node.as_str()).map(str::to_owned)
    };
    assert_eq!(field("desiredState", "agent").as_deref(), Some("{{n.name}}"));
    assert_eq!(field("effectiveState", "agent").as_deref(), Some("agent_A"));
    assert!(field("effectiveState", "runtimeConfig").unwrap().contains("73001"));
    assert!(tree.get(&["effectiveState", "workloads", "t", "configs"]).is_none());

    let refused =
        ctl.update("configs: {node: {name: agent_A}}", &["desiredState.configs.node"]).unwrap_err();
    let expected = "Update rejected: 'Resulting State is invalid, reason: 'Failed to render field \
                    'runtimeConfig': '";
    assert!(refused.starts_with(expected), "{refused}");
    assert_eq!(
        ctl.state().get(&["desiredState", "configs"]),
        tree.get(&["desiredState", "configs"])
    );

    let success = ctl
        .update("configs: {node: {name: agent_A, time: '73002'}}", &["desiredState.configs.node"])
        .unwrap();
    assert_eq!(success.deleted_workloads, [format!("t.{id}.agent_A")]);
    ctl.until("the other", |tree| {
        let (own, state, _) = state_of(tree, "t")?;
        (own != id && state == "Running(Ok)").then_some(())
    });
    wait_for("its process", || (processes_with("sleep\u{0}73002").len() == 1).then_some(()));
}

#[test]
fn the_agent_tells_of_itself_and_of_workloads_that_are_nobodys() {
    let text = format!(
        "  nobody: {{runtime: process, agent: '', runtimeConfig: {0}}}\n  other: {{runtime: process, \
         agent: agent_B, runtimeConfig: {0}}}\n",
        shell("true")
    );
    let agent = Agent::start(&text, &[]);
    let mut ctl = agent.connect();
    ctl.until("its status", |tree| {
        let status = tree.get(&["agents", "agent_A", "status"])?;
        (status.get("cpuUsage").is_some() && status.get("freeMemory").is_some()).then_some(())
    });
    let tree = ctl.state();
    let state = |agent: &str, name: &str| {
        let (_, node) = tree.entries(&["workloadStates", agent, name]).iter().next().unwrap();
        node.str_at("subState").unwrap().to_owned()
    };
    assert_eq!(
        (state("", "nobody"), state("agent_B", "other")),
        ("NotScheduled".into(), "Initial".into())
    );
}

#[test]
fn sigterm_ends_workloads_first_and_the_agent_with_status_0() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "trap 'echo ended > {}/ended; exit 0' TERM; sleep 74001 & wait",
        dir.path().display()
    );
    let mut agent = Agent::start(&workload("w", &script, ""), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    wait_for("its child", || (!processes_with("sleep\u{0}74001").is_empty()).then_some(()));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    assert!(dir.path().join("ended").exists());
    assert!(processes_with("sleep\u{0}74001").is_empty());
    assert!(processes_with(agent.path("run").to_str().unwrap()).is_empty(), "fifogate ended too");
}

#[test]
fn variable_with_a_wrong_value_is_named() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fifogate-agent"));
    command.args(["run", "--manifest", "m.yaml"]).env("FIFOGATE_GRACE", "ten");
    let told = |command: &mut std::process::Command| {
        String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned()
    };
    let error = told(&mut command);
    assert!(error.contains("tip: 'FIFOGATE_GRACE' is set in the environment"), "{error}");
    let error = told(command.args(["--grace", "one"]));
    assert!(error.contains("'one' for '--grace") && !error.contains("FIFOGATE_GRACE"), "{error}");
}

#[test]
fn wrong_usage_is_told_and_ends_with_its_status() {
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_fifogate-agent"))
            .args(args)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.yaml");
    let path = file.to_str().unwrap();
    fs::write(&file, "apiVersion: v1\nworkloads:\n  w: {runtime: process, agnet: x}\n").unwrap();
    let (status, error) = run(&["run", "--manifest", path]);
    assert!(status == Some(2) && error.contains("m.yaml:3:"), "{error}");
    let (status, error) = run(&["run"]);
    assert_eq!(status, Some(2));
    for option in ["--manifest <FILE>", "--state-dir <DIR>", "--etcd <ENDPOINT"] {
        assert!(error.contains(option), "{error}");
    }
    let (status, error) = run(&["run", "node.yaml"]);
    assert!(status == Some(2) && error.contains("'--manifest node.yaml'"), "{error}");
    let (status, error) = run(&["run", "--manifest", "-"]);
    assert!(status == Some(2) && error.contains("<stdin>:1:1: the manifest is empty"), "{error}");
    assert_eq!(run(&["run", "--manifest", path, "--name", "a.b"]).0, Some(2));
    fs::write(&file, "apiVersion: v1\n").unwrap();
    let run_dir = dir.path().join("run");
    let (status, error) = run(&[
        "run",
        "--manifest",
        path,
        "--run-dir",
        run_dir.to_str().unwrap(),
        "--fifogate",
        "/does/not/exist",
    ]);
    assert!(status == Some(1) && error.contains("/does/not/exist cannot be started"), "{error}");
    let (status, error) = run(&["run", "--manifest", path, "--run-dir", "/dev/null/run"]);
    let (_, denied) = run(&["run", "--manifest", path, "--run-dir", "/proc/none"]);
    let expected = "cannot make run directory /proc/none: /proc/none: No such file";
    assert!(denied.contains(expected), "{denied}");
    let expected = "cannot make run directory /dev/null/run: /dev/null is no folder";
    assert!(status == Some(1) && error.contains(expected), "{error}");
    let (status, error) = run(&["run", "--manifest", path, "--tag", "k=v"]);
    assert!(status == Some(2) && error.contains("--tag: only an agent of a server"), "{error}");
    assert_eq!(run(&["run", "--help"]).0, Some(0));
    for args in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_fifogate-agent"))
            .args(args)
            .stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(error.starts_with("error: cannot write to standard output: "), "{error}");
    }
    fs::write(&file, "desiredState:\n  apiVersion: v2\n  workload: {}\n").unwrap();
    let (status, error) = run(&["run", "--manifest", path]);
    assert!(status == Some(2) && error.contains("m.yaml:2:15: Unsupported API version"), "{error}");
    let is_error = |line: &str| line.starts_with("error: ");
    assert!(error.lines().count() == 2 && error.lines().all(is_error), "{error}");
}
