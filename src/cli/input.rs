//! Parser of a new state for `set`: YAML, JSON or plain values in, a protobuf state out.
//!
//! Every value is checked against the table of [`super::schema`]. A [`Fault`] has the line, the
//! mistake and the expected form.

use super::schema::{Misfit, STATE, Shape};
use crate::{
    foreign::{Excerpt, Shortened},
    limits::{MAX_NESTING, MAX_VALUE_BYTES, too_deep},
    manifest::yaml::{self, Data, Scalar, ScalarKind, Yaml},
    pb::ank_base as pb,
    state::{DESIRED_STATE, Map, Node, Tree, convert},
};

/// Most characters of a path in a message: names in it may be as long as the text.
const MOST_OF_PATH: usize = 200;

/// A fault in a YAML text, with its line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) what: String,
}

/// The value of a plain text at a place of this shape.
pub(super) fn plain(text: &str, shape: &Shape) -> Result<Node, Misfit> {
    match shape {
        Shape::Text | Shape::Config => Ok(Node::text(text)),
        Shape::OneOf(texts) if texts.contains(&text) => Ok(Node::text(text)),
        Shape::OneOf(_) => Err(Misfit::NoChoice(text.to_owned(), shape.describe())),
        other => Err(Misfit::NeedsYaml(other.describe())),
    }
}

/// The value of a YAML document at a place of this shape; `at` is the path of the place.
pub(super) fn yaml(text: &str, shape: &Shape, at: &str) -> Result<Node, Fault> {
    document(text, |document| read(document, shape, at, levels_above(at)))
}

/// The value that `read` makes of the only document in the text.
fn document<T>(text: &str, read: impl FnOnce(&Yaml<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
    let text = yaml::readable(text);
    let documents = yaml::load(&text, &yaml::FOR_MANIFESTS)
        .map_err(|error| Fault { line: error.line, what: error.fault.to_string() })?;
    match &documents[..] {
        [document] => read(document),
        [] => Err(Fault { line: 1, what: "there is nothing in it".to_owned() }),
        [_, second, ..] => Err(fault(second, "a second document begins here; one is enough")),
    }
}

/// Number of config levels above the place of this path.
pub(super) fn levels_above(path: &str) -> usize {
    let below = path.strip_prefix("desiredState.configs.");
    below.map_or(0, |names| names.matches('.').count())
}

/// A state under construction; it may hold parts only.
#[derive(Default)]
pub(super) struct NewState(Map<Node>);

impl NewState {
    /// The state in a YAML document: a whole one, or a manifest, which is its part `desiredState`.
    pub(super) fn from_yaml(text: &str) -> Result<Self, Fault> {
        let mut new = Self::default();
        document(text, |document| {
            match STATE.field(DESIRED_STATE).filter(|shape| is_manifest(document, shape)) {
                Some(shape) => {
                    new.put(&[DESIRED_STATE], read(document, shape, DESIRED_STATE, 0)?);
                }
                None => {
                    let state = read(document, &STATE, "", 0)?;
                    new.0 = state.as_map().cloned().unwrap_or_default();
                }
            }
            Ok(())
        })?;
        Ok(new)
    }

    /// Puts `value` at `path`. A scalar or sequence on the way is replaced by a mapping.
    pub(super) fn put(&mut self, path: &[&str], value: Node) {
        put(&mut self.0, path, value);
    }

    /// The value at `path`.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Node> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(first)?, |node, name| node.get(name))
    }

    /// The path and the bytes of a config or a workload over the bound of its size, as far as it is here.
    pub(super) fn oversized(&self) -> Option<(String, usize)> {
        let parts = ["workloads", "configs"].into_iter();
        let mut values = parts.flat_map(|part| {
            let all = self.get(&[DESIRED_STATE, part]).map(Node::entries).into_iter().flatten();
            all.map(move |(name, value)| (part, name, convert::encoded_len(value)))
        });
        let (part, name, bytes) = values.find(|(.., bytes)| *bytes > MAX_VALUE_BYTES)?;
        let name = Shortened(name.as_str(), MOST_OF_PATH);
        Some((format!("{DESIRED_STATE}.{part}.{name}"), bytes))
    }

    pub(super) fn to_pb(&self) -> pb::CompleteState {
        convert::to_pb(&Tree::from_root(self.0.clone()), convert::Fill::Sparse)
    }
}

fn put(map: &mut Map<Node>, path: &[&str], value: Node) {
    match path {
        [] => {}
        [name] => map.insert(*name, value),
        [name, rest @ ..] => {
            let mut below = map.get(name).and_then(Node::as_map).cloned().unwrap_or_default();
            put(&mut below, rest, value);
            map.insert(*name, Node::Map(below));
        }
    }
}

/// Whether the document has fields of the desired state at its top, and none of a state.
fn is_manifest(document: &Yaml<'_>, desired: &Shape) -> bool {
    let Data::Mapping(entries) = &document.data else { return false };
    let has = |shape: &Shape| {
        entries.iter().any(|(key, _)| key.as_str().is_some_and(|name| shape.field(name).is_some()))
    };
    has(desired) && !has(&STATE)
}

fn fault(node: &Yaml<'_>, what: impl Into<String>) -> Fault {
    Fault { line: node.line(), what: what.into() }
}

/// The value of `node` at a place of this shape; `above` counts the config levels around it.
fn read(node: &Yaml<'_>, shape: &Shape, at: &str, above: usize) -> Result<Node, Fault> {
    let wrong = |what: &str| {
        let place = Shortened(if at.is_empty() { "this" } else { at }, MOST_OF_PATH);
        Err(fault(node, format!("{place} {what}; {} belongs here", shape.describe())))
    };
    match (shape, &node.data) {
        (Shape::Unsettable, _) => wrong("cannot be set by an update"),
        // Before the recursion: this check bounds its depth.
        (Shape::Config, Data::Mapping(_) | Data::Sequence(_)) if above >= MAX_NESTING => {
            Err(fault(node, too_deep(&Shortened(at, MOST_OF_PATH).to_string())))
        }
        (Shape::Either(shapes), _) => match shapes.iter().find(|shape| fits(node, shape)) {
            Some(shape) => read(node, shape, at, above),
            None => wrong("is something else"),
        },
        // Only configs count levels: all other shapes have a fixed depth.
        (Shape::Fields { .. }, Data::Mapping(_)) => fields(node, shape, at),
        (Shape::MapOf(below), Data::Mapping(_)) => mapping(node, |_| below, at, 0),
        (Shape::Config, Data::Mapping(_)) => mapping(node, |_| shape, at, above + 1),
        (Shape::ListOf(below), Data::Sequence(items)) => sequence(items, below, at, 0),
        (Shape::Config, Data::Sequence(items)) => sequence(items, shape, at, above + 1),
        (_, Data::Scalar(scalar)) => self::scalar(scalar, shape).or_else(|what| wrong(&what)),
        (_, Data::Sequence(_)) => wrong("is a sequence"),
        (_, Data::Mapping(_)) => wrong("is a mapping"),
        (_, Data::Bad) => wrong("is of an unknown kind"),
    }
}

/// The value of a scalar at a place of this shape, or what the scalar is instead.
fn scalar(scalar: &Scalar<'_>, shape: &Shape) -> Result<Node, String> {
    let takes_texts = matches!(shape, Shape::Text | Shape::Config);
    match (scalar.kind, shape) {
        (ScalarKind::Text, Shape::Text | Shape::Config) => Ok(Node::text(&scalar.text)),
        (ScalarKind::Text, Shape::OneOf(texts)) if texts.contains(&&*scalar.text) => {
            Ok(Node::text(&scalar.text))
        }
        (ScalarKind::Text, Shape::OneOf(_)) => Err(format!("is `{}`", Excerpt(&scalar.text))),
        (ScalarKind::Text, _) => Err("is a text".to_owned()),
        (ScalarKind::Null, _) => Err("is empty".to_owned()),
        (ScalarKind::Boolean, _) if takes_texts => {
            Err("is true or false, which is a text in quotes only".to_owned())
        }
        (ScalarKind::Number, _) if takes_texts => {
            Err("is a number, which is a text in quotes only".to_owned())
        }
        _ => Err("is a number, or true or false".to_owned()),
    }
}

/// Whether the node has all needed fields of the shape, and the fixed texts among them.
fn fits(node: &Yaml<'_>, shape: &Shape) -> bool {
    let (Shape::Fields { needed, .. }, Data::Mapping(entries)) = (shape, &node.data) else {
        return false;
    };
    needed.iter().all(|(name, shape)| {
        let mut found = entries.iter().filter(|(key, _)| key.as_str() == Some(name));
        found.any(|(_, value)| match shape {
            Shape::OneOf(texts) if texts.len() == 1 => value.as_str() == Some(texts[0]),
            _ => true,
        })
    })
}

fn fields(node: &Yaml<'_>, shape: &Shape, at: &str) -> Result<Node, Fault> {
    let Data::Mapping(entries) = &node.data else { return Ok(Node::map::<&str>([])) };
    for (key, _) in entries {
        let name = key.as_str().unwrap_or("?");
        if shape.field(name).is_none() {
            let place = Shortened(if at.is_empty() { "a state" } else { at }, MOST_OF_PATH);
            let names = shape.field_names();
            let name = Excerpt(name);
            return Err(fault(key, format!("{place} has no field `{name}`, only {names}")));
        }
    }
    mapping(node, |name| shape.field(name).unwrap_or(shape), at, 0)
}

/// The mapping of `node`; `below` gives the shape of each value. Unsettable entries are left out,
/// so the printed state can be given back.
fn mapping<'a>(
    node: &Yaml<'_>,
    below: impl Fn(&str) -> &'a Shape,
    at: &str,
    above: usize,
) -> Result<Node, Fault> {
    let Data::Mapping(entries) = &node.data else { return Ok(Node::map::<&str>([])) };
    let mut map = Map::new();
    for (key, value) in entries {
        let Some(name) = key.as_str() else {
            let at = Shortened(at, MOST_OF_PATH);
            return Err(fault(key, format!("a name below {at} is no text; put it in quotes")));
        };
        let shape = below(name);
        if *shape == Shape::Unsettable {
            continue;
        }
        let at = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        map.insert(name, read(value, shape, &at, above)?);
    }
    Ok(Node::Map(map))
}

fn sequence(items: &[Yaml<'_>], shape: &Shape, at: &str, above: usize) -> Result<Node, Fault> {
    let read = |(index, item)| read(item, shape, &format!("{at}.{index}"), above);
    Ok(Node::seq(items.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?))
}

#[cfg(test)]
mod tests;
