//! `fifogate status`: queries the status socket, and prints the object in one of three formats.

use std::{
    io::{self, IsTerminal, Read},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    args::{StatusArgs, StatusFormat},
    error::CliError,
    stdout::Stdout,
};
use crate::{
    metrics::{self, Metrics},
    server::STATUS_SOCKET,
};

mod text;

/// Longest wait for the answer of fifogate.
const PATIENCE: Duration = Duration::from_secs(5);

/// Interval of `--watch`.
const AGAIN: Duration = Duration::from_secs(1);

/// Escape sequence: cursor home, clear the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn status(args: StatusArgs) -> Result<(), CliError> {
    let run_dir = args.run_dir.resolve()?;
    let mut out = Stdout::open()?;
    loop {
        let status = ask(&run_dir)?;
        let shown = match args.output {
            StatusFormat::Text => text::show(&status),
            // One object a line, for programs that read one after the other.
            StatusFormat::Json if args.watch => format!("{status}\n"),
            StatusFormat::Json => pretty(&status),
            StatusFormat::Prometheus => metrics(&status),
        };
        if !args.watch {
            return out.put(shown);
        }
        let is_for_people = args.output == StatusFormat::Text && io::stdout().is_terminal();
        // One write: a cleared screen is never visible alone.
        let clear = if is_for_people { CLEAR } else { "" };
        out.put(format!("{clear}{shown}"))?;
        thread::sleep(AGAIN);
    }
}

fn ask(run_dir: &Path) -> Result<Value, CliError> {
    let path = run_dir.join(STATUS_SOCKET);
    let nobody = |error: io::Error| {
        let path = path.display();
        let hint = "is fifogate running, with this --run-dir, and as this user?";
        CliError::away(format!("cannot ask {path}: {error}; {hint}"))
    };
    let mut stream = UnixStream::connect(&path).map_err(nobody)?;
    // A stopped process still accepts connections: without this bound the read could last forever.
    stream.set_read_timeout(Some(PATIENCE)).map_err(nobody)?;
    let mut answer = String::new();
    // fifogate closes the connection behind its answer (docs/operations.md#status).
    stream.read_to_string(&mut answer).map_err(nobody)?;
    serde_json::from_str(&answer).map_err(|error| {
        CliError::failed(format!("{} gave no JSON object: {error}", path.display()))
    })
}

fn metrics(status: &Value) -> String {
    let mut out = Metrics::default();
    metrics::of_status(status, &mut out);
    out.text()
}

fn pretty(status: &Value) -> String {
    let mut text = format!("{status:#}");
    text.push('\n');
    text
}

/// The entries of the list `name`; none if it is missing.
fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests;
