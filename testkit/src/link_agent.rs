//! An agent under a test's control, at the other end of fifogate's agent link.

use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use fifogate::{
    link::{AgentLink, CallError, Rejected},
    pb::{
        agent_link::{AddWorkload, RemoveWorkload, from_agent::Content, to_agent},
        ank_base::{self as pb, response::ResponseContent},
    },
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

use crate::{PATIENCE, Process, Session, fifogate, memory_dir};

/// The agent's end of the link.
type Link = AgentLink<Box<dyn Read + Send>, Box<dyn Write + Send>>;

/// How agent and fifogate talk.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    /// Standard input and output.
    Stdio,
    /// A Unix socket.
    Unix,
}

/// All of them.
pub const BOTH: [Transport; 2] = [Transport::Stdio, Transport::Unix];

/// A fifogate and the agent that started it.
pub struct LinkAgent {
    /// The agent's end of the link.
    pub link: Link,
    /// fifogate.
    pub child: Process,
    /// Its run directory.
    pub run_dir: PathBuf,
    _dir: Option<TempDir>,
}

/// fifogate with a link without any message yet.
pub fn spawn(
    transport: Transport,
    run_dir: &Path,
    options: &[&str],
) -> (Process, Box<dyn Read + Send>, Box<dyn Write + Send>) {
    let mut command = Command::new(fifogate());
    command.args(["-q", "run", "--run-dir"]).arg(run_dir).args(options).stderr(Stdio::piped());
    match transport {
        Transport::Stdio => {
            command.args(["--agent-link", "stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = Process::start(&mut command);
            let (reader, writer) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
            (child, Box::new(Patient(reader)), Box::new(writer))
        }
        Transport::Unix => {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("agent.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let link = format!("unix:{}", path.display());
            let child = Process::start(command.args(["--agent-link", &link]).stdin(Stdio::null()));
            let (stream, _) = listener.accept().unwrap();
            (child, Box::new(Patient(stream.try_clone().unwrap())), Box::new(stream))
        }
    }
}

/// A stream whose reader gives up at some time.
struct Patient<R>(R);

impl<R: Read + AsFd> Read for Patient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout)? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => self.0.read(buffer),
        }
    }
}

impl LinkAgent {
    /// Starts it with a run directory of its own.
    pub fn start(transport: Transport, options: &[&str]) -> Self {
        let dir = memory_dir();
        let mut agent = Self::start_at(transport, &dir.path().join("run"), options);
        agent._dir = Some(dir);
        agent
    }

    /// Starts it with this run directory.
    pub fn start_at(transport: Transport, run_dir: &Path, options: &[&str]) -> Self {
        let (child, reader, writer) = spawn(transport, run_dir, options);
        let link = AgentLink::open(reader, writer, "agent_A").unwrap();
        let run_dir = PathBuf::from(link.run_dir());
        Self { link, child, run_dir, _dir: None }
    }

    /// Sends a command and waits for its acknowledgement.
    pub fn call(&mut self, content: Content) -> Result<(), Rejected> {
        match self.link.call(content) {
            Err(CallError::Rejected(rejected)) => Err(rejected),
            called => {
                called.unwrap();
                Ok(())
            }
        }
    }

    /// Adds a workload whose state rules allow these masks.
    pub fn add(&mut self, name: &str, operation: pb::ReadWriteEnum, masks: &[&str]) -> PathBuf {
        self.call(Content::AddWorkload(add(name, operation, masks))).unwrap();
        self.pair(name)
    }

    /// The folder of a workload's pair.
    pub fn pair(&self, name: &str) -> PathBuf {
        self.run_dir.join(format!("{name}.1")).join("control_interface")
    }

    /// Removes a workload.
    pub fn remove(&mut self, name: &str) -> Result<(), Rejected> {
        let instance_name = Some(instance(name));
        self.call(Content::RemoveWorkload(RemoveWorkload { instance_name }))
    }

    /// A workload that may do everything, with an open session.
    pub fn workload(&mut self, name: &str) -> Session {
        Session::connect(&self.add(name, pb::ReadWriteEnum::RwReadWrite, &["*"]))
    }

    /// The next message of which `wanted` makes something; others are skipped.
    pub fn expect<T>(&mut self, wanted: impl Fn(to_agent::Content) -> Option<T>) -> T {
        loop {
            let message = self.link.recv().unwrap().expect("fifogate hung up");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    /// A read of the agent itself.
    pub fn read(&mut self, masks: &[&str]) -> pb::CompleteState {
        let field_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
        let ask = pb::CompleteStateRequest { field_mask, subscribe_for_events: false };
        self.ask("read", pb::request::RequestContent::CompleteStateRequest(ask));
        match self.response("read") {
            ResponseContent::CompleteStateResponse(response) => response.complete_state.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Sends the agent's own request.
    pub fn ask(&mut self, id: &str, content: pb::request::RequestContent) {
        let request = pb::Request { request_id: id.to_owned(), request_content: Some(content) };
        self.call(Content::Request(request)).unwrap();
    }

    /// The next response to the agent's own request `id`.
    pub fn response(&mut self, id: &str) -> ResponseContent {
        self.expect(|message| match message {
            to_agent::Content::Response(response) if response.request_id == id => {
                response.response_content
            }
            _ => None,
        })
    }

    /// Hangs up, and gives the status and what was said on standard error.
    pub fn hang_up(self) -> (Option<i32>, String) {
        let Self { link, mut child, _dir, .. } = self;
        drop(link);
        end_of(&mut child)
    }
}

/// Waits for the end: the status, and what was said on standard error.
pub fn end_of(child: &mut Child) -> (Option<i32>, String) {
    let mut said = String::new();
    let told = Patient(child.stderr.take().unwrap()).read_to_string(&mut said);
    if let Err(error) = told {
        child.kill().unwrap();
        panic!("fifogate does not end: {error}; it said {said}");
    }
    (child.wait().unwrap().code(), said)
}

/// The instance of a workload of agent_A.
pub fn instance(name: &str) -> pb::WorkloadInstanceName {
    pb::WorkloadInstanceName {
        workload_name: name.to_owned(),
        agent_name: "agent_A".to_owned(),
        id: "1".to_owned(),
    }
}

/// The command that adds a workload.
pub fn add(name: &str, operation: pb::ReadWriteEnum, masks: &[&str]) -> AddWorkload {
    AddWorkload {
        instance_name: Some(instance(name)),
        access: Some(access(operation, masks)),
        uid: None,
        gid: None,
    }
}

/// State rules for these masks, and a log rule for every workload.
pub fn access(operation: pb::ReadWriteEnum, masks: &[&str]) -> pb::ControlInterfaceAccess {
    use pb::access_rights_rule::AccessRightsRuleEnum;
    let filter_masks = masks.iter().map(|mask| (*mask).to_owned()).collect();
    let rule = pb::StateRule { operation: operation.into(), filter_masks };
    let log = pb::LogRule { workload_names: vec!["*".to_owned()] };
    let rules = [AccessRightsRuleEnum::StateRule(rule), AccessRightsRuleEnum::LogRule(log)];
    let rule = |rule| pb::AccessRightsRule { access_rights_rule_enum: Some(rule) };
    pb::ControlInterfaceAccess { allow_rules: rules.map(rule).into(), deny_rules: Vec::new() }
}

/// The paths of an event.
pub fn altered(added: &[&str], updated: &[&str], removed: &[&str]) -> pb::AlteredFields {
    let all = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
    pb::AlteredFields {
        added_fields: all(added),
        updated_fields: all(updated),
        removed_fields: all(removed),
    }
}

/// A desired state with these configs.
pub fn configs(configs: &[(&str, &str)]) -> pb::CompleteState {
    let item = |value: &str| pb::ConfigItem {
        config_item_enum: Some(pb::config_item::ConfigItemEnum::String(value.to_owned())),
    };
    let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), item(value))).collect();
    let desired = pb::State {
        api_version: "v1".to_owned(),
        workloads: Some(pb::WorkloadMap::default()),
        configs: Some(pb::ConfigMap { configs }),
    };
    pb::CompleteState { desired_state: Some(desired), ..Default::default() }
}
