//! A fifogate, a well-behaved workload that measures its round trips, and attackers.

use std::{
    io::Write,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use testkit::{PATIENCE, Session, TestServer, accepted, frame_of, hello_of, wait_for};

use super::{
    attacker::{Attacker, Attackers, is_another_user},
    watched::{Memory, Seen, Watcher},
};

/// Tests that measure do so alone.
static ALONE: Mutex<()> = Mutex::new(());

/// How long an attack lasts at least, once it is in force.
const LONG_ENOUGH: Duration = Duration::from_secs(2);
/// A round trip that takes this long is none: the well-behaved workload is not served.
const NOT_SERVED: Duration = Duration::from_secs(5);
/// Within this a process has to end that was told to: it may flush for a second.
const END: Duration = Duration::from_millis(1_500);
/// Descriptors that may stay behind an attack: those of a thread that took another's place.
const FEW: usize = 4;

/// When an attack has done enough to judge by.
#[derive(Clone, Copy)]
pub(crate) enum StopWhen {
    /// It has done so much.
    After(u64),
    /// Threads of fifogate were seen that hang in the kernel.
    Stuck,
}

/// The bounds of the cost of an attack.
pub(crate) struct Budget {
    pub(crate) worst: Duration,
    pub(crate) growth_kib: usize,
    pub(crate) said: usize,
}

impl Budget {
    pub(crate) const OF_ONE: Self =
        Self { worst: Duration::from_millis(250), growth_kib: 32 << 10, said: 64 << 10 };
    pub(crate) const OF_TWENTY: Self =
        Self { worst: Duration::from_secs(1), growth_kib: 128 << 10, said: 256 << 10 };
}

/// The measurements during an attack.
pub(crate) struct Cost {
    name: String,
    count: u64,
    round_trips: Vec<Duration>,
    before: Memory,
    seen: Seen,
    /// Growth of the log, in bytes.
    said: usize,
}

pub(crate) struct AttackedServer {
    // Ended first: fifogate cannot end while an attacker holds its pipe.
    attackers: Attackers,
    pub(crate) good: Session,
    pub(crate) gate: TestServer,
    descriptors: usize,
    _alone: MutexGuard<'static, ()>,
}

impl AttackedServer {
    /// With a workload `good`, those named here, and many more in the state that have no pair.
    pub(crate) fn start(bad: &[&str], many: usize, options: &[&str]) -> Self {
        let alone = alone();
        let gate = TestServer::with(&manifest(bad, many), options);
        let good = gate.connect("good");
        let mut server =
            Self { attackers: Attackers::default(), good, gate, descriptors: 0, _alone: alone };
        server.warm_up(bad);
        server
    }

    /// So that what is measured later is not what the first use of everything takes.
    fn warm_up(&mut self, bad: &[&str]) {
        for name in bad {
            let mut workload = self.gate.connect(name);
            workload.read("r", &["desiredState"], false);
            workload.response();
        }
        for _ in 0..200 {
            self.round_trip().expect("not served before any attack");
        }
        self.descriptors = self.gate.process.descriptors();
    }

    pub(crate) fn attack(&mut self, workload: &str, name: &str, arguments: &[&str]) {
        let pair = self.gate.pair(workload);
        self.attackers.0.push(Attacker::start(name, arguments, &pair));
    }

    /// A small read of the well-behaved workload; none if it is not answered.
    fn round_trip(&mut self) -> Option<Duration> {
        let began = Instant::now();
        self.good.read("g", &["desiredState.configs.good"], false);
        self.good.receive_within(NOT_SERVED).map(|_| began.elapsed())
    }

    /// Measures while all attacks go on, then ends them.
    pub(crate) fn measure(&mut self, stop_when: StopWhen) -> Cost {
        let (before, said) = (Memory::of(self.gate.process.id()), self.gate.log().len());
        let watcher = Watcher::start(self.gate.process.id());
        let (mut round_trips, end) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            match self.round_trip() {
                Some(time) => round_trips.push(time),
                None => {
                    round_trips.push(NOT_SERVED);
                    break;
                }
            }
            let in_force = |attacker: &mut Attacker| {
                attacker.in_force_for().is_some_and(|time| time >= LONG_ENOUGH)
            };
            let long_enough = self.attackers.0.iter_mut().all(in_force);
            let done = match stop_when {
                StopWhen::After(count) => self.attackers.0.iter().all(|own| own.count() >= count),
                StopWhen::Stuck => watcher.saw_stuck(),
            };
            if long_enough && done {
                break;
            }
            let told: Vec<_> =
                self.attackers.0.iter().map(|own| (own.name(), own.count())).collect();
            assert!(Instant::now() < end, "the attack does not bite: {told:?}");
        }
        let count = self.attackers.0.iter().map(Attacker::count).sum();
        let name = match &self.attackers.0[..] {
            [one] => one.name().to_owned(),
            all => format!("{} attackers", all.len()),
        };
        let seen = watcher.end();
        self.end_attacks();
        let said = self.gate.log().len() - said;
        Cost { name, count, round_trips, before, seen, said }
    }

    pub(crate) fn end_attacks(&mut self) {
        self.attackers = Attackers::default();
    }

    /// Everything is as before, except what the attackers owned: their pairs serve who comes next.
    pub(crate) fn everything_goes_on(&mut self, pairs: &[&str]) {
        self.round_trip().expect("the well-behaved workload is served");
        for name in pairs {
            say_hello_anew(&self.gate.pair(name));
        }
        wait_for("the end of descriptors of the attack", || {
            (self.gate.process.descriptors() <= self.descriptors + FEW).then_some(())
        });
    }

    pub(crate) fn ends_when_told(mut self) {
        let began = Instant::now();
        self.gate.process.signal(Signal::SIGTERM);
        let status = loop {
            if let Some(status) = self.gate.process.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < END, "fifogate does not end");
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(status.code(), Some(0));
    }
}

impl Cost {
    /// One line for the reader, and the verdict.
    #[allow(clippy::print_stdout)]
    pub(crate) fn check(mut self, budget: &Budget) {
        self.round_trips.sort_unstable();
        let worst = *self.round_trips.last().unwrap();
        let median = self.round_trips[self.round_trips.len() / 2];
        let growth = self.before.growth_to(self.seen.peak);
        let anonymous = self.seen.peak.anonymous.saturating_sub(self.before.anonymous);
        let resident = self.seen.peak.resident.saturating_sub(self.before.resident);
        let line = format!(
            "{}: did {}; {} round trips, worst {worst:.1?}, median {median:.1?}; RssAnon +{anonymous} KiB, \
             VmRSS +{resident} KiB; stuck threads seen {} times; said {} bytes",
            self.name,
            self.count,
            self.round_trips.len(),
            self.seen.stuck,
            self.said
        );
        let who = if is_another_user() { "" } else { " (attackers run as fifogate's own user)" };
        println!("{line}{who}");
        assert!(worst < NOT_SERVED, "the well-behaved workload was not served any more: {line}");
        assert!(worst <= budget.worst, "others waited longer than {:?}: {line}", budget.worst);
        assert!(growth <= budget.growth_kib, "more than {} KiB: {line}", budget.growth_kib);
        assert!(self.said <= budget.said, "an attacker can fill the log: {line}");
    }
}

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `good` may do everything; those that attack may read everything and write configs.
pub(crate) fn manifest(bad: &[&str], many: usize) -> String {
    let rule = |operation: &str, mask: &str| {
        format!(
            "        - {{ type: StateRule, operation: {operation}, filterMasks: [\"{mask}\"] }}\n"
        )
    };
    let mut text = "apiVersion: v1\nconfigs: { good: small }\nworkloads:\n".to_owned();
    let mut add = |name: &str, rules: &str| {
        text += &format!("  {name}:\n    runtime: r\n    agent: a\n    runtimeConfig: {name}\n");
        if !rules.is_empty() {
            text += &format!("    controlInterfaceAccess:\n      allowRules:\n{rules}");
        }
    };
    add("good", &rule("ReadWrite", "*"));
    let rules = rule("Read", "*") + &rule("ReadWrite", "desiredState.configs");
    bad.iter().for_each(|name| add(name, &rules));
    (0..many).for_each(|number| add(&format!("many{number}"), ""));
    text
}

/// A new workload on a pair that another has left in disorder. It says Hello, and when no answer
/// comes that it understands, it starts again, as a workload that is restarted.
pub(crate) fn say_hello_anew(pair: &Path) {
    wait_for("the answer to a Hello", || is_accepted(pair).then_some(()));
}

/// Reads also what the server owed to the reader before: it may have to go first.
fn is_accepted(pair: &Path) -> bool {
    let Ok(mut session) = Session::try_open(pair) else { return false };
    let hello = frame_of(hello_of("1.0.0"));
    let (mut said, mut total, mut last) = (false, 0, Instant::now());
    while last.elapsed() < Duration::from_millis(300) {
        said = said || session.output.write_all(&hello).is_ok();
        match session.try_receive(Instant::now()) {
            Ok(Some(message)) if message == accepted() => return true,
            Ok(Some(_)) => {}
            Ok(None) => thread::yield_now(),
            // A frame without its beginning, or an end-of-file.
            Err(_) => session.reader.take_all(),
        }
        if session.reader.total() > total {
            (total, last) = (session.reader.total(), Instant::now());
        }
    }
    false
}
