//! An agent under a test's control.

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

use crate::common::{FIFOGATE, PATIENCE, Workload};

pub(crate) type Link = AgentLink<Box<dyn Read + Send>, Box<dyn Write + Send>>;

/// How agent and fifogate talk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Stdio,
    Unix,
}

pub(crate) const BOTH: [Transport; 2] = [Transport::Stdio, Transport::Unix];

/// A fifogate and the agent that started it.
pub(crate) struct Agent {
    pub(crate) link: Link,
    pub(crate) child: Child,
    pub(crate) run_dir: PathBuf,
    _dir: Option<TempDir>,
}

/// fifogate with a link that nothing was said on yet.
pub(crate) fn spawn(
    transport: Transport,
    run_dir: &Path,
    options: &[&str],
) -> (Child, Box<dyn Read + Send>, Box<dyn Write + Send>) {
    let mut command = Command::new(FIFOGATE);
    command.args(["-q", "run", "--run-dir"]).arg(run_dir).args(options).stderr(Stdio::piped());
    match transport {
        Transport::Stdio => {
            command.args(["--agent-link", "stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let (reader, writer) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
            (child, Box::new(Patient(reader)), Box::new(writer))
        }
        Transport::Unix => {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("agent.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let child = command
                .arg("--agent-link")
                .arg(format!("unix:{}", path.display()))
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
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

impl Agent {
    pub(crate) fn start(transport: Transport, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut agent = Self::start_at(transport, &dir.path().join("run"), options);
        agent._dir = Some(dir);
        agent
    }

    pub(crate) fn start_at(transport: Transport, run_dir: &Path, options: &[&str]) -> Self {
        let (child, reader, writer) = spawn(transport, run_dir, options);
        let link = AgentLink::open(reader, writer, "agent_A").unwrap();
        let run_dir = PathBuf::from(link.run_dir());
        Self { link, child, run_dir, _dir: None }
    }

    pub(crate) fn call(&mut self, content: Content) -> Result<(), Rejected> {
        match self.link.call(content) {
            Err(CallError::Rejected(rejected)) => Err(rejected),
            called => {
                called.unwrap();
                Ok(())
            }
        }
    }

    /// Adds a workload whose state rules allow these masks.
    pub(crate) fn add(
        &mut self,
        name: &str,
        operation: pb::ReadWriteEnum,
        masks: &[&str],
    ) -> PathBuf {
        self.call(Content::AddWorkload(add(name, operation, masks))).unwrap();
        self.pair(name)
    }

    pub(crate) fn pair(&self, name: &str) -> PathBuf {
        self.run_dir.join(format!("{name}.1")).join("control_interface")
    }

    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Rejected> {
        let instance_name = Some(instance(name));
        self.call(Content::RemoveWorkload(RemoveWorkload { instance_name }))
    }

    /// A workload that may do everything, with an open session.
    pub(crate) fn workload(&mut self, name: &str) -> Workload {
        Workload::connect(&self.add(name, pb::ReadWriteEnum::RwReadWrite, &["*"]))
    }

    /// The next message of which `wanted` makes something; others are skipped.
    pub(crate) fn expect<T>(&mut self, wanted: impl Fn(to_agent::Content) -> Option<T>) -> T {
        loop {
            let message = self.link.recv().unwrap().expect("fifogate hung up");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    /// What the agent itself reads.
    pub(crate) fn read(&mut self, masks: &[&str]) -> pb::CompleteState {
        let field_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
        let ask = pb::CompleteStateRequest { field_mask, subscribe_for_events: false };
        self.ask("read", pb::request::RequestContent::CompleteStateRequest(ask));
        match self.response("read") {
            ResponseContent::CompleteStateResponse(response) => response.complete_state.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, id: &str, content: pb::request::RequestContent) {
        let request = pb::Request { request_id: id.to_owned(), request_content: Some(content) };
        self.call(Content::Request(request)).unwrap();
    }

    /// The next response to the agent's own request `id`.
    pub(crate) fn response(&mut self, id: &str) -> ResponseContent {
        self.expect(|message| match message {
            to_agent::Content::Response(response) if response.request_id == id => {
                response.response_content
            }
            _ => None,
        })
    }

    /// Hangs up, and gives the status and what was said on standard error.
    pub(crate) fn hang_up(self) -> (Option<i32>, String) {
        let Self { link, mut child, _dir, .. } = self;
        drop(link);
        end_of(&mut child)
    }
}

/// Waits for the end: the status, and what was said on standard error.
pub(crate) fn end_of(child: &mut Child) -> (Option<i32>, String) {
    let mut said = String::new();
    let told = Patient(child.stderr.take().unwrap()).read_to_string(&mut said);
    if let Err(error) = told {
        child.kill().unwrap();
        panic!("fifogate does not end: {error}; it said {said}");
    }
    (child.wait().unwrap().code(), said)
}

pub(crate) fn instance(name: &str) -> pb::WorkloadInstanceName {
    pb::WorkloadInstanceName {
        workload_name: name.to_owned(),
        agent_name: "agent_A".to_owned(),
        id: "1".to_owned(),
    }
}

pub(crate) fn add(name: &str, operation: pb::ReadWriteEnum, masks: &[&str]) -> AddWorkload {
    AddWorkload {
        instance_name: Some(instance(name)),
        access: Some(access(operation, masks)),
        uid: None,
        gid: None,
    }
}

pub(crate) fn access(operation: pb::ReadWriteEnum, masks: &[&str]) -> pb::ControlInterfaceAccess {
    use pb::access_rights_rule::AccessRightsRuleEnum;
    let filter_masks = masks.iter().map(|mask| (*mask).to_owned()).collect();
    let rule = pb::StateRule { operation: operation.into(), filter_masks };
    let log = pb::LogRule { workload_names: vec!["*".to_owned()] };
    let rules = [AccessRightsRuleEnum::StateRule(rule), AccessRightsRuleEnum::LogRule(log)];
    let rule = |rule| pb::AccessRightsRule { access_rights_rule_enum: Some(rule) };
    pb::ControlInterfaceAccess { allow_rules: rules.map(rule).into(), deny_rules: Vec::new() }
}

/// A desired state with these configs.
pub(crate) fn configs(configs: &[(&str, &str)]) -> pb::CompleteState {
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
