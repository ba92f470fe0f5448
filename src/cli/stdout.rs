//! Standard output without a buffer: what is written is there at once, and in one piece.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
};

use super::error::CliError;

/// Standard output for data.
///
/// Not [`io::Stdout`]: that cuts what it is given at line feeds, also within a binary message, and
/// so a reader of a pipe would see parts of messages.
pub(super) struct Stdout(File);

impl Stdout {
    pub(super) fn open() -> Result<Self, CliError> {
        let fd = io::stdout().as_fd().try_clone_to_owned();
        Ok(Self(fd.map_err(|error| CliError::stdout(&error))?.into()))
    }

    /// Writes all of `data`, by one call if the kernel takes it.
    pub(super) fn put(&mut self, data: impl AsRef<[u8]>) -> Result<(), CliError> {
        self.0.write_all(data.as_ref()).map_err(|error| CliError::stdout(&error))
    }
}

impl AsFd for Stdout {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
