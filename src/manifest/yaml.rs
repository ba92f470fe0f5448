//! YAML loader: text in, a tree with the place of each value out.
//!
//! The tree is built from parser events, so bad input is rejected before memory is allocated for
//! it. A few lines with aliases can expand to more nodes than fit in memory, and nesting can exceed
//! any stack; [`Bounds`] has the limits for both. Keys are texts, and unique in their mapping. The
//! tree is not much larger than the text: manifests may be long, and the memory for reading one is
//! not always returned to the system.
//!
//! The parser accepts what libyaml accepts, although YAML 1.2 is stricter in places: Ankaios and
//! most other tools load their files by it.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
};

use granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span, Tag, options,
};
use serde::de::IgnoredAny;

use crate::{
    foreign::{Excerpt, Shortened},
    limits::{MAX_NESTING, too_deep},
};

/// Most characters from the start of a key to its colon, as written: with quotes, escapes and blanks. YAML
/// has 1,024 and JSON no bound. Any value may turn out as a key, so the parser keeps so much of it.
const MOST_IN_KEY: usize = 1 << 16;

/// Most characters of the parser's own words.
const MOST_IN_REASON: usize = 200;

/// Limits on the tree of one text.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most levels of mappings and sequences. No recursion over a document is deeper.
    pub levels: usize,
    /// Most values, those from aliases included.
    pub values: usize,
    /// Most values from the expansion of all aliases together.
    pub aliased_values: usize,
    /// Most bytes of text in these values.
    pub aliased_bytes: usize,
}

/// The limits for a manifest. Its levels are [`MAX_NESTING`] of a value, and around it
/// `desiredState`, `configs` and the names inside. Its values are bounded by the size of its file.
pub(crate) const FOR_MANIFESTS: Bounds = Bounds {
    levels: MAX_NESTING + 4,
    values: usize::MAX,
    aliased_values: 100_000,
    aliased_bytes: 16 << 20,
};

/// A fault that ends loading. The author of the text made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    /// The mistake.
    pub fault: YamlFault,
}

/// A mistake in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum YamlFault {
    /// The parser's own words.
    NoYaml(String),
    /// More than [`Bounds::levels`].
    TooDeep,
    /// More than [`Bounds::values`].
    TooManyValues,
    /// A mapping or sequence as a key.
    KeyIsNoText,
    /// The second key of its name in a mapping.
    DuplicatedKey(String),
    /// An alias inside of the value with its anchor.
    EndlessAlias,
    /// More than this number of values by aliases.
    TooManyAliased(usize),
    /// More than this number of bytes by aliases.
    TooLongAliased(usize),
}

impl YamlFault {
    /// Whether the text exceeds a bound, as opposed to wrong YAML.
    #[must_use]
    pub fn is_over(&self) -> bool {
        use YamlFault::{TooDeep, TooLongAliased, TooManyAliased, TooManyValues};
        matches!(self, TooDeep | TooManyValues | TooManyAliased(_) | TooLongAliased(_))
    }
}

impl fmt::Display for YamlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoYaml(what) => write!(f, "this is no YAML: {what}"),
            Self::TooDeep => f.write_str(&too_deep("this")),
            Self::TooManyValues => f.write_str("too many values"),
            Self::KeyIsNoText => f.write_str("a key has to be a text, not a collection"),
            Self::DuplicatedKey(key) => {
                write!(f, "this is no YAML: duplicated key `{key}` in a mapping")
            }
            Self::EndlessAlias => f.write_str("this alias stands in what it stands for"),
            Self::TooManyAliased(most) => write!(f, "alias expansion to more than {most} values"),
            Self::TooLongAliased(most) => write!(f, "aliases repeat more than {most} bytes"),
        }
    }
}

/// A value and the place of its start, both counted from 1.
#[derive(Clone, Debug)]
pub struct Yaml<'i> {
    line: u32,
    column: u32,
    /// The value itself.
    pub data: Data<'i>,
}

/// Kinds of values.
#[derive(Clone, Debug)]
pub enum Data<'i> {
    /// A single value.
    Scalar(Scalar<'i>),
    /// Values in order.
    Sequence(Vec<Yaml<'i>>),
    /// Keys and values in order.
    Mapping(Vec<(Yaml<'i>, Yaml<'i>)>),
    /// A scalar in conflict with its tag.
    Bad,
}

/// A scalar. Its text is kept as written, so that a hint can quote `3.10` and not the number 3.1.
#[derive(Clone, Debug)]
pub struct Scalar<'i> {
    /// The kind that YAML 1.2 gives to the text.
    pub kind: ScalarKind,
    /// The text without quotes and escapes.
    pub text: Cow<'i, str>,
}

/// Kinds of scalars in the core schema of YAML 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarKind {
    /// In quotes, or nothing else.
    Text,
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// An integer or a float.
    Number,
}

impl<'i> Scalar<'i> {
    /// Returns `None` for a text in conflict with its tag.
    fn new(text: Cow<'i, str>, style: ScalarStyle, tag: Option<&Tag>) -> Option<Self> {
        let kind = if style == ScalarStyle::Plain { kind_of(&text) } else { ScalarKind::Text };
        let kind = match tag {
            // A quoted text is a text, whatever its tag.
            Some(tag) if style == ScalarStyle::Plain => {
                match tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
                    Some("str") => ScalarKind::Text,
                    Some("bool") if kind == ScalarKind::Boolean => kind,
                    Some("int" | "float") if kind == ScalarKind::Number => kind,
                    Some("null") if kind == ScalarKind::Null => kind,
                    Some(_) => return None,
                    // A tag of the author's own says nothing: `!degree 50` is a number.
                    None => kind,
                }
            }
            _ => kind,
        };
        Some(Self { kind, text })
    }
}

fn kind_of(text: &str) -> ScalarKind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => ScalarKind::Boolean,
        ".nan" | ".NaN" | ".NAN" => ScalarKind::Number,
        _ if is_number(text) => ScalarKind::Number,
        _ => ScalarKind::Text,
    }
}

fn is_number(text: &str) -> bool {
    let digits = |digits: &str, radix| {
        !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix))
    };
    if let Some(rest) = text.strip_prefix("0x") {
        return digits(rest, 16);
    }
    if let Some(rest) = text.strip_prefix("0o") {
        return digits(rest, 8);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Rust also reads `inf` and `nan` as floats: these have no digit.
    matches!(unsigned, ".inf" | ".Inf" | ".INF")
        || text.contains(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok()
}

/// Size of the copy made by an alias.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    values: usize,
    bytes: usize,
    /// Levels of mappings and sequences.
    levels: usize,
}

impl Weight {
    /// The weight of two values side by side.
    fn beside(self, other: Self) -> Self {
        Self {
            values: self.values.saturating_add(other.values),
            bytes: self.bytes.saturating_add(other.bytes),
            levels: self.levels.max(other.levels),
        }
    }

    /// The weight of a collection of these values.
    fn around(items: impl Iterator<Item = Self>) -> Self {
        let inside = items.fold(Self::default(), Self::beside);
        Self { values: inside.values.saturating_add(1), levels: inside.levels + 1, ..inside }
    }
}

impl<'i> Yaml<'i> {
    fn new(span: &Span, data: Data<'i>) -> Self {
        let (line, column) = place(span);
        // Two u32 instead of two usize: every value stores its place.
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: narrow(line), column: narrow(column), data }
    }

    /// Counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line as usize
    }

    /// Counted from 1, in characters.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column as usize
    }

    /// The text of a scalar that is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(Scalar { kind: ScalarKind::Text, text }) => Some(text),
            _ => None,
        }
    }

    /// The weight of this value and of all values in it.
    fn weight(&self) -> Weight {
        match &self.data {
            Data::Scalar(scalar) => Weight { values: 1, bytes: scalar.text.len(), levels: 0 },
            Data::Bad => Weight { values: 1, bytes: 0, levels: 0 },
            Data::Sequence(items) => Weight::around(items.iter().map(Self::weight)),
            Data::Mapping(entries) => Weight::around(
                entries.iter().map(|(key, value)| key.weight().beside(value.weight())),
            ),
        }
    }
}

/// Loads all documents of a text.
///
/// # Errors
/// The text is no YAML, or exceeds a bound.
pub fn load<'i>(text: &'i str, bounds: &Bounds) -> Result<Vec<Yaml<'i>>, LoadError> {
    let mut loader = Loader::new(*bounds);
    for event in Parser::new_from_str_with_options(text, parser_options(bounds)) {
        let (event, span) = event.map_err(|error| no_yaml(&error))?;
        loader.take(event, &span).map_err(|fault| {
            let (line, column) = place(&span);
            LoadError { line, column, fault }
        })?;
    }
    Ok(loader.documents)
}

/// The text as [`load`] takes it: without byte-order marks, and JSON with escapes for the characters that
/// YAML has only as escapes. All else of JSON is YAML.
#[must_use]
pub fn readable(text: &str) -> Cow<'_, str> {
    let text = without_marks(text);
    if is_json_beyond_yaml(&text) { Cow::Owned(escaped(&text)) } else { text }
}

fn is_json_beyond_yaml(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[', '"'])
        && text.contains(is_escaped_in_yaml)
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// JSON with these characters as escapes. They occur in its strings only.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_escaped_in_yaml(c) {
            escaped += &format!("\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn is_escaped_in_yaml(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}')
}

/// The text without the byte-order marks that some editors write: at its start, and in front of the
/// first line with content behind `---`.
fn without_marks(text: &str) -> Cow<'_, str> {
    const MARK: char = '\u{feff}';
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(rest) = line.strip_prefix(MARK) {
            let (before, after) = (&text[..start], &text[start + line.len() - rest.len()..]);
            return Cow::Owned([before, after].concat());
        }
        let line_text = line.trim_end();
        if !(line_text.is_empty() || line_text == "---" || line_text.starts_with(['#', '%'])) {
            break;
        }
        start += line.len();
    }
    Cow::Borrowed(text)
}

fn parser_options(bounds: &Bounds) -> Options {
    options! {
        // The scanner looks ahead of the events, in search of the colon of a key.
        flow_nesting_limit: bounds.levels,
        // As libyaml: `x: |` with a last line that has no line feed gets none.
        block_scalar_eof_without_line_feed: true,
        simple_key_max_lookahead: MOST_IN_KEY,
    }
}

fn no_yaml(error: &ScanError) -> LoadError {
    let marker = error.marker();
    let fault = match error.kind() {
        ErrorKind::RecursionLimitExceeded => YamlFault::TooDeep,
        // It may quote the text.
        _ => YamlFault::NoYaml(Shortened(&error.info(), MOST_IN_REASON).to_string()),
    };
    // The parser counts columns from 0.
    LoadError { line: marker.line(), column: marker.col() + 1, fault }
}

fn place(span: &Span) -> (usize, usize) {
    (span.start.line(), span.start.col() + 1)
}

struct Loader<'i> {
    bounds: Bounds,
    documents: Vec<Yaml<'i>>,
    open: Vec<Open<'i>>,
    /// Values with an anchor, and their weights.
    anchored: HashMap<usize, (Yaml<'i>, Weight)>,
    values: usize,
    aliased: Weight,
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
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            documents: Vec::new(),
            open: Vec::new(),
            anchored: HashMap::new(),
            values: 0,
            aliased: Weight::default(),
        }
    }

    fn take(&mut self, event: Event<'i>, span: &Span) -> Result<(), YamlFault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = Scalar::new(text, style, tag.as_deref());
                let node = Yaml::new(span, scalar.map_or(Data::Bad, Data::Scalar));
                self.begin_value(&node, 1)?;
                self.close(node, anchor);
            }
            Event::Alias(anchor) => {
                let (node, values) = self.resolve(anchor)?;
                self.begin_value(&node, values)?;
                // Without an anchor: the alias repeats a value, and names none.
                self.close(node, 0);
            }
            Event::SequenceStart(_, anchor, _) => {
                self.begin(Yaml::new(span, Data::Sequence(Vec::new())), anchor)?;
            }
            Event::MappingStart(_, anchor, _) => {
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
        self.begin_value(&node, 1)?;
        // Checked on the start event: no deeper tree is ever built.
        if self.open.len() >= self.bounds.levels {
            return Err(YamlFault::TooDeep);
        }
        self.open.push(Open { node, anchor, key: None, names: HashSet::new() });
        Ok(())
    }

    /// Counts the next value. A key must be a scalar, and new in its mapping.
    fn begin_value(&mut self, next: &Yaml<'i>, values: usize) -> Result<(), YamlFault> {
        self.values = self.values.saturating_add(values);
        if self.values > self.bounds.values {
            return Err(YamlFault::TooManyValues);
        }
        let Some(Open { node, key: None, names, .. }) = self.open.last_mut() else { return Ok(()) };
        if !matches!(node.data, Data::Mapping(_)) {
            return Ok(());
        }
        match &next.data {
            Data::Scalar(Scalar { text, .. }) if names.insert(text.clone()) => Ok(()),
            Data::Scalar(Scalar { text, .. }) => {
                Err(YamlFault::DuplicatedKey(Excerpt(text).to_string()))
            }
            Data::Bad => Ok(()),
            Data::Sequence(_) | Data::Mapping(_) => Err(YamlFault::KeyIsNoText),
        }
    }

    /// A copy of the value with this anchor, and its number of values.
    fn resolve(&mut self, anchor: usize) -> Result<(Yaml<'i>, usize), YamlFault> {
        let Some((node, weight)) = self.anchored.get(&anchor) else {
            // An anchor is registered when its value is complete: this alias is inside of it.
            return Err(YamlFault::EndlessAlias);
        };
        // Also for an alias inside of an anchored value: nested aliases multiply.
        self.aliased = self.aliased.beside(*weight);
        // Before the copy: the bounds are for the work, too.
        let Bounds { levels, aliased_values, aliased_bytes, .. } = self.bounds;
        if self.open.len() + weight.levels > levels {
            return Err(YamlFault::TooDeep);
        }
        if self.aliased.values > aliased_values {
            return Err(YamlFault::TooManyAliased(aliased_values));
        }
        if self.aliased.bytes > aliased_bytes {
            return Err(YamlFault::TooLongAliased(aliased_bytes));
        }
        Ok((node.clone(), weight.values))
    }

    /// Adds a complete value to its collection, or to the documents.
    fn close(&mut self, node: Yaml<'i>, anchor: usize) {
        // The parser counts anchors from 1; 0 is no anchor.
        if anchor > 0 {
            self.anchored.insert(anchor, (node.clone(), node.weight()));
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

#[cfg(test)]
mod tests;
