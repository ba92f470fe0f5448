//! Checked, typed messages: the generated types end here.
//!
//! Frame bodies come in and become a [`FromWorkload`]; a [`ToWorkload`] goes out as bytes. This module
//! checks the form of a message. The broker decides about its rights.

pub(crate) mod agent;
mod fault;
mod logs;
mod outgoing;
mod outline;
pub(crate) mod request;
mod response;
pub(crate) mod resync;
mod summary;

pub(crate) use logs::cancel_logs;

pub(crate) use crate::owner::Owner;
pub(crate) use agent::{Command, Phase, RejectCode, Rejected};
pub(crate) use request::{NewState, Request, RequestKind, SealedUpdate};
pub(crate) use response::ReplyKind;

pub use agent::{FromAgent, ToAgent};
pub use fault::Undecodable;
pub use outgoing::Frame;
pub use request::FromWorkload;
pub use response::{ResponseBody, ToWorkload};
