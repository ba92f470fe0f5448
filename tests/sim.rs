//! Seeded simulation: worlds of workloads that say, read and miss things at random, against a naive
//! model that computes everything from whole states.
//!
//! The model (`sim/tree.rs`, `access.rs`, `update.rs`, `serve.rs`) shares no code with the crate;
//! what goes between them are the protocol's messages, encoded. `SEEDS=N` runs that many worlds,
//! `SEEDS=A..B` those of these seeds; `STEPS=N` makes them longer. A failure names its seed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sim {
    pub(crate) mod access;
    pub(crate) mod acts;
    pub(crate) mod asks;
    mod checks;
    pub(crate) mod counts;
    pub(crate) mod link;
    pub(crate) mod pbs;
    pub(crate) mod peer;
    pub(crate) mod serve;
    pub(crate) mod server;
    pub(crate) mod tree;
    pub(crate) mod update;
    pub(crate) mod words;
    pub(crate) mod world;
}

use std::{env, ops::Range, thread};

use sim::{counts::Counts, world::World};

/// Worlds of an ordinary run, and what happens in each.
const WORLDS: u64 = 200;
const STEPS: u64 = 1_000;

fn seeds() -> Range<u64> {
    let number = |text: &str| text.trim().parse().expect("SEEDS is N or A..B");
    match env::var("SEEDS") {
        Err(_) => 0..WORLDS,
        Ok(text) => match text.split_once("..") {
            None => 0..number(&text),
            Some((from, to)) => number(from)..number(to),
        },
    }
}

fn play(seeds: impl Iterator<Item = u64>, steps: u64) -> Counts {
    let mut counts = Counts::default();
    for seed in seeds {
        let mut world = World::seeded(seed);
        world.run(steps);
        counts.add(&world.counts);
    }
    counts
}

#[test]
fn worlds_do_what_the_naive_model_says() {
    let seeds = seeds();
    let steps = env::var("STEPS").map_or(STEPS, |text| text.parse().expect("STEPS is a number"));
    let halves: Vec<_> = (0..2)
        .map(|half| {
            let own = seeds.clone().skip(half).step_by(2);
            thread::spawn(move || play(own, steps))
        })
        .collect();
    let mut counts = Counts::default();
    for half in halves {
        let own = half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        counts.add(&own);
    }
    counts.print();
    if seeds.end - seeds.start >= WORLDS {
        assert_eq!(counts.missing(), [""; 0], "never happened");
    }
}
