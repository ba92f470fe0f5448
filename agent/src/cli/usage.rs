//! Answers of clap in place of a command: help, the version, and faults of usage with their tips.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::withheld::{has_pem, withhold};

/// Prints the answer, and returns the exit status: 0 for printed help, 2 for wrong usage.
pub(super) fn answer(mut answer: clap::Error) -> ExitCode {
    suggest_manifest(&mut answer);
    let status = u8::try_from(answer.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    let text = answer.to_string();
    if answer.use_stderr() && has_pem(&text) {
        // Without styles, as they could split it. The exit status reports the fault in any case.
        let _ = io::stderr().lock().write_all(withhold(&text).as_bytes());
        return status;
    }
    // Standard output is buffered by lines: an error can come with the last one.
    let written = answer.print().and_then(|()| io::stdout().flush());
    match written {
        // Help that was asked for is data, and its loss a failure.
        Err(error) if !answer.use_stderr() && error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) if !answer.use_stderr() => {
            super::report(&format!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => status,
    }
}

/// Adds a tip for `fifogate-agent run FILE`.
fn suggest_manifest(answer: &mut clap::Error) {
    let is_run = match answer.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string().contains("fifogate-agent run"),
        _ => false,
    };
    let tip = match answer.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(given)) if is_run && !given.starts_with('-') => {
            format!("to run the workloads of a manifest, use '--manifest {given}'")
        }
        _ => return,
    };
    if answer.kind() == ErrorKind::UnknownArgument {
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        answer.insert(ContextKind::Suggested, tips);
    }
}
