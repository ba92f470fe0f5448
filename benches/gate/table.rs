//! A table of cells, for a terminal and for a page.

use std::fmt::Write;

/// A titled table; the first row is its head.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) notes: Vec<String>,
}

impl Table {
    /// With columns of equal width.
    pub(crate) fn text(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..self.rows[0].len()).map(width).collect();
        let mut text = format!("\n{}\n", self.title);
        for row in &self.rows {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = padded.collect::<Vec<_>>().join("  ");
            writeln!(text, "  {}", line.trim_end()).unwrap();
        }
        self.notes.iter().for_each(|note| writeln!(text, "  ({note})").unwrap());
        text.pop();
        text
    }

    /// Below a heading such as `##`.
    pub(crate) fn markdown(&self, heading: &str) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("\n{heading} {}\n\n{}", self.title, line(&self.rows[0]));
        text.push_str(&format!("{}|\n", "|---".repeat(self.rows[0].len())));
        self.rows[1..].iter().for_each(|row| text.push_str(&line(row)));
        if !self.notes.is_empty() {
            text.push('\n');
        }
        self.notes.iter().for_each(|note| writeln!(text, "* {note}").unwrap());
        text
    }
}
