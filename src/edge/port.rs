//! One workload's descriptors: bytes in become frames, frames out are written whole.
//!
//! A port does one bounded turn at a time, when the reactor says that something may have happened,
//! and tells what came of it. Nothing here waits. A frame goes into the pipe by one call and when
//! the reader has taken the one before (DECISIONS 17): so a reader that cannot cope with pieces or
//! with two frames at once works, and what a reader leaves behind is at most one frame.

mod intake;
mod outflow;

use std::{io, os::fd::AsRawFd, os::fd::RawFd};

use bytes::Bytes;

use crate::{
    broker::{Notice, Seq},
    frame::FrameError,
};

use super::fifo::PipePair;

use intake::Intake;
use outflow::Outflow;

/// A frame on its way to a workload: its length and head, and a body that others may share.
#[derive(Debug, Clone)]
pub(super) struct OutFrame {
    pub(super) seq: Seq,
    pub(super) head: Bytes,
    pub(super) body: Bytes,
    pub(super) notice: Notice,
}

impl OutFrame {
    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// Something that the worker has to know of.
#[derive(Debug)]
pub(super) enum FromPort {
    /// A frame's body came.
    Frame(Bytes),
    /// What comes cannot be read as frames; it is skipped up to the next Hello.
    Broken(FrameError),
    /// All writers have gone.
    EndOfFile,
    /// All frames up to this one are in the pipe.
    Written(Seq),
    /// The reader has taken all frames up to this one.
    Taken(Seq),
}

/// What may have happened since the last turn.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// There may be bytes to read.
    pub(super) readable: bool,
    /// All writers had gone when the kernel told so.
    pub(super) writers_gone: bool,
    /// The pipe may have room, or another reader, or none.
    pub(super) look_at_reader: bool,
    /// A new session begins: what was not begun to be written is dropped, then `frames` follow.
    pub(super) reset: bool,
    /// Frames to write, behind those that wait already.
    pub(super) frames: Vec<OutFrame>,
}

/// What a turn came to.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// For the worker, in order.
    pub(super) events: Vec<FromPort>,
    /// There may be more to read, and the kernel will not say so again.
    pub(super) more: bool,
    /// What the port waits for before it can write on.
    pub(super) wait: Wait,
    /// The last frame that is in the pipe, or was dropped by a reset.
    pub(super) written: Seq,
}

/// What a port waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing.
    #[default]
    No,
    /// The kernel will say when: the pipe is full, and an edge comes with the next free slot.
    Edge,
    /// A reader that comes or reads on; the kernel tells that to those who watch the file.
    Reader,
}

/// One workload's pair, opened.
#[derive(Debug)]
pub(super) struct Port {
    pair: PipePair,
    intake: Intake,
    outflow: Outflow,
}

impl Port {
    pub(super) fn open(pair: PipePair, max_frame: usize, window: usize) -> io::Result<Self> {
        let reused = pair.is_reused();
        let intake = Intake::new(pair.open_from_workload()?, max_frame, reused);
        let outflow = Outflow::new(pair.open_to_workload()?, window);
        Ok(Self { pair, intake, outflow })
    }

    pub(super) fn pair(&self) -> &PipePair {
        &self.pair
    }

    /// The descriptors to be told of: what to read, what to write.
    pub(super) fn descriptors(&self) -> (RawFd, RawFd) {
        (self.intake.fd().as_raw_fd(), self.outflow.fd().as_raw_fd())
    }

    /// What stood in the FIFO when it was taken over and nobody reads is taken out of it.
    pub(super) fn take_over(&mut self) {
        if self.pair.is_reused() {
            self.outflow.take_over(&self.pair);
        }
    }

    /// One bounded turn.
    pub(super) fn turn(&mut self, mail: Mail, may_read: bool, buffer: &mut [u8]) -> Turn {
        let mut turn = Turn::default();
        if mail.reset {
            self.outflow.reset();
        }
        self.outflow.push(mail.frames);
        turn.wait = self.outflow.flush(&self.pair, &mut turn.events);
        if may_read && (mail.readable || mail.writers_gone) {
            turn.more = self.intake.fill(mail.writers_gone, buffer, &mut turn.events);
        }
        turn.written = self.outflow.written();
        turn
    }
}

/// What is unread in the pipe of this descriptor.
fn unread(fd: &impl std::os::fd::AsFd) -> io::Result<usize> {
    let bytes = rustix::io::ioctl_fionread(fd)?;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}
