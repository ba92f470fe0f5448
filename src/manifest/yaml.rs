//! YAML loader: text in, a tree with the place of each value out.
//!
//! The tree is built from parser events, so bad input is rejected before memory is allocated for
//! it. A few lines with aliases can expand to more nodes than fit in memory, and nesting can exceed
//! any stack; both are bounded here. Keys are texts, and unique in their mapping. The tree is not
//! much larger than the text: manifests may be long, and the memory for reading one is not always
//! returned to the system.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
};

use saphyr::{Scalar, ScanError};
use saphyr_parser::{Event, Parser, Span};

use crate::limits::{MAX_NESTING, too_deep};

/// Deepest nesting of a document: [`MAX_NESTING`] levels of a value, and around it `desiredState`,
/// `configs` and the names inside. No recursion over a document is deeper.
const MOST_LEVELS: usize = MAX_NESTING + 4;

/// Most values from the expansion of all aliases together.
const MOST_ALIASED: usize = 100_000;

/// A fault that ends loading. The author of the text made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadError {
    /// Counted from 1.
    pub(crate) line: usize,
    /// Counted from 1.
    pub(crate) column: usize,
    pub(crate) fault: YamlFault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum YamlFault {
    /// The parser's own words.
    NoYaml(String),
    TooDeep,
    KeyIsNoText,
    DuplicatedKey(String),
    /// An alias inside of the value with its anchor.
    EndlessAlias,
    TooManyAliased,
}

impl fmt::Display for YamlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoYaml(what) => write!(f, "this is no YAML: {what}"),
            Self::TooDeep => f.write_str(&too_deep("this")),
            Self::KeyIsNoText => {
                f.write_str("a key has to be a text, not an alias or a collection")
            }
            Self::DuplicatedKey(key) => {
                write!(f, "this is no YAML: duplicated key `{key}` in a mapping")
            }
            Self::EndlessAlias => f.write_str("this alias stands in what it stands for"),
            Self::TooManyAliased => write!(f, "alias expansion to more than {MOST_ALIASED} values"),
        }
    }
}

/// A value and the place of its start, both counted from 1.
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
    /// A scalar in conflict with its tag.
    Bad,
}

impl<'i> Yaml<'i> {
    fn new(span: &Span, data: Data<'i>) -> Self {
        let (line, column) = place(span);
        // Two u32 instead of two usize: every value stores its place.
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

    /// Number of values in this one, itself included.
    fn count(&self) -> usize {
        1 + match &self.data {
            Data::Scalar(_) | Data::Bad => 0,
            Data::Sequence(items) => items.iter().map(Self::count).sum(),
            Data::Mapping(entries) => entries.iter().map(|(_, value)| 1 + value.count()).sum(),
        }
    }
}

/// Loads all documents of a text.
///
/// # Errors
/// The text is no YAML, or exceeds a bound of this module.
pub(crate) fn load(text: &str) -> Result<Vec<Yaml<'_>>, LoadError> {
    let mut loader = Loader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| no_yaml(&error))?;
        loader.take(event, &span).map_err(|fault| {
            let (line, column) = place(&span);
            LoadError { line, column, fault }
        })?;
    }
    Ok(loader.documents)
}

fn no_yaml(error: &ScanError) -> LoadError {
    let marker = error.marker();
    let fault = match error.info() {
        // The scanner looks ahead, with its own bound on nesting.
        "recursion limit exceeded" => YamlFault::TooDeep,
        info => YamlFault::NoYaml(info.to_owned()),
    };
    // The parser counts columns from 0.
    LoadError { line: marker.line(), column: marker.col() + 1, fault }
}

fn place(span: &Span) -> (usize, usize) {
    (span.start.line(), span.start.col() + 1)
}

#[derive(Default)]
struct Loader<'i> {
    documents: Vec<Yaml<'i>>,
    open: Vec<Open<'i>>,
    /// Values with an anchor, and their sizes.
    anchored: HashMap<usize, (Yaml<'i>, usize)>,
    aliased: usize,
}

/// A collection whose end has not come yet.
struct Open<'i> {
    node: Yaml<'i>,
    anchor: usize,
    /// The key of the next value.
    key: Option<Yaml<'i>>,
    names: HashSet<Cow<'i, str>>,
}

impl<'i> Loader<'i> {
    fn take(&mut self, event: Event<'i>, span: &Span) -> Result<(), YamlFault> {
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
                // Without an anchor: the alias repeats a value, and names none.
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

    fn begin(&mut self, node: Yaml<'i>, anchor: usize) -> Result<(), YamlFault> {
        self.note_key(None)?;
        // Checked on the start event: no deeper tree is ever built.
        if self.open.len() >= MOST_LEVELS {
            return Err(YamlFault::TooDeep);
        }
        self.open.push(Open { node, anchor, key: None, names: HashSet::new() });
        Ok(())
    }

    /// Checks the next node if it is a key: it must be a text, and new in its mapping.
    fn note_key(&mut self, text: Option<&Cow<'i, str>>) -> Result<(), YamlFault> {
        let Some(Open { node, key: None, names, .. }) = self.open.last_mut() else { return Ok(()) };
        if !matches!(node.data, Data::Mapping(_)) {
            return Ok(());
        }
        match text {
            None => Err(YamlFault::KeyIsNoText),
            Some(text) if names.insert(text.clone()) => Ok(()),
            Some(text) => Err(YamlFault::DuplicatedKey(text.to_string())),
        }
    }

    fn resolve(&mut self, anchor: usize) -> Result<Yaml<'i>, YamlFault> {
        let Some((node, size)) = self.anchored.get(&anchor) else {
            // An anchor is registered when its value is complete: this alias is inside of it.
            return Err(YamlFault::EndlessAlias);
        };
        // Also for an alias inside of an anchored value: nested aliases multiply.
        self.aliased += size;
        // Before the copy: the bound is for the work, too.
        if self.aliased > MOST_ALIASED {
            return Err(YamlFault::TooManyAliased);
        }
        Ok(node.clone())
    }

    /// Adds a complete value to its collection, or to the documents.
    fn close(&mut self, node: Yaml<'i>, anchor: usize) {
        // The parser counts anchors from 1; 0 is no anchor.
        if anchor > 0 {
            self.anchored.insert(anchor, (node.clone(), node.count()));
        }
        let Some(open) = self.open.last_mut() else { return self.documents.push(node) };
        match &mut open.node.data {
            Data::Sequence(items) => items.push(node),
            // Values come one by one: a mapping gets its keys and values in turn.
            Data::Mapping(entries) => match open.key.take() {
                None => open.key = Some(node),
                Some(key) => entries.push((key, node)),
            },
            Data::Scalar(_) | Data::Bad => {}
        }
    }
}
