//! The measured scenarios.

mod adding;
mod beside_work;
mod fan_out;
mod full_read;
pub(crate) mod idle;
mod memory;
mod pipelined;
mod round_trip;
mod scale;
mod unrelated;

use std::time::Duration;

use clap::ValueEnum;

use crate::{
    options::Options,
    pin::Cpus,
    report::Section,
    series::{Series, Times},
};

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// A small read, one at a time
    RoundTrip,
    /// Small reads, 64 under way
    Pipelined,
    /// A small read beside other work
    BesideWork,
    /// One update to many subscribers
    FanOut,
    /// One update among many subscriptions of which one matches
    Unrelated,
    /// Everything in a large state
    FullRead,
    /// Adding workloads
    Adding,
    /// One node with very many workloads
    Scale,
    /// Resident memory
    Memory,
    /// Processor time when nothing happens; beside all others
    Idle,
}

impl Scenario {
    /// Measures it; `None`: what it measures is not over yet.
    pub(crate) fn run(self, settings: &Settings) -> Option<Section> {
        let section = match self {
            Self::RoundTrip => round_trip::run(settings),
            Self::Pipelined => pipelined::run(settings),
            Self::BesideWork => beside_work::run(settings),
            Self::FanOut => fan_out::run(settings),
            Self::Unrelated => unrelated::run(settings),
            Self::FullRead => full_read::run(settings),
            Self::Adding => adding::run(settings),
            Self::Scale => scale::run(settings),
            Self::Memory => memory::run(settings),
            Self::Idle => return None,
        };
        Some(section)
    }
}

/// How long and how much.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) runs: usize,
    /// Of one run of one contestant.
    pub(crate) time: Duration,
    /// Into how many turns a run is cut.
    turns: u32,
    pub(crate) cpus: Cpus,
    /// How many workloads the state holds.
    pub(crate) states: Vec<usize>,
    pub(crate) subscribers: Vec<usize>,
    pub(crate) unrelated: usize,
    pub(crate) added: usize,
    /// Workloads of a large node.
    pub(crate) node: usize,
    pub(crate) idle: Duration,
}

impl Settings {
    pub(crate) fn new(options: &Options) -> Self {
        let quick = options.quick;
        let pick = |quickly, slowly| if quick { quickly } else { slowly };
        Self {
            quick,
            runs: options.runs(),
            time: Duration::from_millis(pick(20, 400)),
            turns: if quick { 1 } else { 8 },
            cpus: Cpus::new(),
            states: options.states.clone().unwrap_or_else(|| {
                if quick { vec![10, 100] } else { vec![10, 100, 1_000, 10_000] }
            }),
            subscribers: options.subscribers.clone().unwrap_or_else(|| {
                if quick { vec![1, 10] } else { vec![1, 10, 100, 1_000, 5_000] }
            }),
            unrelated: if quick { 1_000 } else { 100_000 },
            added: if quick { 1_000 } else { 10_000 },
            node: if quick { 100 } else { 20_000 },
            idle: Duration::from_secs(if quick { 5 } else { 60 }),
        }
    }

    /// Several runs of all contestants. In each they take short turns: so what slows the machine down
    /// for a while does so for all of them.
    pub(crate) fn in_turn<C: Contestant>(&self, contestants: &mut [C]) {
        for _ in 0..self.runs {
            for _ in 0..self.turns {
                contestants.iter_mut().for_each(|own| own.measure(self, self.time / self.turns));
            }
            contestants.iter_mut().for_each(Contestant::end_run);
        }
    }
}

/// Something whose latency is measured in turns with that of others.
pub(crate) trait Contestant {
    /// One turn.
    fn measure(&mut self, settings: &Settings, time: Duration);

    /// The run is over.
    fn end_run(&mut self);
}

/// Median and 99th percentile of each run.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    pub(crate) p50: Series,
    pub(crate) p99: Series,
    run: Times,
}

impl Latency {
    /// More of a run.
    pub(crate) fn add(&mut self, times: Times) {
        self.run.extend(times);
    }

    pub(crate) fn end_run(&mut self) {
        let mut times = std::mem::take(&mut self.run);
        self.p50.push(times.percentile(50));
        self.p99.push(times.percentile(99));
    }
}
