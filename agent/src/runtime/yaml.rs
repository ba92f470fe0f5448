//! YAML loader of a `runtimeConfig`: fifogate's loader for manifests, with the bounds of the agent.
//!
//! Text goes in; a small tree with the place of each value comes out, or the first fault. Nothing
//! here recurses deeper than the bound on nesting. Reading takes time in proportion to the text.

use std::{error::Error, fmt};

use fifogate::internal::yaml::{self, Bounds, YamlFault};

use crate::limits::{MAX_NESTING, MOST_BYTES, MOST_VALUES};

pub(super) use fifogate::internal::yaml::{Data, ScalarKind, Yaml};

const BOUNDS: Bounds = Bounds {
    levels: MAX_NESTING,
    values: MOST_VALUES,
    aliased_values: MOST_VALUES,
    aliased_bytes: MOST_BYTES,
};

/// A fault in a `runtimeConfig`; it ends the reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its line; 0 if the fault has no place.
    pub line: usize,
    /// Its column.
    pub column: usize,
    /// The fault in words.
    pub what: String,
    /// Whether a bound is exceeded, as opposed to wrong YAML.
    pub is_over: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, what, .. } = self;
        match line {
            0 => f.write_str(what),
            _ => write!(f, "line {line}, column {column}: {what}"),
        }
    }
}

impl Error for Fault {}

/// Reads the only document of a text by `read`, which gets `None` for a text without one.
///
/// # Errors
/// The text is no YAML, holds a second document, or is over a bound; or the fault of `read`.
pub(super) fn document<T>(
    text: &str,
    read: impl FnOnce(Option<&Yaml<'_>>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    documents(text, |documents| match documents {
        [_, second, ..] => Err(fault(second, "a second document begins here")),
        only => read(only.first()),
    })
}

/// Reads all documents of a text by `read`.
///
/// # Errors
/// The text is no YAML or is over a bound; or the fault of `read`.
pub(super) fn documents<T>(
    text: &str,
    read: impl FnOnce(&[Yaml<'_>]) -> Result<T, Fault>,
) -> Result<T, Fault> {
    if text.len() > MOST_BYTES {
        let what = format!("more than {MOST_BYTES} bytes");
        return Err(Fault { line: 1, column: 1, what, is_over: true });
    }
    let text = yaml::readable(text);
    let documents = yaml::load(&text, &BOUNDS).map_err(|error| Fault {
        line: error.line,
        column: error.column,
        what: words(&error.fault),
        is_over: error.fault.is_over(),
    })?;
    read(&documents)
}

pub(super) fn fault(node: &Yaml<'_>, what: &str) -> Fault {
    Fault { line: node.line(), column: node.column(), what: what.to_owned(), is_over: false }
}

fn words(fault: &YamlFault) -> String {
    match fault {
        // The reason of a workload's state says already that its YAML is wrong.
        YamlFault::NoYaml(what) => what.clone(),
        YamlFault::DuplicatedKey(key) => format!("duplicated key `{key}` in a mapping"),
        YamlFault::TooDeep => {
            format!("nests more than {MAX_NESTING} levels of mappings and sequences")
        }
        YamlFault::TooManyValues => format!("more than {MOST_VALUES} values"),
        fault => fault.to_string(),
    }
}
