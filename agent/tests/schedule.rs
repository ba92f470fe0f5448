//! Random schedules against a real etcd: agents of one cluster, with updates, cuts, compactions, backups,
//! crashes and killed processes. Afterwards all agents have the same state, and exactly what is desired runs.
//!
//! `SCHEDULES=100 SEED=7 cargo test -p fifogate-agent --test schedule` plays a hundred schedules from one
//! seed on, as `make soak` does. A schedule is replayed by the line that a failure prints.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod schedule {
    pub(crate) mod check;
    pub(crate) mod cluster;
    pub(crate) mod known;
    pub(crate) mod operation;
}

use std::time::Instant;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use testkit::number;

use schedule::{cluster::Cluster, operation::Operation};

#[test]
fn whatever_becomes_of_agents_and_etcd_all_agree_and_what_is_desired_runs() {
    let (schedules, first) = (number("SCHEDULES", 2), number("SEED", 1));
    for seed in first..first + schedules {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let begun = Instant::now();
        let mut cluster = Cluster::start(&mut random);
        let operations = Operation::schedule(&mut random, cluster.size());
        eprintln!("SCHEDULES=1 SEED={seed} plays {operations:#?}");
        for operation in &operations {
            eprintln!("{:6.2} s: {operation:?}", begun.elapsed().as_secs_f64());
            cluster.apply(operation);
        }
        cluster.recover();
        cluster.verify();
        eprintln!("{:6.2} s: the end of SEED={seed}", begun.elapsed().as_secs_f64());
    }
}
