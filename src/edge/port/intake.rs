//! The reading half of a port (FIFO-FACTS section 1).

use std::os::fd::OwnedFd;

use nix::{errno::Errno, unistd::read};

use crate::{frame::FrameDecoder, message::hello::HelloSeeker};

use super::{FromPort, Turn, unread};

/// Reads in one turn, so that no workload keeps others waiting; each is at most one buffer.
const READS_PER_TURN: usize = 4;

#[derive(Debug)]
pub(super) struct Intake {
    fd: OwnedFd,
    max_frame: usize,
    mode: Mode,
}

/// How the next byte is understood.
#[derive(Debug)]
enum Mode {
    /// As the next one of a frame.
    Frames(FrameDecoder),
    /// The place of the next frame is unknown: a Hello is looked for.
    Seeking(HelloSeeker),
}

impl Intake {
    /// `mid_stream`: what comes first may be the rest of a message.
    pub(super) fn new(fd: OwnedFd, max_frame: usize, mid_stream: bool) -> Self {
        let mode = if mid_stream {
            Mode::Seeking(HelloSeeker::default())
        } else {
            Mode::Frames(FrameDecoder::new(max_frame))
        };
        Self { fd, max_frame, mode }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Reads for one turn; notes whether there may be more that the kernel has announced already.
    ///
    /// `writers_gone`: they had all gone when the kernel was asked. If others have come since, there
    /// is no end of file to be read any more; then it lies behind the bytes that are there now.
    pub(super) fn fill(&mut self, writers_gone: bool, buffer: &mut [u8], turn: &mut Turn) {
        let events = &mut turn.events;
        let mut before_end = if writers_gone { unread(&self.fd).ok() } else { None };
        for _ in 0..READS_PER_TURN {
            let most = before_end.map_or(buffer.len(), |left| left.clamp(1, buffer.len()));
            match read(&self.fd, &mut buffer[..most]) {
                Ok(0) => {
                    return self.end_of_file(events);
                }
                Ok(count) => {
                    turn.read += count;
                    self.take(&buffer[..count], events);
                    before_end = before_end.map(|left| left.saturating_sub(count));
                    if before_end == Some(0) {
                        self.end_of_file(events);
                        before_end = None;
                        continue;
                    }
                    // A short read emptied the pipe; whatever is written from now on is announced.
                    if count < most && before_end.is_none() && !writers_gone {
                        return;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if before_end.is_some() {
                        self.end_of_file(events);
                    }
                    return;
                }
                Err(errno) => {
                    return log::error!("cannot read from a workload: {}", errno.desc());
                }
            }
        }
        turn.more = true;
    }

    fn take(&mut self, mut bytes: &[u8], events: &mut Vec<FromPort>) {
        while !bytes.is_empty() {
            match &mut self.mode {
                Mode::Frames(decoder) => match decoder.next_frame(&mut bytes) {
                    Ok(Some(frame)) => events.push(FromPort::Frame(frame)),
                    Ok(None) => {}
                    Err(error) => {
                        events.push(FromPort::Broken(error));
                        self.mode = Mode::Seeking(HelloSeeker::default());
                    }
                },
                Mode::Seeking(seeker) => {
                    if let Some(hello) = seeker.seek(&mut bytes) {
                        events.push(FromPort::Frame(hello));
                        self.mode = Mode::Frames(FrameDecoder::new(self.max_frame));
                    }
                }
            }
        }
    }

    /// A half frame is dropped: the next writer starts a new one (DECISIONS 3).
    fn end_of_file(&mut self, events: &mut Vec<FromPort>) {
        self.mode = Mode::Frames(FrameDecoder::new(self.max_frame));
        if !matches!(events.last(), Some(FromPort::EndOfFile)) {
            events.push(FromPort::EndOfFile);
        }
    }
}
