//! Writing half of a port: a queue of frames in, whole frames in the pipe out
//! (docs/pipes.md#writing-input, docs/differences.md#17-one-frame-at-a-time,
//! docs/differences.md#20-a-reader-may-leave).
//!
//! Invariants: at most `window` frames are in the pipe; a frame longer than the pipe is finished before
//! the next one is begun; a frame partly read by a reader that left is sent again from its beginning.

mod calls;
mod dropped;
mod written;

use std::{
    io::IoSlice,
    os::fd::{AsFd, OwnedFd},
};

use bytes::Buf;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::uio::writev,
    unistd::{read, write},
};

use crate::{
    broker::{AckMode, Seq},
    message::Frame,
    small_deque::SmallDeque,
};

use super::{
    super::{
        fifo::{note_in_parts, reopen},
        takeover::is_size_of_new,
    },
    Misbehavior, Notices, OutFrame, Turn, Wait, unread,
};

use calls::{Progress, again, put_together};
use written::WrittenFrames;

/// Size of a slot: the kernel counts the space of a pipe in pages. A frame alone in its pipe takes
/// `len / SLOT` slots, rounded up.
const SLOT: usize = 4096;

/// Default of the kernel for the largest pipe of an ordinary user. Longer frames are written in parts.
const MAX_PIPE: usize = 1 << 20;

/// Up to this mean length, frames are copied into one buffer rather than written as two pieces each.
const SMALL_FRAME: usize = 512;

/// Most frames in one call: each has two pieces, and `writev` accepts 1024.
const MOST_AT_ONCE: usize = 512;

#[derive(Debug)]
#[repr(C)] // in the order of use by a frame without a wait
pub(super) struct PipeWriter {
    /// A frame written in part, and the number of bytes written.
    rest: Option<Box<(OutFrame, usize)>>,
    queue: SmallDeque<OutFrame>,
    /// Last queued frame.
    pushed: Seq,
    /// Last frame in the pipe, or dropped.
    written: Seq,
    fd: OwnedFd,
    /// The pipe is drained, and nothing was written since.
    known_empty: bool,
    /// The pipe still holds bytes of an earlier fifogate, for a reader that is there.
    adopted: bool,
    /// Number of these bytes at the last check.
    left_of_inherited: usize,
    /// A frame went into the pipe or was drained since the last turn.
    moved: bool,
    /// The reader has read something since the last turn.
    read_on: bool,
    /// The mode of the FIFO says that a frame is being written in parts.
    in_parts: bool,
    window: usize,
    /// Size of the pipe as last set or read; the workload may have changed it since.
    capacity: usize,
    written_frames: WrittenFrames,
    /// Misbehaviors seen since the last turn.
    misbehaviors: Vec<Misbehavior>,
}

/// Frames to write now.
#[derive(Debug, Clone, Copy, Default)]
struct Next {
    count: usize,
    bytes: usize,
}

impl PipeWriter {
    pub(super) fn new(fd: OwnedFd, window: usize) -> Self {
        let mut writer = Self {
            fd,
            window,
            capacity: 0,
            queue: SmallDeque::default(),
            rest: None,
            written_frames: WrittenFrames::default(),
            written: 0,
            pushed: 0,
            adopted: false,
            left_of_inherited: usize::MAX,
            known_empty: false,
            moved: false,
            read_on: false,
            in_parts: false,
            misbehaviors: Vec::new(),
        };
        writer.resize(SLOT * window.min(MAX_PIPE / SLOT));
        writer
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn written(&self) -> Seq {
        self.written
    }

    /// Adopts the content of a pipe from an earlier fifogate. Without a reader it is drained: no reader
    /// can be in the middle of it. An existing reader drains it itself, before any frame is written.
    pub(super) fn adopt(&mut self) {
        self.in_parts = true; // as far as we know
        self.note_in_parts(false);
        self.adopted = self.has_reader() || !self.drain();
    }

    /// Marks in the mode of the FIFO whether a frame is being written in parts. After a crash the reader
    /// would take the first bytes of the next fifogate for the rest of this frame.
    fn note_in_parts(&mut self, on: bool) {
        if self.in_parts == on {
            return;
        }
        self.in_parts = on;
        if let Err(errno) = note_in_parts(&self.fd, on) {
            log::debug!("cannot note that a message goes in parts: {}", errno.desc());
        }
    }

    pub(super) fn push(&mut self, frames: SmallDeque<OutFrame>) {
        self.pushed = frames.back().map_or(self.pushed, |frame| frame.seq);
        self.queue.append(frames);
    }

    /// Writes a single frame if no check is needed before, as for most events: the frame skips the
    /// queue. Returns it, with nothing done, in all other cases.
    pub(super) fn write_at_once(
        &mut self,
        frame: OutFrame,
        scratch: &mut [u8],
        notices: &mut Notices,
    ) -> Result<Wait, OutFrame> {
        let len = frame.frame.len();
        // A frame with `Taken` needs a wait for its reader, and only `flush` sets one up.
        if !self.known_empty
            || !self.queue.is_empty()
            || frame.ack == AckMode::Taken
            || len > SMALL_FRAME
        {
            return Err(frame);
        }
        self.fit(len);
        // An error here is not reported: `flush` tries again and handles it.
        let Some(whole) = put_together([&frame.frame].into_iter(), len, scratch) else {
            return Err(frame);
        };
        let Ok(count) = again(|| write(&self.fd, whole)) else { return Err(frame) };
        self.pushed = frame.seq;
        self.written_frames.calls += 1;
        self.wrote(frame, 0, count, notices);
        self.moved = false;
        Ok(if self.rest.is_some() { Wait::Edge } else { Wait::No })
    }

    /// Writes as much as possible now. `reader_left`: a reader left since the last turn.
    pub(super) fn flush(&mut self, reader_left: bool, scratch: &mut [u8], turn: &mut Turn) {
        let waits = self.rest.is_some() || !self.queue.is_empty() || self.adopted;
        if self.written_frames.frames.is_empty() && !waits {
            turn.wait = Wait::No;
            return;
        }
        let mut unread = if self.known_empty { 0 } else { self.note_read(&mut turn.notices) };
        if unread > 0 || self.rest.is_some() {
            let begun = self.adopted || self.is_partly_read();
            // A reader now is no proof of the same reader (docs/pipes.md#reader-replaced-between-two-looks).
            let swapped = reader_left && begun && self.has_reader();
            if swapped {
                self.misbehaviors.push(Misbehavior::SwapsReaders);
            }
            if (swapped || !self.has_reader()) && self.reclaim(unread) {
                unread = 0;
            }
        }
        turn.wait = self.write_all(unread, scratch, &mut turn.notices);
        turn.useful |= std::mem::take(&mut self.moved);
        turn.read_on = std::mem::take(&mut self.read_on);
        turn.misbehaviors = std::mem::take(&mut self.misbehaviors);
    }

    /// Notes free space in a pipe filled by one frame: the reader has drained it, so the next write
    /// needs no check. A workload that enlarges its pipe causes the same event, and gets two frames at
    /// once for it.
    pub(super) fn on_drained(&mut self) {
        if self.is_maybe_drained() {
            self.written_frames.forget();
            (self.known_empty, self.moved) = (true, true);
        }
    }

    /// True if the reader may have drained a pipe filled by one frame. No frame waits for that, and a
    /// drained pipe has free space.
    pub(super) fn is_maybe_drained(&self) -> bool {
        let waits = self.rest.is_some() || !self.queue.is_empty() || self.adopted;
        !self.written_frames.frames.is_empty() && !waits && self.capacity == SLOT
    }

    /// Writes on, with `unread` bytes in the pipe.
    fn write_all(&mut self, mut unread: usize, scratch: &mut [u8], notices: &mut Notices) -> Wait {
        loop {
            if self.rest.is_none() && self.queue.is_empty() {
                let awaited = |(frame, ..): &(OutFrame, _, _)| frame.ack == AckMode::Taken;
                let awaits = self.written_frames.frames.iter().any(awaited);
                return if awaits { self.wait_for_room() } else { Wait::No };
            }
            let progress = if self.rest.is_some() {
                self.write_rest(notices)
            } else {
                match self.make_room(unread) {
                    Next { count: 0, .. } => return self.wait_for_room(),
                    next => self.write_next(next, scratch, notices),
                }
            };
            match progress {
                Progress::Done if self.rest.is_none() && self.queue.is_empty() => {}
                Progress::Done => unread = self.note_read(notices),
                Progress::Full if self.rest.is_some() => return Wait::Edge,
                Progress::Full => return self.wait_for_room(),
                Progress::NoReader => {
                    let unread = self.note_read(notices);
                    self.reclaim(unread);
                    return Wait::Reader;
                }
            }
        }
    }

    /// Removes drained frames from the list of written ones. Returns the number of bytes in the pipe.
    fn note_read(&mut self, notices: &mut Notices) -> usize {
        let unread = unread(&self.fd).unwrap_or(usize::MAX);
        if self.adopted {
            self.read_on |= unread < self.left_of_inherited;
            self.left_of_inherited = unread;
            self.adopted = unread > 0;
        }
        // Not between the parts of a frame: nothing may come between them.
        self.known_empty = unread == 0 && self.rest.is_none();
        // More bytes than written: the workload writes into its own input. Writing continues after it
        // has read them.
        if unread > self.written_frames.bytes && !self.adopted {
            self.misbehaviors.push(Misbehavior::WritesItsInput);
        }
        let mut drained = self.written_frames.bytes.saturating_sub(unread);
        self.read_on |= drained > 0;
        self.written_frames.bytes -= drained;
        let unfinished = self.rest.as_ref().map(|rest| rest.0.seq);
        while let Some((frame, left, _)) = self.written_frames.frames.front_mut() {
            if drained < *left {
                *left -= drained;
                break;
            }
            drained -= *left;
            if frame.ack == AckMode::Taken && unfinished != Some(frame.seq) {
                notices.drained = Some(frame.seq);
            }
            self.moved = true;
            self.written_frames.frames.pop_front();
        }
        unread
    }

    /// Number of frames to write by one call. An empty pipe is resized so that they just fit: in a pipe
    /// filled by a small frame, the kernel reports when the reader has drained it.
    fn make_room(&mut self, unread: usize) -> Next {
        // Foreign or inherited bytes have to be read first.
        if unread > self.written_frames.bytes {
            return Next::default();
        }
        let empty = unread == 0;
        let free = if empty {
            MAX_PIPE
        } else {
            self.capacity.saturating_sub(self.written_frames.slots() * SLOT)
        };
        let most = self.window.saturating_sub(self.written_frames.frames.len()).min(MOST_AT_ONCE);
        let (mut count, mut bytes) = (0, 0);
        for frame in self.queue.iter().take(most) {
            // An empty pipe takes one frame of any length, in parts if need be.
            let more = bytes + frame.frame.len();
            if more > free && !(empty && count == 0) {
                break;
            }
            (count, bytes) = (count + 1, more);
        }
        if empty {
            self.fit(bytes);
        }
        Next { count, bytes }
    }

    /// Resizes an empty pipe so that `bytes` just fit.
    fn fit(&mut self, bytes: usize) {
        let slots = bytes.div_ceil(SLOT).next_power_of_two().max(self.window);
        let wanted = (slots * SLOT).min(MAX_PIPE).next_power_of_two();
        if wanted != self.capacity {
            self.resize(wanted);
        }
        // A takeover recognises a pipe with half a frame by its size, so that must not be a new pipe's.
        if bytes > self.capacity && is_size_of_new(self.capacity) {
            self.resize(self.capacity / 2);
        }
    }

    fn resize(&mut self, wanted: usize) {
        let size = i32::try_from(wanted).unwrap_or(i32::MAX);
        // Fails beyond a user's share of pipe pages (docs/pipes.md#pages-of-a-user). Longer frames are
        // then written in parts.
        let set = fcntl(&self.fd, FcntlArg::F_SETPIPE_SZ(size));
        let set = set.or_else(|_| fcntl(&self.fd, FcntlArg::F_GETPIPE_SZ));
        self.capacity = set.ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(SLOT);
    }

    /// Writes the next frames by one call.
    fn write_next(&mut self, next: Next, scratch: &mut [u8], notices: &mut Notices) -> Progress {
        // Marked before the first byte: a crash in between must not hide half a frame.
        if next.bytes > self.capacity {
            self.note_in_parts(true);
        }
        let mut wrote = match self.write_frames(next, scratch) {
            Ok(wrote) => wrote,
            Err(errno) => return Progress::failed(errno),
        };
        self.written_frames.calls += 1;
        while wrote > 0
            && let Some(frame) = self.queue.pop_front()
        {
            let bytes = wrote.min(frame.frame.len());
            wrote -= bytes;
            self.wrote(frame, 0, bytes, notices);
        }
        Progress::Done
    }

    /// Writes small frames from one copy in `scratch`, as the kernel takes pieces one by one.
    fn write_frames(&self, next: Next, scratch: &mut [u8]) -> Result<usize, Errno> {
        let frames = || self.queue.iter().take(next.count).map(|own| &own.frame);
        if next.bytes <= SMALL_FRAME * next.count
            && let Some(whole) = put_together(frames(), next.bytes, scratch)
        {
            return again(|| write(&self.fd, whole));
        }
        let mut heads = Vec::with_capacity(frames().map(Frame::head_len).sum());
        frames().for_each(|frame| frame.put_head(&mut heads));
        let (mut pieces, mut rest) = (Vec::with_capacity(2 * next.count), &*heads);
        for frame in frames() {
            let (head, others) = rest.split_at(frame.head_len());
            pieces.extend([IoSlice::new(head), IoSlice::new(frame.body())]);
            rest = others;
        }
        again(|| writev(&self.fd, &pieces))
    }

    fn write_rest(&mut self, notices: &mut Notices) -> Progress {
        let Some((frame, written)) = self.rest.take().map(|rest| *rest) else {
            return Progress::Done;
        };
        let mut head = Vec::with_capacity(frame.frame.head_len());
        frame.frame.put_head(&mut head);
        let mut whole = head.chain(&frame.frame.body()[..]);
        whole.advance(written);
        let pieces = [IoSlice::new(whole.first_ref()), IoSlice::new(whole.last_ref())];
        match again(|| writev(&self.fd, &pieces)) {
            Ok(count) => {
                self.written_frames.calls += 1;
                self.wrote(frame, written, count, notices);
                if self.rest.is_some() { Progress::Full } else { Progress::Done }
            }
            Err(errno) => {
                self.rest = Some(Box::new((frame, written)));
                Progress::failed(errno)
            }
        }
    }

    fn wrote(&mut self, frame: OutFrame, before: usize, count: usize, notices: &mut Notices) {
        self.moved = true;
        self.known_empty = false;
        if before + count < frame.frame.len() {
            self.note_in_parts(true);
            self.written_frames.push(frame.clone(), count);
            self.rest = Some(Box::new((frame, before + count)));
            return;
        }
        self.note_in_parts(false);
        self.written = if self.queue.is_empty() { self.pushed } else { frame.seq };
        if frame.ack == AckMode::Written {
            notices.written = Some(frame.seq);
        }
        self.written_frames.push(frame, count);
    }

    /// Chooses the event that reports progress of the reader. A full pipe gives an edge for the first
    /// freed slot only, so an edge will do for a pipe of one slot; otherwise inotify watches the file.
    /// The size is read again, as the workload can change it: a pipe taken for full might then have
    /// space.
    fn wait_for_room(&mut self) -> Wait {
        let capacity = fcntl(&self.fd, FcntlArg::F_GETPIPE_SZ).ok();
        let capacity = capacity.and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        if capacity < self.capacity {
            self.misbehaviors.push(Misbehavior::ShrinksItsPipe);
        }
        self.capacity = capacity;
        if capacity == SLOT && self.has_reader() { Wait::Edge } else { Wait::Reader }
    }

    pub(super) fn has_reader(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
    }

    /// True if a reader has read a piece of the oldest frame in the pipe, or all written bytes of a
    /// partial frame.
    fn is_partly_read(&self) -> bool {
        let rest = self.rest.as_ref().map(|rest| (rest.0.seq, rest.1));
        let Some((frame, left, _)) = self.written_frames.frames.front() else {
            return rest.is_some();
        };
        let whole = match rest {
            Some((seq, count)) if seq == frame.seq => count,
            _ => frame.frame.len(),
        };
        *left < whole
    }

    /// Drains the bytes left by a reader that has gone, and queues their frames again, oldest first
    /// (docs/differences.md#20-a-reader-may-leave). Returns false if the pipe cannot be drained: the
    /// frames then stay for the next reader, as sending them again would deliver them twice.
    fn reclaim(&mut self, unread: usize) -> bool {
        // Opening the pipe causes inotify events, also for us: only if there is something to drain.
        if unread > 0 && !self.drain() {
            return false;
        }
        self.adopted = false;
        self.note_in_parts(false);
        let part = self.rest.take().map(|rest| rest.0);
        let part_seq = part.as_ref().map(|frame| frame.seq);
        if let Some(frame) = part {
            self.queue.push_front(frame);
        }
        self.written_frames.bytes = 0;
        while let Some((frame, ..)) = self.written_frames.frames.pop_back() {
            if part_seq != Some(frame.seq) {
                self.queue.push_front(frame);
            }
        }
        true
    }

    /// Drains the pipe; false if that is impossible. Bounded by twice the largest size of a pipe, as the
    /// workload may be writing.
    fn drain(&self) -> bool {
        let Ok(fd) = reopen(&self.fd, OFlag::O_RDWR) else { return false };
        let mut buffer = vec![0; 64 << 10];
        for _ in 0..2 * MAX_PIPE / buffer.len() {
            match read(&fd, &mut buffer) {
                Ok(count) if count > 0 => {}
                Err(Errno::EINTR) => {}
                _ => break,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
