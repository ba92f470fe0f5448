//! The attributes of a workload that its user decides about: accounts, outputs, files and signals, each as
//! root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{fs, path::PathBuf};

use testkit::{Agent, is_root_or_skip, workload, workload_with};

const AS_NOBODY: &str = "\"user\": \"nobody\"";

/// All output of a workload that has ended, by the agent's log of it.
fn logged(agent: &Agent, name: &str) -> String {
    let mut ctl = agent.connect();
    let id = ctl.until_state(name, "Succeeded(Ok)");
    let log: PathBuf = agent.path("run/agent/logs").join(format!("{name}.{id}"));
    let entries = fs::read_dir(log).unwrap();
    let all = entries.map(|own| fs::read(own.unwrap().path()).unwrap()).collect::<Vec<_>>();
    String::from_utf8_lossy(&all.concat()).into_owned()
}

/// Opens its outputs anew, by all names that they have.
const OPENS: &str = "echo one > /dev/stdout && echo two > /dev/stderr && echo three >> \
                     /proc/self/fd/1 && echo four > /proc/$$/fd/2 && (echo five | tee /dev/stderr) \
                     && sh -c 'echo six > /dev/fd/1' && exec 1>&2 && echo seven > /dev/stdout";

#[test]
fn outputs_can_be_opened_by_their_names() {
    let mut cases = vec![("", "full"), ("", "mounts"), ("", "none")];
    cases.extend([(AS_NOBODY, "full"), (AS_NOBODY, "mounts"), (AS_NOBODY, "none")]);
    cases.extend([("\"user\": \"12345:54321\"", "full")]);
    for (keys, isolation) in cases {
        if !is_root_or_skip() {
            break;
        }
        let text = workload_with("w", OPENS, keys, "");
        let agent = Agent::start(&text, &["--isolation", isolation]);
        let output = logged(&agent, "w");
        for line in ["one", "two", "three", "four", "five", "six", "seven"] {
            assert!(output.contains(line), "{keys} {isolation}: no {line} in {output}");
        }
    }
    let text = workload("w", OPENS, "");
    let Some(agent) = Agent::start_as(12_345, &text, &[]) else { return };
    assert!(logged(&agent, "w").contains("seven"));
}
