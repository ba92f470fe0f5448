//! Real processes that are killed, stopped and continued at random, write half frames and read slowly;
//! and a reader that stops for ten thousand updates. In the end everybody's view is the state.
//!
//! `SCHEDULES=1000 SEED=7 cargo test --test soak` plays a thousand schedules from one seed, as
//! `make soak` does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod soak {
    pub(crate) mod child;
    pub(crate) mod processes;
    pub(crate) mod slow;
}

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use testkit::number;

use soak::{
    child,
    processes::{Fault, Processes},
};

/// How many readers there are, and how many writers.
const EACH: usize = 10;

/// The processes of the tests are this program, started with a role.
#[test]
#[ignore = "a process of the other tests"]
fn child_with_a_role() {
    child::play();
}

#[test]
fn whatever_becomes_of_readers_and_writers_each_view_is_the_state_in_the_end() {
    let (schedules, seed) = (number("SCHEDULES", 12), number("SEED", 1));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut processes = Processes::start(EACH);
    processes.wait_idle();
    let (descriptors, memory) = processes.held();
    for schedule in 0..schedules {
        for _ in 0..random.random_range(1..=6) {
            let fault = *Fault::ALL.choose(&mut random).unwrap();
            let whose = random.random_range(0..EACH);
            processes.apply(fault, whose);
            processes.write(random.random_range(0..EACH), random.random_range(1..=8));
        }
        let told = format!("schedule {schedule} of SEED={seed}");
        processes.recover();
        processes.wait_idle();
        processes.compare(&told);
    }
    processes.recover();
    processes.wait_idle();
    let (descriptors_after, memory_after) = processes.held();
    assert_eq!(descriptors_after, descriptors, "a descriptor leaked");
    assert!(memory_after < memory + 16_384, "{memory} KiB became {memory_after} KiB");
    println!("{schedules} schedules: {}", processes.summary());
    assert!(processes.was_exercised(), "{}", processes.summary());
}
