//! Takeover of a pipe with half a frame, left behind by a fifogate that died.
//!
//! A frame that fits into the pipe is there whole, and its reader reads it to the end. A larger frame
//! stays without its end, and a reader in the middle of it would take the next bytes for the rest.
//!
//! Invariant: no write end is opened while a reader may be in the middle of half a frame. The reader has
//! left, or has emptied the pipe and then had time to see end-of-file. The kernel gives end-of-file to
//! readers of an empty pipe without a writer, and does not report this.

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

/// Time for a reader to see end-of-file in an empty pipe without a writer. A reader sleeping in `read`
/// sees it at once; this is for readers that poll.
const SEEN: Duration = Duration::from_secs(1);

/// Sizes of new pipes: 64 KiB, or two pages for a user beyond its share of pages. A pipe of another size
/// was resized by a fifogate.
const NEW: [usize; 2] = [64 << 10, 8 << 10];

/// Reads of 64 KiB for a whole pipe, if nobody writes to it meanwhile.
const MOST_READS: usize = 32;

/// Half a frame in a pipe, and a possible reader in the middle of it.
#[derive(Debug)]
pub(super) struct HalfFrame {
    /// A read end of our own, for counting unread bytes. It delays nobody's end-of-file.
    reader: OwnedFd,
    /// Since when the pipe is known to be empty.
    empty_since: Option<Instant>,
}

/// Knowledge about events of readers since the last attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Seen {
    /// All events were seen, and no reader has left.
    #[default]
    All,
    /// A reader has left.
    Left,
    /// Events were lost: a reader may have left.
    Some,
}

/// Result of an attempt.
#[derive(Debug)]
pub(super) enum Found {
    /// No reader is in the middle of a frame. The write end is kept if a reader may sleep in `open`.
    Nobody(Option<OwnedFd>),
    /// A reader may be in the middle of a frame.
    Reader(HalfFrame),
}

impl HalfFrame {
    /// Checks for a reader of half a frame.
    pub(super) fn find(fifos: &Unopened) -> io::Result<Found> {
        if !fifos.is_in_parts() {
            return Ok(Found::Nobody(None));
        }
        // Opening a write end wakes a reader that sleeps in `open`. Such a reader has no half frame and
        // must not see end-of-file, so the write end is kept for it.
        let writer = match try_reopen(fifos.to_workload(), OFlag::O_WRONLY) {
            Ok(writer) => writer,
            // No reader has it open: the pipe and its content are gone.
            Err(Errno::ENXIO) => return Ok(Found::Nobody(None)),
            Err(errno) => return Err(errno.into()),
        };
        // All had closed the old pipe, and half a frame went with it (docs/pipes.md#sizes-of-a-pipe).
        if unread(&writer)? == 0 && is_new(&writer) {
            return Ok(Found::Nobody(Some(writer)));
        }
        // The write end is closed on return: beside it no reader would see end-of-file.
        let reader = reopen(fifos.to_workload(), OFlag::O_RDONLY)?;
        Ok(Found::Reader(Self { reader, empty_since: None }))
    }

    /// Checks again, after the events in `seen`.
    pub(super) fn look(self, fifos: &Unopened, seen: Seen) -> io::Result<Found> {
        if seen == Seen::Left {
            // The next reader would take the rest of the half frame for the start of a frame.
            self.drain();
            return Ok(Found::Nobody(None));
        }
        if unread(&self.reader)? > 0 {
            if seen == Seen::All {
                return Ok(Found::Reader(Self { empty_since: None, ..self }));
            }
            // Our own read end hides whether there is another one. Inotify reports its close as well.
            drop(self);
            return Self::find(fifos);
        }
        // Empty now: from this time on a reader sees end-of-file.
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

/// True if new pipes have this size; no frame is ever written in parts into such a pipe.
pub(super) fn is_size_of_new(capacity: usize) -> bool {
    NEW.contains(&capacity)
}

fn is_new(pipe: &OwnedFd) -> bool {
    let capacity = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).ok();
    capacity.and_then(|size| usize::try_from(size).ok()).is_some_and(is_size_of_new)
}
