//! `fifogate man`, `completions` and `schema`: generators on the clap definition of the command line, and
//! on the table of the state's fields.
//!
//! Nothing is written by hand, so they follow each new option and field.

use clap::CommandFactory;

use super::{
    args::{Cli, CompletionsArgs},
    error::CliError,
    stdout::Stdout,
};
use crate::{man, manifest::json_schema};

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

pub(super) fn schema() -> Result<(), CliError> {
    Stdout::open()?.put(json_schema::text())
}
