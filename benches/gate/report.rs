//! The measurements, as a table.

use std::{fmt::Write, fs, path::Path};

use crate::{
    machine,
    options::Options,
    plot, say,
    series::{Series, number},
};

const METHOD: &str = include_str!("method.md");
/// Measured by hand: it needs podman.
const CONTAINERS: &str = include_str!("containers.md");
/// Measured by hand: it needs the reference agent.
const COMMANDERS: &str = include_str!("commanders.md");

/// One quantity of fifogate, and what it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    ours: Series,
    against: Option<(String, Series)>,
    target: Option<Target>,
}

/// The target.
#[derive(Clone, Debug)]
struct Target {
    text: String,
    met: bool,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, ours: Series) -> Self {
        Self { what: what.into(), unit, ours, against: None, target: None }
    }

    /// Beside something that was measured in the same runs.
    pub(crate) fn against(mut self, name: impl Into<String>, other: Series) -> Self {
        self.against = Some((name.into(), other));
        self
    }

    /// At most so many times what it is compared with.
    pub(crate) fn at_most_times(self, most: f64) -> Self {
        let met = self.ratio().is_some_and(|ratio| ratio.median() <= most);
        self.target(format!("<= {most} x"), met)
    }

    pub(crate) fn at_most(self, most: f64) -> Self {
        let met = self.ours.median() <= most;
        self.target(format!("<= {}", number(most)), met)
    }

    /// At least so much, or this share of what it is compared with, whichever is less.
    pub(crate) fn at_least_or_share(self, least: f64, share: f64) -> Self {
        let enough = self.ratio().is_some_and(|ratio| ratio.median() >= share);
        let met = enough || self.ours.median() >= least;
        self.target(format!(">= {} or {share} x", number(least)), met)
    }

    fn target(mut self, text: String, met: bool) -> Self {
        self.target = Some(Target { text, met });
        self
    }

    fn ratio(&self) -> Option<Series> {
        self.against.as_ref().map(|(_, other)| self.ours.over(other))
    }

    fn cells(&self) -> [String; COLUMNS] {
        let (name, other) = match &self.against {
            Some((name, other)) => (name.clone(), other.to_string()),
            None => Default::default(),
        };
        let ratio = self.ratio().map(|ratio| ratio.to_string()).unwrap_or_default();
        let (target, verdict) = match &self.target {
            Some(Target { text, met }) => (text.clone(), if *met { "met" } else { "NOT MET" }),
            None => Default::default(),
        };
        let (what, unit) = (self.what.clone(), self.unit.to_owned());
        [what, unit, self.ours.to_string(), name, other, ratio, target, verdict.to_owned()]
    }
}

const COLUMNS: usize = 8;
const HEAD: [&str; COLUMNS] =
    ["measured", "unit", "fifogate", "against", "its value", "ratio", "target", ""];

/// One scenario's rows.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) notes: Vec<String>,
    pub(crate) rows: Vec<Row>,
    points: Vec<Point>,
}

/// A point of a line in one of the pictures.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) picture: Picture,
    pub(super) line: String,
    pub(super) x: f64,
    pub(super) y: f64,
}

/// The quantity that latency is drawn against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picture {
    Subscribers,
    State,
}

impl Section {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, notes: Vec::new(), rows: Vec::new(), points: Vec::new() }
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A point in a picture: the median.
    pub(crate) fn point(&mut self, picture: Picture, line: String, x: usize, y: &Series) {
        self.points.push(Point { picture, line, x: x as f64, y: y.median() });
    }

    fn text(&self) -> String {
        let mut lines = vec![HEAD.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: Vec<_> = (0..COLUMNS)
            .map(|column| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap())
            .collect();
        let mut text = format!("\n{}\n", self.title);
        for cells in lines {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = padded.collect::<Vec<_>>().join("  ");
            writeln!(text, "  {}", line.trim_end()).unwrap();
        }
        self.notes.iter().for_each(|note| writeln!(text, "  ({note})").unwrap());
        text.pop();
        text
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("\n## {}\n\n{}", self.title, line(&HEAD.map(str::to_owned)));
        text.push_str(&format!("{}|\n", "|---".repeat(COLUMNS)));
        self.rows.iter().for_each(|row| text.push_str(&line(&row.cells())));
        if !self.notes.is_empty() {
            text.push('\n');
        }
        self.notes.iter().for_each(|note| writeln!(text, "* {note}").unwrap());
        text
    }
}

impl Picture {
    fn file(self) -> &'static str {
        match self {
            Self::Subscribers => "benchmarks-subscribers.svg",
            Self::State => "benchmarks-state.svg",
        }
    }

    fn axis(self) -> &'static str {
        match self {
            Self::Subscribers => "subscribers",
            Self::State => "workloads in the state",
        }
    }
}

/// All that was measured.
pub(crate) struct Report {
    quick: bool,
    runs: usize,
    facts: Vec<(&'static str, String)>,
    sections: Vec<Section>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let (quick, runs) = (options.quick, options.runs());
        Self { quick, runs, facts: machine::facts(), sections: Vec::new() }
    }

    pub(crate) fn head(&self) -> String {
        let facts: Vec<_> =
            self.facts.iter().map(|(name, value)| format!("{name:<12} {value}")).collect();
        format!("{}\nmedian of {} runs [smallest - largest]", facts.join("\n"), self.runs)
    }

    /// Prints it, and keeps it.
    pub(crate) fn add(&mut self, section: Option<Section>) {
        if let Some(section) = section {
            say(&section.text());
            self.sections.push(section);
        }
    }

    pub(crate) fn tail(&self) -> String {
        let rows = self.sections.iter().flat_map(|section| &section.rows);
        let targets: Vec<_> = rows.filter_map(|row| row.target.as_ref()).collect();
        let met = targets.iter().filter(|target| target.met).count();
        let all = targets.len();
        let text = format!("\n{met} of {all} targets met");
        if self.quick { format!("{text}, by a quick run, which is no measurement") } else { text }
    }

    /// Writes the page and its pictures into `docs/` of the project.
    pub(crate) fn write(&self) {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        fs::create_dir_all(&docs).unwrap();
        let points: Vec<_> = self.sections.iter().flat_map(|section| &section.points).collect();
        let mut pictures = String::new();
        for picture in [Picture::Subscribers, Picture::State] {
            let own: Vec<_> = points.iter().filter(|point| point.picture == picture).collect();
            if !own.is_empty() {
                plot::draw(&docs.join(picture.file()), picture.axis(), &own);
                writeln!(pictures, "\n![Latency by {}]({})", picture.axis(), picture.file())
                    .unwrap();
            }
        }
        fs::write(docs.join("benchmarks.md"), self.page(&pictures)).unwrap();
    }

    fn page(&self, pictures: &str) -> String {
        let mut page = METHOD.to_owned();
        page.push_str("\n## Machine\n\n| | |\n|---|---|\n");
        for (name, value) in &self.facts {
            writeln!(page, "| {name} | {value} |").unwrap();
        }
        page.push_str("\n## Pictures\n");
        page.push_str(pictures);
        for section in &self.sections {
            page.push_str(&section.markdown());
        }
        page.push_str(CONTAINERS);
        page.push_str(COMMANDERS);
        page
    }
}
