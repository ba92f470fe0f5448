//! Self-pipe for SIGTERM and SIGINT: the signals become readiness of a descriptor.
//!
//! The registration ends when the value is dropped.

use std::{
    io::{self, Read},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
};

use signal_hook::{
    SigId,
    consts::{SIGINT, SIGTERM},
    low_level::{pipe, unregister},
};

pub(super) struct Signals {
    stream: UnixStream,
    ids: Vec<SigId>,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let (stream, sender) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let register = |signal| pipe::register(signal, sender.try_clone()?);
        let ids = [SIGTERM, SIGINT].into_iter().map(register).collect::<io::Result<_>>()?;
        Ok(Self { stream, ids })
    }

    /// Descriptor that is readable after a signal.
    pub(super) fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// True after a signal since the last call.
    pub(super) fn stop_wanted(&mut self) -> bool {
        let mut buffer = [0; 16];
        let mut came = false;
        while matches!(self.stream.read(&mut buffer), Ok(count) if count > 0) {
            came = true;
        }
        came
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            unregister(id);
        }
    }
}
