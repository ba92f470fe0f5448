//! The pair and the files of a container, whatever user its process is.

use std::path::Path;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::{Agent, Podman, container, fifogate, wait_for};

/// Shows the programs of the node, so that fifogate's own client runs in the container.
fn with_programs(user: &str) -> String {
    let own = Path::new(fifogate()).parent().unwrap().canonicalize().unwrap();
    let volumes = [
        "/usr:/usr:ro".to_owned(),
        "/lib:/lib:ro".to_owned(),
        "/lib64:/lib64:ro".to_owned(),
        format!("{}:/programs:ro", own.display()),
    ];
    let mut options: Vec<_> = volumes.iter().map(|own| format!("--volume={own}")).collect();
    options.push(format!("--user={user}"));
    serde_json::Value::from(options).to_string()
}

/// Kills the fifogate of an agent, which starts another one.
fn kill_fifogate(agent: &Agent) {
    let run_dir = agent.path("run").display().to_string();
    let updates = format!("--updates\0forward\0--run-dir\0{run_dir}");
    let [pid] = testkit::processes_with(&updates)[..] else { panic!("one fifogate is expected") };
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_for("the next fifogate", || {
        let next = testkit::processes_with(&updates);
        (!next.is_empty() && !next.contains(&pid)).then_some(())
    });
}

const READ: &str = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: ReadWrite, \
                    filterMasks: ['desiredState.configs']}]}";

#[test]
fn process_of_any_user_uses_its_pair() {
    let Some(podman) = Podman::new() else { return };
    let client = "/programs/fifogate set -d /run/ankaios/control_interface desiredState.configs";
    let one = |name: &str, user: &str| {
        let script = format!("{client}.{name}=$(id -u):$(id -g); exec sleep 100000");
        container(name, &script, &with_programs(user), READ)
    };
    let text = one("root", "0") + &one("user", "user") + &one("number", "12345:54321");
    let mut agent = Agent::start_with(podman.env(), &text, &[]);
    let config = |agent: &Agent, name: &str, expected: &str| {
        agent.connect().until(name, |tree| {
            let value = tree.get(&["desiredState", "configs", name])?.as_str()?.to_owned();
            (value == expected).then_some(())
        });
    };
    for (name, expected) in [("root", "0:0"), ("user", "1000:1000"), ("number", "12345:54321")] {
        config(&agent, name, expected);
    }
    // The same container with the next fifogate, and then with the next agent.
    let id = podman.id_of("user").unwrap();
    let ask = |name: &str| {
        let script = format!("{client}.{name}=yes");
        let args = ["exec", &id, "sh", "-c", &script];
        wait_for("an update from the same container", || {
            podman.output(&args).status.success().then_some(())
        });
    };
    kill_fifogate(&agent);
    ask("fifogate");
    config(&agent, "fifogate", "yes");
    agent.kill();
    agent.restart();
    agent.connect().until_state("user", "Running(Ok)");
    ask("agent");
    config(&agent, "agent", "yes");
    assert_eq!(podman.id_of("user").unwrap(), id);
}

#[test]
fn files_are_mounted_one_by_one_and_read_only() {
    let Some(podman) = Podman::new() else { return };
    let seen = testkit::Seen::new();
    let volume = format!("--volume={}:/seen", seen.path().display());
    let script = "cat /etc/one /deep/folder/two > /seen/$(id -u).part; \
                  (echo x > /etc/one) 2>> /seen/$(id -u).part; /deep/run >> /seen/$(id -u).part; \
                  ls /etc >> /seen/$(id -u).part; mv /seen/$(id -u).part /seen/$(id -u); \
                  exec sleep 100000";
    let files = ", files: [{mountPoint: /etc/one, data: \"one\\n\"}, \
                 {mountPoint: /deep/folder/two, binaryData: dHdvCg==}, \
                 {mountPoint: /deep/run, data: \"#!/bin/sh\\necho ran\\n\"}]";
    let one = |name: &str, user: u32| {
        let options = serde_json::json!([format!("--user={user}"), volume]).to_string();
        container(name, script, &options, files)
    };
    let _agent = Agent::start_with(podman.env(), &(one("root", 0) + &one("user", 1000)), &[]);
    for user in ["0", "1000"] {
        let text = seen.read(user);
        let is_refused = text.contains("/etc/one: Read-only file system");
        assert!(text.starts_with("one\ntwo\n") && is_refused, "{text}");
        assert!(
            text.contains("ran\n") && text.contains("passwd"),
            "the folder around stays: {text}"
        );
    }
}
