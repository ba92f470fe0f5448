//! One bound of nesting at every door: a value at the bound is accepted, forwarded, printed and read back;
//! one level more is refused by a message that names the bound, and nobody else notices.
//!
//! `NESTING_CASES=2000 cargo test --test nesting` tries more values, as `make soak` does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod nesting {
    pub(crate) mod client;
    pub(crate) mod commands;
    pub(crate) mod doors;
    pub(crate) mod link;
    pub(crate) mod values;
}
