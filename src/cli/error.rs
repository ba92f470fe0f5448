//! How a command ends when it does not just end: an exit status, and what is said about it.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

/// Why a command stops.
#[derive(Debug)]
pub(super) struct CliError {
    kind: Kind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// There is nothing more to do, and nothing to say about it.
    Quiet,
    /// What was asked for did not work.
    Failed,
    /// As `Failed`, since the other side is not there; a later try may find it.
    Away,
    /// What was asked for makes no sense, or a file does not.
    Unusable,
}

impl CliError {
    /// Nothing went wrong: the command was told to stop, or nobody wants to hear more.
    pub(super) fn quiet() -> Self {
        Self { kind: Kind::Quiet, message: String::new() }
    }

    /// Status 1.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into() }
    }

    /// Status 1: nobody is at the other end of the pipes.
    pub(super) fn away(message: impl Into<String>) -> Self {
        Self { kind: Kind::Away, message: message.into() }
    }

    /// Status 2: wrong usage, or a file that cannot be used. The message says which file and line,
    /// what is wrong, and what would be right.
    pub(super) fn unusable(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unusable, message: message.into() }
    }

    /// Standard output cannot be written. A reader that has seen enough is no failure.
    pub(super) fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::quiet();
        }
        Self::failed(format!("cannot write to standard output: {error}"))
    }

    /// Whether a later try may work.
    pub(super) fn is_away(&self) -> bool {
        self.kind == Kind::Away
    }

    /// Says what there is to say on standard error; the status to exit with.
    pub(super) fn report(&self) -> ExitCode {
        if self.kind != Kind::Quiet {
            // Without a standard error the status still tells.
            let _ = writeln!(io::stderr().lock(), "error: {self}");
        }
        match self.kind {
            Kind::Quiet => ExitCode::SUCCESS,
            Kind::Failed | Kind::Away => ExitCode::from(1),
            Kind::Unusable => ExitCode::from(2),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}
