//! The entries of the agent's fuzz targets, over their seeds and every beginning of them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{fs, path::Path};

fn each_beginning(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let seed = fs::read(entry.unwrap().path()).unwrap();
        (0..=seed.len()).for_each(|end| run(&seed[..end]));
        count += 1;
    }
    assert!(count >= 4, "{count} seeds");
}

#[test]
fn templates_stay_within_their_bounds_wherever_they_are_cut() {
    each_beginning("templates", fifogate_agent::render::fuzz_template);
}

#[test]
fn stored_items_give_readable_states_wherever_they_are_cut() {
    each_beginning("stored", fifogate_agent::store::fuzz_stored);
}

#[test]
fn runtime_configs_stay_within_their_bounds_wherever_they_are_cut() {
    each_beginning("runtime_configs", fifogate_agent::runtime::config::fuzz_runtime_config);
}
