//! YAML loader of a `runtimeConfig`: a small tree with the place of each value.
//!
//! The tree is built from parser events, one by one. Nesting, the number of values, and the bytes
//! repeated by aliases are bounded during reading. Nothing here recurses deeper than the bound on
//! nesting. Reading takes time in proportion to the text.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    error::Error,
    fmt,
};

use saphyr::{Scalar, ScanError};
use saphyr_parser::{Event, Parser, Span};

use crate::limits::{MAX_NESTING, MOST_BYTES, MOST_VALUES};

/// A value with its line and column, both counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Yaml<'i> {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) data: Data<'i>,
}

/// Kinds of values.
#[derive(Clone, Debug)]
pub(super) enum Data<'i> {
    /// A scalar as written: `0x10` and `"0x10"` are the same.
    Text(Cow<'i, str>),
    /// No value.
    Null,
    /// A scalar in contradiction to its tag.
    Bad,
    Sequence(Vec<Yaml<'i>>),
    Mapping(Vec<(Yaml<'i>, Yaml<'i>)>),
}

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

/// Loads a text with one document; `None` if there is none in it.
///
/// # Errors
/// The text is no YAML, holds a second document, or is over a bound.
pub(super) fn load(text: &str) -> Result<Option<Yaml<'_>>, Fault> {
    if text.len() > MOST_BYTES {
        let what = format!("more than {MOST_BYTES} bytes");
        return Err(Fault { line: 1, column: 1, what, is_over: true });
    }
    let mut loader = Loader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| no_yaml(&error))?;
        loader.take(event, &span).map_err(|(what, is_over)| {
            let (line, column) = place(&span);
            Fault { line, column, what, is_over }
        })?;
    }
    Ok(loader.root)
}

fn no_yaml(error: &ScanError) -> Fault {
    let marker = error.marker();
    // The scanner reads ahead, and has its own bound for `[` and `{`.
    let is_over = error.info().contains("recursion limit");
    let what = if is_over { too_deep() } else { error.info().to_owned() };
    Fault { line: marker.line(), column: marker.col() + 1, what, is_over }
}

fn too_deep() -> String {
    format!("nests more than {MAX_NESTING} levels of mappings and sequences")
}

fn place(span: &Span) -> (usize, usize) {
    (span.start.line(), span.start.col() + 1)
}

/// The text of a fault, and whether a bound is exceeded.
type Stop = (String, bool);

#[derive(Default)]
struct Loader<'i> {
    root: Option<Yaml<'i>>,
    open: Vec<Open<'i>>,
    /// Scalars available to aliases, by anchor.
    anchored: HashMap<usize, Data<'i>>,
    values: usize,
    /// Bytes repeated by aliases so far.
    repeated: usize,
}

/// An open collection.
struct Open<'i> {
    node: Yaml<'i>,
    /// The key of the next value.
    key: Option<Yaml<'i>>,
    names: HashSet<Cow<'i, str>>,
}

impl<'i> Loader<'i> {
    fn take(&mut self, event: Event<'i>, span: &Span) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = Scalar::parse_from_cow_and_metadata(text.clone(), style, tag.as_ref());
                let data = match kind {
                    Some(Scalar::Null) => Data::Null,
                    // Numbers and booleans too: an argument is the text as written.
                    Some(_) => Data::Text(text),
                    None => Data::Bad,
                };
                if anchor > 0 {
                    self.anchored.insert(anchor, data.clone());
                }
                self.begin_value(&data)?;
                self.close(node(span, data));
            }
            Event::Alias(anchor) => {
                let data = self.aliased(anchor)?;
                self.begin_value(&data)?;
                self.close(node(span, data));
            }
            Event::SequenceStart(..) => self.begin(span, Data::Sequence(Vec::new()))?,
            Event::MappingStart(..) => self.begin(span, Data::Mapping(Vec::new()))?,
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.close(open.node);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, span: &Span, data: Data<'i>) -> Result<(), Stop> {
        self.begin_value(&data)?;
        // Before the push, so memory stays bounded however deep a text nests.
        if self.open.len() >= MAX_NESTING {
            return Err((too_deep(), true));
        }
        self.open.push(Open { node: node(span, data), key: None, names: HashSet::new() });
        Ok(())
    }

    /// Counts a new value. A key of a mapping is also checked for duplicates.
    fn begin_value(&mut self, data: &Data<'i>) -> Result<(), Stop> {
        if self.open.is_empty() && self.root.is_some() {
            return Err(("a second document begins here".to_owned(), false));
        }
        // Values of aliases count as well: the bound is for the tree in memory.
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err((format!("more than {MOST_VALUES} values"), true));
        }
        let Some(Open { node, key: None, names, .. }) = self.open.last_mut() else { return Ok(()) };
        match (&node.data, data) {
            (Data::Mapping(_), Data::Text(text)) if !names.insert(text.clone()) => {
                Err((format!("duplicated key `{text}` in a mapping"), false))
            }
            _ => Ok(()),
        }
    }

    /// Resolves an alias to its scalar. A collection is never copied: no field of a `runtimeConfig`
    /// accepts one by alias.
    fn aliased(&mut self, anchor: usize) -> Result<Data<'i>, Stop> {
        let found = self.anchored.get(&anchor);
        if let Some(Data::Text(text)) = found {
            self.repeated += text.len();
        }
        if self.repeated > MOST_BYTES {
            return Err((format!("aliases repeat more than {MOST_BYTES} bytes"), true));
        }
        // A collection, or an anchor inside of itself.
        Ok(found.cloned().unwrap_or(Data::Bad))
    }

    /// Adds a complete value to the open collection, or makes it the root.
    fn close(&mut self, value: Yaml<'i>) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return;
        };
        match &mut open.node.data {
            Data::Sequence(items) => items.push(value),
            Data::Mapping(entries) => match open.key.take() {
                None => open.key = Some(value),
                Some(key) => entries.push((key, value)),
            },
            Data::Text(_) | Data::Null | Data::Bad => {}
        }
    }
}

fn node<'i>(span: &Span, data: Data<'i>) -> Yaml<'i> {
    let (line, column) = place(span);
    Yaml { line, column, data }
}
