//! Bounded waits for pipes.
//!
//! A wait ends when a pipe is ready, on a signal, when our output has lost its reader, or at its
//! deadline.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Sources of a stop for a waiting command.
pub(super) struct Stop {
    /// Readable from the first signal on.
    signals: Option<UnixStream>,
    /// Reports an error as soon as its last reader is gone.
    output: Option<OwnedFd>,
}

impl Stop {
    /// No source: only the process's own end stops the command.
    pub(super) const fn never() -> Self {
        Self { signals: None, output: None }
    }

    /// Stops on SIGINT and SIGTERM from now on, and when `output` loses its last reader.
    pub(super) fn on_signal_or_end_of(output: impl AsFd) -> io::Result<Self> {
        let output = output.as_fd().try_clone_to_owned()?;
        Ok(Self { signals: Some(signals()?), output: Some(output) })
    }
}

/// A socket that is readable from the first SIGINT or SIGTERM on. Signals arrive as bytes, so a poll sees
/// one received before the call as well.
pub(super) fn signals() -> io::Result<UnixStream> {
    let (signals, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        // A handler may only do little; writing a byte is allowed to it.
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(signals)
}

/// Reason for the end of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// A pipe is readable or writable, or has failed: the next call on it reports the case.
    Ready,
    /// The command has to stop.
    Stopped,
    /// The deadline has passed.
    TimedOut,
}

/// Waits for one of `pipes`, at most until `until`, if given.
pub(super) fn wait(
    pipes: &[(BorrowedFd<'_>, PollFlags)],
    until: Option<Instant>,
    stop: &Stop,
) -> io::Result<Woken> {
    loop {
        // POLLERR and POLLHUP are reported even for an empty set of events.
        let stops = [
            stop.signals.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
            stop.output.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::empty())),
        ];
        let mut fds: Vec<_> = stops.into_iter().flatten().collect();
        let stops = fds.len();
        fds.extend(pipes.iter().map(|(fd, events)| PollFd::new(*fd, *events)));
        // Computed again in each round: a signal may have ended the last wait early.
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        match poll(&mut fds, timeout.map_or(PollTimeout::NONE, rounded_up)) {
            // poll has a longest timeout: its end is the deadline only if no time was left before
            // the call.
            Ok(0) if timeout.is_some_and(|timeout| timeout.is_zero()) => {
                return Ok(Woken::TimedOut);
            }
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has_news = |fd: &PollFd| fd.any().unwrap_or(true);
        // A stop precedes ready pipes: a busy pipe must not delay it.
        let is_stopped = fds[..stops].iter().any(has_news);
        return Ok(if is_stopped { Woken::Stopped } else { Woken::Ready });
    }
}

/// Rounds up to whole milliseconds: rounded down, the last one would be a busy loop.
fn rounded_up(timeout: Duration) -> PollTimeout {
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis).ok().and_then(|millis| millis.try_into().ok()).unwrap_or(PollTimeout::MAX)
}
