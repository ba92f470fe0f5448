//! A running agent with its fifogate, and a workload of it whose side of the pipes the test takes.

#![allow(dead_code)] // each test file uses some of it

pub(crate) mod server;

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use fifogate::{
    frame::{FrameDecoder, encode},
    pb::{
        ank_base::{self as pb, request::RequestContent, response::ResponseContent},
        control_api::{
            FromAnkaios, Hello, ToAnkaios, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum,
        },
    },
    state::{Tree, convert},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prost::Message;
use tempfile::TempDir;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const AGENT: &str = env!("CARGO_BIN_EXE_fifogate-agent");

/// What every test's manifest begins with: a workload that may do everything, which is the test.
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

pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) dir: TempDir,
    options: Vec<String>,
}

/// The component, which is built with the workspace.
pub(crate) fn fifogate() -> PathBuf {
    let path = Path::new(AGENT).with_file_name("fifogate");
    assert!(path.is_file(), "{} is missing: `cargo build --workspace` first", path.display());
    path
}

impl Agent {
    /// Starts it with these workloads, as they stand in a manifest, and waits until it is there.
    pub(crate) fn start(workloads: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest.yaml"), format!("{HEAD}{workloads}")).unwrap();
        let options = options.iter().map(|own| own.replace("$dir", dir.path().to_str().unwrap()));
        let options: Vec<_> = options.collect();
        let child = spawn(dir.path(), &options, None);
        Self { child, dir, options }
    }

    /// As [`Agent::start`], by an ordinary user; `None` if this test cannot become it, or if the programs
    /// are where it cannot come.
    pub(crate) fn start_as(uid: u32, workloads: &str, options: &[&str]) -> Option<Self> {
        let reaches = Command::new(AGENT).arg("--version").uid(uid).gid(uid).output();
        if !is_root() || !reaches.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest.yaml"), format!("{HEAD}{workloads}")).unwrap();
        chown(dir.path(), Some(uid), Some(uid)).unwrap();
        let options: Vec<_> = options.iter().map(|own| (*own).to_owned()).collect();
        let child = spawn(dir.path(), &options, Some(uid));
        Some(Self { child, dir, options })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The test's own session, when the agent has its pair ready.
    pub(crate) fn connect(&self) -> Session {
        self.connect_as("ctl")
    }

    pub(crate) fn connect_as(&self, workload: &str) -> Session {
        let prefix = format!("{workload}.");
        let pair = wait_for(&format!("a pair of {workload}"), || {
            let entries = fs::read_dir(self.path("run")).ok()?;
            let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
            let name = names.find(|name| name.to_str().unwrap().starts_with(&prefix))?;
            let pair = self.path("run").join(name).join("control_interface");
            pair.join("output").exists().then_some(pair)
        });
        Session::open(&pair)
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// SIGKILL, as a crash ends it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again as it was started.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.dir.path(), &self.options, None);
    }

    /// Its status, when it has ended.
    pub(crate) fn status(&mut self) -> Option<i32> {
        wait_for("the end of the agent", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the agent said ---\n{}", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, options: &[String], uid: Option<u32>) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new(AGENT);
    command.args(["run", "--fifogate"]).arg(fifogate()).arg("--manifest");
    command.arg(dir.join("manifest.yaml")).arg("--run-dir").arg(dir.join("run"));
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    command.args(options).stdin(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A workload's end of its pair.
pub(crate) struct Session {
    output: File,
    messages: Receiver<FromAnkaiosEnum>,
    last_id: u32,
}

impl Session {
    fn open(pair: &Path) -> Self {
        let output = OpenOptions::new().write(true).open(pair.join("output")).unwrap();
        // What is not taken stays in the pipe: a test that does not look is a slow reader.
        let (sender, messages) = mpsc::sync_channel(0);
        let input = pair.join("input");
        thread::spawn(move || {
            let mut input = File::open(input).unwrap();
            let (mut decoder, mut buffer) = (FrameDecoder::new(64 << 20), vec![0; 65_536]);
            while let Ok(count @ 1..) = input.read(&mut buffer) {
                let mut rest = &buffer[..count];
                while let Some(body) = decoder.next_frame(&mut rest).unwrap() {
                    let message = FromAnkaios::decode(body).unwrap().from_ankaios_enum.unwrap();
                    if sender.send(message).is_err() {
                        return;
                    }
                }
            }
        });
        let mut ctl = Self { output, messages, last_id: 0 };
        ctl.hello();
        ctl
    }

    /// Begins a session anew.
    pub(crate) fn hello(&mut self) {
        self.send(ToAnkaiosEnum::Hello(Hello { protocol_version: "1.0.0".to_owned() }));
        while !matches!(self.receive(), FromAnkaiosEnum::ControlInterfaceAccepted(_)) {}
    }

    /// A Hello whose version is refused; waits until that is told.
    pub(crate) fn refused_hello(&mut self, version: &str) {
        self.send(ToAnkaiosEnum::Hello(Hello { protocol_version: version.to_owned() }));
        while !matches!(self.receive(), FromAnkaiosEnum::ConnectionClosed(_)) {}
    }

    fn send(&mut self, content: ToAnkaiosEnum) {
        let message = ToAnkaios { to_ankaios_enum: Some(content) };
        self.output.write_all(&encode(&message.encode_to_vec())).unwrap();
    }

    pub(crate) fn ask(&mut self, content: RequestContent) -> String {
        self.last_id += 1;
        let request_id = self.last_id.to_string();
        self.ask_as(&request_id, content);
        request_id
    }

    pub(crate) fn ask_as(&mut self, id: &str, content: RequestContent) {
        let request_content = Some(content);
        self.send(ToAnkaiosEnum::Request(pb::Request {
            request_id: id.to_owned(),
            request_content,
        }));
    }

    fn receive(&mut self) -> FromAnkaiosEnum {
        self.messages.recv_timeout(PATIENCE).expect("nothing came")
    }

    /// The next response; `None` if none comes in this time.
    pub(crate) fn response_within(&mut self, time: Duration) -> Option<(String, ResponseContent)> {
        match self.messages.recv_timeout(time) {
            Ok(FromAnkaiosEnum::Response(own)) => {
                Some((own.request_id, own.response_content.unwrap()))
            }
            Ok(other) => panic!("{other:?}"),
            // At its end nobody is at the other side.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    pub(crate) fn response(&mut self) -> (String, ResponseContent) {
        self.response_within(PATIENCE).expect("nothing came")
    }

    /// The answer to a request; what else comes meanwhile is dropped.
    pub(crate) fn answer(&mut self, id: &str) -> ResponseContent {
        loop {
            let (own, content) = self.response();
            if own == id {
                return content;
            }
        }
    }

    /// The state of now.
    pub(crate) fn state(&mut self) -> Tree {
        let ask = pb::CompleteStateRequest::default();
        let id = self.ask(RequestContent::CompleteStateRequest(ask));
        match self.answer(&id) {
            ResponseContent::CompleteStateResponse(own) => {
                convert::from_pb(&own.complete_state.unwrap()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Follows masks; gives the request's id.
    pub(crate) fn subscribe(&mut self, masks: &[&str]) -> String {
        let field_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
        self.ask(RequestContent::CompleteStateRequest(pb::CompleteStateRequest {
            field_mask,
            subscribe_for_events: true,
        }))
    }

    /// Asks for the state until it is as wanted.
    pub(crate) fn until<T>(&mut self, what: &str, look: impl Fn(&Tree) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let state = self.state();
            if let Some(found) = look(&state) {
                return found;
            }
            let states = state.get(&["workloadStates"]);
            assert!(Instant::now() < end, "{what} did not come: {states:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a workload of agent_A is in a state, such as `Running(Ok)`; gives its id.
    pub(crate) fn until_state(&mut self, workload: &str, wanted: &str) -> String {
        self.until(&format!("{workload} {wanted}"), |tree| {
            let (id, state, _) = state_of(tree, workload)?;
            (state == wanted).then_some(id)
        })
    }

    /// Asks for an update from the YAML of a desired state.
    pub(crate) fn update(
        &mut self,
        desired: &str,
        masks: &[&str],
    ) -> Result<pb::UpdateStateSuccess, String> {
        let id = self.ask(update(desired, masks));
        match self.answer(&id) {
            ResponseContent::UpdateStateSuccess(success) => Ok(success),
            ResponseContent::Error(error) => Err(error.message),
            other => panic!("{other:?}"),
        }
    }
}

/// The request that takes masks from a desired state in YAML.
pub(crate) fn update(desired: &str, masks: &[&str]) -> RequestContent {
    let text = format!("apiVersion: v1\n{desired}");
    let tree = fifogate::manifest::parse("update", &text).unwrap().updated.tree;
    RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
        new_state: Some(convert::to_pb(&tree, convert::Fill::Sparse)),
        update_mask: masks.iter().map(|mask| (*mask).to_owned()).collect(),
    })
}

/// The id, the state and the additional information of the one instance of a workload of agent_A.
pub(crate) fn state_of(tree: &Tree, workload: &str) -> Option<(String, String, String)> {
    let path = ["workloadStates", "agent_A", workload];
    let mut entries = tree.entries(&path).iter();
    let (id, state) = entries.next()?;
    let text = |name| state.str_at(name).unwrap_or_default().to_owned();
    let both = format!("{}({})", text("state"), text("subState"));
    entries.next().is_none().then(|| (id.to_string(), both, text("additionalInfo")))
}

/// A `runtimeConfig` that runs a script, as it stands in a manifest in one line.
pub(crate) fn shell(script: &str) -> String {
    let config = serde_json::json!({ "command": "sh", "args": ["-c", script] });
    serde_json::Value::from(config.to_string()).to_string()
}

/// A workload of agent_A that runs a script, with further fields.
pub(crate) fn workload(name: &str, script: &str, fields: &str) -> String {
    let config = shell(script);
    format!("  {name}: {{runtime: process, agent: agent_A, runtimeConfig: {config}{fields}}}\n")
}

/// Processes whose command line holds `text`.
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
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
pub(crate) fn workload_with(name: &str, script: &str, keys: &str, fields: &str) -> String {
    let mut config = serde_json::json!({ "command": "sh", "args": ["-c", script] });
    let more: serde_json::Value = serde_json::from_str(&format!("{{{keys}}}")).unwrap();
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    let config = serde_json::Value::from(config.to_string()).to_string();
    format!("  {name}: {{runtime: process, agent: agent_A, runtimeConfig: {config}{fields}}}\n")
}

/// A folder in which workloads of any user can leave what they saw.
pub(crate) struct Seen(TempDir);

impl Seen {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The script with its output in a file here, which appears when the script is done.
    pub(crate) fn script(&self, name: &str, script: &str) -> String {
        let file = self.0.path().join(name).display().to_string();
        format!("{{ {script}\n}} > {file}.part 2>&1; mv {file}.part {file}; exec sleep 100000")
    }

    /// The output of the script of this name.
    pub(crate) fn read(&self, name: &str) -> String {
        wait_for(&format!("the output of {name}"), || {
            fs::read_to_string(self.0.path().join(name)).ok()
        })
    }
}

/// Whether the test runs as root. The tests that need it do nothing for other users.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
