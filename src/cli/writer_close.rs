//! Detects that the writer of a pipe has closed it, by inotify.
//!
//! End-of-file is visible only while no process has the pipe open for writing. A restarted fifogate
//! may open it before our next read; then the end of its predecessor would go unnoticed, and we
//! would wait forever for its events. Without inotify, detection falls back to end-of-file.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

pub(super) struct WriterClose(Option<Inotify>);

impl WriterClose {
    /// Watches no pipe.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Watches the pipe at `path`, from now on.
    pub(super) fn of(path: &Path) -> Self {
        let watch = || {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            // Of the write end only: our own read end closes without this event.
            inotify.add_watch(path, AddWatchFlags::IN_CLOSE_WRITE)?;
            Ok::<_, nix::Error>(inotify)
        };
        let watched = watch().inspect_err(|errno| log::debug!("{}: {errno}", path.display()));
        Self(watched.ok())
    }

    /// Descriptor to poll: readable after a close. `None` without inotify.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// Whether the pipe was closed since the last call; clears the events.
    pub(super) fn take(&self) -> bool {
        // Without an event the read fails by `EAGAIN`.
        self.0.as_ref().is_some_and(|inotify| inotify.read_events().is_ok())
    }
}
