//! The calls of podman: names, labels and mounts that other tools rely on, and how many there are.

use std::{fs, path::Path, process::Command};

use testkit::{Agent, IMAGE, Podman, container, state_of, wait_for};

/// An environment in which each call of podman leaves its arguments in a file.
fn recorded(podman: &Podman, folder: &Path) -> Vec<(String, String)> {
    let script = format!(
        "(for a in \"$@\"; do printf '%s\\037' \"$a\"; done; echo) >> {}",
        folder.join("calls").display()
    );
    podman.env_before(&script)
}

fn calls(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("calls")).unwrap_or_default();
    let call =
        |line: &str| line.trim_end_matches('\u{1f}').split('\u{1f}').map(str::to_owned).collect();
    text.lines().map(call).collect()
}

#[test]
fn container_is_made_with_the_names_labels_and_mounts_of_ankaios() {
    let Some(podman) = Podman::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::Value::from(format!(
        "{{image: {IMAGE}, generalOptions: [--log-level=error], commandOptions: [-e, A=1], \
         commandArgs: [sleep, \"100000\"]}}"
    ));
    let text = format!(
        "  w: {{runtime: podman, agent: agent_A, runtimeConfig: {config}, files: [{{mountPoint: /f, data: x}}]}}\n"
    );
    let agent = Agent::start_with(recorded(&podman, folder.path()), &text, &[]);
    let id = agent.connect().until_state("w", "Running(Ok)");
    let made = calls(folder.path()).into_iter().find(|call| call.iter().any(|own| own == "run"));
    let run_dir = agent.path("run");
    let mut files = fs::read_dir(run_dir.join(format!("agent/w.{id}/files"))).unwrap();
    let source = files.next().unwrap().unwrap().path().display().to_string();
    let expected = [
        "--log-level=error".to_owned(),
        "run".to_owned(),
        "--detach".to_owned(),
        "--name".to_owned(),
        format!("w.{}.agent_A", &id[..7]),
        "-e".to_owned(),
        "A=1".to_owned(),
        format!("--mount=type=bind,source={source},destination=/f,readonly=true"),
        format!("--label=name=w.{id}.agent_A"),
        "--label=agent=agent_A".to_owned(),
        format!("--label=fifogate.run-dir={}", run_dir.display()),
        IMAGE.to_owned(),
        "sleep".to_owned(),
        "100000".to_owned(),
    ];
    assert_eq!(made.unwrap(), expected);
    let container = podman.container_of("w").unwrap();
    assert_eq!(container["Labels"]["agent"], "agent_A");
    assert_eq!(container["Names"][0], format!("w.{}.agent_A", &id[..7]));
    let own = container["Id"].as_str().unwrap().to_owned();
    let mut ctl = agent.connect();
    ctl.remove_workload("w");
    wait_for("the removal", || podman.containers().is_empty().then_some(()));
    let all = calls(folder.path());
    for expected in [["stop", "--ignore", &own], ["rm", "--ignore", &own]] {
        assert!(all.iter().any(|call| call == &expected), "{expected:?} is not in {all:?}");
    }
}

#[test]
fn nothing_is_asked_of_podman_again_and_again() {
    let Some(podman) = Podman::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let texts: String =
        (0..5).map(|n| container(&format!("w{n}"), "exec sleep 100000", "[]", "")).collect();
    let agent = Agent::start_with(recorded(&podman, folder.path()), &texts, &[]);
    let mut ctl = agent.connect();
    for n in 0..5 {
        ctl.until_state(&format!("w{n}"), "Running(Ok)");
    }
    // The looks of the starts end with the last event: then a look of its own is answered by one call.
    let count = || calls(folder.path()).len();
    let mut last = count();
    wait_for("silence", || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        let now = count();
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
    podman.run(&["pause", &podman.id_of("w0").unwrap()]);
    ctl.until_state("w0", "Failed(Unknown)");
    assert!(count() <= last + 2, "{:?}", &calls(folder.path())[last..]);
    assert_eq!(calls(folder.path()).iter().filter(|call| call[0] == "events").count(), 1);
}

#[test]
fn podman_that_hangs_keeps_no_process_from_running_and_its_states_are_unknown_then() {
    let Some(podman) = Podman::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let hang = folder.path().join("hang");
    fs::write(&hang, "").unwrap();
    // It ends with the test, whoever has started it by then.
    let script = format!("while [ -e {} ]; do sleep 0.1; done", hang.display());
    let env = podman.env_before(&script);
    let text = container("w", "exec sleep 100000", "[]", "");
    let agent = Agent::start_with(env, &text, &[]);
    let mut ctl = agent.connect();
    ctl.until_state("ctl", "Running(Ok)");
    for what in ["containers", "pods"] {
        let told =
            format!("{what} of an earlier agent are not found: podman: podman has not answered");
        assert!(agent.log().contains(&told), "{}", agent.log());
    }
    fs::remove_file(&hang).unwrap();
    ctl.until_state("w", "Running(Ok)");
    fs::write(&hang, "").unwrap();
    // Seen at the next look, which the container's event causes.
    podman.run(&["pause", &podman.id_of("w").unwrap()]);
    ctl.until_state("w", "Failed(Unknown)");
    let info = state_of(&ctl.state(), "w").unwrap().2;
    assert_eq!(info, "Error getting state from Podman.");
    assert!(
        agent.log().contains("states of containers are unknown: podman ps: "),
        "{}",
        agent.log()
    );
    fs::remove_file(&hang).unwrap();
    ctl.until("the state of podman", |tree| {
        let (_, _, info) = state_of(tree, "w")?;
        (info == "paused").then_some(())
    });
}

#[test]
fn demo_of_containers_runs_to_its_end_and_leaves_nothing() {
    let Some(podman) = Podman::new() else { return };
    let programs = Path::new(testkit::fifogate_agent()).parent().unwrap();
    let demo = testkit::repository().join("demo/podman.sh");
    let output =
        Command::new(demo).arg(programs).env("TMPDIR", podman.path("root/tmp")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    for line in ["sample is FAILED", "speed 50", "sample is gone", "status 0"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(fs::read_dir(podman.path("root/tmp")).unwrap().count(), 0);
}
