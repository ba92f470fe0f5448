//! One workload's descriptors: bytes in become frames, frames out are written whole.
//!
//! A port does one bounded turn at a time, when the event loop says that something may have happened,
//! and tells what came of it. Nothing here waits. A frame goes into the pipe by one call and when
//! the reader has taken the one before (docs/differences.md#17-one-frame-at-a-time): so a reader that cannot
//! cope with pieces or
//! with two frames at once works, and what a reader leaves behind is at most one frame.

mod reader;
mod writer;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use bytes::Bytes;

use crate::{
    broker::{AckMode, Seq},
    frame::FrameError,
    message::Frame,
    small_deque::SmallDeque,
};

use reader::PipeReader;
use writer::PipeWriter;

/// A frame on its way to a workload.
#[derive(Debug, Clone)]
pub(super) struct OutFrame {
    pub(super) seq: Seq,
    pub(super) frame: Frame,
    pub(super) ack: AckMode,
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
}

/// What was to be told of frames ([`AckMode`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Notices {
    /// All frames up to this one are in the pipe.
    pub(super) written: Option<Seq>,
    /// The reader has taken all frames up to this one.
    pub(super) drained: Option<Seq>,
}

/// What may have happened since the last turn.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// There may be bytes to read.
    pub(super) readable: bool,
    /// All writers had gone when the kernel told so.
    pub(super) writers_gone: bool,
    /// The pipe may have room, or another reader, or none.
    pub(super) poll_reader: bool,
    /// A reader left, and another may have come already.
    pub(super) reader_left: bool,
    /// A new session begins: what was not begun to be written is dropped, then `frames` follow.
    pub(super) reset: bool,
    /// Frames to write, behind those that wait already.
    pub(super) frames: SmallDeque<OutFrame>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        let seen = self.readable || self.writers_gone || self.poll_reader || self.reader_left;
        !seen && !self.reset && self.frames.is_empty()
    }

    /// What came later.
    pub(super) fn append(&mut self, later: Self) {
        self.readable |= later.readable;
        self.writers_gone |= later.writers_gone;
        self.poll_reader |= later.poll_reader;
        self.reader_left |= later.reader_left;
        if later.reset {
            self.reset = true;
            self.frames.clear();
        }
        self.frames.append(later.frames);
    }
}

/// What a turn came to.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// For the worker, in order.
    pub(super) events: Vec<FromPort>,
    /// For the worker, before these.
    pub(super) notices: Notices,
    /// There may be more to read, and the kernel will not say so again.
    pub(super) more: bool,
    /// What the port waits for before it can write on.
    pub(super) wait: Wait,
    /// The last frame that is in the pipe, or was dropped by a reset.
    pub(super) written: Seq,
    /// There is something in the pipe that the reader may have taken since; nobody waits for that, and
    /// there is room when it has.
    pub(super) maybe_drained: bool,
    /// What the workload does that it should not.
    pub(super) misbehaviors: Vec<Misbehavior>,
    /// Bytes that were read.
    pub(super) read: usize,
    /// It was given something to do, a frame came or went into the pipe or was taken out of it.
    pub(super) useful: bool,
    /// Its reader has read on since the last turn.
    pub(super) read_on: bool,
}

/// So many bytes in one turn are worth it, even if no frame ends in them.
const WORTHWHILE: usize = 4096;

impl Turn {
    /// What came of it.
    pub(super) fn worth(&self) -> Worth {
        if self.useful || self.read >= WORTHWHILE {
            Worth::Useful
        } else if self.read_on {
            Worth::ReadOn
        } else {
            Worth::Nothing
        }
    }
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// Something that a turn is for.
    Useful,
    /// Its reader has read a piece of what it was sent.
    ReadOn,
    /// A workload caused it, and nothing came of it.
    Nothing,
}

/// Something that a workload does to its pair, and should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misbehavior {
    /// There is more in its input than we wrote.
    WritesItsInput,
    /// It made the pipe of its input smaller than we did.
    ShrinksItsPipe,
    /// Its reader changed in the middle of a frame.
    SwapsReaders,
    /// A name of its pair is gone, or another file's.
    Renamed,
    /// A call on one of its FIFOs does not return.
    Blocked,
    /// It wakes us again and again, and nothing comes of it.
    WakeupFlood,
}

impl Misbehavior {
    /// Its name in the status.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WritesItsInput => "writes_its_input",
            Self::ShrinksItsPipe => "shrinks_its_pipe",
            Self::SwapsReaders => "swaps_readers",
            Self::Renamed => "renamed",
            Self::Blocked => "held",
            Self::WakeupFlood => "wakes",
        }
    }

    /// What it does, behind its name.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::WritesItsInput => "writes into its own input; it waits until that was read",
            Self::ShrinksItsPipe => "makes the pipe of its input smaller; frames may come in parts",
            Self::SwapsReaders => {
                "changed the reader of its input in the middle of a message; that message is sent \
                 again"
            }
            Self::Renamed => {
                "renamed, removed or replaced a name of its pair; the FIFOs that were opened are \
                 served on, the new names are not followed"
            }
            Self::WakeupFlood => {
                "wakes fifogate again and again for nothing (`--max-wakeups`); it is looked at less \
                 often"
            }
            Self::Blocked => {
                "holds its pipe, so that calls on it do not return (splice or sendfile); it alone \
                 waits until it lets go"
            }
        }
    }
}

/// What a port waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing.
    #[default]
    No,
    /// The kernel will say when: the pipe is full, and an server comes with the next free entry.
    Edge,
    /// A reader that comes or reads on; the kernel tells that to those who watch the file.
    Reader,
}

/// One workload's pair, opened.
#[derive(Debug)]
#[repr(C)] // what an event goes through comes first, in as few cache lines as it can
pub(super) struct Port {
    writer: PipeWriter,
    reader: PipeReader,
}

impl Port {
    /// `reused`: the FIFOs were there before. What comes from the workload may then begin in the middle
    /// of a message, and what stands in its input and nobody reads is taken out of it.
    pub(super) fn new(
        from_workload: OwnedFd,
        to_workload: OwnedFd,
        reused: bool,
        max_frame: usize,
        window: usize,
    ) -> Self {
        let reader = PipeReader::new(from_workload, max_frame, reused);
        let mut writer = PipeWriter::new(to_workload, window);
        if reused {
            writer.adopt();
        }
        Self { writer, reader }
    }

    /// The descriptors to be told of: what to read, what to write.
    pub(super) fn descriptors(&self) -> (RawFd, RawFd) {
        (self.reader.fd().as_raw_fd(), self.writer.fd().as_raw_fd())
    }

    /// One bounded turn, in which at most `room` frames are read.
    pub(super) fn turn(&mut self, mut pending: Pending, room: usize, buffer: &mut [u8]) -> Turn {
        let mut turn =
            Turn { useful: pending.reset || !pending.frames.is_empty(), ..Turn::default() };
        if pending.reset {
            self.writer.reset();
        }
        if !self.writer.write_at_once(&mut pending.frames, buffer, &mut turn) {
            self.writer.push(pending.frames);
            self.writer.flush(pending.reader_left, buffer, &mut turn);
        }
        if room > 0 && (pending.readable || pending.writers_gone) {
            self.reader.fill(pending.writers_gone, room, buffer, &mut turn);
        }
        turn.written = self.writer.written();
        turn.maybe_drained = turn.wait == Wait::No && self.writer.is_maybe_drained();
        turn
    }

    /// There is room in the pipe again: its reader has taken what it was sent. No call on a FIFO.
    pub(super) fn on_drained(&mut self) {
        self.writer.on_drained();
    }
}

/// What is unread in the pipe of this descriptor.
pub(super) fn unread(fd: &impl std::os::fd::AsFd) -> io::Result<usize> {
    let bytes = rustix::io::ioctl_fionread(fd)?;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}
