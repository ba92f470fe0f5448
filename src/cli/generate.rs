//! `fifogate man` and `completions`: generators on the clap definition of the command line.
//!
//! Nothing is written by hand, so both follow each new option.

use clap::CommandFactory;

use super::{
    args::{Cli, CompletionsArgs},
    error::CliError,
    stdout::Stdout,
};
use crate::man;

const NAME: &str = "fifogate";

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    Stdout::open()?.put(script)
}

pub(super) fn man() -> Result<(), CliError> {
    let page = man::page(&Cli::command())
        .map_err(|error| CliError::failed(format!("cannot make it: {error}")))?;
    Stdout::open()?.put(page)
}
