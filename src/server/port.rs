//! Port: the server's open ends of one pair, and their bounded turns.
//!
//! Bytes from the workload become frames for the worker; frames from the worker are written whole. The
//! event loop starts each turn with the pending work, and gets its result. No turn waits for an event.
//!
//! Invariant, with a window of one: a frame goes into the pipe by one call if it fits, after the reader
//! has taken the frame before (docs/differences.md#17-one-frame-at-a-time). So readers need not cope
//! with partial or joined frames, and a reader that leaves loses at most one frame.

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
    /// It tells the end of a session, and does not outlive its reader.
    pub(super) closes: bool,
}

/// An event of a port, for the worker.
#[derive(Debug)]
pub(super) enum FromPort {
    /// Body of a frame.
    Frame(Bytes),
    /// The bytes are no frames; they are skipped up to the next Hello.
    Broken(FrameError),
    /// All writers have left.
    EndOfFile,
    /// Nobody has either end open any more.
    Unused,
}

/// Delivery notices, as requested by [`AckMode`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Notices {
    /// All frames up to this one are in the pipe.
    pub(super) written: Option<Seq>,
    /// The reader has drained all frames up to this one.
    pub(super) drained: Option<Seq>,
}

/// Work for the next turn.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// There may be bytes to read.
    pub(super) readable: bool,
    /// All writers had left at the time of the event.
    pub(super) writers_gone: bool,
    /// The pipe may have free space, or another reader, or none.
    pub(super) poll_reader: bool,
    /// A reader left; another may have come since.
    pub(super) reader_left: bool,
    /// A new session begins: frames not begun yet are dropped before `frames` are queued.
    pub(super) reset: bool,
    /// Drop the ends of sessions up to this frame; 0 for none.
    pub(super) drop_closed: Seq,
    /// Nobody may have either end open for a while.
    pub(super) check_unused: bool,
    /// Frames to queue behind the waiting ones.
    pub(super) frames: SmallDeque<OutFrame>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        let seen = self.readable || self.writers_gone || self.poll_reader || self.reader_left;
        let asked = self.reset || self.drop_closed > 0 || self.check_unused;
        !seen && !asked && self.frames.is_empty()
    }

    /// Adds later work.
    pub(super) fn append(&mut self, later: Self) {
        self.readable |= later.readable;
        self.writers_gone |= later.writers_gone;
        self.poll_reader |= later.poll_reader;
        self.reader_left |= later.reader_left;
        self.drop_closed = self.drop_closed.max(later.drop_closed);
        self.check_unused |= later.check_unused;
        if later.reset {
            self.reset = true;
            self.frames.clear();
        }
        self.frames.append(later.frames);
    }
}

/// Result of a turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Events for the worker, in order.
    pub(super) events: Vec<FromPort>,
    /// Notices for the worker, sent before the events.
    pub(super) notices: Notices,
    /// There may be more to read, and the kernel will not announce it again.
    pub(super) more: bool,
    /// Event needed before the port can write on.
    pub(super) wait: Wait,
    /// Last frame in the pipe, or dropped by a reset.
    pub(super) written: Seq,
    /// The reader may have drained the pipe since. No frame waits for that, and a drained pipe has
    /// free space.
    pub(super) maybe_drained: bool,
    /// Misbehaviors seen in this turn.
    pub(super) misbehaviors: Vec<Misbehavior>,
    /// Number of bytes read.
    pub(super) read: usize,
    /// There was work to do, or a frame went into the pipe, came out of it or was drained.
    pub(super) useful: bool,
    /// The reader has read on since the last turn.
    pub(super) read_on: bool,
}

/// Result of one frame.
#[derive(Debug)]
pub(super) enum Written {
    /// The pipe has taken it, and nobody has to hear of that.
    Whole {
        /// As [`Turn::maybe_drained`].
        maybe_drained: bool,
    },
    /// What a turn with it came to.
    Else(Turn),
}

/// A turn with so many bytes is useful even without the end of a frame.
const WORTHWHILE: usize = 4096;

impl Turn {
    /// Classifies the turn for the throttle.
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

/// Class of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It moved frames, or enough bytes.
    Useful,
    /// The reader has read a piece of a frame.
    ReadOn,
    /// The workload caused it without any effect.
    Nothing,
}

/// An act of a workload against its own pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misbehavior {
    /// Its input holds more bytes than the server wrote.
    WritesItsInput,
    /// It made the pipe of its input smaller.
    ShrinksItsPipe,
    /// It changed its reader in the middle of a frame.
    SwapsReaders,
    /// A name of its pair is gone, or names another file.
    Renamed,
    /// It blocks a call on one of its FIFOs.
    Blocked,
    /// It causes useless wake-ups again and again.
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

    /// The text of its log line, after the name of the workload.
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

/// Event needed by a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing.
    #[default]
    No,
    /// An edge of epoll: the pipe is full, and the kernel reports the next free slot.
    Edge,
    /// A reader that comes or reads on, reported by inotify.
    Reader,
}

/// One workload's opened pair.
#[derive(Debug)]
#[repr(C)] // fields used by an event first, in as few cache lines as possible
pub(super) struct Port {
    writer: PipeWriter,
    reader: PipeReader,
}

impl Port {
    /// `reused`: the FIFOs are older than this process. Output may then begin in the middle of a
    /// message, and input without a reader is drained.
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

    /// Descriptors to register: for reading, for writing.
    pub(super) fn descriptors(&self) -> (RawFd, RawFd) {
        (self.reader.fd().as_raw_fd(), self.writer.fd().as_raw_fd())
    }

    /// Does one bounded turn, with at most `room` frames read.
    pub(super) fn turn(&mut self, mut pending: Pending, room: usize, buffer: &mut [u8]) -> Turn {
        let mut turn =
            Turn { useful: pending.reset || !pending.frames.is_empty(), ..Turn::default() };
        turn.useful |= pending.check_unused || pending.drop_closed > 0;
        // Before the frames of this turn: they belong to the new session.
        if pending.reset {
            self.writer.reset();
        }
        if pending.drop_closed > 0 {
            self.writer.push(std::mem::take(&mut pending.frames));
            self.writer.drop_closed(pending.drop_closed, &mut turn.notices);
        }
        if !self.write_only_frame(&mut pending.frames, buffer, &mut turn) {
            self.writer.push(pending.frames);
            self.writer.flush(pending.reader_left, buffer, &mut turn);
        }
        if room > 0 && (pending.readable || pending.writers_gone) {
            self.reader.fill(pending.writers_gone, room, buffer, &mut turn);
        }
        // After the flush: it takes back what a reader has left in the pipe.
        if pending.check_unused && !self.reader.has_writer() && !self.writer.has_reader() {
            turn.events.push(FromPort::Unused);
        }
        // The requests of this turn carry it to the broker: it frees the window before their answers.
        turn.written = self.writer.written();
        turn.maybe_drained = turn.wait == Wait::No && self.writer.is_maybe_drained();
        turn
    }

    /// Writes the frame, if it is the only one and nothing has to be checked before.
    fn write_only_frame(
        &mut self,
        frames: &mut SmallDeque<OutFrame>,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> bool {
        if frames.len() != 1 {
            return false;
        }
        let Some(frame) = frames.pop_front() else { return false };
        match self.writer.write_at_once(frame, buffer, &mut turn.notices) {
            Ok(wait) => turn.wait = wait,
            Err(frame) => {
                frames.push_back(frame);
                return false;
            }
        }
        true
    }

    /// Writes one frame without any other work, as a turn does with it alone.
    pub(super) fn write(&mut self, frame: OutFrame, buffer: &mut [u8]) -> Written {
        let mut notices = Notices::default();
        match self.writer.write_at_once(frame, buffer, &mut notices) {
            Ok(Wait::No) if notices == Notices::default() => {
                Written::Whole { maybe_drained: self.writer.is_maybe_drained() }
            }
            Ok(wait) => {
                let maybe_drained = wait == Wait::No && self.writer.is_maybe_drained();
                let written = self.writer.written();
                Written::Else(Turn {
                    useful: true,
                    notices,
                    wait,
                    written,
                    maybe_drained,
                    ..Turn::default()
                })
            }
            Err(frame) => {
                let mut pending = Pending::default();
                pending.frames.push_back(frame);
                Written::Else(self.turn(pending, 0, buffer))
            }
        }
    }

    /// Queues the frames that its pair is closed behind. Makes no call on a FIFO.
    pub(super) fn push_last(&mut self, pending: Pending) {
        if pending.reset {
            self.writer.reset();
        }
        self.writer.push(pending.frames);
    }

    /// Writes the queued frames as far as the pipe takes them now, and closes both FIFOs. What is in the
    /// pipe can be read to its end.
    pub(super) fn close(mut self, buffer: &mut [u8]) {
        self.writer.flush(false, buffer, &mut Turn::default());
    }

    /// Notes that the reader has drained the pipe. Makes no call on a FIFO.
    pub(super) fn on_drained(&mut self) {
        self.writer.on_drained();
    }
}

/// Number of unread bytes in the pipe of this descriptor.
pub(super) fn unread(fd: &impl std::os::fd::AsFd) -> io::Result<usize> {
    let bytes = rustix::io::ioctl_fionread(fd)?;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}
