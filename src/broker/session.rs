//! The session state machine: legal messages per phase, and the texts of refusals
//! (docs/protocol.md#sessions, docs/differences.md#1-every-hello-is-answered,
//! docs/differences.md#2-a-refusal-is-not-the-end, docs/differences.md#3-end-of-file-keeps-the-session,
//! docs/differences.md#4-every-request-gets-an-answer).
//!
//! In go the phase and a message; out comes a [`Verdict`]. Pure: the broker changes the phase.

use semver::Version;

use super::refusal::Refusal;
use crate::message::FromWorkload;

/// Major version of the control interface.
pub(super) const MAJOR: u64 = 1;

/// The phase of a workload's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Session {
    /// No message yet: a Hello is due.
    #[default]
    AwaitHello,
    /// Requests are served.
    Open,
    /// Ended or refused, with the reason sent. Only a Hello or a new writer leaves this phase.
    Closed,
}

/// The handling of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Begin a session, and end the one before.
    Begin,
    /// Close or refuse the session, for this reason.
    Close(String),
    /// Serve it in the open session.
    Serve,
    /// Skip it.
    Skip,
}

impl Session {
    /// The handling of `message` in this phase.
    pub(super) fn judge(self, message: &FromWorkload) -> Verdict {
        match (self, message) {
            (_, FromWorkload::Hello { version }) => match check_version(version) {
                Ok(()) => Verdict::Begin,
                Err(refusal) => Verdict::Close(refusal.to_string()),
            },
            (Self::Open, _) => Verdict::Serve,
            (Self::Closed, _) => Verdict::Skip,
            (Self::AwaitHello, FromWorkload::Undecodable { .. }) => {
                Verdict::Close("Could not decode protobuf data".to_owned())
            }
            (
                Self::AwaitHello,
                FromWorkload::Request(_) | FromWorkload::Sealed(_) | FromWorkload::Empty,
            ) => Verdict::Close("Initial Hello missing!".to_owned()),
        }
    }

    /// The phase after all writers have closed the pipe. An open session stays
    /// (docs/differences.md#3-end-of-file-keeps-the-session); a refusal is forgotten, so the next
    /// writer gets its own.
    pub(super) fn after_end_of_file(self) -> Self {
        match self {
            Self::Closed => Self::AwaitHello,
            other => other,
        }
    }
}

/// Checks the version of a peer.
///
/// # Errors
/// The text is no SemVer, or its major number differs from ours.
pub fn check_version(received: &str) -> Result<(), Refusal> {
    match Version::parse(received) {
        Ok(version) if version.major == MAJOR => Ok(()),
        _ => Err(Refusal::UnsupportedVersion(received.to_owned())),
    }
}
