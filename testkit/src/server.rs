//! A running `fifogate run`.

use std::{
    fs,
    io::Read,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{Process, Session, fifogate, session::pair_of};

/// The shell's command line that starts fifogate as it is.
pub const FOREGROUND: &str = r#"exec "$@""#;

/// A fifogate with a manifest, and its run directory.
pub struct TestServer {
    /// The process.
    pub process: Process,
    /// Its run directory.
    pub run_dir: PathBuf,
    dir: TempDir,
    /// The shell's command line that it is started with, and its own options.
    commands: String,
    options: Vec<String>,
}

impl TestServer {
    /// Starts it with a manifest file and waits until it is ready.
    pub fn start(manifest: &Path, options: &[&str]) -> Self {
        Self::with(&fs::read_to_string(manifest).unwrap(), options)
    }

    /// Starts it with the text of a manifest.
    pub fn with(manifest: &str, options: &[&str]) -> Self {
        Self::behind(FOREGROUND, manifest, options)
    }

    /// Starts it behind a shell's command line, which has to end in `exec ... "$@"`. There `$dir` is the
    /// folder of the run directory `run` and of `log`, fifogate's standard error.
    pub fn behind(commands: &str, manifest: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest.yaml"), manifest).unwrap();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let process = Process::start(&mut command(dir.path(), commands, &options));
        let (run_dir, commands) = (dir.path().join("run"), commands.to_owned());
        let mut server = Self { process, run_dir, dir, commands, options };
        server.wait_until_ready();
        server
    }

    /// fifogate's standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts another on the same run directory and does not wait for it; gives the one before.
    pub fn replace(&mut self) -> Process {
        let next = Process::start(&mut command(self.dir.path(), FOREGROUND, &[]));
        std::mem::replace(&mut self.process, next)
    }

    /// Kills it and starts another on the same run directory, with the same options.
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        self.restart();
    }

    /// Starts another behind one that has ended.
    pub fn restart(&mut self) {
        let mut command = command(self.dir.path(), &self.commands, &self.options);
        self.process = Process::start(&mut command);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let mut ready = [0];
        let count = self.process.stdout.as_mut().unwrap().read(&mut ready).unwrap();
        assert_eq!((count, ready), (1, *b"\n"), "fifogate ended instead of getting ready");
    }

    /// The folder of the pair of a workload.
    pub fn pair(&self, workload: &str) -> PathBuf {
        pair_of(&self.run_dir, workload).unwrap_or_else(|| panic!("no folder of {workload}"))
    }

    /// Whether a workload has a pair.
    pub fn has_pair(&self, workload: &str) -> bool {
        pair_of(&self.run_dir, workload).is_some()
    }

    /// A workload that has sent nothing yet.
    pub fn open(&self, workload: &str) -> Session {
        Session::open(&self.pair(workload))
    }

    /// A workload with an open session.
    pub fn connect(&self, workload: &str) -> Session {
        Session::connect(&self.pair(workload))
    }

    /// Sends SIGTERM; gives the status of the process.
    pub fn stop(mut self) -> Option<i32> {
        self.process.signal(Signal::SIGTERM);
        self.process.wait_end().code()
    }

    /// The object on its status socket.
    pub fn status(&self) -> serde_json::Value {
        let mut text = String::new();
        let mut socket = UnixStream::connect(self.run_dir.join("status.sock")).unwrap();
        socket.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The part of its status about a workload.
    pub fn status_of(&self, workload: &str) -> serde_json::Value {
        let status = self.status();
        let workloads = status["workloads"].as_array().unwrap();
        workloads.iter().find(|own| own["name"] == workload).unwrap().clone()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of fifogate ---\n{}", self.log());
        }
    }
}

/// The notification goes through the shell's standard output, so no descriptor has to be passed by
/// number from here.
fn command(dir: &Path, commands: &str, options: &[String]) -> Command {
    let script = format!("exec 2>>\"$dir/log\" 3>&1 1>/dev/null; {commands}");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", fifogate(), "run", "--manifest"]);
    command.arg(dir.join("manifest.yaml")).arg("--run-dir").arg(dir.join("run")).args(options);
    command.args(["--notification-fd", "3"]).env("dir", dir).stdout(Stdio::piped());
    command
}
