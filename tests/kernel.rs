//! The facts about Linux's FIFOs on which fifogate relies, each with its experiment (`docs/pipes.md`).
//!
//! No test here starts a process: a child has a copy of every descriptor until it executes its program,
//! and a pipe that a test has closed would be open for a little longer.

#![allow(clippy::unwrap_used)]

mod kernel {
    mod capacity;
    mod fifo;
    mod files;
    mod lock;
    mod reading;
    mod watching;
    mod writing;
}
