//! Notices that whoever wrote a pipe has closed it, also if somebody else has opened it since.
//!
//! End-of-file shows only as long as nobody has the pipe open for writing. A fifogate that is
//! restarted may be back before we have looked; without this we would wait for ever for the events
//! of the one before. Where the kernel does not grant it, end-of-file has to do.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

pub(super) struct WriterClose(Option<Inotify>);

impl WriterClose {
    /// Those of no pipe.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Those of the pipe at `path`, from now on.
    pub(super) fn of(path: &Path) -> Self {
        let watch = || {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            inotify.add_watch(path, AddWatchFlags::IN_CLOSE_WRITE)?;
            Ok::<_, nix::Error>(inotify)
        };
        let watched = watch().inspect_err(|errno| log::debug!("{}: {errno}", path.display()));
        Self(watched.ok())
    }

    /// Becomes readable when there was one.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// Whether there was one since this was asked last.
    pub(super) fn take(&self) -> bool {
        self.0.as_ref().is_some_and(|inotify| inotify.read_events().is_ok())
    }
}
