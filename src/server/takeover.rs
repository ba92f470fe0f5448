//! Waits for the end of half a frame that a fifogate left behind when it died.
//!
//! A frame that fits into the pipe is there whole, and its reader reads it to the end. A larger one lacks
//! its end for ever, and a reader in the middle of it would take what is written next for the rest. So
//! no write end is opened before that reader has left, or has read what is there and then had time to
//! see end-of-file: the kernel gives end-of-file to readers of an empty pipe without a writer, and tells
//! nobody that it did.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::read,
};

use super::{
    fifo::{Unopened, reopen, try_reopen},
    port::unread,
};

/// How long the pipe is empty and without a writer for a reader that stays. Those that wait for the
/// next byte see end-of-file at once; this is for those that look now and then.
const SEEN: Duration = Duration::from_secs(1);

/// Sizes of pipes as the kernel makes them: 64 KiB, or two pages once a user has more pipes than its share. A
/// pipe of another size had a fifogate.
const NEW: [usize; 2] = [64 << 10, 8 << 10];

/// Reads of a whole pipe, if nobody writes to it meanwhile: 64 KiB each.
const MOST_READS: usize = 32;

/// Half a frame in a pipe, and somebody who may be in the middle of it.
#[derive(Debug)]
pub(super) struct HalfFrame {
    /// Our own read end: it tells what is unread, and ends nobody's end-of-file.
    reader: OwnedFd,
    /// Since when the pipe was seen to be empty.
    empty_since: Option<Instant>,
}

/// What was seen of readers since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Seen {
    /// All that they did, and none has left.
    #[default]
    All,
    /// One has left.
    Left,
    /// Not all: one may have left.
    Some,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// Nobody is in the middle of a frame; a write end, if somebody waits in its opening for one.
    Nobody(Option<OwnedFd>),
    /// Somebody may be.
    Reader(HalfFrame),
}

impl HalfFrame {
    /// Looks for a reader of half a frame.
    pub(super) fn find(fifos: &Unopened) -> io::Result<Found> {
        if !fifos.is_in_parts() {
            return Ok(Found::Nobody(None));
        }
        // Opening a write end lets go whoever waits in its opening of a read end. Such a one is no
        // reader of half a frame and is not to see an end-of-file, so that end is kept for it.
        let writer = match try_reopen(fifos.to_workload(), OFlag::O_WRONLY) {
            Ok(writer) => writer,
            // Nobody has it open: the pipe and what was in it are gone.
            Err(Errno::ENXIO) => return Ok(Found::Nobody(None)),
            Err(errno) => return Err(errno.into()),
        };
        if unread(&writer)? == 0 && is_new(&writer) {
            return Ok(Found::Nobody(Some(writer)));
        }
        let reader = reopen(fifos.to_workload(), OFlag::O_RDONLY)?;
        Ok(Found::Reader(Self { reader, empty_since: None }))
    }

    /// Looks again.
    pub(super) fn look(self, fifos: &Unopened, seen: Seen) -> io::Result<Found> {
        if seen == Seen::Left {
            self.drain();
            return Ok(Found::Nobody(None));
        }
        if unread(&self.reader)? > 0 {
            if seen == Seen::All {
                return Ok(Found::Reader(Self { empty_since: None, ..self }));
            }
            // Beside our own read end nobody could tell whether there is another. Whoever watches
            // sees this one close, too.
            drop(self);
            return Self::find(fifos);
        }
        let since = self.empty_since.unwrap_or_else(Instant::now);
        if since.elapsed() >= SEEN {
            return Ok(Found::Nobody(None));
        }
        Ok(Found::Reader(Self { empty_since: Some(since), ..self }))
    }

    fn drain(&self) {
        let mut buffer = vec![0; 64 << 10];
        for _ in 0..MOST_READS {
            match read(&self.reader, &mut buffer) {
                Ok(1..) | Err(Errno::EINTR) => {}
                _ => return,
            }
        }
    }
}

/// Whether a pipe has a size in which no frame is ever written in parts.
pub(super) fn is_size_of_new(capacity: usize) -> bool {
    NEW.contains(&capacity)
}

fn is_new(pipe: &OwnedFd) -> bool {
    let capacity = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).ok();
    capacity.and_then(|size| usize::try_from(size).ok()).is_some_and(is_size_of_new)
}
