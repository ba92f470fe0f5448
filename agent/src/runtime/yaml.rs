//! The YAML of a `runtimeConfig` as a small tree with the place of each value.
//!
//! It is built from the parser's events, which come one by one: nesting, the number of values and what
//! aliases repeat are bounded while the text is read, and nothing here recurses deeper than that bound.
//! Reading takes time in proportion to the text.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use saphyr::{Scalar, ScanError};
use saphyr_parser::{Event, Parser, Span};

use crate::limits::{MAX_NESTING, MOST_BYTES, MOST_VALUES};

/// A value and where it begins, both counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Yaml<'i> {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) data: Data<'i>,
}

/// The kinds of values.
#[derive(Clone, Debug)]
pub(super) enum Data<'i> {
    /// A scalar as it is written: `0x10` and `"0x10"` are the same.
    Text(Cow<'i, str>),
    /// Nothing.
    Null,
    /// A scalar that is not what its tag says.
    Bad,
    Sequence(Vec<Yaml<'i>>),
    Mapping(Vec<(Yaml<'i>, Yaml<'i>)>),
}

/// Something that ends the reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) what: String,
    /// Whether the text is over a bound, rather than wrong.
    pub(super) is_over: bool,
}

/// The value of a text with one document; `None` if there is none in it.
///
/// # Errors
/// It is no YAML, holds a second document, or is over a bound.
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
    // The scanner looks ahead, and has a bound of its own for `[` and `{`.
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

/// A fault, and whether it is that of a bound.
type Stop = (String, bool);

#[derive(Default)]
struct Loader<'i> {
    root: Option<Yaml<'i>>,
    open: Vec<Open<'i>>,
    /// The scalars that aliases may stand for.
    anchored: HashMap<usize, Data<'i>>,
    values: usize,
    /// Bytes of the texts that aliases repeat.
    repeated: usize,
}

/// A collection that is open.
struct Open<'i> {
    node: Yaml<'i>,
    /// The key whose value comes next.
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
        if self.open.len() >= MAX_NESTING {
            return Err((too_deep(), true));
        }
        self.open.push(Open { node: node(span, data), key: None, names: HashSet::new() });
        Ok(())
    }

    /// Counts a value that begins, and notes it if it is a key: a mapping has each key once.
    fn begin_value(&mut self, data: &Data<'i>) -> Result<(), Stop> {
        if self.open.is_empty() && self.root.is_some() {
            return Err(("a second document begins here".to_owned(), false));
        }
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

    /// The scalar that an alias stands for. No place of a `runtimeConfig` takes a collection that stands
    /// somewhere else, too, so none is copied.
    fn aliased(&mut self, anchor: usize) -> Result<Data<'i>, Stop> {
        let found = self.anchored.get(&anchor);
        if let Some(Data::Text(text)) = found {
            self.repeated += text.len();
        }
        if self.repeated > MOST_BYTES {
            return Err((format!("aliases repeat more than {MOST_BYTES} bytes"), true));
        }
        Ok(found.cloned().unwrap_or(Data::Bad))
    }

    /// A value is whole.
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
