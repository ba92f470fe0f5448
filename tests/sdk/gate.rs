//! A running fifogate, with a manifest and a run directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{PATIENCE, Process};

/// The receiver may read much, the sender may write; both are denied the rest.
const MANIFEST: &str = r#"
apiVersion: v1
workloads:
  receiver:
    runtime: podman
    agent: agent_A
    runtimeConfig: "image: receiver:1"
    controlInterfaceAccess:
      allowRules:
        - type: StateRule
          operation: Read
          filterMasks: ["desiredState.configs", "workloadStates"]
        - type: StateRule
          operation: Write
          filterMasks: ["desiredState.configs"]
      denyRules:
        - type: StateRule
          operation: Write
          filterMasks: ["desiredState.configs.locked"]
  sender:
    runtime: podman
    agent: agent_A
    runtimeConfig: "image: sender:1"
    controlInterfaceAccess:
      allowRules:
        - type: StateRule
          operation: Write
          filterMasks: ["desiredState.configs", "desiredState.workloads.extra"]
configs:
  greeting: hello
  hosts: ["h1", "h2"]
"#;

pub(crate) struct Gate {
    // Before the folder, so that it is gone when the folder is removed.
    process: Process,
    folder: TempDir,
}

impl Gate {
    pub(crate) fn start() -> Gate {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("manifest.yaml"), MANIFEST).unwrap();
        Gate { process: launch(folder.path()), folder }
    }

    /// SIGKILL; the run directory stays as it is.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the run directory that [`Gate::kill`] left behind.
    pub(crate) fn restart(&mut self) {
        self.process = launch(self.folder.path());
    }

    /// The folder with the two FIFOs of a workload.
    pub(crate) fn pair_of(&self, workload: &str) -> PathBuf {
        let prefix = format!("{workload}.");
        let folder = fs::read_dir(self.folder.path().join("run"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .find(|entry| entry.file_name().to_str().unwrap().starts_with(&prefix))
            .unwrap_or_else(|| panic!("no pair for {workload}\n{}", self.process.log()));
        folder.path().join("control_interface")
    }

    /// Where a workload may write its log.
    pub(crate) fn log_file(&self, workload: &str) -> PathBuf {
        self.folder.path().join(format!("{workload}.log"))
    }

    /// What fifogate logged, for the message of a failed test.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

/// Returns when fifogate is ready.
fn launch(folder: &Path) -> Process {
    // Standard output becomes descriptor 3, because std hands no other descriptor to a child.
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"exec "$0" "$@" --notification-fd 3 3>&1 1>&2"#])
        .args([env!("CARGO_BIN_EXE_fifogate"), "run"])
        .arg("--manifest")
        .arg(folder.join("manifest.yaml"))
        .arg("--run-dir")
        .arg(folder.join("run"));
    let process = Process::spawn(&mut command, folder.join("fifogate.log"));
    let ready = process.line_within(PATIENCE);
    assert!(ready.is_some(), "fifogate is not ready in time\n{}", process.log());
    process
}
