//! Checked, typed messages: the generated types end here.
//!
//! Frame bodies come in and become a [`FromWorkload`]; a [`ToWorkload`] goes out as bytes. What a
//! message may do is not decided here, only what it says.

pub mod hello;
mod request;
mod response;

pub use request::{Ask, FromWorkload, NewState, Request};
pub use response::{Body, ToWorkload};
