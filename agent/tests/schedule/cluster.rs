//! The cluster: an etcd, and agents that reach it through networks of their own.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use testkit::{Agent, Etcd, Forwarder, Network, Session, processes_with, wait_for};

use super::{
    check,
    known::{Known, TOGETHER},
    operation::Operation,
};

/// Below it are the keys of the agents.
pub(crate) const PREFIX: &str = "fleet";

pub(crate) const NAMES: [&str; 3] = ["agent_A", "agent_B", "agent_C"];

/// More items than a transaction of etcd takes.
const MANY: usize = 150;

/// The workload of each node through which its updates are asked for.
const ASKS: [&str; 3] = ["ctl", "ctl_B", "ctl_C"];

pub(crate) struct Node {
    // In the order in which they have to end.
    pub(crate) agent: Agent,
    forwarder: Forwarder,
    network: Network,
    life: Life,
    /// The workload through which it is asked for updates.
    asks: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Life {
    Runs,
    Stopped,
    Killed,
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) etcd: Etcd,
    backup: (TempDir, Known, i64),
    compacted: i64,
    pub(crate) known: Known,
    has_users: bool,
    /// How many values were set so far.
    count: u32,
    /// The password and the secret of the tokens.
    _secrets: TempDir,
}

/// The first argument of all processes of this test's workloads begins with it.
pub(crate) fn mark() -> String {
    format!("100000.{:07}", std::process::id())
}

/// The workloads through which nodes other than the first are asked.
fn manifest(size: usize) -> String {
    let own = |node: usize| {
        let (name, agent) = (ASKS[node], NAMES[node]);
        let access = "{allowRules: [{type: StateRule, operation: ReadWrite, filterMasks: ['*']}]}";
        format!(
            "  {name}: {{runtime: process, agent: {agent}, restartPolicy: ALWAYS, runtimeConfig: \
             '{{command: sleep, args: [100000]}}', controlInterfaceAccess: {access}}}\n"
        )
    };
    (1..size).map(own).collect()
}

impl Cluster {
    /// Two or three agents, and an etcd with or without users.
    pub(crate) fn start(random: &mut ChaCha8Rng) -> Self {
        let (size, has_users) = (random.random_range(2..=3), random.random_bool(0.5));
        let secrets = tempfile::tempdir().unwrap();
        let (key, password) = (secrets.path().join("key"), secrets.path().join("password"));
        fs::write(&key, "a secret").unwrap();
        fs::write(&password, "secret").unwrap();
        let tokens = format!("jwt,sign-method=HS256,priv-key={},ttl=5s", key.display());
        let mut etcd = Etcd::start_with("http", &["--auth-token", &tokens, "--bcrypt-cost", "4"]);
        let mut options = vec!["--prefix", PREFIX, "--grace", "2"];
        if has_users {
            etcd.enable_users(PREFIX);
            options.extend(["--etcd-user", "gate", "--etcd-password-file"]);
            options.push(password.to_str().unwrap());
        }
        let start = |(name, asks): (&&str, &'static str)| {
            let forwarder = Forwarder::start(etcd.port());
            let endpoint = forwarder.endpoint();
            let options = [&["--name", name, "--etcd", &endpoint][..], &options].concat();
            let agent = Agent::start(&manifest(size), &options);
            Node { agent, forwarder, network: Network::Joined, life: Life::Runs, asks }
        };
        let nodes: Vec<_> = NAMES[..size].iter().zip(ASKS).map(start).collect();
        for node in &nodes {
            drop(node.agent.connect_as(node.asks));
        }
        let (backup, compacted) = ((etcd.backup(), Known::default(), 0), 0);
        let known = Known::default();
        let mut cluster =
            Self { nodes, etcd, backup, compacted, known, has_users, count: 0, _secrets: secrets };
        for config in 0..size {
            // Each node is asked once, until it does it: etcd was away for the backup.
            let value = cluster.next();
            cluster.set(config, &format!("configs.c{config}"), Some(value));
        }
        cluster
    }

    /// How many nodes it has.
    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Does one operation, as far as it makes sense now.
    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::SetConfig { node, config } => {
                let value = self.next();
                self.set(node, &format!("configs.c{config}"), Some(value));
            }
            Operation::RemoveConfig { node, config } => {
                self.set(node, &format!("configs.c{config}"), None);
            }
            Operation::SetWorkload { node, workload, agent, always, config } => {
                self.set_workload(node, workload, NAMES[agent], always, config);
            }
            Operation::RemoveWorkload { node, workload } => {
                self.set(node, &format!("workloads.w{workload}"), None);
            }
            Operation::SetMany { node } => self.set_many(node),
            Operation::Large { node } => {
                for config in 0..6 {
                    let value = self.next() + &"x".repeat(800_000);
                    self.set(node, &format!("configs.large{config}"), Some(value));
                }
            }
            Operation::KillProcess { workload } => self.kill_process(workload),
            Operation::Refuse { node } => self.nodes[node].set(Network::Refused),
            Operation::Silence { node } => self.nodes[node].set(Network::Silent),
            Operation::Join { node } => self.nodes[node].set(Network::Joined),
            Operation::KillAgent { node } => self.nodes[node].kill(),
            Operation::StartAgent { node } => self.nodes[node].start(),
            Operation::StopAgent { node } => self.nodes[node].stop(),
            Operation::ContinueAgent { node } => self.nodes[node].go_on(),
            Operation::KillFifogate { node } => self.nodes[node].kill_fifogate(),
            Operation::Compact => self.compact(),
            Operation::Backup => self.back_up(),
            Operation::Restore => self.restore(),
            Operation::EmptyAndRestore => {
                self.etcd.delete_all(PREFIX);
                self.restore();
            }
            Operation::EmptyAndStartAnew => self.start_anew(),
            Operation::RestartEtcd => {
                self.etcd.kill();
                self.etcd.restart();
            }
            Operation::PauseEtcd(time) => self.pause_etcd(time),
            Operation::ChangeUsers => self.change_users(),
            Operation::Wait(time) => thread::sleep(time),
        }
    }

    /// A number that was not there before, of as many digits each time.
    fn next(&mut self) -> String {
        self.count += 1;
        format!("{:04}", self.count)
    }

    /// Sets or removes one item, as a workload of a node asks for it.
    fn set(&mut self, node: usize, item: &str, value: Option<String>) {
        let (part, name) = item.split_once('.').unwrap();
        let yaml = value.as_ref().map(|value| format!("{part}: {{{name}: \"{value}\"}}"));
        self.ask(node, &[item.to_owned()], &yaml.unwrap_or_default(), value);
    }

    fn set_many(&mut self, node: usize) {
        let value = self.next();
        let items: Vec<_> = (0..MANY).map(|number| format!("configs.{TOGETHER}{number}")).collect();
        let configs = (0..MANY).map(|number| format!("{TOGETHER}{number}: '{value}', "));
        let yaml = format!("configs: {{{}}}", configs.collect::<String>());
        self.ask(node, &items, &yaml, Some(value));
    }

    fn set_workload(
        &mut self,
        node: usize,
        workload: u32,
        agent: &str,
        always: bool,
        config: Option<u32>,
    ) {
        let mark = mark() + &self.next();
        let more = if config.is_some() { ", \\\"0{{c}}\\\"" } else { "" };
        let text =
            format!("{{\\\"command\\\": \\\"sleep\\\", \\\"args\\\": [\\\"{mark}\\\"{more}]}}");
        let refers =
            config.map(|config| format!(", configs: {{c: c{config}}}")).unwrap_or_default();
        let policy = if always { "ALWAYS" } else { "NEVER" };
        // The mask leaves the config out; but what it refers to has to be in the same file.
        let configs =
            config.map(|config| format!("\nconfigs: {{c{config}: x}}")).unwrap_or_default();
        let yaml = format!(
            "workloads: {{w{workload}: {{runtime: process, agent: {agent}, restartPolicy: {policy}, \
             runtimeConfig: \"{text}\"{refers}}}}}{configs}"
        );
        let value = format!("{agent} {}", text.replace('\\', ""));
        self.ask(node, &[format!("workloads.w{workload}")], &yaml, Some(value));
    }

    /// Asks for a value of one item, or for the same value of many.
    fn ask(&mut self, node: usize, items: &[String], yaml: &str, value: Option<String>) {
        if self.nodes[node].life != Life::Runs {
            return;
        }
        // A node that could reach etcd has some time to do so.
        let end = Instant::now() + self.nodes[node].patience();
        let masks: Vec<_> = items.iter().map(|item| format!("desiredState.{item}")).collect();
        let masks: Vec<_> = masks.iter().map(String::as_str).collect();
        let answer = loop {
            let answer = self.session(node).update(yaml, &masks);
            let is_away = answer.as_ref().is_err_and(|why| why.contains("cannot be reached now"));
            if !is_away || Instant::now() > end {
                break answer.map(drop);
            }
            thread::sleep(Duration::from_millis(20));
        };
        if let Err(why) = &answer {
            eprintln!("          {}: {why}", items[0]);
        }
        items.iter().for_each(|item| self.known.note(item, value.clone(), &answer));
    }

    pub(crate) fn session(&self, node: usize) -> Session {
        self.nodes[node].agent.connect_as(self.nodes[node].asks)
    }

    /// Kills a process of a workload, whichever agent it belongs to.
    fn kill_process(&self, workload: u32) {
        let mut processes = check::processes();
        let len = processes.len().max(1);
        if let Some((pid, _)) = processes.drain(..).nth(workload as usize % len) {
            // It may end by itself at this moment.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    fn pause_etcd(&self, time: Duration) {
        self.etcd.signal(Signal::SIGSTOP);
        thread::sleep(time);
        self.etcd.signal(Signal::SIGCONT);
    }

    fn change_users(&mut self) {
        if self.has_users {
            let name = format!("user{}", self.next());
            self.etcd.add_user(&name);
        }
    }

    fn compact(&mut self) {
        let revision = self.etcd.revision();
        // etcd refuses to compact twice at one.
        if revision > self.compacted {
            self.etcd.compact(revision);
            self.compacted = revision;
        }
    }

    fn back_up(&mut self) {
        self.backup = (self.etcd.backup(), self.known.clone(), self.compacted);
    }

    fn restore(&mut self) {
        self.compacted = self.backup.2;
        self.etcd.restore(self.backup.0.path());
        self.known.back_to(&self.backup.1);
    }

    fn start_anew(&mut self) {
        self.etcd.delete_all(PREFIX);
        for node in &mut self.nodes {
            node.set(Network::Joined);
            node.go_on();
            if node.life == Life::Runs {
                node.agent.signal(Signal::SIGTERM);
            }
        }
        for node in &mut self.nodes {
            if node.life == Life::Runs {
                assert_eq!(node.agent.status(), Some(0), "it does not end in order");
                node.life = Life::Killed;
            }
            node.start();
        }
        self.known.back_to(&Known::default());
        // The backup has the state of another cluster: no agent was meant to go back to it.
        self.back_up();
    }

    /// Ends all faults.
    pub(crate) fn recover(&mut self) {
        for node in &mut self.nodes {
            node.set(Network::Joined);
            node.go_on();
            node.start();
        }
    }
}

impl Node {
    fn set(&mut self, network: Network) {
        self.forwarder.set(network);
        self.network = network;
    }

    /// For how long it is asked again while it cannot reach etcd.
    fn patience(&self) -> Duration {
        let is_joined = self.network == Network::Joined;
        if is_joined { Duration::from_secs(2) } else { Duration::ZERO }
    }

    fn kill(&mut self) {
        if self.life != Life::Killed {
            self.agent.kill();
            self.life = Life::Killed;
        }
    }

    /// Starts it again, and waits until it is there: it ends if it cannot reach etcd meanwhile.
    fn start(&mut self) {
        if self.life == Life::Killed {
            self.set(Network::Joined);
            self.agent.restart();
            self.life = Life::Runs;
            drop(self.agent.connect_as(self.asks));
        }
    }

    fn stop(&mut self) {
        if self.life == Life::Runs {
            self.agent.signal(Signal::SIGSTOP);
            self.life = Life::Stopped;
        }
    }

    fn go_on(&mut self) {
        if self.life == Life::Stopped {
            self.agent.signal(Signal::SIGCONT);
            self.life = Life::Runs;
        }
    }

    fn kill_fifogate(&self) {
        if self.life != Life::Runs {
            return;
        }
        let run_dir = self.agent.path("run").canonicalize().unwrap();
        let line = format!("--run-dir\u{0}{}", run_dir.display());
        let gates = || {
            let ours = processes_with(&line);
            processes_with("--agent-link").into_iter().find(|pid| ours.contains(pid))
        };
        let killed = wait_for("its fifogate", gates);
        let _ = kill(Pid::from_raw(killed), Signal::SIGKILL);
        wait_for("another fifogate", || gates().filter(|pid| *pid != killed));
    }
}
