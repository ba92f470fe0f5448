//! Error of a command: a message for standard error, and an exit status.
//!
//! Status 1 is a failure, 2 wrong usage or an unusable file. A quiet end has status 0 and no
//! message.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

/// Reason for the end of a command.
#[derive(Debug)]
pub(super) struct CliError {
    kind: Kind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No failure: nothing is left to do or to report.
    Quiet,
    /// The requested action failed.
    Failed,
    /// `Failed` because the other side is missing; a later try may find it.
    Away,
    /// The request or a file makes no sense.
    Unusable,
}

impl CliError {
    /// Status 0: the command was stopped, or its output has no reader any more.
    pub(super) fn quiet() -> Self {
        Self { kind: Kind::Quiet, message: String::new() }
    }

    /// Status 1.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into() }
    }

    /// Status 1: the other end of the pipes is missing.
    pub(super) fn away(message: impl Into<String>) -> Self {
        Self { kind: Kind::Away, message: message.into() }
    }

    /// Status 2: wrong usage, or an unusable file. The message has file, line, fault and the
    /// expected form.
    pub(super) fn unusable(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unusable, message: message.into() }
    }

    /// A failed write to standard output. A closed pipe is no failure: its reader has seen enough.
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

    /// Prints the message to standard error, and returns the exit status.
    pub(super) fn report(&self) -> ExitCode {
        if self.kind != Kind::Quiet {
            // A manifest has a line for each fault. An editor looks for `error:` in each of them.
            let lines: String =
                self.message.lines().map(|line| format!("error: {line}\n")).collect();
            // A failed write is ignored: the exit status still reports the error.
            let _ = io::stderr().lock().write_all(lines.as_bytes());
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
