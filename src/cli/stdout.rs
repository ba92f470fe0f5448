//! Unbuffered standard output: each write arrives at once and in one piece.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
};

use super::error::CliError;

/// Standard output for data.
///
/// Unlike [`io::Stdout`], it does not split data at line feeds. They also occur inside binary
/// messages, and a reader of the pipe would see parts of messages.
pub(super) struct Stdout(File);

impl Stdout {
    pub(super) fn open() -> Result<Self, CliError> {
        // A duplicate: dropping it leaves standard output open.
        let fd = io::stdout().as_fd().try_clone_to_owned();
        Ok(Self(fd.map_err(|error| CliError::stdout(&error))?.into()))
    }

    /// Writes all of `data`, in one call if the kernel accepts it.
    pub(super) fn put(&mut self, data: impl AsRef<[u8]>) -> Result<(), CliError> {
        self.0.write_all(data.as_ref()).map_err(|error| CliError::stdout(&error))
    }
}

impl AsFd for Stdout {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
