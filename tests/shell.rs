//! Workloads with nothing but a shell: coreutils, prepared frames, and `fifogate decode` to look at
//! what comes back. The scripts are in `tests/shell/`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use testkit::{PATIENCE, TestServer, fifogate, fixture};

fn gate() -> TestServer {
    TestServer::start(&fixture("manifests/three-workloads.yaml"), &["-q"])
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shell").join(name)
}

/// Runs a script as a workload; it fails if a message that it waits for does not come.
fn run(name: &str, gate: &TestServer, workload: &str, on_line: impl Fn(&str)) {
    let mut child = Command::new("timeout")
        .args([&PATIENCE.as_secs().to_string(), "sh"])
        .args([script(name), gate.pair(workload), fixture("frames"), fifogate().into()])
        .arg(gate.pair("publisher"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        on_line(&line);
        said.push(line);
    }
    assert!(child.wait().unwrap().success(), "{name} was told: {said:#?}");
}

#[test]
fn shell_says_hello_subscribes_hears_an_event_and_cancels() {
    let gate = gate();
    run("subscriber.sh", &gate, "shell", |line| {
        if line == "subscribed" {
            run("publisher.sh", &gate, "publisher", |_| {});
        }
    });
}

#[test]
fn frames_that_make_no_sense_cost_no_more_than_the_session_that_they_came_in() {
    run("misfits.sh", &gate(), "shell", |_| {});
}

#[test]
fn prepared_frames_are_those_that_are_made_anew() {
    let anew = tempfile::tempdir().unwrap();
    let mut made = Command::new("sh");
    made.arg(fixture("rebuild.sh")).args([fifogate().as_ref(), anew.path()]);
    assert!(made.status().unwrap().success());
    let frames = |folder: &Path| {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let frames = files.filter(|file| file.extension().is_some_and(|end| end == "bin"));
        let named = |file: PathBuf| (file.file_name().unwrap().to_owned(), fs::read(file).unwrap());
        frames.map(named).collect::<BTreeMap<_, _>>()
    };
    let (stored, made) = (frames(&fixture("frames")), frames(anew.path()));
    assert!(!stored.is_empty());
    let names = stored.keys().chain(made.keys());
    let differ: Vec<_> = names.filter(|name| stored.get(*name) != made.get(*name)).collect();
    assert!(differ.is_empty(), "`make fixtures` makes others: {differ:?}");
}
