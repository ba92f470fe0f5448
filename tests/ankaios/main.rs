//! An agent of fifogate in a real cluster of Ankaios: its `ank-server`, its `ank`, and its agent beside ours.
//!
//! `ANK_BIN_DIR` is the folder of `ank`, `ank-server` and `ank-agent`. Where it is not set, these tests are
//! skipped: nothing of Ankaios is in this repository, and nothing is downloaded. `make interop` runs them.
//!
//! A workload of either agent is spoken for by the test itself, which opens its pair: podman only keeps a
//! container there, for which the real agent makes one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod both;
mod cluster;
mod faults;
mod interface;
mod limits;
mod manifest;
mod operator;
mod own_interface;
mod same_state;
mod side_by_side;
mod tls;
