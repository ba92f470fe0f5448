//! The climb: the best genome of each kind is kept; mutants and children of the best are tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{genome::Genome, seeds::SEEDS};

/// A record is measured so many times more, and the least of all is believed: the machine has other
/// things to do, too.
const AGAIN: usize = 3;
/// A part of the limit: what is below it may be what the machine does beside.
const NOISE: f64 = 0.3;
/// So often a parent is one of the best of all kinds, and not the best of any kind.
const OF_THE_BEST: f64 = 0.6;
/// How many these are.
const BEST: usize = 6;

/// The goal of a search.
pub(crate) trait Goal {
    /// How much of it a genome has, in this unit.
    fn measure(&self, genome: &Genome) -> f64;
    fn unit(&self) -> &'static str;
    /// The limit.
    fn limit(&self) -> f64;
    /// Whether genomes of this kind are looked at.
    fn wants(&self, _kind: &str) -> bool {
        true
    }
    /// A genome without what is not to count.
    fn fit(&self, genome: Genome) -> Genome {
        genome
    }
}

pub(crate) struct Climb<G> {
    goal: G,
    /// The best of each kind, with how much it has.
    best: BTreeMap<String, (f64, Genome)>,
    /// All that was tried: to try it again would only find what the machine does beside.
    tried: BTreeSet<String>,
    random: ChaCha8Rng,
}

impl<G: Goal> Climb<G> {
    pub(crate) fn new(goal: G, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { goal, best: BTreeMap::new(), tried: BTreeSet::new(), random }
    }

    /// Tries the seeds, and then what comes of them until the time is over.
    pub(crate) fn run(&mut self, time: Duration) {
        let began = Instant::now();
        for seed in SEEDS {
            // Known expensive inputs are tried in any case, unless all is lost already.
            if began.elapsed() > time && self.record() > self.goal.limit() {
                return;
            }
            self.consider(self.goal.fit(seed.parse().unwrap()));
        }
        while began.elapsed() < time {
            let child = self.breed();
            self.consider(self.goal.fit(child));
        }
    }

    fn breed(&mut self) -> Genome {
        if self.best.is_empty() || self.random.random_bool(0.05) {
            return Genome::random(&mut self.random);
        }
        let mother = self.parent();
        let child = match self.random.random_bool(0.25) {
            true => mother.cross(&self.parent(), &mut self.random),
            false => mother,
        };
        child.mutate(&mut self.random)
    }

    fn parent(&mut self) -> Genome {
        let mut all: Vec<_> = self.best.values().collect();
        all.sort_by(|one, other| other.0.total_cmp(&one.0));
        let count =
            if self.random.random_bool(OF_THE_BEST) { BEST.min(all.len()) } else { all.len() };
        all[self.random.random_range(0..count)].1.clone()
    }

    /// Keeps a genome that is the best of its kind, each time that it is measured.
    #[allow(clippy::print_stdout)]
    fn consider(&mut self, genome: Genome) {
        let kind = genome.kind();
        if !self.goal.wants(&kind) || !self.tried.insert(genome.to_string()) {
            return;
        }
        let to_beat = self.best.get(&kind).map_or(-1.0, |(value, _)| value * 1.02);
        let mut value = self.goal.measure(&genome);
        if value <= to_beat {
            return;
        }
        // A result far below the limit is not worth to be measured again.
        let noise = self.goal.limit() * NOISE;
        if value > noise {
            for _ in 0..AGAIN {
                value = value.min(self.goal.measure(&genome));
                if value <= to_beat {
                    return;
                }
            }
        }
        let record = self.record();
        if value > record.min(noise) {
            let (unit, count) = (self.goal.unit(), self.tried.len());
            let of = if value > record { "record" } else { "best of its kind" };
            println!("{of}: {value:.1} {unit} by genome {count}: SEARCH_GENOME='{genome}'");
        }
        self.best.insert(kind, (value, genome));
    }

    fn record(&self) -> f64 {
        self.best.values().map(|(value, _)| *value).fold(0.0, f64::max)
    }

    /// The best of each kind, the best of all first.
    pub(crate) fn champions(&self) -> Vec<(f64, Genome)> {
        let mut all: Vec<_> = self.best.values().cloned().collect();
        all.sort_by(|one, other| other.0.total_cmp(&one.0));
        all
    }

    /// The best of all kinds, one a line.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{} genomes\n", self.tried.len());
        for (value, genome) in self.champions() {
            let (unit, kind) = (self.goal.unit(), genome.kind());
            let _ = writeln!(text, "{value:9.1} {unit}  {kind}: SEARCH_GENOME='{genome}'");
        }
        text
    }
}
