//! A running reference agent with its fifogate.

use std::{
    fs::{self, OpenOptions},
    io::Read,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use fifogate::state::Tree;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{Process, Session, fifogate, fifogate_agent, is_root_or_skip, skip, wait_for};

/// Every manifest of the tests begins with a workload that may do everything: the test itself.
const HEAD: &str = "apiVersion: v1
workloads:
  ctl:
    runtime: process
    agent: agent_A
    runtimeConfig: '{command: sleep, args: [100000]}'
    controlInterfaceAccess:
      allowRules:
        - {type: StateRule, operation: ReadWrite, filterMasks: ['*']}
        - {type: LogRule, workloadNames: ['*']}
";

/// The agent of a node.
pub struct Agent {
    /// Its process.
    pub child: Process,
    /// A folder for its manifest, its run directory `run` and its `log`.
    pub dir: TempDir,
    options: Vec<String>,
    env: Vec<(String, String)>,
}

impl Agent {
    /// Starts it with these workloads, as they stand in a manifest, and waits until it is there.
    pub fn start(workloads: &str, options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), None, workloads, options, Vec::new())
    }

    /// As [`Agent::start`], with further variables of the environment.
    pub fn start_with(env: Vec<(String, String)>, workloads: &str, options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), None, workloads, options, env)
    }

    /// Starts it as an agent of a server of Ankaios, which has the state.
    pub fn join(url: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = [&["--server", url][..], options].concat();
        let options: Vec<_> = options.into_iter().map(str::to_owned).collect();
        let child = spawn(dir.path(), &options, None, &[]);
        Self { child, dir, options, env: Vec::new() }
    }

    /// As [`Agent::start`], by an ordinary user. `None`, and the test is skipped, if it cannot become that user.
    pub fn start_as(uid: u32, workloads: &str, options: &[&str]) -> Option<Self> {
        if !is_root_or_skip() {
            return None;
        }
        let reaches = Command::new(fifogate_agent()).arg("--version").uid(uid).gid(uid).output();
        if !reaches.is_ok_and(|output| output.status.success()) {
            skip("the programs are in a folder that other users cannot enter");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        chown(dir.path(), Some(uid), Some(uid)).unwrap();
        Some(Self::start_in(dir, Some(uid), workloads, options, Vec::new()))
    }

    fn start_in(
        dir: TempDir,
        uid: Option<u32>,
        workloads: &str,
        options: &[&str],
        env: Vec<(String, String)>,
    ) -> Self {
        fs::write(dir.path().join("manifest.yaml"), format!("{HEAD}{workloads}")).unwrap();
        let options = options.iter().map(|own| own.replace("$dir", dir.path().to_str().unwrap()));
        let options: Vec<_> = options.collect();
        let child = spawn(dir.path(), &options, uid, &env);
        Self { child, dir, options, env }
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The test's own session, when the agent has its pair ready.
    pub fn connect(&self) -> Session {
        self.connect_as("ctl")
    }

    /// The session of another workload.
    pub fn connect_as(&self, workload: &str) -> Session {
        Session::connect_until(&self.path("run"), workload)
    }

    /// The folders of the pairs of a workload.
    pub fn pairs_of(&self, workload: &str) -> Vec<PathBuf> {
        let begin = format!("{workload}.");
        let all = fs::read_dir(self.path("run")).unwrap().map(|own| own.unwrap().path());
        let is_own = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begin))
        };
        all.filter(is_own).map(|path| path.join("control_interface")).collect()
    }

    /// The agent's standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The part of fifogate's status about a workload.
    pub fn status_of(&self, workload: &str) -> serde_json::Value {
        let status = self.gate_status();
        let workloads = status["workloads"].as_array().unwrap();
        workloads.iter().find(|own| own["name"] == workload).unwrap().clone()
    }

    /// The trouble of the agent, as fifogate's status has it.
    pub fn trouble(&self) -> String {
        self.gate_status()["agent_trouble"].as_str().unwrap_or_default().to_owned()
    }

    fn gate_status(&self) -> serde_json::Value {
        let mut text = String::new();
        let mut socket = UnixStream::connect(self.path("run/status.sock")).unwrap();
        socket.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Sends a signal to the agent alone.
    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// SIGKILL, as a crash ends it.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// SIGKILL, and waits until its fifogate has ended, too.
    pub fn kill_with_gate(&mut self) {
        self.kill();
        let run_dir = self.path("run").display().to_string();
        wait_for("the end of fifogate", || processes_with(&run_dir).is_empty().then_some(()));
    }

    /// Changes the text of its manifest, for the next start.
    pub fn edit_manifest(&self, edit: impl FnOnce(String) -> String) {
        let path = self.path("manifest.yaml");
        fs::write(&path, edit(fs::read_to_string(&path).unwrap())).unwrap();
    }

    /// Changes its options, for the next start.
    pub fn change_options(&mut self, change: impl FnOnce(&mut Vec<String>)) {
        change(&mut self.options);
    }

    /// Starts it again as it was started.
    pub fn restart(&mut self) {
        self.child = spawn(self.dir.path(), &self.options, None, &self.env);
    }

    /// Its status, when it has ended.
    pub fn status(&mut self) -> Option<i32> {
        self.child.wait_end().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the agent ---\n{}", self.log());
        }
    }
}

fn spawn(dir: &Path, options: &[String], uid: Option<u32>, env: &[(String, String)]) -> Process {
    let log = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new(fifogate_agent());
    command.args(["run", "--fifogate", fifogate(), "--run-dir"]).arg(dir.join("run"));
    let manifest = dir.join("manifest.yaml");
    if manifest.exists() {
        command.arg("--manifest").arg(manifest);
    }
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    Process::start(command.args(options).stdin(Stdio::null()).stderr(log))
}

/// The id, the state and the additional information of the one instance of a workload of agent_A.
pub fn state_of(tree: &Tree, workload: &str) -> Option<(String, String, String)> {
    let path = ["workloadStates", "agent_A", workload];
    let mut entries = tree.entries(&path).iter();
    let (id, state) = entries.next()?;
    let text = |name| state.str_at(name).unwrap_or_default().to_owned();
    let both = format!("{}({})", text("state"), text("subState"));
    entries.next().is_none().then(|| (id.to_string(), both, text("additionalInfo")))
}

/// A `runtimeConfig` that runs a script, as it stands in a manifest in one line.
pub fn shell(script: &str) -> String {
    let config = serde_json::json!({ "command": "sh", "args": ["-c", script] });
    serde_json::Value::from(config.to_string()).to_string()
}

/// A workload of agent_A that runs a script, with further fields.
pub fn workload(name: &str, script: &str, fields: &str) -> String {
    workload_with(name, script, "", fields)
}

/// Processes whose command line holds `text`.
pub fn processes_with(text: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
    .collect()
}

/// A workload of agent_A that runs a script, with further keys of its `runtimeConfig` as JSON, and
/// with further fields.
pub fn workload_with(name: &str, script: &str, keys: &str, fields: &str) -> String {
    let mut config = serde_json::json!({ "command": "sh", "args": ["-c", script] });
    let more: serde_json::Value = serde_json::from_str(&format!("{{{keys}}}")).unwrap();
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    let config = serde_json::Value::from(config.to_string()).to_string();
    format!("  {name}: {{runtime: process, agent: agent_A, runtimeConfig: {config}{fields}}}\n")
}

/// A folder in which workloads of any user can leave what they saw.
pub struct Seen(TempDir);

impl Seen {
    #[allow(clippy::new_without_default)]
    /// An empty folder.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The script with its output in a file here, which appears when the script is done.
    pub fn script(&self, name: &str, script: &str) -> String {
        let file = self.0.path().join(name).display().to_string();
        format!("{{ {script}\n}} > {file}.part 2>&1; mv {file}.part {file}; exec sleep 100000")
    }

    /// The output of the script of this name.
    pub fn read(&self, name: &str) -> String {
        wait_for(&format!("the output of {name}"), || {
            fs::read_to_string(self.0.path().join(name)).ok()
        })
    }
}
