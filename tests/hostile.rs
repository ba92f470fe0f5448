//! Workloads that do their worst, and one beside them that is served all the same.
//!
//! Each attack is a program (`tests/hostile/attacks/`) that runs as a user without rights, against a
//! real fifogate. All of these tests measure, so one runs at a time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile {
    pub(crate) mod attacked;
    pub(crate) mod attacker;
    pub(crate) mod attacks;
    pub(crate) mod exhaustion;
    pub(crate) mod held_lock;
    pub(crate) mod watched;
}
