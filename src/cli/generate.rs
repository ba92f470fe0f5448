//! `fifogate man`, `completions` and `schema`: generators on the clap definition of the command line, and
//! on the table of the state's fields.
//!
//! Nothing is written by hand, so they follow each new option and field. The man page is one document,
//! with a section for each command.

use clap::CommandFactory;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::{
    args::{Cli, CompletionsArgs},
    error::CliError,
    stdout::Stdout,
};
use crate::manifest::json_schema;

const NAME: &str = "fifogate";

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    Stdout::open()?.put(script)
}

pub(super) fn man() -> Result<(), CliError> {
    let page = man_page().map_err(|error| CliError::failed(format!("cannot make it: {error}")))?;
    Stdout::open()?.put(page)
}

pub(super) fn schema() -> Result<(), CliError> {
    Stdout::open()?.put(json_schema::text())
}

/// The whole page: first the program, then a section for each command.
fn man_page() -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    // Without a date, the next argument would be printed in its place.
    let program = Man::new(Cli::command()).date(" ").manual("User Commands");
    program.render_title(&mut page)?;
    program.render_name_section(&mut page)?;
    program.render_synopsis_section(&mut page)?;
    program.render_description_section(&mut page)?;
    program.render_options_section(&mut page)?;
    for command in Cli::command().get_subcommands() {
        command_section(command, &mut page)?;
    }
    notes(&Cli::command(), "SH", &mut page)?;
    Ok(without_repeated_preambles(&page))
}

/// Removes repeated preambles. Each part begins with the same two lines to define the apostrophe.
fn without_repeated_preambles(page: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = page.split_inclusive(|byte| *byte == b'\n').collect();
    let preamble: Vec<_> = lines.iter().copied().take(2).collect();
    let mut number = 0;
    // The first two lines are the preamble of the whole page, and stay.
    lines.retain(|line| {
        number += 1;
        number <= preamble.len() || !preamble.contains(line)
    });
    lines.concat()
}

/// The page of `clap_mangen` for one command, as a section with subsections.
fn command_section(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let title = format!("{NAME} {}", command.get_name());
    let mut heading = Roff::new();
    heading.control("SH", [title.to_uppercase().as_str()]);
    heading.to_writer(page)?;

    // The global options are listed once, at the program.
    let alone = command.clone().bin_name(title).disable_help_flag(true).disable_version_flag(true);
    let has_options = alone.get_arguments().next().is_some();
    let alone = Man::new(alone);
    let mut parts = Vec::new();
    alone.render_synopsis_section(&mut parts)?;
    alone.render_description_section(&mut parts)?;
    if has_options {
        alone.render_options_section(&mut parts)?;
    }
    for line in parts.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b".SH ") {
            Some(heading) => page.extend([b".SS ", heading].concat()),
            None => page.extend(line),
        }
    }
    notes(command, "SS", page)
}

/// The end of a long help: its headings as headings, all other lines unchanged.
fn notes(command: &clap::Command, heading: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    for line in text.lines() {
        match line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            Some(title) => {
                roff.control("fi", []);
                roff.control(heading, [title.to_uppercase().as_str()]);
                roff.control("nf", []);
            }
            None => {
                roff.text([roman(line)]);
            }
        }
    }
    roff.control("fi", []);
    roff.to_writer(page)
}
