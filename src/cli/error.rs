//! Error of a command: a message for standard error, and an exit status.
//!
//! Status 1 is a failure, 2 wrong usage or an unusable file. A quiet end has status 0 and no
//! message.

use std::{
    env, fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use log::Level;

use crate::journal;

/// Reason for the end of a command.
#[derive(Debug)]
pub(super) struct CliError {
    kind: Kind,
    message: String,
    /// A second line: what to do about it.
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No failure: nothing is left to do or to report.
    Quiet,
    /// The requested action failed.
    Failed,
    /// `Failed` because the other side is missing; a later try may find it.
    Away,
    /// `Away` because another command uses the pipes.
    Busy,
    /// `Failed` because the rules of the workload do not allow it.
    Denied,
    /// The request or a file makes no sense.
    Unusable,
}

impl CliError {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Status 0: the command was stopped, or its output has no reader any more.
    pub(super) fn quiet() -> Self {
        Self::new(Kind::Quiet, "")
    }

    /// Status 1.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Status 1: the rules do not allow it.
    pub(super) fn denied(message: impl Into<String>) -> Self {
        let hint = "the log of fifogate and `fifogate status` name the rule";
        Self::new(Kind::Denied, message).with_hint(hint)
    }

    /// The same error; for a denial with this hint.
    pub(super) fn hint_if_denied(self, hint: impl FnOnce() -> String) -> Self {
        match self.kind {
            Kind::Denied => self.with_hint(hint()),
            _ => self,
        }
    }

    /// The same error, with this hint in the place of its own.
    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Status 1: the other end of the pipes is missing.
    pub(super) fn away(message: impl Into<String>) -> Self {
        Self::new(Kind::Away, message)
    }

    /// Status 1: another command uses the pipes.
    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self::new(Kind::Busy, message)
    }

    /// Status 2: wrong usage, or an unusable file. The message has file, line, fault and the
    /// expected form.
    pub(super) fn unusable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unusable, message)
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
        matches!(self.kind, Kind::Away | Kind::Busy)
    }

    /// Whether another command uses the pipes.
    pub(super) fn is_busy(&self) -> bool {
        self.kind == Kind::Busy
    }

    /// Whether the rules of the workload do not allow it.
    pub(super) fn is_denied(&self) -> bool {
        self.kind == Kind::Denied
    }

    /// Prints the message to standard error, and returns the exit status.
    pub(super) fn report(&self) -> ExitCode {
        if self.kind != Kind::Quiet {
            // A manifest has a line for each fault. An editor looks for `error:` in each of them.
            let error = if is_coloured() { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
            let priority = journal::priority(Level::Error).unwrap_or_default();
            let lines: String =
                self.message.lines().map(|line| format!("{priority}{error} {line}\n")).collect();
            // A failed write is ignored: the exit status still reports the error.
            let _ = io::stderr().lock().write_all(lines.as_bytes());
            if let Some(hint) = &self.hint {
                let _ = writeln!(io::stderr().lock(), "hint: {hint}");
            }
        }
        match self.kind {
            Kind::Quiet => ExitCode::SUCCESS,
            Kind::Failed | Kind::Away | Kind::Busy | Kind::Denied => ExitCode::from(1),
            Kind::Unusable => ExitCode::from(2),
        }
    }
}

/// Whether standard error is a terminal whose user has nothing against colours (https://no-color.org).
fn is_coloured() -> bool {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal()
        && !is_unwanted
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}
