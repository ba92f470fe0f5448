//! The tables and the picture.

use std::fmt::Write;

use crate::{
    machine,
    options::Settings,
    page,
    plot::{self, Point},
    say,
    series::Series,
    table::Table,
};

const METHOD: &str = include_str!("method.md");
const PICTURE: &str = "benchmarks-peers.svg";
const AXES: [&str; 2] = ["subscribers", "microseconds until the last has it, median"];

/// All that was measured.
pub(crate) struct Report {
    facts: Vec<(&'static str, String)>,
    runs: usize,
    quick: bool,
    tables: Vec<Table>,
    points: Vec<Point>,
}

impl Report {
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut facts = machine::facts();
        let mut versions: Vec<_> =
            settings.kinds.iter().filter_map(|kind| kind.version()).collect();
        versions.dedup();
        facts.push(("peers", versions.join(", ")));
        let (runs, quick) = (settings.runs, settings.quick);
        Self { facts, runs, quick, tables: Vec::new(), points: Vec::new() }
    }

    pub(crate) fn head(&self) -> String {
        let facts: Vec<_> =
            self.facts.iter().map(|(name, value)| format!("{name:<12} {value}")).collect();
        let text =
            format!("{}\nmedian of {} runs [smallest - largest]", facts.join("\n"), self.runs);
        if self.quick { format!("{text}, quick: no measurement") } else { text }
    }

    /// Prints it, and keeps it.
    pub(crate) fn add(&mut self, table: Table) {
        say(&table.text());
        self.tables.push(table);
    }

    /// A point in the picture: the median.
    pub(crate) fn point(&mut self, line: &str, x: usize, y: &Series) {
        self.points.push(Point { line: line.to_owned(), x: x as f64, y: y.median() });
    }

    /// Writes the section and its picture into `docs/` of the project.
    pub(crate) fn write(&self) {
        let mut part = METHOD.to_owned();
        plot::draw(&page::docs().join(PICTURE), AXES, &self.points);
        part.push_str("\n### Measured with\n\n| | |\n|---|---|\n");
        for (name, value) in &self.facts {
            writeln!(part, "| {name} | {value} |").unwrap();
        }
        write!(part, "\n![Latency of one event by subscribers, of each peer]({PICTURE})\n")
            .unwrap();
        self.tables.iter().for_each(|table| part.push_str(&table.markdown("###")));
        page::write_peers(&part);
    }
}
