//! The command line as users and scripts meet it: the program itself, its output and its status.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cli {
    mod advice;
    mod client;
    mod denials;
    mod frames;
    mod help;
    mod inputs;
    mod journal;
    mod one_pair;
    mod serving;
    mod set;
    mod stand_in;
    mod typos;
}

use std::{
    io::{PipeReader, Read, pipe},
    process::{Child, Stdio},
};

use assert_cmd::Command;
use testkit::TestServer;

/// The program, quiet but for what goes wrong.
fn fifogate(args: &[&str]) -> Command {
    let mut command = Command::new(testkit::fifogate());
    command.args(args).env_remove("RUST_LOG").timeout(testkit::PATIENCE);
    command
}

/// Workloads that may write: everything, configs of which only one may be read, or unread configs.
const MANIFEST: &str = "
apiVersion: v1
workloads:
  op:
    runtime: process
    agent: agent_A
    runtimeConfig: x
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: ReadWrite, filterMasks: ['*'] }
  writer:
    runtime: process
    agent: agent_A
    runtimeConfig: y
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: Write, filterMasks: [desiredState.configs] }
        - { type: StateRule, operation: Read, filterMasks: [desiredState.configs.mode] }
  blind:
    runtime: process
    agent: agent_A
    runtimeConfig: y
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: Write, filterMasks: [desiredState.configs] }
  engine: { runtime: process, agent: agent_A, runtimeConfig: z, tags: { k: v, l: w } }
configs:
  mode: slow
  node: { name: a, hosts: [h1] }
";

/// Status and output of the program.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run_as(gate: &TestServer, workload: &str, args: &[&str]) -> Said {
    run(args, gate.pair(workload).to_str().unwrap())
}

fn run(args: &[&str], pair: &str) -> Said {
    let output = fifogate(args).args(["-d", pair]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The program in the background, with all its ends in our hands.
fn start(args: &[&str]) -> Child {
    std::process::Command::new(testkit::fifogate())
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs the program with a standard output that nobody reads; its status, and what it says about
/// that.
fn into_closed_pipe(args: &[&str], stdin: &[u8]) -> (Option<i32>, String) {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut child = std::process::Command::new(testkit::fifogate())
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(pipe_with(stdin))
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

/// A pipe that holds `bytes` and then ends.
fn pipe_with(bytes: &[u8]) -> PipeReader {
    let (reader, mut writer) = pipe().unwrap();
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    reader
}
