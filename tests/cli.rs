//! The command line as users and scripts meet it: the program itself, its output and its status.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cli {
    mod client;
    mod denials;
    mod frames;
    mod help;
    mod inputs;
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

/// The program, quiet but for what goes wrong.
fn fifogate(args: &[&str]) -> Command {
    let mut command = Command::new(testkit::fifogate());
    command.args(args).env_remove("RUST_LOG").timeout(testkit::PATIENCE);
    command
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
