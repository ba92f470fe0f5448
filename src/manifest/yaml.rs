//! A YAML text as a tree with the place of each value: not much larger than the text, as a manifest may
//! be long, and what it takes to read it is not always given back.
//!
//! Built from the parser's events, so that what must not be is seen before anything is made of it: a few
//! lines with aliases can spell more nodes than any memory holds, and nesting can be deeper than any
//! stack. Keys have to be texts.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use saphyr::{Scalar, ScanError};
use saphyr_parser::{Event, Parser, Span};

use crate::limits::{MAX_NESTING, too_deep};

/// Deepest nesting of a document: a value may have [`MAX_NESTING`] levels, and `desiredState`, `configs`
/// and the names in it stand around it. So nothing that is made of a document recurses further.
const MOST_LEVELS: usize = MAX_NESTING + 4;

/// Most values that aliases may spell, all together.
const MOST_ALIASED: usize = 100_000;

/// Something that ends the reading: line, column, what.
pub(crate) type Found = (usize, usize, String);

/// A value and where it begins, both counted from 1.
#[derive(Clone, Debug)]
pub(crate) struct Yaml<'i> {
    line: u32,
    column: u32,
    pub(crate) data: Data<'i>,
}

#[derive(Clone, Debug)]
pub(crate) enum Data<'i> {
    Scalar(Scalar<'i>),
    Sequence(Vec<Yaml<'i>>),
    Mapping(Vec<(Yaml<'i>, Yaml<'i>)>),
    /// A scalar that is not what its tag says.
    Bad,
}

impl<'i> Yaml<'i> {
    fn new(span: &Span, data: Data<'i>) -> Self {
        let (line, column) = place(span);
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: narrow(line), column: narrow(column), data }
    }

    pub(crate) fn line(&self) -> usize {
        self.line as usize
    }

    pub(crate) fn column(&self) -> usize {
        self.column as usize
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(Scalar::String(text)) => Some(text),
            _ => None,
        }
    }

    /// How many values it is, with all in it.
    fn count(&self) -> usize {
        1 + match &self.data {
            Data::Scalar(_) | Data::Bad => 0,
            Data::Sequence(items) => items.iter().map(Self::count).sum(),
            Data::Mapping(entries) => entries.iter().map(|(_, value)| 1 + value.count()).sum(),
        }
    }
}

/// The documents of a text.
///
/// # Errors
/// It is no YAML, or more than we read.
pub(crate) fn load(text: &str) -> Result<Vec<Yaml<'_>>, Found> {
    let mut loader = Loader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| no_yaml(&error))?;
        loader.take(event, &span).map_err(|what| {
            let (line, column) = place(&span);
            (line, column, what)
        })?;
    }
    Ok(loader.documents)
}

fn no_yaml(error: &ScanError) -> Found {
    let marker = error.marker();
    let what = match error.info() {
        // The scanner looks ahead, and has a bound of its own for it.
        "recursion limit exceeded" => too_deep("this"),
        info => format!("this is no YAML: {info}"),
    };
    (marker.line(), marker.col() + 1, what)
}

fn place(span: &Span) -> (usize, usize) {
    (span.start.line(), span.start.col() + 1)
}

#[derive(Default)]
struct Loader<'i> {
    documents: Vec<Yaml<'i>>,
    open: Vec<Open<'i>>,
    /// What aliases may stand for, with its size.
    anchored: HashMap<usize, (Yaml<'i>, usize)>,
    aliased: usize,
}

/// A collection that is open.
struct Open<'i> {
    node: Yaml<'i>,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<Yaml<'i>>,
    names: HashSet<Cow<'i, str>>,
}

impl<'i> Loader<'i> {
    fn take(&mut self, event: Event<'i>, span: &Span) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.note_key(Some(&text))?;
                let scalar = Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref());
                let node = Yaml::new(span, scalar.map_or(Data::Bad, Data::Scalar));
                self.close(node, anchor);
            }
            Event::Alias(anchor) => {
                self.note_key(None)?;
                let node = self.resolve(anchor)?;
                self.close(node, 0);
            }
            Event::SequenceStart(anchor, _) => {
                self.begin(Yaml::new(span, Data::Sequence(Vec::new())), anchor)?;
            }
            Event::MappingStart(anchor, _) => {
                self.begin(Yaml::new(span, Data::Mapping(Vec::new())), anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { node, anchor, .. }) = self.open.pop() {
                    self.close(node, anchor);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, node: Yaml<'i>, anchor: usize) -> Result<(), String> {
        self.note_key(None)?;
        if self.open.len() >= MOST_LEVELS {
            return Err(too_deep("this"));
        }
        self.open.push(Open { node, anchor, key: None, names: HashSet::new() });
        Ok(())
    }

    /// Looks whether what comes is a key, and may be one: a text that was none yet.
    fn note_key(&mut self, text: Option<&Cow<'i, str>>) -> Result<(), String> {
        let Some(Open { node, key: None, names, .. }) = self.open.last_mut() else { return Ok(()) };
        if !matches!(node.data, Data::Mapping(_)) {
            return Ok(());
        }
        match text {
            None => Err("a key has to be a text, not an alias or a collection".to_owned()),
            Some(text) if names.insert(text.clone()) => Ok(()),
            Some(text) => Err(format!("this is no YAML: duplicated key `{text}` in a mapping")),
        }
    }

    fn resolve(&mut self, anchor: usize) -> Result<Yaml<'i>, String> {
        let Some((node, size)) = self.anchored.get(&anchor) else {
            return Err("this alias stands in what it stands for".to_owned());
        };
        self.aliased += size;
        if self.aliased > MOST_ALIASED {
            return Err(format!("alias expansion to more than {MOST_ALIASED} values"));
        }
        Ok(node.clone())
    }

    /// A value is whole.
    fn close(&mut self, node: Yaml<'i>, anchor: usize) {
        if anchor > 0 {
            self.anchored.insert(anchor, (node.clone(), node.count()));
        }
        let Some(open) = self.open.last_mut() else { return self.documents.push(node) };
        match &mut open.node.data {
            Data::Sequence(items) => items.push(node),
            Data::Mapping(entries) => match open.key.take() {
                None => open.key = Some(node),
                Some(key) => entries.push((key, node)),
            },
            Data::Scalar(_) | Data::Bad => {}
        }
    }
}
