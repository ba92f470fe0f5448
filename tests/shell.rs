//! A workload with nothing but a shell: coreutils, prepared frames, and `fifogate decode` to read
//! what comes back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use common::{FIFOGATE, Gate, fixture};

#[test]
fn shell_says_hello_subscribes_hears_an_event_and_cancels() {
    let gate = Gate::start(&fixture("manifests/three-workloads.yaml"), &[]);
    let frames = fixture("frames");
    let mut subscriber = Command::new("sh")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shell/subscriber.sh"))
        .args([gate.pair("shell").as_path(), &frames, Path::new(FIFOGATE)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(subscriber.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "subscribed" {
            // A custom event, sent by a workload that has only `cat`.
            let pair = gate.pair("publisher");
            let mut output = fs::OpenOptions::new().write(true).open(pair.join("output")).unwrap();
            for frame in ["hello.bin", "set-speed-to-80.bin"] {
                output.write_all(&fs::read(frames.join(frame)).unwrap()).unwrap();
            }
        }
        said.push(line);
    }
    assert!(subscriber.wait().unwrap().success(), "{said:#?}");
    assert_eq!(said.len(), 5, "{said:#?}");
}

#[test]
fn prepared_frames_are_what_their_json_says() {
    for file in fs::read_dir(fixture("frames")).unwrap() {
        let json = file.unwrap().path();
        if json.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let encoded = Command::new(FIFOGATE)
            .arg("encode")
            .stdin(fs::File::open(&json).unwrap())
            .output()
            .unwrap();
        let bytes = fs::read(json.with_extension("bin")).unwrap();
        assert!(encoded.status.success() && encoded.stdout == bytes, "{json:?}: make fixtures");
    }
}
