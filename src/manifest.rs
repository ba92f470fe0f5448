//! A manifest: YAML in, the desired state to start from out (docs/protocol.md#manifests).
//!
//! Strict: what it does not know is an error that names the nearest thing it knows, and every error
//! tells its file, line and column. All that is wrong is told, not only the first. Deprecated
//! spellings are accepted with a warning. Templates are kept as they are.

use std::{fmt, fs, io, path::Path};

use crate::state::{
    DESIRED_STATE, Node, Tree,
    update::{self, Updated},
};

mod reader;
mod rules;
pub(crate) mod yaml;

use reader::Reader;

/// Faults that are shown; more are counted.
const MOST_SHOWN: usize = 20;

/// The desired state of a manifest.
#[derive(Debug)]
pub struct Manifest {
    /// What the initial state becomes by it.
    pub updated: Updated,
    /// What will not be accepted for ever.
    pub warnings: Vec<Fault>,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// Line, counted from 1; 0 if it is the file as a whole.
    pub line: usize,
    /// Column, counted from 1 in characters.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message } = self;
        match line {
            0 => write!(f, "{file}: {message}"),
            _ => write!(f, "{file}:{line}:{column}: {message}"),
        }
    }
}

/// Everything that is wrong with a manifest; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// In the order of their places.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().take(MOST_SHOWN).enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{fault}")?;
        }
        match self.faults.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

impl std::error::Error for ManifestError {}

/// Reads the manifest in a file.
///
/// # Errors
/// The file cannot be read, or everything that is wrong in it.
pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let file = path.display().to_string();
    let whole = |message: String| ManifestError {
        faults: vec![Fault { file: file.clone(), line: 0, column: 0, message }],
    };
    let bytes = fs::read(path).map_err(|error| whole(cannot_read(&error)))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| whole(format!("this is no UTF-8 text: {}", error.utf8_error())))?;
    parse(&file, &text)
}

fn cannot_read(error: &io::Error) -> String {
    format!("cannot read the manifest: {error}")
}

/// The manifest that `text` spells; `file` is what it is called in messages.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse(file: &str, text: &str) -> Result<Manifest, ManifestError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let fault =
        |line, column, message: String| Fault { file: file.to_owned(), line, column, message };
    let one = |fault| ManifestError { faults: vec![fault] };
    let named = |(line, column, message)| fault(line, column, message);
    let documents = yaml::load(text).map_err(|found| one(named(found)))?;
    let mut reader = Reader::default();
    let desired = match &documents[..] {
        [document] => reader.manifest(document),
        [] => reader.fault_at(1, 1, "the manifest is empty; it needs at least `apiVersion: v1`"),
        [_, second, ..] => {
            reader.fault(second, "a second document begins here; a manifest is one document")
        }
    };
    drop(documents);
    let warnings = reader.warnings.into_iter().map(named).collect();
    let mut faults: Vec<_> = reader.faults.into_iter().map(named).collect();
    faults.sort_by_key(|fault| (fault.line, fault.column));
    match desired.filter(|_| faults.is_empty()) {
        None => Err(ManifestError { faults }),
        // What the reader lets through is still judged like any update.
        Some(desired) => match apply(desired) {
            Ok(updated) => Ok(Manifest { updated, warnings }),
            Err(error) => Err(one(fault(0, 0, error.to_string()))),
        },
    }
}

fn apply(desired: Node) -> Result<Updated, update::UpdateError> {
    let given = Tree::default().with(DESIRED_STATE, Some(desired));
    update::apply(&Tree::initial(), &given, &[])
}

#[cfg(test)]
mod tests;
