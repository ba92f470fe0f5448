//! A workload that the test remote-controls: one of the two SDK programs (README.md), in a mount
//! namespace where its pair of FIFOs is at the place the SDKs know.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::{PATIENCE, TestServer};

use super::process::Process;

/// How long an event may take before the next attempt to cause one.
const PROBE_PERIOD: Duration = Duration::from_secs(2);
const PROBES: u32 = 15;

/// An empty /run hides one that may not be writable, and leaves the host's alone.
const ENTER_NAMESPACE: &str = r#"
    mount -t tmpfs tmpfs /run
    mkdir -p /run/ankaios/control_interface
    mount --bind "$1" /run/ankaios/control_interface
    shift
    exec "$@"
"#;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Sdk {
    Python,
    Rust,
}

impl Sdk {
    /// The program and its arguments.
    fn command(self) -> Vec<&'static str> {
        let command = match self {
            Sdk::Python => vec![
                concat!(env!("CARGO_MANIFEST_DIR"), "/target/sdk-venv/bin/python"),
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/python/workload.py"),
            ],
            Sdk::Rust => {
                vec![concat!(env!("CARGO_MANIFEST_DIR"), "/target/sdk/debug/sdk-workload")]
            }
        };
        for file in &command {
            assert!(Path::new(file).exists(), "no {file}: run tests/sdk/setup.sh");
        }
        command
    }
}

pub(crate) struct Workload {
    process: Process,
    inbox: Inbox,
}

/// Lines of the workload that the test has not taken yet.
#[derive(Default)]
struct Inbox {
    answers: VecDeque<Value>,
    events: VecDeque<Value>,
    connection: VecDeque<String>,
    strays: Vec<Value>,
}

impl Workload {
    /// Starts the SDK's program on the pair of the workload; returns when it is connected.
    pub(crate) fn connect(sdk: Sdk, gate: &TestServer, name: &str) -> Workload {
        let mut command = Command::new("unshare");
        command
            .args([namespace_flag(), "sh", "-ec", ENTER_NAMESPACE, "sh"])
            .arg(gate.pair(name))
            .args(sdk.command());
        let process = Process::spawn(&mut command);
        let mut workload = Workload { process, inbox: Inbox::default() };
        let ready = workload.answer();
        assert_eq!(ready["step"], "ready", "{ready}\n{}\n{}", workload.process.log(), gate.log());
        workload.inbox.connection.clear();
        workload
    }

    /// SIGKILL: the pipes are closed without a word.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    pub(crate) fn read(&mut self, masks: &[&str]) -> Value {
        self.order("read", json!({ "do": "read", "masks": masks }))["state"].take()
    }

    /// Returns the state at the time of the subscription.
    pub(crate) fn subscribe(&mut self, name: &str, masks: &[&str]) -> Value {
        let command = json!({ "do": "subscribe", "name": name, "masks": masks });
        self.order("subscribed", command)["state"].take()
    }

    pub(crate) fn cancel(&mut self, name: &str) {
        self.order("cancelled", json!({ "do": "cancel", "name": name }));
    }

    pub(crate) fn update(&mut self, config: &str, value: &str) {
        self.order("updated", json!({ "do": "update", "config": config, "value": value }));
    }

    /// Sets a config item to 1, 2, 3, ..., each after the answer to the one before.
    pub(crate) fn count(&mut self, config: &str, upto: u32) {
        self.order("counted", json!({ "do": "count", "config": config, "upto": upto }));
    }

    pub(crate) fn add_workload(&mut self, name: &str, agent: &str) {
        let answer =
            self.order("added", json!({ "do": "add_workload", "name": name, "agent": agent }));
        assert_eq!(answer["workloads"], json!([name]));
    }

    /// Gives a command that has to be refused for want of a right.
    pub(crate) fn is_denied(&mut self, command: Value) {
        let answer = self.order("failed", command);
        assert_eq!(answer["why"], "refused", "{answer}");
        assert!(answer["message"].as_str().unwrap().contains("Access denied"), "{answer}");
    }

    /// The next event, which has to be one of the named subscription.
    pub(crate) fn event(&mut self, subscription: &str) -> Value {
        let event = self.event_within(PATIENCE);
        let event = event.unwrap_or_else(|| panic!("no event\n{}", self.process.log()));
        assert_eq!(event["subscription"], subscription, "{event}");
        event
    }

    /// Causes events until the newest one has arrived at the named subscription, and takes them.
    ///
    /// For a moment after the first answer fifogate holds back and merges events (`--subscribe-grace-ms`),
    /// since the SDKs listen only then; and a machine may be so slow that the moment was too
    /// short. After this, each change is an event of its own and is heard.
    pub(crate) fn probe(&mut self, subscription: &str, sender: &mut Workload) {
        for probe in 1..=PROBES {
            let newest = probe.to_string();
            sender.update("probe", &newest);
            while let Some(event) = self.event_within(PROBE_PERIOD) {
                assert_eq!(event["subscription"], subscription, "{event}");
                if event["state"]["configs"]["probe"] == newest {
                    self.inbox.strays.clear();
                    return;
                }
            }
        }
        panic!("{subscription} hears nothing\n{}", self.process.log());
    }

    /// Waits until the SDK says that its connection is in this state.
    pub(crate) fn wait_for_connection(&mut self, state: &str) {
        let reached = |inbox: &mut Inbox| {
            // The states on the way there are the SDK's affair.
            inbox.connection.drain(..).find(|reached| reached == state)
        };
        let reached = self.take_within(PATIENCE, reached);
        assert!(reached.is_some(), "never {state}\n{}", self.process.log());
    }

    /// Events that arrived up to the last answer and that the test did not take.
    pub(crate) fn unexpected(&self) -> Vec<&Value> {
        self.inbox.events.iter().chain(&self.inbox.strays).collect()
    }

    /// Gives a command and returns the answer, which has to be the given step.
    fn order(&mut self, step: &str, command: Value) -> Value {
        self.process.write_line(&command.to_string());
        let answer = self.answer();
        assert_eq!(answer["step"], step, "{command}: {answer}\n{}", self.process.log());
        answer
    }

    fn answer(&mut self) -> Value {
        let answer = self.take_within(PATIENCE, |inbox| inbox.answers.pop_front());
        answer.unwrap_or_else(|| panic!("no answer\n{}", self.process.log()))
    }

    fn event_within(&mut self, time: Duration) -> Option<Value> {
        self.take_within(time, |inbox| inbox.events.pop_front())
    }

    /// Reads what the workload says until there is in the inbox what `take` looks for.
    fn take_within<T>(
        &mut self,
        time: Duration,
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(found) = take(&mut self.inbox) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            self.inbox.put(&self.process.line_within(left)?);
        }
    }
}

impl Inbox {
    fn put(&mut self, line: &str) {
        let said: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        match said["step"].as_str().unwrap() {
            "event" => self.events.push_back(said),
            "stray" => self.strays.push(said),
            "connection" => self.connection.push_back(said["state"].as_str().unwrap().into()),
            _ => self.answers.push_back(said),
        }
    }
}

/// How `unshare` makes a mount namespace here: as root directly, else in a user namespace.
fn namespace_flag() -> &'static str {
    static FLAG: OnceLock<Option<&str>> = OnceLock::new();
    let may_mount = |flag: &&str| {
        Command::new("unshare")
            .args([flag, "mount", "-t", "tmpfs", "tmpfs", "/run"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    FLAG.get_or_init(|| ["-m", "-rm"].into_iter().find(may_mount)).expect(
        "no mount namespace to be had: this test needs util-linux and mount installed, and either \
         root (in a container: CAP_SYS_ADMIN) or user namespaces for everybody (sysctl \
         kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)",
    )
}
