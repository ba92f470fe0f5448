//! Input of a command: a file, or standard input for the path `-`.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::error::CliError;

/// Standard input in messages.
pub(super) const STDIN: &str = "<stdin>";

/// An open input, and its name in messages.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) from: Box<dyn Read>,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        if path == Path::new("-") {
            return Ok(Self { name: STDIN.to_owned(), from: Box::new(io::stdin()) });
        }
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Self { name, from: Box::new(file) }),
            Err(error) => Err(CliError::unusable(format!("{name}: {error}"))),
        }
    }
}
