//! The command line `fifogate`, for users and scripts.
//!
//! Command-line arguments go in, an exit status comes out. Data goes to standard output, messages
//! and logs to standard error. `run` and `check` work on fifogate's side of the pipes; `get`,
//! `watch` and `set` on a workload's; `encode` and `decode` on both.

mod args;
mod check;
mod client;
mod error;
mod examples;
pub(crate) mod frames;
mod generate;
mod get;
mod input;
mod log_line;
mod masks;
mod outcome;
mod output;
mod pair_lock;
mod protobuf_json;
mod run;
mod schema;
mod set;
mod status;
mod stdout;
mod usage;
mod wait;
mod watch;
mod writer_close;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::Parser;
use log::LevelFilter;

use args::{Cli, Command, LogArgs};
use error::CliError;
use log_line::Line;

use crate::journal;

/// Runs the command in `args`; the first argument is the program's name.
///
/// Returns 0 for success, 1 for a failure, and 2 for wrong usage or an unusable file. With 1 and 2
/// the reason is on standard error.
pub fn main<A>(args: impl IntoIterator<Item = A>) -> ExitCode
where
    A: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => return usage::answer(answer),
    };
    start_logging(&cli.logging);
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn execute(command: Command) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Get(args) => get::get(args),
        Command::Watch(args) => watch::watch(args),
        Command::Set(args) => set::set(args),
        Command::Encode(args) => frames::encode(&args),
        Command::Decode(args) => frames::decode(&args),
        Command::Check(args) => check::check(args),
        Command::Schema => generate::schema(),
        Command::Status(args) => status::status(args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man => generate::man(),
    }
}

/// Starts logging. Flags precede `RUST_LOG`, and `RUST_LOG` precedes the default. Without
/// `RUST_LOG`, other crates are logged from warnings up only.
fn start_logging(args: &LogArgs) {
    let mut logger = env_logger::Builder::new();
    let by_level = |logger: &mut env_logger::Builder, level: LevelFilter| {
        logger.filter_level(level.min(LevelFilter::Warn)).filter_module("fifogate", level);
    };
    match (args.level(), std::env::var("RUST_LOG")) {
        (Some(level), _) => by_level(&mut logger, level),
        (None, Ok(filters)) => {
            logger.parse_filters(&filters);
        }
        (None, Err(_)) => by_level(&mut logger, LevelFilter::Info),
    }
    // A record may quote foreign text: it stays on one line, without control sequences.
    logger.format(|to, record| {
        let (time, level) = (to.timestamp(), record.level());
        let (style, line) = (to.default_level_style(level), Line(record.args()));
        let target = record.target();
        if let Some(priority) = journal::priority(level) {
            return writeln!(to, "{priority}{target}: {line}");
        }
        writeln!(to, "[{time} {style}{level:<5}{style:#} {target}] {line}")
    });
    // A second call of `main` in one process keeps the first logger.
    let _ = logger.try_init();
}
