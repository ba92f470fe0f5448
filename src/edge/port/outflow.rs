//! The writing half of a port (FIFO-FACTS sections 2 and 5, DECISIONS 17 and 20).

use std::{collections::VecDeque, io::IoSlice, os::fd::AsFd, os::fd::OwnedFd};

use bytes::Buf;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::uio::writev,
    unistd::read,
};

use crate::broker::{Notice, Seq};

use super::{super::fifo::reopen, FromPort, Oddity, OutFrame, Turn, Wait, unread};

/// The kernel counts room in slots of one page, of which a frame alone in its pipe takes
/// `len / SLOT`, rounded up.
const SLOT: usize = 4096;

/// The kernel's default for the largest pipe of an ordinary user. A longer frame goes in parts.
const MAX_PIPE: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Outflow {
    fd: OwnedFd,
    window: usize,
    /// Size of the pipe as we last set it; the workload may have changed it since.
    capacity: usize,
    queue: VecDeque<OutFrame>,
    /// A frame that did not fit as a whole: what of it has not been written.
    rest: Option<(OutFrame, usize)>,
    /// Frames in the pipe, oldest first, with the bytes of each that nobody has read.
    in_pipe: VecDeque<(OutFrame, usize)>,
    /// Last frame that is in the pipe or was dropped.
    written: Seq,
    /// Last frame that came here.
    pushed: Seq,
    /// There was something in the pipe before us, for a reader that is there.
    inherited: bool,
    /// A frame went into the pipe or was taken out of it since the last turn.
    moved: bool,
    /// What the workload was seen to do since the last turn.
    oddities: Vec<Oddity>,
}

impl Outflow {
    pub(super) fn new(fd: OwnedFd, window: usize) -> Self {
        let mut outflow = Self {
            fd,
            window,
            capacity: 0,
            queue: VecDeque::new(),
            rest: None,
            in_pipe: VecDeque::new(),
            written: 0,
            pushed: 0,
            inherited: false,
            moved: false,
            oddities: Vec::new(),
        };
        outflow.resize(SLOT * window.min(MAX_PIPE / SLOT));
        outflow
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn written(&self) -> Seq {
        self.written
    }

    /// Behind a fifogate that died: if nobody reads, nobody is in the middle of what is there.
    /// A reader that is there takes it out itself, and no frame is written before.
    pub(super) fn take_over(&mut self) {
        self.inherited = self.has_reader() || !self.drain();
    }

    pub(super) fn push(&mut self, frames: Vec<OutFrame>) {
        self.pushed = frames.last().map_or(self.pushed, |frame| frame.seq);
        self.queue.extend(frames);
    }

    /// Drops what was not begun to be written. What is in the pipe whole stays, and what is there in
    /// part is finished: behind half a frame nobody could read on.
    pub(super) fn reset(&mut self) {
        self.queue.clear();
        if self.rest.is_none() {
            self.written = self.pushed;
        }
    }

    /// Writes what can be written now. `reader_left`: a reader was seen to leave since the last turn.
    pub(super) fn flush(&mut self, reader_left: bool, turn: &mut Turn) {
        if self.in_pipe.is_empty() && self.rest.is_none() && self.queue.is_empty() {
            turn.wait = Wait::No;
            return;
        }
        if reader_left && self.is_partly_read(&mut turn.events) && self.has_reader() {
            self.oddities.push(Oddity::SwapsReaders);
            self.take_back();
        } else {
            self.take_back_from_gone_reader(&mut turn.events);
        }
        turn.wait = self.write_all(&mut turn.events);
        turn.served |= std::mem::take(&mut self.moved);
        turn.oddities = std::mem::take(&mut self.oddities);
    }

    fn write_all(&mut self, events: &mut Vec<FromPort>) -> Wait {
        loop {
            self.note_read(events);
            if self.rest.is_some() {
                match self.write_rest(events) {
                    Progress::Done => continue,
                    Progress::Full => return Wait::Edge,
                    Progress::NoReader => return self.reader_gone(events),
                }
            }
            if self.queue.is_empty() {
                let awaited = |(frame, _): &(OutFrame, _)| frame.notice == Notice::Taken;
                return if self.in_pipe.iter().any(awaited) {
                    self.wait_for_room()
                } else {
                    Wait::No
                };
            }
            if !self.make_room() {
                return self.wait_for_room();
            }
            match self.write_next(events) {
                Progress::Done | Progress::Full => {}
                Progress::NoReader => return self.reader_gone(events),
            }
        }
    }

    /// Notes which frames the reader has taken out of the pipe since.
    fn note_read(&mut self, events: &mut Vec<FromPort>) {
        if self.in_pipe.is_empty() {
            return;
        }
        let unread = unread(&self.fd).unwrap_or(usize::MAX);
        let in_pipe = self.compare(unread);
        // More than we wrote is somebody else's, who writes into its own input: we wait until it has
        // read that too.
        let mut taken = in_pipe.saturating_sub(unread);
        let unfinished = self.rest.as_ref().map(|(frame, _)| frame.seq);
        while let Some((frame, left)) = self.in_pipe.front_mut() {
            if taken < *left {
                *left -= taken;
                break;
            }
            taken -= *left;
            if frame.notice == Notice::Taken && unfinished != Some(frame.seq) {
                events.push(FromPort::Taken(frame.seq));
            }
            self.moved = true;
            self.in_pipe.pop_front();
        }
    }

    /// Bytes of ours that should be in the pipe, of `unread` that are.
    fn compare(&mut self, unread: usize) -> usize {
        let in_pipe = self.in_pipe.iter().map(|(_, left)| left).sum();
        self.inherited &= unread > 0;
        if unread > in_pipe && !self.inherited {
            self.oddities.push(Oddity::WritesItsInput);
        }
        in_pipe
    }

    /// Whether the next frame may be written now, by one call; sets the size of an empty pipe so
    /// that the frame just fits. In a pipe that is full when a small frame is in it, the kernel
    /// announces that the reader has taken it.
    fn make_room(&mut self) -> bool {
        let Some(next) = self.queue.front() else { return false };
        let len = next.len();
        let unread = unread(&self.fd).unwrap_or(usize::MAX);
        let in_pipe = self.compare(unread);
        if unread == 0 {
            let slots = len.div_ceil(SLOT).max(1).next_power_of_two().max(self.window);
            let wanted = (slots * SLOT).min(MAX_PIPE).next_power_of_two();
            if wanted != self.capacity {
                self.resize(wanted);
            }
            return true;
        }
        // What is not ours, or was there before us, has to be read first.
        if unread > in_pipe {
            return false;
        }
        // Frames may share a slot, so this says less than there is room for, never more.
        let slots: usize = self.in_pipe.iter().map(|(_, left)| left.div_ceil(SLOT) + 1).sum();
        let fits = slots + len.div_ceil(SLOT) < self.capacity / SLOT;
        self.in_pipe.len() < self.window && fits
    }

    fn resize(&mut self, wanted: usize) {
        let size = i32::try_from(wanted).unwrap_or(i32::MAX);
        // Refused beyond a user's share of pipe pages (FIFO-FACTS 5.2): then what does not fit goes
        // in parts.
        let set = fcntl(&self.fd, FcntlArg::F_SETPIPE_SZ(size));
        let set = set.or_else(|_| fcntl(&self.fd, FcntlArg::F_GETPIPE_SZ));
        self.capacity = set.ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(SLOT);
    }

    fn write_next(&mut self, events: &mut Vec<FromPort>) -> Progress {
        let Some(frame) = self.queue.pop_front() else { return Progress::Done };
        match self.write(&frame, 0) {
            Ok(count) => {
                self.wrote(frame, 0, count, events);
                Progress::Done
            }
            Err(errno) => {
                self.queue.push_front(frame);
                Progress::failed(errno)
            }
        }
    }

    fn write_rest(&mut self, events: &mut Vec<FromPort>) -> Progress {
        let Some((frame, written)) = self.rest.take() else { return Progress::Done };
        match self.write(&frame, written) {
            Ok(count) => {
                self.wrote(frame, written, count, events);
                if self.rest.is_some() { Progress::Full } else { Progress::Done }
            }
            Err(errno) => {
                self.rest = Some((frame, written));
                Progress::failed(errno)
            }
        }
    }

    fn write(&self, frame: &OutFrame, written: usize) -> Result<usize, Errno> {
        let mut whole = frame.head.clone().chain(frame.body.clone());
        whole.advance(written);
        let (head, body) = (whole.first_ref(), whole.last_ref());
        loop {
            match writev(&self.fd, &[IoSlice::new(head), IoSlice::new(body)]) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    fn wrote(&mut self, frame: OutFrame, before: usize, count: usize, events: &mut Vec<FromPort>) {
        let whole = before + count == frame.len();
        match self.in_pipe.back_mut() {
            Some((last, left)) if last.seq == frame.seq => *left += count,
            _ => self.in_pipe.push_back((frame.clone(), count)),
        }
        if !whole {
            self.rest = Some((frame, before + count));
            return;
        }
        self.moved = true;
        self.written = if self.queue.is_empty() { self.pushed } else { frame.seq };
        if frame.notice == Notice::Written {
            events.push(FromPort::Written(frame.seq));
        }
    }

    /// Which event will tell that the reader has read on. A full pipe gives an edge, but only for
    /// the first slot that is freed: good for one slot. Otherwise the file is watched. The size is
    /// asked for, as the workload can change it, and then no pipe that we take for full would be.
    fn wait_for_room(&mut self) -> Wait {
        let capacity = fcntl(&self.fd, FcntlArg::F_GETPIPE_SZ).ok();
        let capacity = capacity.and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        if capacity < self.capacity {
            self.oddities.push(Oddity::ShrinksItsPipe);
        }
        self.capacity = capacity;
        if capacity == SLOT && self.has_reader() { Wait::Edge } else { Wait::Reader }
    }

    fn has_reader(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
    }

    /// If the last reader has gone and left something unread, it is taken out, and every frame of
    /// which something was left will be written again whole (DECISIONS 20).
    fn take_back_from_gone_reader(&mut self, events: &mut Vec<FromPort>) {
        if (self.in_pipe.is_empty() && self.rest.is_none()) || self.has_reader() {
            return;
        }
        self.note_read(events);
        self.take_back();
    }

    /// Whether a reader has taken a piece of the oldest frame in the pipe.
    fn is_partly_read(&mut self, events: &mut Vec<FromPort>) -> bool {
        self.note_read(events);
        let written = self.rest.as_ref().map(|(frame, count)| (frame.seq, *count));
        self.in_pipe.front().is_some_and(|(frame, left)| {
            let whole = match written {
                Some((seq, count)) if seq == frame.seq => count,
                _ => frame.len(),
            };
            *left < whole
        })
    }

    /// Takes out of the pipe what is in it, and begins again with the oldest frame that was.
    fn take_back(&mut self) {
        // What cannot be taken out is left for the next reader, rather than told it twice.
        if !self.drain() {
            return;
        }
        let part = self.rest.take().map(|(frame, _)| frame);
        let part_seq = part.as_ref().map(|frame| frame.seq);
        self.queue.extend(part);
        self.queue.rotate_right(usize::from(part_seq.is_some()));
        for (frame, _) in std::mem::take(&mut self.in_pipe).into_iter().rev() {
            if part_seq != Some(frame.seq) {
                self.queue.push_front(frame);
            }
        }
    }

    /// Takes out what nobody will read; false if that is not possible. Bounded by the size of a pipe: a
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

    fn reader_gone(&mut self, events: &mut Vec<FromPort>) -> Wait {
        self.take_back_from_gone_reader(events);
        Wait::Reader
    }
}

enum Progress {
    Done,
    Full,
    NoReader,
}

impl Progress {
    fn failed(errno: Errno) -> Self {
        match errno {
            Errno::EAGAIN => Self::Full,
            Errno::EPIPE => Self::NoReader,
            other => {
                log::error!("cannot write to a workload: {}", other.desc());
                Self::NoReader
            }
        }
    }
}
