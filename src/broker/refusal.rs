//! Reasons to refuse a request or a Hello, sorted by whose fault it is.

use std::{error::Error, fmt};

use super::session::MAJOR;
use crate::foreign::Excerpt;

/// Reason for a refusal, with the text for its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    // Faults of the sender.
    /// A version of the protocol that is no SemVer, or of another major number.
    UnsupportedVersion(String),
    /// More subscriptions than this.
    TooManySubscriptions(usize),
    /// More bytes of masks than this, in all subscriptions together.
    TooLargeSubscriptions(usize),
    /// More bytes of workload names than this, in all log requests under way together.
    TooLargeLogRequests(usize),
    /// More requests than this wait for the agent.
    TooManyForwarded(usize),
    // Faults of the agent.
    /// The agent is not connected.
    NoAgent,
    /// The agent does not read its requests.
    SlowAgent,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedVersion(received) => write!(
                f,
                "Unsupported protocol version '{}'. Currently supported '{MAJOR}'",
                Excerpt(received)
            ),
            Self::TooManySubscriptions(most) => {
                write!(f, "Too many subscriptions, at most {most} are allowed")
            }
            Self::TooLargeSubscriptions(most) => {
                write!(f, "The masks of all subscriptions take more than {most} bytes")
            }
            Self::TooLargeLogRequests(most) => {
                write!(f, "The names in all log requests take more than {most} bytes")
            }
            Self::TooManyForwarded(most) => {
                write!(f, "Too many requests wait for the agent, at most {most} are allowed")
            }
            Self::NoAgent => f.write_str("The agent that would decide this is not connected"),
            Self::SlowAgent => {
                f.write_str("The agent does not keep up with requests; try again later")
            }
        }
    }
}

impl Error for Refusal {}
