//! Checked, typed messages: the generated types end here.
//!
//! Frame bodies come in and become a [`FromWorkload`]; a [`ToWorkload`] goes out as bytes. This module
//! checks the form of a message. The broker decides about its rights.

use crate::limits::too_deep;

mod agent;
mod logs;
mod outgoing;
mod outline;
mod request;
mod response;
pub mod resync;

pub(crate) use logs::cancel_logs;

pub use agent::{Command, FromAgent, Owner, Phase, RejectCode, Rejected, ToAgent};
pub use outgoing::Frame;
pub use request::{FromWorkload, NewState, Request, RequestKind, SealedUpdate};
pub use response::{ReplyKind, ResponseBody, ToWorkload};

/// Reason why a body is undecodable, for its sender. The nesting bound of the decoder is above the
/// bound of fifogate, and a sender has to keep to the latter.
fn undecodable(error: &prost::DecodeError) -> String {
    let text = error.to_string();
    if text.ends_with("recursion limit reached") { too_deep("a value in it") } else { text }
}
