//! How long an update takes to reach the last of many commanders, beside as many workloads with pairs: same
//! agent, same fifogate, in turns. And what a commander costs that does nothing. `make bench-commanders` runs it.
//!
//! An update is measured from before its frame is written to the pipe of a workload until the last event was read. It
//! takes the same way for both, up to the fan-out of fifogate: there the event goes to a pipe, or over the agent link
//! to a socket of HTTP/2. One thread is all subscribers; it decodes no event.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::fd::{AsRawFd, RawFd},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use fifogate::pb::ank_base::response::ResponseContent;
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use testkit::{
    Agent, Commander, Harness, PATIENCE, Session, memory_kib, processes_with, state_of, wait_for,
};

/// An update may take so many times as long to commanders as to workloads.
const MOST: f64 = 3.0;
/// The configs of workloads and commanders.
const CONFIGS: [&str; 2] = ["pipes", "streams"];

/// Measures how long an update takes to reach many commanders, beside as many workloads.
#[derive(Debug, Parser)]
struct Options {
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 300)]
    rounds: usize,
    /// How many of each
    #[arg(long, value_name = "N", default_value_t = 1000)]
    subscribers: usize,
    #[command(flatten)]
    harness: Harness,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.harness.measures("make bench-commanders") {
        return ExitCode::SUCCESS;
    }
    match measure(&options) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Measures and prints; gives whether the target was met.
fn measure(options: &Options) -> bool {
    let &Options { rounds, subscribers: count, .. } = options;
    let names: Vec<_> = (0..count).map(|number| format!("w{number}")).collect();
    let agent = start(&names);
    let mut pipes = Readers::new(names.iter().map(|name| Pipe::open(&agent, name)).collect());
    println!("{count} workloads and {count} commanders of one agent, each with one subscription");
    let mut streams = Readers::new(connect(&agent, count));
    let mut ctl = agent.connect();
    println!("{rounds} rounds, until the last of them has read its event");
    println!("{:<30}{:>9}{:>9}{:>9}{:>9}", "milliseconds", "median", "25 %", "75 %", "99 %");
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds + rounds / 10 {
        let value = format!("{round:08}");
        let one = [
            update(&mut ctl, CONFIGS[0], &value, &mut pipes),
            update(&mut ctl, CONFIGS[1], &value, &mut streams),
        ];
        // The first tenth warms up.
        if round >= rounds / 10 {
            times.iter_mut().zip(one).for_each(|(all, time)| all.push(time));
        }
    }
    let [pipes, streams] = times;
    let ratio = 1.0 / report("workloads, over pipes", pipes) * report("commanders", streams);
    let word = if ratio <= MOST { "met" } else { "MISSED" };
    println!("{:<30}{ratio:>9.2}  at most {MOST}: {word}", "ratio of the medians");
    ratio <= MOST
}

/// An agent with workloads that have ended, and keep their pairs.
fn start(names: &[String]) -> Agent {
    let one = |name: &String| {
        format!(
            "  {name}: {{runtime: process, agent: agent_A, runtimeConfig: 'command: \"true\"', \
             controlInterfaceAccess: {{allowRules: [{{type: StateRule, operation: Read, \
             filterMasks: ['desiredState.configs']}}]}}}}\n"
        )
    };
    let most = names.len() + 24;
    let options = ["--max-commanders", &most.to_string(), "--", "--subscribe-grace-ms", "0"];
    let agent = Agent::start(&names.iter().map(one).collect::<String>(), &options);
    let mut ctl = agent.connect();
    let mut left = names;
    wait_for("all pairs", || {
        let tree = ctl.state();
        let is_done = |name: &String| {
            state_of(&tree, name).is_some_and(|(_, state, _)| state.starts_with("Succeeded"))
        };
        while let [first, rest @ ..] = left
            && is_done(first)
        {
            left = rest;
        }
        left.is_empty().then_some(())
    });
    agent
}

/// Connects all commanders, and prints what each costs.
fn connect(agent: &Agent, count: usize) -> Vec<Commander> {
    let before = memory(agent);
    let socket = agent.path("run/command.sock");
    let mut all: Vec<_> = (0..count).map(|_| Commander::connect(&socket).unwrap()).collect();
    let idle = memory(agent);
    all.iter_mut().for_each(|own| own.subscribe(&format!("desiredState.configs.{}", CONFIGS[1])));
    let subscribed = memory(agent);
    println!("{:<30}{:>9}{:>10}", "KiB of each commander", "agent", "fifogate");
    for (name, now) in [("idle", idle), ("with a subscription", subscribed)] {
        let each = |at: usize| (now[at] - before[at]) as f64 / count as f64;
        println!("{name:<30}{:>9.1}{:>10.1}", each(0), each(1));
    }
    for own in &all {
        own.socket.set_nonblocking(true).unwrap();
    }
    all
}

/// Resident memory of the agent and its fifogate, in KiB.
fn memory(agent: &Agent) -> [usize; 2] {
    let own = agent.child.id();
    let run_dir = agent.path("run").display().to_string();
    let all = processes_with(&run_dir).into_iter().map(|pid| u32::try_from(pid).unwrap());
    let others = all.filter(|pid| *pid != own).map(|pid| memory_kib(pid, "VmRSS")).sum();
    [memory_kib(own, "VmRSS"), others]
}

/// Changes a config, and waits until all have read their event.
fn update(
    ctl: &mut Session,
    config: &str,
    value: &str,
    readers: &mut Readers<impl Subscriber>,
) -> Duration {
    let began = Instant::now();
    ctl.set_config("u", config, value);
    readers.take_one_each();
    let time = began.elapsed();
    ctl.success();
    time
}

/// Prints a line; gives the median in milliseconds.
fn report(name: &str, mut all: Vec<Duration>) -> f64 {
    all.sort_unstable();
    let at = |part: usize| all[(all.len() - 1) * part / 100].as_secs_f64() * 1e3;
    let [median, low, high, late] = [50, 25, 75, 99].map(at);
    println!("{name:<30}{median:>9.2}{low:>9.2}{high:>9.2}{late:>9.2}");
    median
}

/// One of many that are told of a change.
trait Subscriber {
    fn descriptor(&self) -> RawFd;
    /// Reads all that is there, and counts the events in it.
    fn take(&mut self) -> usize;
}

impl Subscriber for Commander {
    fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn take(&mut self) -> usize {
        Commander::take(self).unwrap()
    }
}

/// The ends of a pair.
struct Pipe {
    input: File,
    /// It stays open, or the workload would be seen leaving.
    _output: File,
}

impl Pipe {
    fn open(agent: &Agent, name: &str) -> Self {
        let mut session = agent.connect_as(name);
        let id = session.subscribe(&[&format!("desiredState.configs.{}", CONFIGS[0])]);
        let answer = session.answer(&id);
        assert!(matches!(answer, ResponseContent::CompleteStateResponse(_)), "{answer:?}");
        Self { input: session.reader.input, _output: session.output }
    }
}

impl Subscriber for Pipe {
    fn descriptor(&self) -> RawFd {
        self.input.as_raw_fd()
    }

    /// An event is shorter than the buffer, and the next one comes when all have read this one.
    fn take(&mut self) -> usize {
        match self.input.read(&mut [0; 4096]) {
            Ok(count) => {
                assert!(count > 0, "fifogate has gone");
                1
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Many subscribers, read by one thread.
struct Readers<S> {
    poll: Poll,
    events: Events,
    all: Vec<S>,
    told: Vec<bool>,
}

impl<S: Subscriber> Readers<S> {
    fn new(all: Vec<S>) -> Self {
        let poll = Poll::new().unwrap();
        for (index, own) in all.iter().enumerate() {
            let mut source = SourceFd(&own.descriptor());
            poll.registry().register(&mut source, Token(index), Interest::READABLE).unwrap();
        }
        let told = vec![false; all.len()];
        Self { poll, events: Events::with_capacity(1024), all, told }
    }

    /// Reads until each has got one event.
    fn take_one_each(&mut self) {
        self.told.fill(false);
        let mut left = self.all.len();
        while left > 0 {
            self.poll.poll(&mut self.events, Some(PATIENCE)).unwrap();
            assert!(!self.events.is_empty(), "{left} subscribers were told nothing");
            for event in &self.events {
                let Token(index) = event.token();
                match self.all[index].take() {
                    0 => {}
                    1 if !std::mem::replace(&mut self.told[index], true) => left -= 1,
                    _ => panic!("more than one event came"),
                }
            }
        }
    }
}
