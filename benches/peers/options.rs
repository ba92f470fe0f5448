//! The choice of peers and durations.

use std::{panic::catch_unwind, time::Duration};

use clap::{Parser, ValueEnum};
use testkit::Harness;

use crate::{
    crowd::{Crowd, SMALLEST},
    peer::Kind,
    pin::Cpus,
    say,
};

/// Measures fifogate beside other ways to tell an event, and prints tables.
#[derive(Debug, Parser)]
#[command(name = "peers")]
pub(crate) struct Options {
    /// What to measure beside fifogate; default: all
    #[arg(value_enum)]
    peers: Vec<Kind>,
    /// How often latency is measured
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Small numbers and short times, to see that everything works: no measurement
    #[arg(long)]
    quick: bool,
    /// Writes the section of docs/benchmarks.md and its picture
    #[arg(long)]
    pub(crate) write: bool,
    #[command(flatten)]
    pub(crate) harness: Harness,
}

/// How long and how much.
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) runs: usize,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) cpus: Cpus,
    pub(crate) subscribers: Vec<usize>,
    /// Of one turn of one peer.
    pub(crate) turn: Duration,
    /// At a steady rate: how often, and how long.
    pub(crate) steady_runs: usize,
    pub(crate) steady: Duration,
    /// Before a subscriber stops reading, and while it does not read.
    pub(crate) before: Duration,
    pub(crate) deaf: Duration,
}

impl Options {
    pub(crate) fn settings(&self) -> Settings {
        let quick = self.quick;
        let pick = |quickly, slowly| Duration::from_millis(if quick { quickly } else { slowly });
        let subscribers = if quick { vec![1, 10] } else { vec![1, 10, 100, 1_000] };
        Settings {
            quick,
            runs: self.runs.unwrap_or(if quick { 2 } else { 5 }).max(1),
            kinds: self.kinds(),
            cpus: Cpus::new(),
            subscribers,
            turn: pick(20, 300),
            steady_runs: if quick { 1 } else { 3 },
            steady: pick(300, 4_000),
            before: pick(300, 5_000),
            deaf: pick(1_000, 10_000),
        }
    }

    /// Those that can be measured; says which cannot.
    fn kinds(&self) -> Vec<Kind> {
        let all = Kind::value_variants().iter().copied();
        let wanted = all.filter(|kind| {
            self.peers.is_empty() || *kind == Kind::Fifogate || self.peers.contains(kind)
        });
        let here = wanted.filter(|kind| {
            let reason = match kind.missing() {
                Some(program) => format!("{program} is not installed"),
                None if works(*kind) => return true,
                None => "it cannot be started here".to_owned(),
            };
            say(&format!("{} is not measured: {reason}", kind.name()));
            false
        });
        here.collect()
    }
}

/// Whether a peer tells one event to one subscriber. The reason of a failure is on standard error.
fn works(kind: Kind) -> bool {
    let attempt = || {
        let mut peer = kind.start(1);
        Crowd::new(&mut *peer, 1, SMALLEST).tell_all(&mut *peer, 0);
    };
    kind == Kind::Fifogate || catch_unwind(attempt).is_ok()
}
