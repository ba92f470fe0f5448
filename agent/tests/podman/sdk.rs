//! The Python SDK of Eclipse Ankaios, unmodified, in a container, whatever user its process is.
//!
//! The program is that of the SDK's tests: one JSON object a line, `tests/sdk/README.md` describes them. Its
//! commands come through a named pipe of a volume and its answers go to a file there, so both outlive
//! the container and the agent.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::{Value, json};
use testkit::{Agent, PATIENCE, Podman, Session, container, repository};

const CONFIGS: &str = "desiredState.configs.*";
const RIGHTS: &str = ", restartPolicy: ALWAYS, controlInterfaceAccess: {allowRules: [{type: StateRule, \
                      operation: Read, filterMasks: ['desiredState.configs', workloadStates]}]}";
/// How long an event may take before the next attempt to cause one.
const PROBE_PERIOD: Duration = Duration::from_secs(2);

/// Each scenario, with the program as root and as an ordinary user of the container.
macro_rules! as_each_user {
    ($($scenario:ident),* $(,)?) => {
        mod root {
            $(#[test] fn $scenario() { super::$scenario(0); })*
        }
        mod ordinary {
            $(#[test] fn $scenario() { super::$scenario(1000); })*
        }
    };
}

as_each_user! {
    reads_and_hears_each_of_200_changes_in_order_until_it_cancels,
    session_of_the_next_container_works_after_a_kill,
    session_comes_back_in_the_same_container_after_the_agent_was_killed,
}

fn reads_and_hears_each_of_200_changes_in_order_until_it_cancels(user: u32) {
    let Some(podman) = Podman::new() else { return };
    let mut program = Program::new();
    let agent = program.start(&podman, user);
    let mut ctl = agent.connect();
    program.is_ready();
    set(&mut ctl, "greeting", "hello");

    let state = program.order(json!({"do": "read", "masks": [CONFIGS, "workloadStates"]}), "read");
    assert_eq!(state["state"]["configs"], json!({"greeting": "hello"}));
    assert_eq!(state["state"]["workloadStates"], json!({"ctl": "RunningOk", "sdk": "RunningOk"}));

    program.subscribe("all", &mut ctl);
    program.hears_each(200, &mut ctl);

    program.order(json!({"do": "cancel", "name": "all"}), "cancelled");
    set(&mut ctl, "event", "unheard");
    // Frames keep their order: an event of the update would be here before this answer.
    program.order(json!({"do": "read", "masks": [CONFIGS]}), "read");
    assert!(program.events.is_empty(), "{:?}", program.events);
}

fn session_of_the_next_container_works_after_a_kill(user: u32) {
    let Some(podman) = Podman::new() else { return };
    let mut program = Program::new();
    let agent = program.start(&podman, user);
    let mut ctl = agent.connect();
    program.is_ready();
    program.subscribe("before", &mut ctl);
    let before = podman.id_of("sdk").unwrap();
    podman.run(&["kill", &before]);
    program.is_ready();
    ctl.until_state("sdk", "Running(Ok)");
    assert_ne!(
        podman.id_of("sdk").unwrap(),
        before,
        "a killed container has failed, and is replaced"
    );

    // What the first session was subscribed to is not told to the second one.
    set(&mut ctl, "event", "unheard");
    program.order(json!({"do": "read", "masks": [CONFIGS]}), "read");
    assert!(program.events.is_empty() && !program.heard_stray, "{:?}", program.events);
    program.subscribe("after", &mut ctl);
    program.hears_each(20, &mut ctl);
}

fn session_comes_back_in_the_same_container_after_the_agent_was_killed(user: u32) {
    let Some(podman) = Podman::new() else { return };
    let mut program = Program::new();
    let mut agent = program.start(&podman, user);
    program.is_ready();
    program.subscribe("before", &mut agent.connect());
    let id = podman.id_of("sdk").unwrap();

    agent.kill_with_gate();
    program.wait_for_connection("AgentDisconnected");
    agent.restart();
    program.wait_for_connection("Connected");
    let mut ctl = agent.connect();
    ctl.until_state("sdk", "Running(Ok)");
    assert_eq!(podman.id_of("sdk").unwrap(), id);

    program.events.clear();
    program.subscribe("after", &mut ctl);
    program.hears_each(200, &mut ctl);
    assert_eq!(podman.id_of("sdk").unwrap(), id);
}

/// Sets a config, and waits until that is accepted.
fn set(ctl: &mut Session, key: &str, value: &str) {
    let path = format!("desiredState.configs.{key}");
    ctl.update(&format!("configs: {{{key}: \"{value}\"}}"), &[&path]).unwrap();
}

/// The program in the container of the workload `sdk`.
struct Program {
    dir: tempfile::TempDir,
    commands: File,
    answers: File,
    unread: String,
    events: VecDeque<Value>,
    /// Whether the SDK got an event of no subscription of its own.
    heard_stray: bool,
    connection: VecDeque<String>,
}

impl Program {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        mkfifo(&path("commands"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        // Both directions: it opens at once, and no reader of it sees an end.
        let commands = OpenOptions::new().read(true).write(true).open(path("commands")).unwrap();
        fs::write(path("answers"), "").unwrap();
        let answers = File::open(path("answers")).unwrap();
        Self {
            commands,
            answers,
            dir,
            unread: String::new(),
            events: VecDeque::new(),
            heard_stray: false,
            connection: VecDeque::new(),
        }
    }

    /// Starts an agent with the container.
    fn start(&self, podman: &Podman, user: u32) -> Agent {
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(self.dir.path().join("log"), "").unwrap();
        for name in ["commands", "answers", "log"] {
            chown(self.dir.path().join(name), Some(user), Some(user)).unwrap();
        }
        let python = repository().join("target/sdk-venv/bin/python");
        assert!(python.exists(), "run `make setup` first");
        let script = format!(
            "cd /driver; exec {} {} < commands >> answers 2>> log",
            python.display(),
            repository().join("tests/sdk/python/workload.py").display()
        );
        let text = container("sdk", &script, &options(&python, self.dir.path(), user), RIGHTS);
        Agent::start_with(podman.env(), &text, &[])
    }

    fn is_ready(&mut self) {
        let ready = self.answer();
        assert_eq!(ready["step"], "ready", "{ready}\n{}", self.log());
        self.connection.clear();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Gives a command and returns its answer, which has to be this step.
    fn order(&mut self, command: Value, step: &str) -> Value {
        writeln!(self.commands, "{command}").unwrap();
        let answer = self.answer();
        assert_eq!(answer["step"], step, "{command}: {answer}\n{}", self.log());
        answer
    }

    /// Subscribes to all configs, and causes events until the newest one has come: for a moment after
    /// the first answer fifogate merges events, as the SDK listens only then.
    fn subscribe(&mut self, name: &str, ctl: &mut Session) {
        self.order(json!({"do": "subscribe", "name": name, "masks": [CONFIGS]}), "subscribed");
        let until = Instant::now() + PATIENCE;
        for probe in 1.. {
            assert!(Instant::now() < until, "{name} hears nothing\n{}", self.log());
            let newest = format!("{name}{probe}");
            set(ctl, "probe", &newest);
            while let Some(event) = self.event_within(PROBE_PERIOD) {
                if event["state"]["configs"]["probe"] == newest {
                    return;
                }
            }
        }
    }

    /// Sets a config to 1, 2, 3, …: each is an event of its own, and there is no other one.
    fn hears_each(&mut self, upto: u32, ctl: &mut Session) {
        for number in 1..=upto {
            set(ctl, "count", &number.to_string());
        }
        for number in 1..=upto {
            let event = self.event_within(PATIENCE);
            let event = event.unwrap_or_else(|| panic!("no event {number}\n{}", self.log()));
            assert_eq!(event["state"]["configs"], json!({"count": number.to_string()}), "{event}");
        }
        assert!(self.events.is_empty(), "{:?}", self.events);
    }

    fn wait_for_connection(&mut self, state: &str) {
        let found = self.take_within(PATIENCE, |own, _| {
            own.connection.drain(..).find(|reached| reached == state)
        });
        assert!(found.is_some(), "never {state}\n{}", self.log());
    }

    fn event_within(&mut self, time: Duration) -> Option<Value> {
        self.take_within(time, |own, _| own.events.pop_front())
    }

    fn answer(&mut self) -> Value {
        let answer = self.take_within(PATIENCE, |_, answer| answer);
        answer.unwrap_or_else(|| panic!("no answer\n{}", self.log()))
    }

    /// Reads what the program says until there is what `take` looks for.
    fn take_within<T>(
        &mut self,
        time: Duration,
        mut take: impl FnMut(&mut Self, Option<Value>) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + time;
        if let Some(found) = take(self, None) {
            return Some(found);
        }
        loop {
            while let Some(line) = self.line() {
                let answer = self.put(&line);
                if let Some(found) = take(self, answer) {
                    return Some(found);
                }
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The next whole line of the file that grows.
    fn line(&mut self) -> Option<String> {
        self.answers.read_to_string(&mut self.unread).unwrap();
        let end = self.unread.find('\n')?;
        let rest = self.unread.split_off(end + 1);
        Some(std::mem::replace(&mut self.unread, rest))
    }

    /// Sorts a message; one that is an answer is given back.
    fn put(&mut self, line: &str) -> Option<Value> {
        let said: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        match said["step"].as_str().unwrap() {
            "event" => self.events.push_back(said),
            "stray" => self.heard_stray = true,
            "connection" => self.connection.push_back(said["state"].as_str().unwrap().to_owned()),
            _ => return Some(said),
        }
        None
    }
}

/// Shows the programs of the node, Python with the SDK, and the folder of the driver.
fn options(python: &Path, driver: &Path, user: u32) -> String {
    let places = "import sys; print(sys.prefix); print(sys.base_prefix)";
    let output = Command::new(python).args(["-c", places]).output().unwrap();
    let places = String::from_utf8(output.stdout).unwrap();
    let mut volumes: Vec<_> =
        ["/usr", "/lib", "/lib64"].map(|own| format!("{own}:{own}:ro")).into();
    let own = repository().join("tests/sdk/python").display().to_string();
    for place in places.lines().filter(|own| *own != "/usr").chain([own.as_str()]) {
        let real = Path::new(place).canonicalize().unwrap();
        volumes.push(format!("{}:{place}:ro", real.display()));
    }
    volumes.push(format!("{}:/driver", driver.display()));
    let mut options: Vec<_> = volumes.iter().map(|own| format!("--volume={own}")).collect();
    options.push(format!("--user={user}"));
    options.push("--stop-timeout=0".to_owned());
    Value::from(options).to_string()
}
