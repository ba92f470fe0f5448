//! Reading half of a port: bytes of the workload in, frames out (docs/pipes.md#reading-output).
//!
//! Invariants: a turn reads a bounded number of bytes and frames; an end-of-file is reported behind the
//! last frame of the writers before it.

use std::{
    mem,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::read,
};

use crate::{frame::FrameDecoder, message::resync::HelloScanner};

use super::{FromPort, Turn, unread};

/// Most reads in one turn, of at most one buffer each, so that no workload delays the others.
const READS_PER_TURN: usize = 4;

#[derive(Debug)]
pub(super) struct PipeReader {
    fd: OwnedFd,
    max_frame: usize,
    mode: Mode,
    /// Bytes read without room for their frames, to be decoded from `at` on.
    pending: Vec<u8>,
    at: usize,
    /// Bytes of the departed writers still in the pipe.
    before_end: Option<usize>,
}

/// Meaning of the next byte.
#[derive(Debug)]
enum Mode {
    /// The next byte of a frame.
    Frames(FrameDecoder),
    /// The start of the next frame is unknown: skip to a Hello.
    Seeking(HelloScanner),
}

impl PipeReader {
    /// `mid_stream`: the first bytes may be the rest of a message.
    pub(super) fn new(fd: OwnedFd, max_frame: usize, mid_stream: bool) -> Self {
        let mode = if mid_stream {
            Mode::Seeking(HelloScanner::default())
        } else {
            Mode::Frames(FrameDecoder::new(max_frame))
        };
        Self { fd, max_frame, mode, pending: Vec::new(), at: 0, before_end: None }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// True if a writer has the pipe open, or none has had it open yet.
    pub(super) fn has_writer(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }

    /// Reads for one turn, at most `room` frames. Sets `more` if announced bytes may be left.
    ///
    /// `writers_gone`: all writers had left at the time of the event. If others have come since, the
    /// kernel no longer gives end-of-file; then it is put behind the bytes now in the pipe.
    pub(super) fn fill(
        &mut self,
        writers_gone: bool,
        room: usize,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) {
        if writers_gone && self.before_end.is_none() {
            self.before_end = unread(&self.fd).ok();
        }
        let most = turn.events.len() + room;
        for _ in 0..READS_PER_TURN {
            // Kept bytes come before those in the pipe: frames leave in the order of the writes.
            if self.take_pending(most, &mut turn.events) {
                turn.more = true;
                return;
            }
            if self.before_end == Some(0) {
                self.before_end = None;
                self.end_of_file(&mut turn.events);
            }
            if !self.read(writers_gone, most, buffer, turn) {
                return;
            }
        }
        turn.more = true;
    }

    /// Reads once. Returns true if there may be more.
    fn read(
        &mut self,
        writers_gone: bool,
        most: usize,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> bool {
        // At most the bytes of the departed writers; a read of no bytes would look like end-of-file.
        let len = self.before_end.map_or(buffer.len(), |left| left.clamp(1, buffer.len()));
        match read(&self.fd, &mut buffer[..len]) {
            Ok(0) => {
                self.before_end = None;
                self.end_of_file(&mut turn.events);
                false
            }
            Ok(count) => {
                turn.read += count;
                self.before_end = self.before_end.map(|left| left.saturating_sub(count));
                let mut bytes = &buffer[..count];
                self.take(&mut bytes, most, &mut turn.events);
                self.pending.extend_from_slice(bytes);
                // A short read empties the pipe, and the kernel announces the next write.
                // Behind the bytes of departed writers stands end-of-file, and no further event.
                let emptied = count < len && self.before_end.is_none() && !writers_gone;
                !emptied || !self.pending.is_empty()
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => {
                // The workload itself may have read some of these bytes; their writers are gone all the same.
                if self.before_end.take().is_some() {
                    self.end_of_file(&mut turn.events);
                }
                false
            }
            Err(errno) => {
                log::error!("cannot read from a workload: {}", errno.desc());
                false
            }
        }
    }

    /// Decodes bytes kept from before. Returns true if some are still left.
    fn take_pending(&mut self, most: usize, events: &mut Vec<FromPort>) -> bool {
        let pending = mem::take(&mut self.pending);
        let mut bytes = &pending[self.at..];
        self.take(&mut bytes, most, events);
        self.at = pending.len() - bytes.len();
        let left = !bytes.is_empty();
        if left {
            self.pending = pending;
        } else {
            self.at = 0;
        }
        left
    }

    /// Decodes `bytes` until there are `most` events.
    fn take(&mut self, bytes: &mut &[u8], most: usize, events: &mut Vec<FromPort>) {
        while !bytes.is_empty() && events.len() < most {
            match &mut self.mode {
                Mode::Frames(decoder) => match decoder.next_frame(bytes) {
                    Ok(Some(frame)) => events.push(FromPort::Frame(frame)),
                    Ok(None) => {}
                    Err(error) => {
                        // The next frame is not looked for at a guess (ARCHITECTURE.md#two-choices).
                        events.push(FromPort::Broken(error));
                        self.mode = Mode::Seeking(HelloScanner::default());
                    }
                },
                Mode::Seeking(seeker) => {
                    if let Some(hello) = seeker.seek(bytes) {
                        events.push(FromPort::Frame(hello));
                        self.mode = Mode::Frames(FrameDecoder::new(self.max_frame));
                    }
                }
            }
        }
    }

    /// Drops a half frame: the next writer starts a new one
    /// (docs/differences.md#3-end-of-file-keeps-the-session).
    fn end_of_file(&mut self, events: &mut Vec<FromPort>) {
        self.mode = Mode::Frames(FrameDecoder::new(self.max_frame));
        if !matches!(events.last(), Some(FromPort::EndOfFile)) {
            events.push(FromPort::EndOfFile);
        }
    }
}
