//! A genome: one hostile workload in numbers. It has a text form that a search prints and takes back.
//!
//! All genes stand in one table with their ranges, so that mutation, crossover, printing and parsing
//! know nothing of their meaning. Genes without an effect are kept at their defaults: two genomes that
//! do the same have the same text.

use std::{collections::HashMap, fmt, str::FromStr, sync::LazyLock};

use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::frames::REPEATED;

pub(crate) const RIGHTS: [&str; 4] = ["blind", "read", "configs", "workloads"];
const KINDS: [&str; 9] =
    ["none", "update", "repeat", "read", "subscribe", "cancel", "hello", "zeros", "garbage"];
/// Where masks begin; their further segments are wildcards and names.
const ROOTS: [&str; 12] = [
    "desiredState.configs.b0",
    "desiredState.configs",
    "desiredState.workloads",
    "desiredState",
    "*",
    "*.configs",
    "*.workloads",
    "desiredState.workloads.*.tags",
    "workloadStates",
    "agents",
    "effectiveState",
    "",
];
const PARTS: [&str; 5] = ["configs", "workloads", "states", "agents", "effective"];
const FORMS: [&str; 8] =
    ["objects", "arrays", "text", "tags", "files", "dependencies", "rules", "aliases"];

/// Most bytes of what a message brings: beside it stand its id and some masks, or none that fits.
const MOST_BROUGHT: u32 = 4_190_000;
/// Most bytes of the state to begin with: not much less than workloads may make by default.
const MOST_STATE: u32 = 60_000_000;

#[derive(Debug)]
enum Range {
    /// One of these; the first is the default.
    OneOf(Vec<&'static str>),
    /// From the first, which is the default, to the second.
    Number(u32, u32),
}

#[derive(Debug)]
struct Gene {
    name: String,
    range: Range,
}

impl Gene {
    fn default(&self) -> u32 {
        match self.range {
            Range::OneOf(_) => 0,
            Range::Number(least, _) => least,
        }
    }

    /// Another value. Numbers move by factors: most expensive inputs begin at some order of magnitude.
    fn mutate(&self, value: u32, random: &mut ChaCha8Rng) -> u32 {
        match &self.range {
            Range::OneOf(names) => random.random_range(0..u32::try_from(names.len()).unwrap()),
            Range::Number(least, most) => {
                let moved = match random.random_range(0..8) {
                    0 | 1 => value.saturating_mul(2),
                    2 | 3 => value / 2,
                    4 => value.saturating_add(1),
                    5 => *most,
                    6 => *least,
                    _ => {
                        let exponent = random.random_range(0.0..=f64::from(*most).log2());
                        exponent.exp2() as u32
                    }
                };
                moved.clamp(*least, *most)
            }
        }
    }
}

static GENES: LazyLock<Vec<Gene>> = LazyLock::new(|| {
    let mut genes = Vec::new();
    let mut add = |name: String, range| genes.push(Gene { name, range });
    let one_of = |names: &[&'static str]| Range::OneOf(names.to_vec());
    add("rights".to_owned(), one_of(&RIGHTS));
    add("reads".to_owned(), one_of(&["all", "slow", "never"]));
    add("window".to_owned(), Range::Number(1, 64));
    add("rounds".to_owned(), Range::Number(1, 1_000));
    add("wait".to_owned(), Range::Number(0, 200));
    add("subs".to_owned(), Range::Number(0, 1_024));
    for prefix in ["state", "subs", "a", "b"] {
        let is_act = prefix == "a" || prefix == "b";
        let mut add = |name: &str, range| add(format!("{prefix}.{name}"), range);
        if is_act {
            add("kind", one_of(&KINDS));
            add("count", Range::Number(1, 64));
            add("toggle", one_of(&["same", "values", "gone", "names"]));
            add("what", Range::OneOf(REPEATED.iter().map(|(name, _)| *name).collect()));
            add("inner", Range::Number(1, 9));
            add("unit", Range::Number(0, 1_000));
        }
        if is_act || prefix == "subs" {
            add("masks", Range::Number(0, 256));
            add("root", one_of(&ROOTS));
            add("levels", Range::Number(0, 24));
            add("stars", Range::Number(0, 255));
            add("turn", one_of(&["no", "yes"]));
            add("spread", Range::Number(1, 256));
            add("end", one_of(&["none", "there", "absent", "long"]));
            add("own", one_of(&["equal", "own"]));
        }
        if is_act || prefix == "state" {
            add("part", one_of(&PARTS));
            add("form", one_of(&FORMS));
            add("keys", Range::Number(1, 400_000));
            add("depth", Range::Number(0, 40));
            add("fan", Range::Number(1, 400_000));
            // Of the lowest level; none: as on the others.
            add("tip", Range::Number(0, 1_000));
            add("leaf", Range::Number(0, MOST_BROUGHT));
            add("key", Range::Number(0, 56));
            add("size", Range::Number(0, if is_act { MOST_BROUGHT } else { MOST_STATE }));
        }
    }
    genes
});

static PLACES: LazyLock<HashMap<&'static str, usize>> =
    LazyLock::new(|| GENES.iter().enumerate().map(|(n, gene)| (&*gene.name, n)).collect());

fn place(name: &str) -> usize {
    *PLACES.get(name).unwrap_or_else(|| panic!("no gene {name}"))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Genome(Vec<u32>);

impl Genome {
    /// One that any range allows.
    pub(crate) fn random(random: &mut ChaCha8Rng) -> Self {
        let values = GENES.iter().map(|gene| match random.random_bool(0.5) {
            true => gene.mutate(gene.default(), random),
            false => gene.default(),
        });
        Self(values.collect()).normal()
    }

    pub(crate) fn number(&self, name: &str) -> u32 {
        self.0[place(name)]
    }

    pub(crate) fn size(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap()
    }

    /// The name of a gene's value.
    pub(crate) fn choice(&self, name: &str) -> &'static str {
        let place = place(name);
        match &GENES[place].range {
            Range::OneOf(names) => names[usize::try_from(self.0[place]).unwrap()],
            Range::Number(..) => panic!("{name} is a number"),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: u32) -> Self {
        self.0[place(name)] = value;
        self.normal()
    }

    /// A few genes that have an effect are changed; a kind of act comes with genes of its own.
    pub(crate) fn mutate(&self, random: &mut ChaCha8Rng) -> Self {
        let mut mutant = self.clone();
        for _ in 0..random.random_range(1..=4) {
            let all: Vec<_> = (0..GENES.len()).filter(|n| mutant.matters(&GENES[*n])).collect();
            let n = *all.choose(random).unwrap();
            mutant.0[n] = GENES[n].mutate(mutant.0[n], random);
        }
        mutant.normal()
    }

    /// Each block of genes (state, subscriptions, either act, the rest) is that of one parent.
    pub(crate) fn cross(&self, other: &Self, random: &mut ChaCha8Rng) -> Self {
        let mut child = self.clone();
        for block in ["state", "subs", "a", "b", "rights", "reads", "window", "rounds", "wait"] {
            if random.random_bool(0.5) {
                for (n, gene) in GENES.iter().enumerate() {
                    if gene.name.split('.').next() == Some(block) {
                        child.0[n] = other.0[n];
                    }
                }
            }
        }
        child.normal()
    }

    /// Which genomes compete with each other: those with the same rights and the same first act.
    pub(crate) fn kind(&self) -> String {
        let (rights, act) = (self.choice("rights"), self.choice("a.kind"));
        match act {
            "repeat" => format!("{rights} repeat {}", self.choice("a.what")),
            "none" => format!("{rights} then {}", self.choice("b.kind")),
            _ => format!("{rights} {act}"),
        }
    }

    fn normal(mut self) -> Self {
        for (n, gene) in GENES.iter().enumerate() {
            if !self.matters(gene) {
                self.0[n] = gene.default();
            }
        }
        self
    }

    /// Whether a gene has an effect, beside these others.
    fn matters(&self, gene: &Gene) -> bool {
        let Some((block, name)) = gene.name.split_once('.') else { return true };
        match block {
            "state" => name == "size" || self.number("state.size") > 0,
            "subs" => self.number("subs") > 0,
            _ => name == "kind" || act_needs(self.choice(&format!("{block}.kind")), name),
        }
    }
}

/// Whether an act of this kind has a use for a gene.
fn act_needs(kind: &str, gene: &str) -> bool {
    let masks = ["masks", "root", "levels", "stars", "turn", "spread", "end", "own"];
    match kind {
        "update" => !["what", "inner", "unit"].contains(&gene),
        "repeat" => ["count", "what", "inner", "unit", "own", "size"].contains(&gene),
        "read" | "subscribe" => gene == "count" || masks.contains(&gene),
        "cancel" => gene == "count",
        "hello" | "zeros" | "garbage" => ["count", "size"].contains(&gene),
        _ => false,
    }
}

impl fmt::Display for Genome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (gene, value) in GENES.iter().zip(&self.0) {
            // Of two genes also the default is told: a reader looks for them.
            let is_told = gene.name == "rights" || gene.name.ends_with(".what");
            if *value == gene.default() && !(is_told && self.matters(gene)) {
                continue;
            }
            match &gene.range {
                Range::Number(..) => write!(f, "{space}{}={value}", gene.name)?,
                Range::OneOf(_) => {
                    write!(f, "{space}{}={}", gene.name, self.choice(&gene.name))?;
                }
            }
            space = " ";
        }
        Ok(())
    }
}

impl FromStr for Genome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut genome = Self(GENES.iter().map(Gene::default).collect());
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("no value: {word}"))?;
            let n = *PLACES.get(name).ok_or_else(|| format!("no gene {name}"))?;
            genome.0[n] = match &GENES[n].range {
                Range::OneOf(names) => names
                    .iter()
                    .position(|own| *own == value)
                    .and_then(|at| u32::try_from(at).ok())
                    .ok_or_else(|| format!("{name} is one of {names:?}"))?,
                Range::Number(least, most) => value
                    .parse()
                    .ok()
                    .filter(|number| (least..=most).contains(&number))
                    .ok_or_else(|| format!("{name} is a number from {least} to {most}"))?,
            };
        }
        Ok(genome.normal())
    }
}
