//! What is done while the loop's state is not locked: every call on a FIFO.

use std::{io, sync::Arc};

use crate::broker::PeerId;

use super::{
    super::{
        fifo::Unopened,
        port::{Port, Turn},
    },
    slots::Slot,
};

/// Something to do that may sleep, if a workload holds its pipe.
pub(super) enum Job {
    /// A turn of a port.
    Turn(Arc<Slot>),
    /// Open the FIFOs of a pair.
    Open(PeerId, ToOpen),
    /// Close the FIFOs of a pair, if nobody else has them open.
    Close(Closing),
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

/// What may be the last to have a FIFO open.
pub(super) enum Closing {
    Slot(#[expect(dead_code, reason = "it is only dropped")] Arc<Slot>),
    Port(#[expect(dead_code, reason = "it is only dropped")] Box<Port>),
}

/// What came of a job.
pub(super) enum Done {
    Turn(Arc<Slot>, Turn),
    Opened(PeerId, io::Result<Box<Port>>),
    Closed,
}

impl Job {
    pub(super) fn work(self, buffer: &mut [u8]) -> Done {
        match self {
            Self::Turn(slot) => {
                let turn = slot.turn(buffer);
                Done::Turn(slot, turn)
            }
            Self::Open(peer, what) => Done::Opened(peer, what.open()),
            Self::Close(closing) => {
                drop(closing);
                Done::Closed
            }
        }
    }

    /// Whose FIFOs it is about.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Turn(slot) => Some(slot.peer()),
            Self::Open(peer, ..) => Some(*peer),
            Self::Close(_) => None,
        }
    }
}
