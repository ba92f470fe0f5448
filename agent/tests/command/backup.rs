//! Backups of `--state-dir` and of a running agent, and their restore, by the steps of docs/operations.md.

use std::{fs, os::unix::fs::PermissionsExt};

use nix::sys::signal::Signal;
use testkit::{Agent, processes_with, wait_for, workload};

use super::operator::done;

const FILE: &str = "state/desired-state.redb";

/// An agent with a kept state: two workloads, a config that one of them uses, and a text that looks like a number.
fn agent() -> Agent {
    let workloads = [
        workload("first", "exec sleep 77901", ", tags: {zone: north}"),
        workload("second", "exec sleep {{s.time}}", ", configs: {s: s}, restartPolicy: ALWAYS"),
        "configs: {s: {time: \"77902\"}, list: [a, b], number: \"007\"}\n".to_owned(),
    ];
    let agent = Agent::start(&workloads.concat(), &["--state-dir", "$dir/state"]);
    let mut ctl = agent.connect();
    ctl.until_state("first", "Running(Ok)");
    ctl.until_state("second", "Running(Ok)");
    agent
}

/// A change, a deletion and an addition.
fn change(agent: &Agent) {
    done(agent, &["set", "desiredState.configs.number=008"]);
    done(agent, &["delete", "workload", "first"]);
    done(agent, &["set", "desiredState.configs.extra=x"]);
}

fn state(agent: &Agent) -> String {
    done(agent, &["get", "state", "desiredState"])
}

fn stop(agent: &mut Agent) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
}

#[test]
fn copied_file_of_a_stopped_agent_brings_back_its_state_and_tags() {
    let mut agent = agent();
    done(&agent, &["set", "agents.agent_A.tags.zone=north"]);
    let before = state(&agent);
    stop(&mut agent);
    fs::copy(agent.path(FILE), agent.path("backup")).unwrap();
    agent.restart();
    change(&agent);
    done(&agent, &["set", "agents.agent_A.tags.zone=south"]);
    assert_ne!(state(&agent), before);
    stop(&mut agent);
    fs::copy(agent.path("backup"), agent.path(FILE)).unwrap();
    // A program that copies may forget the modes.
    for (name, mode) in [("state", 0o755), (FILE, 0o644)] {
        fs::set_permissions(agent.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    agent.restart();
    agent.connect().until_state("first", "Running(Ok)");
    assert_eq!(state(&agent), before);
    assert!(done(&agent, &["get", "state", "agents.agent_A.tags"]).contains("zone: north"));
    for (name, mode) in [("state", 0o700), (FILE, 0o600)] {
        assert_eq!(fs::metadata(agent.path(name)).unwrap().permissions().mode() & 0o777, mode);
    }
}

#[test]
fn printed_state_of_a_running_agent_is_applied_again_or_is_the_manifest_of_a_new_store() {
    let mut agent = agent();
    let before = state(&agent);
    // The manifest of the agent, too, so that it starts from the backup when its store is empty.
    let backup = agent.path("manifest.yaml");
    fs::write(&backup, &before).unwrap();
    change(&agent);
    done(&agent, &["apply", backup.to_str().unwrap()]);
    // Added meanwhile: `apply` deletes nothing.
    assert_eq!(state(&agent).replace("    extra: x\n", ""), before);
    done(&agent, &["delete", "config", "extra"]);
    assert_eq!(state(&agent), before);
    change(&agent);
    stop(&mut agent);
    fs::remove_file(agent.path(FILE)).unwrap();
    agent.restart();
    agent.connect().until_state("first", "Running(Ok)");
    wait_for("its processes", || {
        let counts = ["77901", "77902"].map(|time| processes_with(time).len());
        (counts == [1, 1]).then_some(())
    });
    assert_eq!(state(&agent), before);
}
