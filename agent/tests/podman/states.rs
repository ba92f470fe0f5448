//! The execution states of containers, restarts, and what a state says of a failed start.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::{Agent, IMAGE, Podman, container, processes_with, state_of, wait_for};

fn info(agent: &Agent, workload: &str) -> String {
    state_of(&agent.connect().state(), workload).unwrap().2
}

#[test]
fn each_state_of_a_container_is_one_of_its_workload() {
    let Some(podman) = Podman::new() else { return };
    let texts = [
        container("ok", "exit 0", "[]", ""),
        container("fails", "exit 7", "[]", ""),
        container("lost", "sleep 1", r#"["--rm"]"#, ""),
        container("runs", "exec sleep 100000", "[]", ""),
    ];
    let agent = Agent::start_with(podman.env(), &texts.concat(), &[]);
    let mut ctl = agent.connect();
    for (workload, state) in [
        ("ok", "Succeeded(Ok)"),
        ("fails", "Failed(ExecFailed)"),
        ("lost", "Failed(Lost)"),
        ("runs", "Running(Ok)"),
    ] {
        ctl.until_state(workload, state);
    }
    let info = |tree: &_, workload| state_of(tree, workload).unwrap().2;
    let tree = ctl.state();
    assert_eq!(info(&tree, "fails"), "Exit code: '7'");
    assert_eq!(info(&tree, "lost"), "its container is gone");

    let id = podman.id_of("runs").unwrap();
    podman.run(&["pause", &id]);
    ctl.until_state("runs", "Failed(Unknown)");
    assert_eq!(info(&ctl.state(), "runs"), "paused");
    podman.run(&["unpause", &id]);
    ctl.until_state("runs", "Running(Ok)");
    podman.run(&["rm", "--force", "--time=0", &id]);
    ctl.until("the end of a removed container", |tree| {
        let (_, state, _) = state_of(tree, "runs")?;
        (state == "Failed(Lost)").then_some(())
    });
}

#[test]
fn restart_policy_starts_a_container_again_or_a_new_one() {
    let Some(podman) = Podman::new() else { return };
    let seen = testkit::Seen::new();
    let folder = seen.path().display();
    let volume = format!(r#"["--volume={folder}:/seen"]"#);
    // Each start leaves a line with the name of its container.
    let script = |end: &str| format!("cat /proc/sys/kernel/hostname >> /seen/$0; {end}");
    let one = |name: &str, end: &str, policy: &str| {
        let script = script(end).replace("$0", name);
        container(name, &script, &volume, &format!(", restartPolicy: {policy}"))
    };
    let texts = [
        one("always", "exit 0", "ALWAYS"),
        one("failure", "exit 1", "ON_FAILURE"),
        one("done", "exit 0", "ON_FAILURE"),
        one("never", "exit 1", "NEVER"),
    ];
    let agent = Agent::start_with(podman.env(), &texts.concat(), &[]);
    let mut ctl = agent.connect();
    let starts = |name: &str| {
        let text = std::fs::read_to_string(seen.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let at_least = |name: &str| wait_for(name, || Some(starts(name)).filter(|all| all.len() >= 3));
    let again = at_least("always");
    assert!(again.windows(2).all(|pair| pair[0] == pair[1]), "the same container: {again:?}");
    let anew = at_least("failure");
    assert!(anew.windows(2).all(|pair| pair[0] != pair[1]), "a new one each time: {anew:?}");
    ctl.until_state("done", "Succeeded(Ok)");
    ctl.until_state("never", "Failed(ExecFailed)");
    assert_eq!((starts("done").len(), starts("never").len()), (1, 1));
    let state = ctl.until("the reason of a restart", |tree| {
        let (_, state, info) = state_of(tree, "failure")?;
        (state == "Pending(Starting)").then_some(info)
    });
    assert_eq!(state, "Restart after Exit code: '1'");
}

fn workload(name: &str, config: &str) -> String {
    let config = serde_json::Value::from(config);
    format!("  {name}: {{runtime: podman, agent: agent_A, runtimeConfig: {config}}}\n")
}

#[test]
fn failed_start_says_why_is_tried_again_and_leaves_nothing() {
    let Some(podman) = Podman::new() else { return };
    podman.run(&["create", "--name", "foreign", IMAGE, "true"]);
    let taken = format!("{{image: {IMAGE}, commandOptions: [--name, foreign], commandArgs: [a]}}");
    let texts = [
        workload("command", &format!("{{image: {IMAGE}, commandArgs: [nosuch]}}")),
        workload("image", "{image: localhost/nosuch}"),
        workload("option", &format!("{{image: {IMAGE}, commandOptions: [--nosuch]}}")),
        workload("taken", &taken),
    ];
    let agent = Agent::start_with(podman.env(), &texts.concat(), &[]);
    let mut ctl = agent.connect();
    for (workload, word) in [
        ("command", "nosuch"),
        ("image", "localhost/nosuch"),
        ("option", "unknown flag: --nosuch"),
        ("taken", "the container name \"foreign\" is already in use"),
    ] {
        let info = ctl.until(workload, |tree| {
            let (_, state, info) = state_of(tree, workload)?;
            let is_again = info.starts_with("Retry ") && !info.starts_with("Retry 1:");
            (state == "Pending(Starting)" && is_again).then_some(info)
        });
        assert!(info.contains(": Error: ") && info.contains(word), "{info}");
        assert!(!info.contains("level="), "only the error: {info}");
    }
    // An update ends the retries, and a delete leaves nothing.
    let desired = format!(
        "workloads: {{command: {{runtime: podman, agent: agent_A, runtimeConfig: '{{image: {IMAGE}, \
         commandArgs: [sleep, \"100000\"]}}'}}}}"
    );
    let mask = "desiredState.workloads.command";
    ctl.update(&desired, &[mask]).unwrap();
    ctl.until_state("command", "Running(Ok)");
    for workload in ["image", "option", "taken"] {
        ctl.remove_workload(workload);
    }
    ctl.until("the end of all retries", |tree| {
        let gone = ["image", "option", "taken"].map(|own| state_of(tree, own));
        gone.iter().all(Option::is_none).then_some(())
    });
    let names: Vec<_> = podman.containers().iter().map(|own| own["Names"][0].clone()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().any(|own| own == "foreign"), "what is not ours stays: {names:?}");
}

#[test]
fn wrong_config_is_told_and_not_tried_again() {
    let Some(podman) = Podman::new() else { return };
    let texts = workload("none", "{commandArgs: [a]}") + &workload("number", "{image: 5}");
    let agent = Agent::start_with(podman.env(), &texts, &[]);
    for (workload, word) in
        [("none", "line 1, column 1: missing field `image`"), ("number", "put 5 in quotes")]
    {
        agent.connect().until_state(workload, "Pending(StartingFailed)");
        let info = info(&agent, workload);
        assert!(info.contains(word), "{info}");
    }
}

#[test]
fn container_that_podman_restarts_by_itself_is_not_replaced_and_its_state_follows() {
    let Some(podman) = Podman::new() else { return };
    let options = r#"["--restart=on-failure"]"#;
    let script = "test -e /again && exec sleep 100000; echo > /again; exit 7";
    let text = container("w", script, options, "");
    let ends = container("ends", "exit 0", options, "");
    let agent = Agent::start_with(podman.env(), &(text + &ends), &[]);
    let mut ctl = agent.connect();
    // With status 0 it is left alone by podman, too.
    ctl.until_state("ends", "Succeeded(Ok)");
    ctl.until_state("w", "Running(Ok)");
    let id = podman.id_of("w").unwrap();
    wait_for("the second process", || {
        podman.output(&["exec", &id, "ls", "/again"]).status.success().then_some(())
    });
    // By hand, and then podman leaves it alone.
    podman.run(&["stop", "--time=0", &id]);
    ctl.until_state("w", "Failed(ExecFailed)");
    podman.run(&["start", &id]);
    ctl.until_state("w", "Running(Ok)");
    assert_eq!(podman.id_of("w").unwrap(), id);
}

/// Ends the process of a container, and the podman that cleans up after it. Whether both were hit.
fn end_without_cleaning_up(podman: &Podman, id: &str) -> bool {
    let pid = podman.run(&["inspect", "--format={{.State.Pid}}", id]);
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    let of =
        |pid: i32, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let is_cleaning = |pid: &i32| {
        of(*pid, "comm") == b"podman\n"
            && String::from_utf8_lossy(&of(*pid, "cmdline")).contains("cleanup")
    };
    let cleaning = wait_for("the podman that cleans up, or its end", || {
        match processes_with(id).into_iter().find(is_cleaning) {
            Some(pid) => Some(Some(pid)),
            // conmon has the id, too, and waits for it.
            None => processes_with(id).is_empty().then_some(None),
        }
    });
    cleaning.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
}

#[test]
fn container_that_podman_has_not_cleaned_up_is_restarted_by_its_policy() {
    let Some(podman) = Podman::new() else { return };
    let text = container("w", "exec sleep 100000", "[]", ", restartPolicy: ALWAYS");
    let agent = Agent::start_with(podman.env(), &text, &[]);
    let mut ctl = agent.connect();
    let mut last = String::new();
    wait_for("a container that stays as it is", || {
        ctl.until_state("w", "Running(Ok)");
        last = podman.id_of("w").filter(|id| *id != last)?;
        let is_hit = end_without_cleaning_up(&podman, &last);
        let is_left = podman.container_of("w").is_some_and(|own| own["State"] == "stopped");
        (is_hit && is_left).then_some(())
    });
    wait_for("the next container", || podman.id_of("w").filter(|id| *id != last));
    ctl.until_state("w", "Running(Ok)");
}

#[test]
fn node_without_podman_says_so_once_and_in_the_state() {
    let empty = tempfile::tempdir().unwrap();
    let path = vec![("PATH".to_owned(), empty.path().display().to_string())];
    let text = container("w", "true", "[]", "");
    let agent = Agent::start_with(path, &text, &[]);
    let info = agent.connect().until("a retry", |tree| {
        let (_, state, info) = state_of(tree, "w")?;
        (state == "Pending(Starting)" && info.starts_with("Retry")).then_some(info)
    });
    assert!(info.contains("there is no program 'podman' in PATH: install it"), "{info}");
    assert_eq!(agent.log().matches("no program 'podman'").count(), 1, "{}", agent.log());
}
