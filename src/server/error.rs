//! Errors of a server: reasons not to start, and reasons to end.

use std::{fmt, io, path::PathBuf};

use super::fifo::FifoError;

/// Longest path of a Unix socket in bytes: `sun_path` without its final zero.
const MAX_SOCKET_PATH: usize = 107;

/// The server cannot start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// Another server answers on the status socket of this run directory.
    AlreadyRunning(PathBuf),
    /// The run directory, or a file in it, is unusable. The text of the error names the path.
    RunDirUnusable(io::Error),
    /// The status socket cannot be made, at this path.
    StatusSocket(PathBuf, io::Error),
    /// The agent at this address cannot be reached.
    AgentUnreachable(String, io::Error),
    /// The agent transport is a file, and a file cannot be polled.
    AgentNotPollable(io::Error),
    /// The system refused a descriptor or a thread.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRunning(dir) => {
                write!(f, "another fifogate serves {} already", dir.display())
            }
            Self::RunDirUnusable(error) => error.fmt(f),
            Self::StatusSocket(path, error) => {
                let path = path.display().to_string();
                write!(f, "cannot listen on {path}: {}", reason(&path, error))
            }
            Self::AgentUnreachable(address, error) => {
                write!(f, "cannot reach the agent at {address}: {}", reason(address, error))
            }
            Self::AgentNotPollable(error) => {
                write!(f, "the agent link has to be a pipe or a socket, not a file: {error}")
            }
            Self::System(error) => error.fmt(f),
        }
    }
}

/// The limit for a path that is too long for a Unix socket, as the system's error does not name it.
fn reason(path: &str, error: &io::Error) -> String {
    if path.len() > MAX_SOCKET_PATH && error.kind() == io::ErrorKind::InvalidInput {
        let bytes = path.len();
        return format!(
            "a Unix socket may have a path of {MAX_SOCKET_PATH} bytes, this one has {bytes}: \
             use a shorter directory"
        );
    }
    error.to_string()
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::AlreadyRunning(_) => None,
            Self::RunDirUnusable(error)
            | Self::StatusSocket(_, error)
            | Self::AgentUnreachable(_, error)
            | Self::AgentNotPollable(error)
            | Self::System(error) => Some(error),
        }
    }
}

impl From<FifoError> for StartError {
    fn from(error: FifoError) -> Self {
        Self::RunDirUnusable(error.into())
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// A pair cannot be made. The workload is served by nobody; the agent and the log get the reason.
#[derive(Debug)]
pub(super) enum PairError {
    /// The administrator's limit of descriptors has no room beside this number of served workloads.
    NoDescriptors(usize),
    /// A foreign file is in the way, or the system refuses a file.
    Unusable(FifoError),
    /// The system refuses to open or to watch a FIFO.
    System(io::Error),
}

impl fmt::Display for PairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDescriptors(served) => write!(
                f,
                "{served} workloads are served, and the process may have no more descriptors \
                 (RLIMIT_NOFILE)"
            ),
            Self::Unusable(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
        }
    }
}

/// The server ended without a request to do so.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// The agent broke the protocol of its link, in this way.
    AgentProtocol(String),
    /// The broker panicked, with this message: a fault of fifogate.
    BrokerPanicked(String),
    /// The event loop panicked: a fault of fifogate.
    EventLoopPanicked,
    /// The system refused a poll.
    System(io::Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentProtocol(reason) => f.write_str(reason),
            Self::BrokerPanicked(message) => write!(f, "the broker panicked: {message}"),
            Self::EventLoopPanicked => f.write_str("the event loop panicked"),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for ServerError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
