//! Manual pages: the definition of a command line goes in, its page in roff comes out.
//!
//! Nothing is written by hand, so a page follows each new option. It is one document, with a section for
//! each command.

use std::io;

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

/// The page of a program: first the program itself, then a section for each command.
///
/// # Errors
/// The parts of the page cannot be written to memory.
pub fn page(program: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    // Without a date, the next argument would be printed in its place.
    let man = Man::new(program.clone()).date(" ").manual("User Commands");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    command_sections(program, program.get_name(), &mut page)?;
    notes(program, "SH", &mut page)?;
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

/// A section for each command, and for each of its own commands, but not for hidden ones.
fn command_sections(program: &Command, name: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let shown = program.get_subcommands().filter(|command| !command.is_hide_set());
    for command in shown {
        let title = format!("{name} {}", command.get_name());
        command_section(command, &title, page)?;
        command_sections(command, &title, page)?;
    }
    Ok(())
}

/// The page of `clap_mangen` for one command, as a section with subsections.
fn command_section(command: &Command, title: &str, page: &mut Vec<u8>) -> io::Result<()> {
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
fn notes(command: &Command, heading: &str, page: &mut Vec<u8>) -> io::Result<()> {
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
