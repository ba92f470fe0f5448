//! The pair and the files of a container, whatever user its process is.

use std::path::Path;

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
    // The same container after its agent has gone, and in the middle of a life without one.
    let id = podman.id_of("user").unwrap();
    agent.kill();
    agent.restart();
    agent.connect().until_state("user", "Running(Ok)");
    let again = format!("{client}.again=yes");
    let args = ["exec", &id, "sh", "-c", &again];
    wait_for("an update from the same container", || {
        podman.output(&args).status.success().then_some(())
    });
    config(&agent, "again", "yes");
    assert_eq!(podman.id_of("user").unwrap(), id);
}

#[test]
fn files_are_mounted_one_by_one_and_read_only() {
    let Some(podman) = Podman::new() else { return };
    let seen = testkit::Seen::new();
    let options = format!(r#"["--user=1000", "--volume={}:/seen"]"#, seen.path().display());
    let script = "cat /etc/one /deep/folder/two > /seen/part; (echo x > /etc/one) 2>> /seen/part; \
                  /deep/run >> /seen/part; ls /etc >> /seen/part; mv /seen/part /seen/done 2>&1; exec sleep 100000";
    let script = script.replace("mv ", "busybox mv ");
    let script = script.replace("busybox mv", "/bin/busybox mv");
    let files = ", files: [{mountPoint: /etc/one, data: \"one\\n\"}, \
                 {mountPoint: /deep/folder/two, binaryData: dHdvCg==}, \
                 {mountPoint: /deep/run, data: \"#!/bin/sh\\necho ran\\n\"}]";
    let agent = Agent::start_with(podman.env(), &container("w", &script, &options, files), &[]);
    agent.connect().until_state("w", "Running(Ok)");
    let text = seen.read("done");
    assert!(text.starts_with("one\ntwo\n"), "{text}");
    assert!(text.contains("Read-only file system") || text.contains("Permission denied"), "{text}");
    assert!(text.contains("ran\n") && text.contains("passwd"), "the folder around stays: {text}");
}
