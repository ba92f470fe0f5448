//! The agent link, black-box: every message of the contract, over standard input and output and over
//! a Unix socket, each thing that can be wrong, and what an agent's death leaves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod link {
    pub(crate) mod answers;
    pub(crate) mod campaigns;
    pub(crate) mod client;
    pub(crate) mod examples;
    pub(crate) mod forwarding;
    pub(crate) mod lifetime;
    pub(crate) mod rejections;
    pub(crate) mod state;
    pub(crate) mod status;
    pub(crate) mod vectors;
    pub(crate) mod workloads;
}

#[allow(dead_code)] // shared with `tests/vectors.rs`
#[path = "vectors/rows.rs"]
mod rows;
