//! The measurements, as a table.

use std::fmt::Write;

use crate::{
    machine,
    options::Options,
    page,
    plot::{self, Point},
    say,
    series::{Series, number},
    table::Table,
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
    points: Vec<(Picture, Point)>,
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
        self.points.push((picture, Point { line, x: x as f64, y: y.median() }));
    }

    fn table(&self) -> Table {
        let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
        rows.extend(self.rows.iter().map(|row| row.cells().to_vec()));
        Table { title: self.title.to_owned(), rows, notes: self.notes.clone() }
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
            say(&section.table().text());
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
        let points: Vec<_> = self.sections.iter().flat_map(|section| &section.points).collect();
        let mut pictures = String::new();
        for picture in [Picture::Subscribers, Picture::State] {
            let own = points.iter().filter(|(of, _)| *of == picture);
            let own: Vec<_> = own.map(|(_, point)| point.clone()).collect();
            if !own.is_empty() {
                plot::draw(
                    &page::docs().join(picture.file()),
                    [picture.axis(), "microseconds, median"],
                    &own,
                );
                writeln!(pictures, "\n![Latency by {}]({})", picture.axis(), picture.file())
                    .unwrap();
            }
        }
        page::write_all_but_peers(&self.page(&pictures));
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
            page.push_str(&section.table().markdown("##"));
        }
        page.push_str(CONTAINERS);
        page.push_str(COMMANDERS);
        page
    }
}
