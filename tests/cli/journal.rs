//! Standard error that is the journal of systemd.

use std::{fs::File, os::unix::fs::MetadataExt, process::Command};

/// A rule without effect is a warning; the run directory is no folder, which is an error.
const MANIFEST: &str = "
apiVersion: v1
workloads:
  one:
    runtime: process
    agent: agent_A
    runtimeConfig: one
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: Read, filterMasks: [nowhere] }
";

/// The lines on standard error, with this variable for the file that it is.
fn lines(stream: impl Fn(&File) -> String) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, log) = (folder.path().join("m.yaml"), folder.path().join("log"));
    std::fs::write(&manifest, MANIFEST).unwrap();
    let file = File::create(&log).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_fifogate"))
        .args(["run", "--manifest"])
        .arg(&manifest)
        .arg("--run-dir")
        .arg(&manifest)
        .env("JOURNAL_STREAM", stream(&file))
        .env_remove("RUST_LOG")
        .stderr(file)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn lines_in_the_journal_have_a_priority_and_no_time() {
    let own = |file: &File| {
        let metadata = file.metadata().unwrap();
        format!("{}:{}", metadata.dev(), metadata.ino())
    };
    let lines = lines(own);
    assert!(lines[0].starts_with("<4>fifogate::") && !lines[0].contains("WARN"), "{lines:#?}");
    assert!(lines.last().unwrap().starts_with("<3>error: "), "{lines:#?}");
}

/// The variable is inherited when standard error is redirected.
#[test]
fn lines_in_another_file_than_the_journal_have_a_time() {
    let lines = lines(|_| "1:1".to_owned());
    assert!(lines[0].starts_with("[20") && lines[0].contains(" WARN "), "{lines:#?}");
    assert!(lines.last().unwrap().starts_with("error: "), "{lines:#?}");
}
