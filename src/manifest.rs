//! Manifest: YAML in, the initial desired state out (docs/protocol.md#manifests).
//!
//! A state as `fifogate get` prints it is read, too: its `desiredState` is the manifest.
//!
//! The reader is strict. An unknown name is a fault with the nearest known one as a hint. Every
//! fault has file, line and column, and all faults are reported, not only the first. Deprecated
//! spellings are accepted with a warning. Templates are kept unrendered.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::{
    limits::MAX_STATE_BYTES,
    state::{
        DESIRED_STATE, Node, Tree,
        update::{self, Updated},
        weight_after,
    },
};

mod fields;
#[cfg(feature = "cli")]
pub(crate) mod json_schema;
pub(crate) mod places;
mod reader;
pub(crate) mod yaml;

use reader::Reader;

/// Most faults printed; further ones are counted.
const MOST_SHOWN: usize = 20;

/// A valid manifest.
#[derive(Debug)]
#[non_exhaustive]
pub struct Manifest {
    /// The update of the initial state by this manifest.
    pub updated: Updated,
    /// Deprecated spellings, accepted for now.
    pub warnings: Vec<Fault>,
}

/// A mistake and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The file.
    pub file: String,
    /// Line, counted from 1; 0 for the file as a whole.
    pub line: usize,
    /// Column, counted from 1 in characters.
    pub column: usize,
    /// The mistake, and the expected form.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message } = self;
        // One line for each fault, whatever it quotes: editors read them line by line.
        let message = message.replace('\n', "\\n");
        match line {
            0 => write!(f, "{file}: {message}"),
            _ => write!(f, "{file}:{line}:{column}: {message}"),
        }
    }
}

/// All faults of a manifest; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestError {
    /// Sorted by place.
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
/// The file cannot be read, or is no valid manifest.
pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let file = path.display().to_string();
    let text = text_of(&file, File::open(path))?;
    parse(&file, &text)
}

/// Reads the manifest in a file, or the one on standard input for the path `-`.
///
/// # Errors
/// The input cannot be read, or is no valid manifest.
pub fn read_or_stdin(path: &Path) -> Result<Manifest, ManifestError> {
    let (file, text) = places::read_text(path)?;
    parse(&file, &text)
}

fn text_of(file: &str, from: io::Result<impl Read>) -> Result<String, ManifestError> {
    let whole = |message: String| ManifestError {
        faults: vec![Fault { file: file.to_owned(), line: 0, column: 0, message }],
    };
    let mut bytes = Vec::new();
    from.and_then(|mut from| from.read_to_end(&mut bytes))
        .map_err(|error| whole(format!("cannot read the manifest: {error}")))?;
    String::from_utf8(bytes)
        .map_err(|error| whole(format!("this is no UTF-8 text: {}", error.utf8_error())))
}

/// Parses the manifest in `text`; messages call it `file`.
///
/// # Errors
/// All faults of the text.
pub fn parse(file: &str, text: &str) -> Result<Manifest, ManifestError> {
    let text = yaml::readable(text);
    let fault =
        |line, column, message: String| Fault { file: file.to_owned(), line, column, message };
    let one = |fault| ManifestError { faults: vec![fault] };
    let named = |(line, column, message)| fault(line, column, message);
    // A YAML fault is the only one reported: behind it nothing can be read for certain.
    let documents = yaml::load(&text, &yaml::FOR_MANIFESTS)
        .map_err(|error| one(fault(error.line, error.column, error.fault.to_string())))?;
    let mut reader = Reader::default();
    let desired = match &documents[..] {
        [document] => reader.manifest(document),
        [] => reader.fault_at(1, 1, "the manifest is empty; it needs at least `apiVersion: v1`"),
        [_, second, ..] => {
            reader.fault(second, "a second document begins here; a manifest is one document")
        }
    };
    // The tree is as large as the manifest: freed before the update is computed.
    drop(documents);
    let warnings = reader.warnings.into_iter().map(named).collect();
    let mut faults: Vec<_> = reader.faults.into_iter().map(named).collect();
    // References are checked after all else, so faults were not found in the order of their places.
    faults.sort_by_key(|fault| (fault.line, fault.column));
    match desired.filter(|_| faults.is_empty()) {
        None => Err(ManifestError { faults }),
        // The state has rules of its own: the result is validated like any update.
        Some(desired) => match apply(desired) {
            Ok(updated) => match weight_after(&Tree::default(), 0, &updated.tree) {
                bytes if bytes > MAX_STATE_BYTES => {
                    let text = format!(
                        "its state takes {bytes} bytes: a manifest has at most {MAX_STATE_BYTES}"
                    );
                    Err(one(fault(0, 0, text)))
                }
                _ => Ok(Manifest { updated, warnings }),
            },
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
