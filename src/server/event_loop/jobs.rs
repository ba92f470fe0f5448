//! What is done while the loop's state is not locked: every call on a FIFO.

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use crate::broker::PeerId;

use super::{
    super::{
        fifo::Unopened,
        port::Port,
        takeover::{Found, HalfFrame, Seen},
    },
    port_table::{CheckedOut, TurnResult},
};

/// Something to do that may sleep, if a workload holds its pipe.
pub(super) enum Job {
    /// A turn of a port.
    Turn(CheckedOut),
    /// Open the FIFOs of a pair.
    Open(PeerId, Box<ToOpen>),
    /// Close the FIFOs of a pair.
    Close(Box<Port>),
    /// Close what is open of a pair that was removed before all of it was.
    GiveUp(Box<ToOpen>),
}

/// What is needed to open the FIFOs of a pair.
pub(super) struct ToOpen {
    fifos: Unopened,
    settings: PortSettings,
    /// The one that the workload writes, once it is open.
    from_workload: Option<OwnedFd>,
    half: Option<HalfFrame>,
    /// What was seen of readers of the other.
    pub(super) seen: Seen,
}

/// How a port is to be.
#[derive(Clone, Copy)]
pub(super) struct PortSettings {
    /// The FIFOs were there before.
    pub(super) reused: bool,
    pub(super) max_frame: usize,
    pub(super) window: usize,
}

/// What came of opening a pair.
pub(super) enum Opened {
    Port(Box<Port>),
    /// Somebody may be in the middle of half a frame that is to have an end first.
    Later(Box<ToOpen>),
}

impl ToOpen {
    pub(super) fn new(fifos: Unopened, settings: PortSettings) -> Box<Self> {
        Box::new(Self { fifos, settings, from_workload: None, half: None, seen: Seen::All })
    }

    /// Whether somebody may be in the middle of half a frame.
    pub(super) fn is_in_parts(&self) -> bool {
        self.fifos.is_in_parts()
    }

    /// A descriptor of the FIFO that the workload reads, by which that can be watched.
    pub(super) fn to_workload(&self) -> RawFd {
        self.fifos.to_workload().as_raw_fd()
    }

    /// What the workload writes is kept from the first time on, so it need not know of the rest.
    fn open(mut self: Box<Self>) -> io::Result<Opened> {
        let from_workload = match self.from_workload.take() {
            Some(fd) => fd,
            None => self.fifos.open_from_workload()?,
        };
        let seen = mem::take(&mut self.seen);
        let found = match self.half.take() {
            None => HalfFrame::find(&self.fifos)?,
            Some(half) => half.look(&self.fifos, seen)?,
        };
        let _writer = match found {
            Found::Nobody(writer) => writer,
            Found::Reader(half) => {
                (self.from_workload, self.half) = (Some(from_workload), Some(half));
                return Ok(Opened::Later(self));
            }
        };
        let to_workload = self.fifos.open_to_workload()?;
        let PortSettings { reused, max_frame, window } = self.settings;
        let port = Port::new(from_workload, to_workload, reused, max_frame, window);
        Ok(Opened::Port(Box::new(port)))
    }
}

/// What came of a job.
pub(super) enum Done {
    Turn(PeerId, TurnResult),
    Opened(PeerId, io::Result<Opened>),
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
            Self::GiveUp(what) => {
                drop(what);
                Done::Closed
            }
        }
    }

    /// Whose FIFOs it is about.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Turn(visit) => Some(visit.peer()),
            Self::Open(peer, ..) => Some(*peer),
            Self::Close(_) | Self::GiveUp(_) => None,
        }
    }
}
