//! The unmodified Rust SDK as a client. `tests/sdk/setup.sh` has to be run once before.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use testkit::{Agent, Authority, repository};

use super::tls::{free_port, options, start};

/// Drives the program with the SDK through its steps, and restarts the agent when it asks for this.
fn drive(mut agent: Agent, args: &[String]) {
    let program = repository().join("target/sdk/debug/sdk-commander");
    assert!(program.is_file(), "run tests/sdk/setup.sh first");
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let mut steps = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "restart me" {
            agent.signal(Signal::SIGTERM);
            assert_eq!(agent.status(), Some(0));
            agent.restart();
            writeln!(to).unwrap();
        }
        steps.push(line);
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{steps:?}");
    let expected = [
        "connected",
        "agents [\"agent_A\"]",
        "subscribed",
        "added remote",
        "event remote runs",
        "log hello",
        "log cancelled",
        "events cancelled",
        "restart me",
        "reconnected",
        "deleted remote",
    ];
    assert_eq!(steps, expected);
}

/// A folder for the state, so a restarted agent has it again.
const STATE: [&str; 2] = ["--state-dir", "$dir/state"];

#[test]
fn rust_sdk_reads_applies_follows_and_reconnects_over_tcp() {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let mut options = ["--listen", &address, "--insecure"].map(str::to_owned).to_vec();
    options.extend(STATE.map(str::to_owned));
    drive(start(&options), &[format!("http://{address}")]);
}

#[test]
fn rust_sdk_reads_applies_follows_and_reconnects_over_mutual_tls() {
    let authority = Authority::new();
    authority.issue("ank-server");
    authority.issue("operator");
    let port = free_port();
    let mut options = options(&authority, "ank-server", port);
    options.extend(STATE.map(str::to_owned));
    let file = |name: &str| authority.path(name).display().to_string();
    let files = ["ca.pem", "operator.pem", "operator.key"].map(file);
    let args = [vec![format!("https://127.0.0.1:{port}")], files.to_vec()].concat();
    drive(start(&options), &args);
}
