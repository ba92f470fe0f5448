//! Errors of the agent link: of the link itself, and of one command.

use std::{error::Error, fmt, io};

use crate::{
    frame::FrameError,
    pb::agent_link::{self as link, RejectCode},
};

/// The link is broken or closed.
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkError {
    /// The stream cannot be read or written, or fifogate cannot be started.
    Io(io::Error),
    /// The framing is broken, so no later message can be found.
    Frame(FrameError),
    /// The stream has ended in the middle of a message.
    Torn,
    /// The first message is not `GateHello`, or there is none.
    NoHello,
    /// fifogate speaks this version of the link, of another major number.
    Version(String),
    /// fifogate has closed the link.
    Closed,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Frame(error) => error.fmt(f),
            Self::Torn => f.write_str("the link ended in the middle of a message"),
            Self::NoHello => f.write_str("fifogate did not greet"),
            Self::Version(version) => {
                write!(f, "fifogate speaks version '{}' of the link, not 1", version.escape_debug())
            }
            Self::Closed => f.write_str("fifogate has closed the link"),
        }
    }
}

impl Error for LinkError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => error.source(),
            Self::Frame(error) => error.source(),
            _ => None,
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        let kind = match error {
            // Unwrapped, so the caller finds the kind of the system's error.
            LinkError::Io(error) => return error,
            LinkError::Frame(_) => io::ErrorKind::InvalidData,
            LinkError::Torn | LinkError::Closed => io::ErrorKind::UnexpectedEof,
            LinkError::NoHello | LinkError::Version(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// fifogate rejected a command, and applied no part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The kind of reason, for programs.
    pub code: RejectCode,
    /// The reason in words, for a log.
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fifogate refused: {}", self.reason)
    }
}

impl Error for Rejected {}

impl From<link::Rejected> for Rejected {
    fn from(rejected: link::Rejected) -> Self {
        // A code of a later version is Unknown.
        Self { code: rejected.code(), reason: rejected.reason }
    }
}

/// A command was not applied, or its answer is missing.
#[derive(Debug)]
pub enum CallError {
    /// fifogate rejected it.
    Rejected(Rejected),
    /// The link broke before the answer. The command may have been applied.
    Link(LinkError),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejected) => rejected.fmt(f),
            Self::Link(error) => error.fmt(f),
        }
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(_) => None,
            Self::Link(error) => error.source(),
        }
    }
}

impl From<Rejected> for CallError {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<LinkError> for CallError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Link(error.into())
    }
}
