//! Readers of pieces of any size that leave in the middle of a frame, or are there when fifogate is
//! killed and another takes over: nothing that a reader makes of what it reads is ever torn.
//!
//! `SCHEDULES=1000 SEED=7 cargo test --test torn` plays a thousand schedules from one seed, as
//! `make soak` does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod torn {
    pub(crate) mod cases;
    pub(crate) mod schedules;
    pub(crate) mod world;
}
