//! The reading half of a port (docs/pipes.md#reading-output).

use std::{mem, os::fd::OwnedFd};

use nix::{errno::Errno, unistd::read};

use crate::{frame::FrameDecoder, message::resync::HelloScanner};

use super::{FromPort, Turn, unread};

/// Reads in one turn, so that no workload keeps others waiting; each is at most one buffer.
const READS_PER_TURN: usize = 4;

#[derive(Debug)]
pub(super) struct PipeReader {
    fd: OwnedFd,
    max_frame: usize,
    mode: Mode,
    /// What was read when there was no room for its frames, from `at` on.
    pending: Vec<u8>,
    at: usize,
    /// All writers had gone when so many bytes were still in the pipe.
    before_end: Option<usize>,
}

/// How the next byte is understood.
#[derive(Debug)]
enum Mode {
    /// As the next one of a frame.
    Frames(FrameDecoder),
    /// The place of the next frame is unknown: a Hello is looked for.
    Seeking(HelloScanner),
}

impl PipeReader {
    /// `mid_stream`: what comes first may be the rest of a message.
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

    /// Reads for one turn, at most `room` frames; state whether there may be more that the kernel has
    /// announced already.
    ///
    /// `writers_gone`: they had all gone when the kernel was asked. If others have come since, there
    /// is no end of file to be read any more; then it lies behind the bytes that are there now.
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

    /// Reads once; tells whether there may be more.
    fn read(
        &mut self,
        writers_gone: bool,
        most: usize,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> bool {
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
                // A short read emptied the pipe; whatever is written from now on is announced.
                let emptied = count < len && self.before_end.is_none() && !writers_gone;
                !emptied || !self.pending.is_empty()
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => {
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

    /// Goes on with what was read before; tells whether some of it is still left.
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

    /// Makes frames of `bytes`, as long as there are fewer than `most` events.
    fn take(&mut self, bytes: &mut &[u8], most: usize, events: &mut Vec<FromPort>) {
        while !bytes.is_empty() && events.len() < most {
            match &mut self.mode {
                Mode::Frames(decoder) => match decoder.next_frame(bytes) {
                    Ok(Some(frame)) => events.push(FromPort::Frame(frame)),
                    Ok(None) => {}
                    Err(error) => {
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

    /// A half frame is dropped: the next writer starts a new one
    /// (docs/differences.md#3-end-of-file-keeps-the-session).
    fn end_of_file(&mut self, events: &mut Vec<FromPort>) {
        self.mode = Mode::Frames(FrameDecoder::new(self.max_frame));
        if !matches!(events.last(), Some(FromPort::EndOfFile)) {
            events.push(FromPort::EndOfFile);
        }
    }
}
