//! What is done while the loop's state is not locked: every call on a FIFO.

use std::io;

use crate::broker::PeerId;

use super::{
    super::{fifo::Unopened, port::Port},
    slots::{Back, Visit},
};

/// Something to do that may sleep, if a workload holds its pipe.
pub(super) enum Job {
    /// A turn of a port.
    Turn(Visit),
    /// Open the FIFOs of a pair.
    Open(PeerId, ToOpen),
    /// Close the FIFOs of a pair.
    Close(Box<Port>),
}

/// What is needed to open the FIFOs of a pair.
pub(super) struct ToOpen {
    pub(super) fifos: Unopened,
    /// They were there before.
    pub(super) reused: bool,
    pub(super) max_frame: usize,
    pub(super) window: usize,
}

impl ToOpen {
    fn open(self) -> io::Result<Box<Port>> {
        Port::open(&self.fifos, self.reused, self.max_frame, self.window).map(Box::new)
    }
}

/// What came of a job.
pub(super) enum Done {
    Turn(PeerId, Back),
    Opened(PeerId, io::Result<Box<Port>>),
    Closed,
}

impl Job {
    pub(super) fn work(self, buffer: &mut [u8]) -> Done {
        match self {
            Self::Turn(visit) => Done::Turn(visit.peer(), visit.work(buffer)),
            Self::Open(peer, what) => Done::Opened(peer, what.open()),
            Self::Close(port) => {
                drop(port);
                Done::Closed
            }
        }
    }

    /// Whose FIFOs it is about.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Turn(visit) => Some(visit.peer()),
            Self::Open(peer, ..) => Some(*peer),
            Self::Close(_) => None,
        }
    }
}
