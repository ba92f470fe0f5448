//! A search for the most expensive inputs: a seeded hill-climb over what one hostile workload subscribes to
//! and sends, and over the state beside it. It looks for the longest wait of a well-behaved neighbour,
//! and for the message that takes most memory for its length.
//!
//! `SEARCH_SECONDS=3600 SEARCH_SEED=7 cargo test --test search -- --nocapture` searches for an hour, with
//! states of up to SEARCH_STATE bytes, and only among genomes whose kind contains SEARCH_KIND
//! (`SEARCH_KIND='read subscribe'`: rights, and the first act). `SEARCH_GENOME='...'`, from a line that a
//! search has printed, plays that genome alone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod search {
    pub(crate) mod attacker;
    pub(crate) mod climb;
    pub(crate) mod frames;
    pub(crate) mod genome;
    pub(crate) mod seeds;
    pub(crate) mod shape;
    pub(crate) mod trial;
    pub(crate) mod wire;
}

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fifogate::{frame::FrameDecoder, pb::control_api::ToAnkaios};
use prost::Message;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use testkit::{number, skip};

use search::{
    climb::{Climb, Goal},
    frames::{MAX_FRAME, Script, state_parts, update_of_part},
    genome::Genome,
    seeds::SEEDS,
    trial::{self, details, trial},
};

/// The longest that a small request may wait beside one hostile workload, and beside many.
const BESIDE_ONE: Duration = Duration::from_millis(250);
const BESIDE_MANY: Duration = Duration::from_secs(1);
/// How many are many.
const MANY: usize = 20;
/// Most memory that a message may take, in lengths of it.
const LENGTHS: f64 = 16.0;
/// For one answer, while it is searched, and when a genome is played alone.
const PATIENCE: Duration = Duration::from_secs(5);
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// Tests that measure do so alone.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The genome that is to be played instead of a search.
fn given() -> Option<Genome> {
    std::env::var("SEARCH_GENOME").ok().map(|text| text.parse().unwrap())
}

fn replay(genome: &Genome) -> String {
    format!("SEARCH_GENOME='{genome}' cargo test --test search -- --nocapture")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The neighbour's worst wait.
struct Wait;

impl Goal for Wait {
    fn measure(&self, genome: &Genome) -> f64 {
        milliseconds(trial(std::slice::from_ref(genome), PATIENCE).wait)
    }

    fn unit(&self) -> &'static str {
        "ms"
    }

    fn limit(&self) -> f64 {
        milliseconds(BESIDE_ONE)
    }

    fn wants(&self, kind: &str) -> bool {
        std::env::var("SEARCH_KIND").map_or(true, |only| kind.contains(&only))
    }

    /// A larger state takes longer to be set than all that is measured.
    fn fit(&self, genome: Genome) -> Genome {
        let size = u64::from(genome.number("state.size"));
        let most = number("SEARCH_STATE", 4_000_000);
        genome.with("state.size", size.min(most).try_into().unwrap())
    }
}

/// The memory that one message takes.
struct Memory;

impl Goal for Memory {
    fn measure(&self, genome: &Genome) -> f64 {
        trial::memory(genome, PATIENCE)
    }

    fn unit(&self) -> &'static str {
        "times its length"
    }

    fn limit(&self) -> f64 {
        LENGTHS
    }

    /// One message of one act is measured. The answers to it of a large state are not its own.
    fn fit(&self, genome: Genome) -> Genome {
        let none = ["state.size", "subs", "b.kind", "wait", "reads"];
        let one = ["rounds", "window", "a.count"];
        let alone = none.iter().fold(genome, |genome, name| genome.with(name, 0));
        one.iter().fold(alone, |genome, name| genome.with(name, 1))
    }
}

#[test]
#[allow(clippy::print_stdout)]
fn neighbour_is_answered_in_time_beside_the_dearest_inputs_that_a_search_finds() {
    let _alone = alone();
    if let Some(genome) = given() {
        return play(&genome);
    }
    let (seconds, seed) = (number("SEARCH_SECONDS", 9), number("SEARCH_SEED", 1));
    let mut climb = Climb::new(Wait, seed);
    climb.run(Duration::from_secs(seconds));
    println!("the longest waits by kind, SEARCH_SEED={seed}: {}", climb.table());
    let champions = climb.champions();
    let many: Vec<_> = champions.iter().map(|(_, genome)| genome.clone()).take(MANY).collect();
    let outcome = trial(&many, PATIENCE);
    println!("beside {} of them at once: {:.1?}, {}", many.len(), outcome.wait, details(&outcome));
    let (worst, genome) = &champions[0];
    let line = replay(genome);
    assert!(*worst <= milliseconds(BESIDE_ONE), "a neighbour waited for {worst:.1} ms: {line}");
    let wait = outcome.wait;
    assert!(wait <= BESIDE_MANY, "beside the first {} of the table: {wait:.1?}", many.len());
}

#[test]
#[allow(clippy::print_stdout)]
fn message_takes_no_more_memory_than_16_times_its_length() {
    let _alone = alone();
    if given().is_some() {
        return skip("SEARCH_GENOME is played alone, by the other test");
    }
    let (seconds, seed) = (number("SEARCH_SECONDS", 9) / 4, number("SEARCH_SEED", 1));
    let mut climb = Climb::new(Memory, seed);
    climb.run(Duration::from_secs(seconds));
    println!("the most memory by kind, SEARCH_SEED={seed}: {}", climb.table());
    let (most, genome) = &climb.champions()[0];
    assert!(*most <= LENGTHS, "{most:.1} times its length: {}", replay(genome));
}

/// Measures one genome several times.
#[allow(clippy::print_stdout)]
fn play(genome: &Genome) {
    println!("{genome}");
    let mut least = LONG_PATIENCE;
    for _ in 0..4 {
        let outcome = trial(std::slice::from_ref(genome), LONG_PATIENCE);
        println!("waited for {:.1?}; {}", outcome.wait, details(&outcome));
        if let Some(error) = &outcome.first_error {
            println!("  its first error: {}", error.chars().take(200).collect::<String>());
        }
        least = least.min(outcome.wait);
    }
    let (lengths, longest) = (trial::memory(genome, LONG_PATIENCE), Script::of(genome).longest());
    println!("its longest message has {longest} bytes and takes {lengths:.1} times its length");
    assert!(least <= BESIDE_ONE, "a neighbour waited for {least:.1?}: {}", replay(genome));
}

#[test]
fn genome_that_was_printed_and_read_is_the_same() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut genome = Genome::random(&mut random);
    for _ in 0..1_000 {
        let other = Genome::random(&mut random);
        for genome in [&genome, &other, &genome.cross(&other, &mut random)] {
            assert_eq!(genome.to_string().parse().as_ref(), Ok(genome));
        }
        genome = genome.mutate(&mut random);
    }
    for wrong in ["rights", "rights=all", "nothing=1", "window=65", "window=0", "rounds=x"] {
        assert!(wrong.parse::<Genome>().is_err(), "{wrong}");
    }
}

/// Every frame but those of zeros and garbage is one that fits and decodes.
fn check_frames(genome: &Genome) -> usize {
    let script = Script::of(genome);
    let pieces = script.setup.iter().chain(script.rounds.iter().flatten());
    let frames = pieces.filter(|piece| piece.answered).map(|piece| piece.bytes.clone());
    let parts = state_parts(genome);
    let updates = parts.iter().map(|part| update_of_part(genome, part).bytes);
    let mut all: Vec<_> = frames.chain(updates).collect();
    // Copies of one frame.
    all.dedup_by_key(|bytes| bytes.as_ptr());
    for frame in &all {
        let mut rest = &frame[..];
        let body = FrameDecoder::new(MAX_FRAME).next_frame(&mut rest).unwrap().unwrap();
        assert!(rest.is_empty(), "{genome}");
        let message = ToAnkaios::decode(body);
        // Deep values are there to be refused.
        let is_deep =
            ["a", "b", "state"].iter().any(|own| genome.number(&format!("{own}.depth")) > 20);
        // Which bytes are a number or a text of a repeated element is left to chance.
        let is_repeat = [genome.choice("a.kind"), genome.choice("b.kind")].contains(&"repeat");
        assert!(is_deep || is_repeat || message.is_ok(), "{genome}: {message:?}");
    }
    all.len()
}

/// The same with messages that take less time to check.
fn small(genome: &Genome) -> Genome {
    let blocks = ["state.size", "a.size", "b.size"].into_iter();
    let small = blocks.fold(genome.clone(), |genome, name| {
        let size = genome.number(name).div_ceil(32);
        genome.with(name, size)
    });
    let subs = small.number("subs") % 8;
    small.with("subs", subs)
}

#[test]
fn frames_of_a_genome_fit_and_decode() {
    let _alone = alone();
    for seed in SEEDS {
        let genome: Genome = seed.parse().unwrap();
        assert!(check_frames(&small(&genome)) > 1, "{genome}");
        assert!((1..=MAX_FRAME).contains(&Script::of(&genome).longest()), "{genome}");
    }
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let count: usize = (0..60).map(|_| check_frames(&small(&Genome::random(&mut random)))).sum();
    assert!(count > 60);
}

#[test]
fn wait_is_seen_that_a_stopped_fifogate_causes() {
    let _alone = alone();
    let time = Duration::from_millis(300);
    let waited = trial::wait_of_a_stopped_gate(time);
    assert!(waited >= time / 2, "{waited:?}");
}
