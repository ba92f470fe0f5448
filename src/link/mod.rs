//! The client of the agent link, for agents written in Rust (docs/agent-link.md).
//!
//! [`LinkCodec`] is the link without I/O: it numbers commands, matches answers and decodes messages. Two
//! clients do the I/O around it: [`AgentLink`] blocks, and `AsyncLink` (feature `tokio`) serves many
//! tasks at once. Both have a method for each command. `examples/agent_blocking.rs` and
//! `examples/agent_tokio.rs` are whole agents.

#[cfg(feature = "tokio")]
mod asynchronous;
mod blocking;
mod codec;
mod commands;
mod error;

#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncLink, Incoming, Messages};
pub use blocking::{AgentLink, CommandSender, MessageReceiver};
pub use codec::{AnswerMode, Event, LinkCodec};
pub use error::{CallError, LinkError, Rejected};

pub use crate::{owner::Owner, pb::agent_link::RejectCode};
