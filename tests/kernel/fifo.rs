//! A FIFO in a folder of its own, and a view of the events that the kernel reports for one descriptor.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    sys::stat::Mode,
    unistd::mkfifo,
};
use tempfile::TempDir;

/// One page: the unit in which the kernel counts the room of a pipe.
pub(crate) const PAGE: usize = 4096;

pub(crate) struct Fifo {
    pub(crate) dir: TempDir,
    pub(crate) path: PathBuf,
}

impl Fifo {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        Self { dir, path }
    }

    /// Opens it by its name, without ever waiting for the other side.
    pub(crate) fn open(&self, mode: OFlag) -> Result<File, Errno> {
        let flags = mode | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        open(&self.path, flags, Mode::empty()).map(File::from)
    }

    pub(crate) fn reader(&self) -> File {
        self.open(OFlag::O_RDONLY).unwrap()
    }

    pub(crate) fn writer(&self) -> File {
        self.open(OFlag::O_WRONLY).unwrap()
    }

    /// Both ends, of a pipe with room for so many bytes.
    pub(crate) fn pair(&self, capacity: usize) -> (File, File) {
        let (reader, writer) = (self.reader(), self.writer());
        assert_eq!(resize(&writer, capacity), Ok(capacity));
        (reader, writer)
    }

    /// A descriptor of the file itself, by which nothing can be read or written.
    pub(crate) fn handle(&self) -> OwnedFd {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        open(&self.path, flags, Mode::empty()).unwrap()
    }
}

/// The name by which `/proc` leads to the file of a descriptor, whatever its own name is.
pub(crate) fn through_proc(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Opens the file of a descriptor once more.
pub(crate) fn reopen(fd: &impl AsRawFd, mode: OFlag) -> Result<File, Errno> {
    let flags = mode | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    open(&through_proc(fd), flags, Mode::empty()).map(File::from)
}

/// Asks for a capacity; gives the one that the kernel has set.
pub(crate) fn resize(pipe: &impl AsFd, capacity: usize) -> Result<usize, Errno> {
    let size = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(capacity.try_into().unwrap()))?;
    Ok(size.try_into().unwrap())
}

pub(crate) fn capacity(pipe: &impl AsFd) -> usize {
    fcntl(pipe, FcntlArg::F_GETPIPE_SZ).unwrap().try_into().unwrap()
}

/// Bytes in the pipe.
pub(crate) fn unread(pipe: &impl AsFd) -> usize {
    rustix::io::ioctl_fionread(pipe).unwrap().try_into().unwrap()
}

/// Writes one byte after the other until there is no room; gives their number.
pub(crate) fn fill(mut writer: &File) -> usize {
    let mut bytes = 0;
    loop {
        match writer.write(&[0; PAGE]) {
            Ok(count) => bytes += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return bytes,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The edge-triggered events of one descriptor.
pub(crate) struct Edges {
    poll: Poll,
    events: Events,
}

impl Edges {
    pub(crate) fn of(fd: &impl AsRawFd, interest: Interest) -> Self {
        let poll = Poll::new().unwrap();
        poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), Token(0), interest).unwrap();
        Self { poll, events: Events::with_capacity(8) }
    }

    /// The kinds of the event that the kernel has reported since the last call; none without an event.
    pub(crate) fn next(&mut self) -> Vec<&'static str> {
        self.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
        let mut kinds = Vec::new();
        for event in &self.events {
            for (kind, is_set) in [
                ("readable", event.is_readable()),
                ("read_closed", event.is_read_closed()),
                ("writable", event.is_writable()),
                ("write_closed", event.is_write_closed()),
                ("error", event.is_error()),
            ] {
                kinds.extend(is_set.then_some(kind));
            }
        }
        kinds
    }
}

/// No event.
pub(crate) const NONE: [&str; 0] = [];
