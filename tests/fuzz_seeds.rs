//! The entries of the fuzz targets, over their seeds: the promises that they check hold for these.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../fuzz/src/checks/link.rs"]
mod link;
#[path = "../fuzz/src/checks/manifests.rs"]
mod manifests;

use std::{fs, path::Path};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let seeds = fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let seeds: Vec<_> = seeds.collect();
    assert!(seeds.len() >= 4);
    seeds
}

#[test]
fn frames_do_not_depend_on_where_their_stream_is_cut() {
    seeds("frames").iter().for_each(|seed| fifogate::internal::fuzz_frames(seed));
}

#[test]
fn line_of_json_is_refused_or_the_same_after_any_way() {
    for seed in seeds("encode") {
        for end in 0..=seed.len() {
            fifogate::internal::fuzz_encode(&seed[..end]);
        }
    }
}

#[test]
fn core_keeps_its_promises_whatever_is_said_and_whenever_it_is_cut_short() {
    for seed in seeds("requests") {
        for end in 0..=seed.len() {
            fifogate::internal::fuzz_requests(&seed[..end]);
        }
    }
}

#[test]
fn what_the_core_sends_to_its_agent_can_be_decoded_whatever_both_sides_say() {
    for seed in seeds("link") {
        for end in 0..=seed.len() {
            link::fuzz_link(&seed[..end]);
        }
    }
}

#[test]
fn text_is_refused_as_a_manifest_or_becomes_a_state_that_can_be_sent() {
    for seed in seeds("manifests") {
        for end in 0..=seed.len() {
            manifests::fuzz_manifest(&seed[..end]);
        }
    }
}
