//! Waiting for a pipe, and for what ends the wait before the pipe does: a signal, a reader of our
//! output that left, or the time.

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

/// What tells a command to stop while it waits.
pub(super) struct Stop {
    /// Becomes readable on a signal, and stays so.
    signals: Option<UnixStream>,
    /// Fails when nobody reads it any more.
    output: Option<OwnedFd>,
}

impl Stop {
    /// Nothing but what ends the process.
    pub(super) const fn never() -> Self {
        Self { signals: None, output: None }
    }

    /// Ctrl-C and SIGTERM, from now on, and the end of who reads `output`.
    pub(super) fn on_signal_or_end_of(output: impl AsFd) -> io::Result<Self> {
        let (signals, write) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        let output = output.as_fd().try_clone_to_owned()?;
        Ok(Self { signals: Some(signals), output: Some(output) })
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// A pipe may be read or written, or has failed: a call on it will tell.
    Ready,
    /// The command is to stop.
    Stopped,
    /// It is later than what was waited for.
    TimedOut,
}

/// Waits for one of `pipes`; at most until `until`, if there is such a time.
pub(super) fn wait(
    pipes: &[(BorrowedFd<'_>, PollFlags)],
    until: Option<Instant>,
    stop: &Stop,
) -> io::Result<Woken> {
    loop {
        // Errors and the end of the other side are always reported.
        let stops = [
            stop.signals.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
            stop.output.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::empty())),
        ];
        let mut fds: Vec<_> = stops.into_iter().flatten().collect();
        let stops = fds.len();
        fds.extend(pipes.iter().map(|(fd, events)| PollFd::new(*fd, *events)));
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        match poll(&mut fds, timeout.map_or(PollTimeout::NONE, rounded_up)) {
            Ok(0) if timeout.is_some_and(|timeout| timeout.is_zero()) => {
                return Ok(Woken::TimedOut);
            }
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has_news = |fd: &PollFd| fd.any().unwrap_or(true);
        let is_stopped = fds[..stops].iter().any(has_news);
        return Ok(if is_stopped { Woken::Stopped } else { Woken::Ready });
    }
}

/// In whole milliseconds, so that the last one is not spent in calls that return at once.
fn rounded_up(timeout: Duration) -> PollTimeout {
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis).ok().and_then(|millis| millis.try_into().ok()).unwrap_or(PollTimeout::MAX)
}
