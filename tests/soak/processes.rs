//! The processes of a soak, as their parent sees them.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{ChildStdout, Command, Stdio},
    time::Instant,
};

use nix::sys::signal::Signal;

use super::child::{MASK, PAIR, ROLE, View, update};
use testkit::{PATIENCE, Process, Session, TestServer, manifest_with};

/// A fault of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillReader,
    StopReader,
    SlowReader,
    KillWriter,
    StopWriter,
    HalfFrame,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] = [
        Self::KillReader,
        Self::StopReader,
        Self::SlowReader,
        Self::KillWriter,
        Self::StopWriter,
        Self::HalfFrame,
    ];
}

struct Role {
    process: Process,
    out: BufReader<ChildStdout>,
    /// Answers that it owes.
    owes: usize,
}

impl Role {
    fn start(role: &str, pair: &PathBuf, mask: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "child_with_a_role", "--nocapture"])
            .envs([(ROLE, role), (MASK, mask)])
            .env(PAIR, pair)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let out = BufReader::new(process.stdout.take().unwrap());
        Self { process, out, owes: 1 }
    }

    /// The next line that the process says to its parent.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        while !line.starts_with('@') {
            line.clear();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "a process of the soak has failed");
        }
        line[1..].trim_end().to_owned()
    }

    fn hear_what_it_owes(&mut self) {
        while self.owes > 0 {
            self.owes -= 1;
            self.hear();
        }
    }

    fn tell(&mut self, text: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{text}").unwrap();
    }
}

pub(crate) struct Processes {
    readers: Vec<Role>,
    writers: Vec<Role>,
    /// Nothing of these is left but to be started again.
    dead: Vec<(bool, usize)>,
    /// The number of the next value that each writer writes.
    next: Vec<u64>,
    counts: BTreeMap<Fault, usize>,
    observer: Session,
    gate: TestServer,
}

const RIGHTS: &str = "{type: StateRule, operation: ReadWrite, filterMasks: [desiredState.configs]}";

impl Processes {
    pub(crate) fn start(each: usize) -> Self {
        let readers = (0..each).map(|n| format!("reader{n}"));
        let writers = (0..each).map(|n| format!("writer{n}"));
        let names = readers.chain(writers).chain(["observer".to_owned()]);
        let names: Vec<_> = names.collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let text = manifest_with("", &names, RIGHTS);
        // So little that a reader that stops lags soon.
        let gate =
            TestServer::with(&text, &["--outbox-bytes", "8192", "--subscribe-grace-ms", "1"]);
        let observer = gate.open("observer");
        let mut processes = Self {
            readers: Vec::new(),
            writers: Vec::new(),
            dead: Vec::new(),
            next: vec![1; each],
            counts: BTreeMap::new(),
            observer,
            gate,
        };
        processes.observer.hello();
        for n in 0..each {
            let (reader, writer) = (processes.process(true, n), processes.process(false, n));
            processes.readers.push(reader);
            processes.writers.push(writer);
        }
        processes
    }

    /// Every third reader sees everything, every third one key, and the others all keys one by one.
    fn mask(n: usize) -> String {
        match n % 3 {
            0 => "desiredState.configs".to_owned(),
            1 => "desiredState.configs.*".to_owned(),
            _ => format!("desiredState.configs.k{n}"),
        }
    }

    fn process(&self, reader: bool, n: usize) -> Role {
        let role = if reader { "reader" } else { "writer" };
        Role::start(role, &self.gate.pair(&format!("{role}{n}")), &Self::mask(n))
    }

    fn is_dead(&self, reader: bool, n: usize) -> bool {
        self.dead.contains(&(reader, n))
    }

    pub(crate) fn apply(&mut self, fault: Fault, n: usize) {
        let reader = matches!(fault, Fault::KillReader | Fault::StopReader | Fault::SlowReader);
        if self.is_dead(reader, n) {
            return;
        }
        *self.counts.entry(fault).or_default() += 1;
        let role = if reader { &mut self.readers[n] } else { &mut self.writers[n] };
        match fault {
            Fault::KillReader | Fault::KillWriter => {
                role.process.kill();
                self.dead.push((reader, n));
            }
            Fault::StopReader | Fault::StopWriter => role.process.signal(Signal::SIGSTOP),
            Fault::SlowReader => role.tell("slow 5"),
            Fault::HalfFrame => {
                role.process.signal(Signal::SIGCONT);
                role.hear_what_it_owes();
                role.tell("half");
                assert_eq!(role.hear(), "half");
                role.process.kill();
                self.dead.push((reader, n));
            }
        }
    }

    /// Has a writer write so many values, without waiting for it.
    pub(crate) fn write(&mut self, n: usize, count: u64) {
        if !self.is_dead(false, n) {
            let from = self.next[n];
            self.next[n] += count;
            self.writers[n].tell(&format!("k{n} {from} {count}"));
            self.writers[n].owes += 1;
        }
    }

    /// Continues the stopped processes and starts dead ones again.
    pub(crate) fn recover(&mut self) {
        for role in self.readers.iter_mut().chain(&mut self.writers) {
            if role.process.try_wait().unwrap().is_none() {
                role.process.signal(Signal::SIGCONT);
            }
        }
        // Once this is answered, fifogate has seen that they are gone. A reader that comes before that
        // may be given the rest of a frame: the kernel does not tell the two apart
        // (docs/pipes.md#reader-replaced-between-two-looks).
        self.state();
        for (reader, n) in std::mem::take(&mut self.dead) {
            let process = self.process(reader, n);
            *(if reader { &mut self.readers[n] } else { &mut self.writers[n] }) = process;
        }
    }

    /// Waits until everybody has done what was wanted.
    pub(crate) fn wait_idle(&mut self) {
        for reader in &mut self.readers {
            reader.tell("slow 0");
        }
        for role in self.readers.iter_mut().chain(&mut self.writers) {
            role.hear_what_it_owes();
        }
    }

    fn state(&mut self) -> View {
        self.observer.read("r", &["desiredState.configs"], false);
        let told = self.observer.state_response();
        let mut view = View::new();
        update(&mut view, &told);
        view
    }

    /// Each reader's view becomes the state.
    pub(crate) fn compare(&mut self, told: &str) {
        let state = self.state();
        let end = Instant::now() + PATIENCE;
        for (n, reader) in self.readers.iter_mut().enumerate() {
            let sees = |key: &String| n % 3 != 2 || *key == format!("k{n}");
            let expected: View = state
                .iter()
                .filter(|(key, _)| sees(key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            loop {
                reader.tell("view");
                let view: View = serde_json::from_str(&reader.hear()).unwrap();
                if view == expected {
                    break;
                }
                assert!(Instant::now() < end, "{told}: reader{n} sees {view:?}, not {expected:?}");
            }
        }
    }

    /// Descriptors and resident memory, in KiB, of fifogate.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.gate.process.descriptors(), self.gate.process.memory_kib("VmRSS"))
    }

    pub(crate) fn summary(&self) -> String {
        format!("{:?}, and {} values written", self.counts, self.next.iter().sum::<u64>())
    }

    /// Whether each kind of fault happened.
    pub(crate) fn was_exercised(&self) -> bool {
        self.counts.len() == Fault::ALL.len()
    }
}
