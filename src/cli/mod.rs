//! The command line: `fifogate` as users and scripts see it.
//!
//! Arguments come in, an exit status goes out. Data goes to standard output, everything said about
//! it to standard error. `run` and `check` stand at fifogate's side of the pipes; `get`, `watch` and
//! `set` at a workload's; `encode` and `decode` at both.

mod args;
mod check;
mod client;
mod error;
mod examples;
mod frames;
mod generate;
mod get;
mod input;
mod output;
mod run;
mod schema;
mod set;
mod status;
mod stdout;
mod systemd;
mod wait;
mod watch;
mod writer_close;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::Parser;
use log::LevelFilter;

use crate::foreign::Line;

use args::{Cli, Command, LogArgs};
use error::CliError;

/// Runs the command that `args` spell, the program's name first.
///
/// Returns 0 if it is done, 1 if it failed, and 2 for wrong usage or a file that cannot be used;
/// then standard error says why.
pub fn main<A>(args: impl IntoIterator<Item = A>) -> ExitCode
where
    A: Into<OsString> + Clone,
{
    // Help and faults end the process here, with status 0 or 2.
    let cli = Cli::parse_from(args);
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
        Command::Status(args) => status::status(args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man => generate::man(),
    }
}

/// Flags count before RUST_LOG, and that before the default. What other crates say is left out
/// below a warning, unless RUST_LOG asks for it.
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
    // Whatever a line quotes: it is one line, and no terminal obeys it.
    logger.format(|to, record| {
        let (time, level) = (to.timestamp(), record.level());
        let (style, line) = (to.default_level_style(level), Line(record.args()));
        let target = record.target();
        writeln!(to, "[{time} {style}{level:<5}{style:#} {target}] {line}")
    });
    // There is a logger already if somebody calls `main` twice; that one will do.
    let _ = logger.try_init();
}
