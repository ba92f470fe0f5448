//! The way from the model to an agent, and streams that break on purpose.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc as blocking,
};

use tonic::Status;

use super::{messages::FromServer, port::Peer, stream::Outgoing};

/// How a stream is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakBy {
    /// By a TCP reset.
    Reset,
    /// By an end with OK.
    End,
    /// By an end with UNAVAILABLE.
    Unavailable,
}

/// Counts the messages of a stream, both ways, and says which one breaks it.
#[derive(Clone, Debug)]
pub(super) struct Fuse {
    left: Arc<AtomicUsize>,
    how: BreakBy,
}

impl Fuse {
    /// Breaks the stream in place of the message of this number; the hello is number 0.
    pub(super) fn at(message: usize, how: BreakBy) -> Self {
        Self { left: Arc::new(AtomicUsize::new(message)), how }
    }

    pub(super) fn how(&self) -> BreakBy {
        self.how
    }

    /// Counts a message; true if this one breaks the stream, or one before it has.
    pub(super) fn burns(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }
}

/// The way to an agent.
pub(super) enum Sink {
    Remote { outgoing: Outgoing, peer: Peer, fuse: Option<Fuse> },
    Inside(blocking::Sender<FromServer>),
}

impl Sink {
    /// Sends a message; false if it broke the stream.
    pub(super) fn send(&self, message: FromServer) -> bool {
        match self {
            Self::Remote { fuse: Some(fuse), .. } if fuse.burns() => {
                self.break_by(fuse.how);
                return false;
            }
            // Errors are noticed by whoever reads the stream.
            Self::Remote { outgoing, .. } => drop(outgoing.send(Ok(message))),
            Self::Inside(sender) => drop(sender.send(message)),
        }
        true
    }

    pub(super) fn break_by(&self, how: BreakBy) {
        if let Self::Remote { outgoing, peer, .. } = self {
            match how {
                BreakBy::Reset => peer.reset(),
                BreakBy::Unavailable => drop(outgoing.send(Err(Status::unavailable("broken")))),
                // The stream ends when the sink is dropped.
                BreakBy::End => {}
            }
        }
    }
}
