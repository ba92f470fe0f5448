//! A server, an operator at a terminal, and agents of both kinds. All of it ends with the test.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Authority, Podman, Process, Session, fifogate, fifogate_agent, skip, wait_for};

use crate::manifest::{Workload, manifest};

/// A cluster with a server that runs.
pub(crate) struct Cluster {
    bin: PathBuf,
    port: u16,
    /// The server, unless the test has ended it.
    pub(crate) server: Option<Process>,
    dir: TempDir,
    tls: Option<Authority>,
}

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// What it printed, if it went well.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?} {}", self.err);
        self.out
    }
}

impl Cluster {
    /// An insecure one with an empty state. `None`, and the test is skipped, where the programs are not known.
    pub(crate) fn new() -> Option<Self> {
        Self::with(None, &manifest([], &json!({})))
    }

    /// One with a state.
    pub(crate) fn of(manifest: &str) -> Option<Self> {
        Self::with(None, manifest)
    }

    /// With TLS if there is an authority; it has files for each name.
    pub(crate) fn with(tls: Option<Authority>, manifest: &str) -> Option<Self> {
        let Some(bin) = std::env::var_os("ANK_BIN_DIR").map(PathBuf::from) else {
            skip("ANK_BIN_DIR is not set, the folder of ank, ank-server and ank-agent");
            return None;
        };
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { bin, port, server: None, dir, tls };
        cluster.start_server(manifest);
        Some(cluster)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Starts the server with a state; it keeps none.
    pub(crate) fn start_server(&mut self, manifest: &str) {
        fs::write(self.path("manifest.yaml"), manifest).unwrap();
        let mut command = self.program("ank-server", "server.log");
        command.args(["--address", &format!("127.0.0.1:{}", self.port)]);
        command.arg("-m").arg(self.path("manifest.yaml"));
        self.secure(&mut command, "ank-server");
        let mut server = Process::start(&mut command);
        wait_for("the server", || {
            let ended = server.try_wait().unwrap();
            assert!(ended.is_none(), "the server has ended: {ended:?} {}", self.log("server.log"));
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self.server = Some(server);
    }

    /// As if its machine lost power.
    pub(crate) fn kill_server(&mut self) {
        self.server = None;
    }

    fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    fn program(&self, name: &str, log: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.stdin(Stdio::null()).stdout(self.file(log)).stderr(self.file(log));
        command.env("HOME", self.dir.path());
        command
    }

    fn file(&self, name: &str) -> File {
        File::options().create(true).append(true).open(self.path(name)).unwrap()
    }

    /// What a program of this cluster has printed.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn secure(&self, command: &mut Command, name: &str) {
        let Some(authority) = &self.tls else {
            command.arg("--insecure");
            return;
        };
        let options = ["--ca_pem", "--crt_pem", "--key_pem"];
        for (option, path) in options.iter().zip(authority.files(name)) {
            command.arg(option).arg(path);
        }
    }

    /// Runs `ank` to its end.
    #[track_caller]
    pub(crate) fn ank(&self, arguments: &[&str]) -> Said {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        let [out, err] = ["out", "err"].map(|name| dir.path().join(name));
        let mut command = self.operator(arguments);
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let mut ank = Process::start(&mut command);
        let status = wait_for(&format!("the end of ank {arguments:?}"), || ank.try_wait().unwrap());
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Said { code: status.code(), out: read(&out), err: read(&err) }
    }

    /// Starts `ank`, whose output goes to a file.
    pub(crate) fn start_ank(&self, output: &str, arguments: &[&str]) -> Process {
        let mut command = self.operator(arguments);
        Process::start(command.stdout(self.file(output)).stderr(self.file(output)))
    }

    fn operator(&self, arguments: &[&str]) -> Command {
        let mut command = self.program("ank", "ank.log");
        self.secure(&mut command, "operator");
        command.args(["--server-url", &self.url(), "--response-timeout", "30000"]);
        command.args(arguments);
        command
    }

    /// Applies a manifest, and waits as `ank` does by itself.
    #[track_caller]
    pub(crate) fn apply(&self, text: &str) -> String {
        let path = self.path("applied.yaml");
        fs::write(&path, text).unwrap();
        self.ank(&["apply", path.to_str().unwrap()]).good()
    }

    /// Applies workloads without waiting for them.
    #[track_caller]
    pub(crate) fn add<'a>(&self, workloads: impl IntoIterator<Item = (&'a str, Workload)>) {
        let path = self.path("applied.yaml");
        fs::write(&path, manifest(workloads, &json!({}))).unwrap();
        self.ank(&["--no-wait", "apply", path.to_str().unwrap()]).good();
    }

    /// Removes a workload without waiting for it.
    #[track_caller]
    pub(crate) fn remove(&self, workloads: &[&str]) {
        self.ank(&[&["--no-wait", "delete", "workload"], workloads].concat()).good();
    }

    /// The state of the server.
    #[track_caller]
    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.ank(&["get", "state", "-o", "json"]).good()).unwrap()
    }

    /// The states of the instances of a workload, each as `Running(Ok)`.
    #[track_caller]
    pub(crate) fn states(&self, agent: &str, workload: &str) -> Vec<String> {
        let state = self.state();
        let ids = state["workloadStates"][agent][workload].as_object().cloned();
        let of = |own: &Value| {
            let text = |name: &str| own[name].as_str().unwrap_or_default().to_owned();
            format!("{}({})", text("state"), text("subState"))
        };
        ids.unwrap_or_default().values().map(of).collect()
    }

    /// Waits until the only instance of a workload is in a state at the server.
    #[track_caller]
    pub(crate) fn until(&self, agent: &str, workload: &str, wanted: &str) {
        wait_for(&format!("{workload} {wanted}"), || {
            (self.states(agent, workload) == [wanted]).then_some(())
        });
    }

    /// Waits until the server knows nothing of a workload any more.
    #[track_caller]
    pub(crate) fn until_gone(&self, agent: &str, workload: &str) {
        wait_for(&format!("the end of {workload}"), || {
            self.states(agent, workload).is_empty().then_some(())
        });
    }

    /// Waits until an agent is connected, or is not.
    #[track_caller]
    pub(crate) fn until_connected(&self, agent: &str, wanted: bool) {
        wait_for(&format!("{agent} connected: {wanted}"), || {
            (self.state()["agents"].get(agent).is_some() == wanted).then_some(())
        });
    }

    /// Starts an agent of ours, and waits until the server knows it.
    pub(crate) fn ours(&self, name: &str, options: &[&str]) -> Member {
        self.ours_with(name, options, &[])
    }

    /// As [`Cluster::ours`], with further variables of the environment.
    pub(crate) fn ours_with(
        &self,
        name: &str,
        options: &[&str],
        env: &[(String, String)],
    ) -> Member {
        let member = self.start_ours(name, options, env);
        self.until_connected(name, true);
        member
    }

    /// As [`Cluster::ours_with`], and does not wait.
    pub(crate) fn start_ours(
        &self,
        name: &str,
        options: &[&str],
        env: &[(String, String)],
    ) -> Member {
        self.start_ours_in(&format!("run-{name}"), name, options, env)
    }

    /// As [`Cluster::start_ours`], with this folder for its run directory.
    pub(crate) fn start_ours_in(
        &self,
        folder: &str,
        name: &str,
        options: &[&str],
        env: &[(String, String)],
    ) -> Member {
        let log = format!("{folder}.log");
        let run_dir = self.path(folder);
        let mut command = Command::new(fifogate_agent());
        command.args(["run", "--name", name, "--server", &self.url()]);
        command.arg("--run-dir").arg(&run_dir).arg("--fifogate").arg(fifogate()).args(options);
        match &self.tls {
            None => drop(command.arg("--insecure")),
            Some(authority) => {
                let options = ["--ca-pem", "--crt-pem", "--key-pem"];
                for (option, path) in options.iter().zip(authority.files(name)) {
                    command.arg(option).arg(path);
                }
            }
        }
        command.stdin(Stdio::null()).stderr(self.file(&log)).stdout(self.file(&log));
        command.envs(env.iter().cloned());
        let process = Process::start(&mut command);
        Member { process, pairs: run_dir, log: self.path(&log) }
    }

    /// Starts an agent of Ankaios, and waits until the server knows it.
    pub(crate) fn real(&self, name: &str, podman: &Podman) -> Member {
        let (run_folder, log) = (self.path(name), format!("{name}.log"));
        fs::create_dir_all(&run_folder).unwrap();
        let mut command = self.program("ank-agent", &log);
        command.args(["--name", name, "--server-url", &self.url()]).arg("--run-folder");
        command.arg(&run_folder).envs(podman.env());
        self.secure(&mut command, name);
        let process = Process::start(&mut command);
        self.until_connected(name, true);
        Member { process, pairs: run_folder.join(format!("{name}_io")), log: self.path(&log) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log("server.log"));
        }
    }
}

/// A running agent.
pub(crate) struct Member {
    pub(crate) process: Process,
    /// Where the folders of its workloads' pairs are.
    pub(crate) pairs: PathBuf,
    log: PathBuf,
}

impl Member {
    /// A session of a workload.
    pub(crate) fn connect(&self, workload: &str) -> Session {
        Session::connect_until(&self.pairs, workload)
    }

    /// The folder of a workload's pair, when it is there.
    pub(crate) fn pair(&self, workload: &str) -> PathBuf {
        let begin = format!("{workload}.");
        wait_for(&format!("the pair of {workload}"), || {
            let mut all = fs::read_dir(&self.pairs).ok()?.filter_map(Result::ok);
            let own = all.find(|own| own.file_name().to_string_lossy().starts_with(&begin))?;
            Some(own.path().join("control_interface")).filter(|pair| pair.join("output").exists())
        })
    }

    /// Runs a command of the program `fifogate` as a workload.
    pub(crate) fn speak(&self, workload: &str, command: &str, arguments: &[&str]) -> Said {
        let mut program = Command::new(fifogate());
        program.arg(command).arg("-d").arg(self.pair(workload)).args(["--timeout", "30"]);
        let output = program.args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The state as a workload reads it.
    #[track_caller]
    pub(crate) fn state(&self, workload: &str, masks: &[&str]) -> Value {
        let said = self.speak(workload, "get", &[&["-o", "json"], masks].concat());
        serde_json::from_str(&said.good()).unwrap()
    }

    /// What it has printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log());
        }
    }
}

/// A state without its empty parts, as `ank` prints it, and without what changes by itself.
pub(crate) fn pruned(state: &Value) -> Value {
    match state {
        Value::Object(map) => {
            let kept = map.iter().filter(|(name, _)| *name != "status");
            let pruned = kept.map(|(name, own)| (name.clone(), pruned(own)));
            let is_empty = |own: &Value| own.is_null() || *own == json!({}) || *own == json!([]);
            pruned.filter(|(_, own)| !is_empty(own)).collect()
        }
        other => other.clone(),
    }
}
