//! Jobs of the driver thread: every call on a FIFO, done while the state of the loop is not locked.
//!
//! A job owns all it needs, such as the checked-out port, and returns a [`Done`] for the loop. It may
//! sleep for as long as a workload blocks its pipe.

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
    handoff::Work,
    port_table::{CheckedOut, FrameInHand, FrameResult, TurnResult},
};

/// Work with calls on a FIFO. It sleeps while a workload blocks the pipe.
pub(super) enum Job {
    /// One turn of a port.
    Turn(CheckedOut),
    /// Write one frame to a port without any other work.
    Write(FrameInHand),
    /// Open the FIFOs of a pair.
    Open(PeerId, Box<ToOpen>),
    /// Write the last frames of a pair, and close its FIFOs.
    Close(Box<Port>),
    /// Close the opened part of a pair that was removed before its opening was complete.
    GiveUp(Box<ToOpen>),
}

/// Everything for opening the FIFOs of a pair.
pub(super) struct ToOpen {
    fifos: Unopened,
    settings: PortSettings,
    /// Read end of the FIFO written by the workload, once it is open.
    from_workload: Option<OwnedFd>,
    half: Option<HalfFrame>,
    /// Events of readers of the other FIFO since the last attempt.
    pub(super) seen: Seen,
}

/// Settings of a new port.
#[derive(Clone, Copy)]
pub(super) struct PortSettings {
    /// The FIFOs are older than this process.
    pub(super) reused: bool,
    pub(super) max_frame: usize,
    pub(super) window: usize,
}

/// Result of opening a pair.
pub(super) enum Opened {
    Port(Box<Port>),
    /// A reader may be in the middle of half a frame, and has to see its end first.
    Later(Box<ToOpen>),
}

impl ToOpen {
    pub(super) fn new(fifos: Unopened, settings: PortSettings) -> Box<Self> {
        Box::new(Self { fifos, settings, from_workload: None, half: None, seen: Seen::All })
    }

    /// True if a reader may be in the middle of half a frame.
    pub(super) fn is_in_parts(&self) -> bool {
        self.fifos.is_in_parts()
    }

    /// Descriptor of the FIFO read by the workload, for watching it.
    pub(super) fn to_workload(&self) -> RawFd {
        self.fifos.to_workload().as_raw_fd()
    }

    /// Tries to open the pair. The read end stays open between attempts, so the workload can write
    /// meanwhile.
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
        // Dropped after the write end is open: a reader sleeping in `open` must not see end-of-file.
        let _writer = match found {
            Found::Nobody(writer) => writer,
            Found::Reader(half) => {
                (self.from_workload, self.half) = (Some(from_workload), Some(half));
                return Ok(Opened::Later(self));
            }
        };
        // On an error both ends close with this job: nothing of a failed pair stays open.
        let to_workload = self.fifos.open_to_workload()?;
        let PortSettings { reused, max_frame, window } = self.settings;
        let port = Port::new(from_workload, to_workload, reused, max_frame, window);
        Ok(Opened::Port(Box::new(port)))
    }
}

/// Result of a job.
pub(super) enum Done {
    Turn(PeerId, TurnResult),
    Wrote(PeerId, FrameResult),
    Opened(PeerId, io::Result<Opened>),
    Closed,
}

impl Work for Job {
    type Done = Done;

    fn work(self, buffer: &mut [u8]) -> Done {
        match self {
            Self::Turn(visit) => Done::Turn(visit.peer(), visit.work(buffer)),
            Self::Write(in_hand) => Done::Wrote(in_hand.peer(), in_hand.work(buffer)),
            Self::Open(peer, what) => Done::Opened(peer, what.open()),
            // A close sleeps on a held pipe, too (docs/pipes.md#lock-held-by-splice).
            Self::Close(port) => {
                port.close(buffer);
                Done::Closed
            }
            Self::GiveUp(what) => {
                drop(what);
                Done::Closed
            }
        }
    }
}

impl Job {
    /// Peer of the job's FIFOs.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Turn(visit) => Some(visit.peer()),
            Self::Write(in_hand) => Some(in_hand.peer()),
            Self::Open(peer, ..) => Some(*peer),
            Self::Close(_) | Self::GiveUp(_) => None,
        }
    }
}
