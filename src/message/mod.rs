//! Checked, typed messages: the generated types end here.
//!
//! Frame bodies come in and become a [`FromWorkload`]; a [`ToWorkload`] goes out as bytes. What a
//! message may do is not decided here, only what it says.

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

/// Why a body is no message, for its sender. The decoder's own bound of nesting is above ours, and
/// ours is the one that a sender has to keep to.
fn undecodable(error: &prost::DecodeError) -> String {
    let text = error.to_string();
    if text.ends_with("recursion limit reached") { too_deep("a value in it") } else { text }
}
