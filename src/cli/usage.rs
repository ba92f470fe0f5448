//! Answers of clap in place of a command: help, the version, and faults of usage with their tips.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::error::CliError;

/// Prints the answer, and returns the exit status: 0 for printed help, 2 for wrong usage.
pub(super) fn answer(mut answer: clap::Error) -> ExitCode {
    suggest_manifest(&mut answer);
    // Standard output is buffered by lines: an error can come with the last one.
    let written = answer.print().and_then(|()| io::stdout().flush());
    match written {
        // Help that was asked for is data, and its loss a failure.
        Err(error) if !answer.use_stderr() => CliError::stdout(&error).report(),
        _ => u8::try_from(answer.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

/// Adds a tip for `fifogate run FILE`.
fn suggest_manifest(answer: &mut clap::Error) {
    let is_run = match answer.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string().contains("fifogate run"),
        _ => false,
    };
    let tip = match answer.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(given)) if is_run && !given.starts_with('-') => {
            format!("to serve a manifest, use '--manifest {given}'")
        }
        _ => return,
    };
    if answer.kind() == ErrorKind::UnknownArgument {
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        answer.insert(ContextKind::Suggested, tips);
    }
}
