//! Text on standard output: tables, and documents of states.

use std::io::{self, Write};

use fifogate::internal::printed;
use serde_json::Value;

use super::args::Format;
use crate::cli::CliError;

/// Writes a text. A reader that has seen enough ends the command in order.
pub(super) fn put(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // Everything that was asked for ends with the connection.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CliError::Failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Writes a line about a result to standard error. Its loss is no failure.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The text of a document. People read YAML.
pub(super) fn document(value: &Value, format: Format) -> Result<String, CliError> {
    match format {
        Format::Json => Ok(printed::json_line(value)),
        Format::Yaml | Format::Text => printed::yaml(value)
            .map_err(|error| CliError::Failed(format!("cannot print as YAML: {error}"))),
    }
}

/// A table with aligned columns.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let head: Vec<_> = head.iter().map(|&own| own.to_owned()).collect();
    let mut text = line(&head);
    text.extend(rows.iter().map(|row| line(row)));
    text
}

/// One line of a text that a workload has chosen.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell_and_lines_have_no_end_of_blanks() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&["NAME", "A"], &[row(["größer", "x"]), row(["b", ""])]);
        assert_eq!(text, "NAME    A\ngrößer  x\nb\n");
    }
}
