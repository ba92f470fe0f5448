//! Where a workload stands in the protocol: what is legal when, and in which words it is refused
//! (docs/protocol.md#sessions, docs/differences.md#1-every-hello-is-answered,
//! docs/differences.md#2-a-refusal-is-not-the-end, docs/differences.md#3-end-of-file-keeps-the-session,
//! docs/differences.md#4-every-request-gets-an-answer).

use semver::Version;

use crate::{foreign::Excerpt, message::FromWorkload};

/// Major version of the protocol that we speak.
const MAJOR: u64 = 1;

/// The phase of a workload's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Session {
    /// Nothing said yet: a Hello is due.
    #[default]
    AwaitHello,
    /// Requests are served.
    Open,
    /// Ended or refused, and the workload was told. Only a Hello, or a new writer, gets on from here.
    Closed,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A session begins, whatever was before it.
    Begin,
    /// The session ends, or does not begin, for this reason.
    Close(String),
    /// It belongs to the open session.
    Serve,
    /// It is skipped.
    Skip,
}

impl Session {
    /// What becomes of `message` in this phase.
    pub(super) fn judge(self, message: &FromWorkload) -> Verdict {
        match (self, message) {
            (_, FromWorkload::Hello { version }) => match check_version(version) {
                Ok(()) => Verdict::Begin,
                Err(reason) => Verdict::Close(reason),
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

    /// The phase after all writers have gone. An open session stays
    /// (docs/differences.md#3-end-of-file-keeps-the-session); one that was
    /// refused is forgotten, so that the next writer is told anew.
    pub(super) fn after_end_of_file(self) -> Self {
        match self {
            Self::Closed => Self::AwaitHello,
            other => other,
        }
    }
}

/// Whether a peer of this version can be talked to.
///
/// # Errors
/// The reason to tell it: the text is no SemVer, or its major number is not ours.
pub fn check_version(received: &str) -> Result<(), String> {
    match Version::parse(received) {
        Ok(version) if version.major == MAJOR => Ok(()),
        _ => Err(format!(
            "Unsupported protocol version '{}'. Currently supported '{MAJOR}'",
            Excerpt(received)
        )),
    }
}
