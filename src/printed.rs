//! States and events as text: a tree in, YAML or one line of JSON out.
//!
//! The output is the tree of docs/protocol.md#state-tree, without the wrapper messages of the
//! schema. So every usable mask can be read off the output.

use saphyr::{Mapping, ScalarStyle, Yaml, YamlEmitter};
use serde_json::{Value, json};

use crate::{
    pb::ank_base as pb,
    state::{
        Node,
        convert::{self, ConvertError},
    },
};

/// The tree of a state; a missing state is an empty tree.
///
/// # Errors
/// The message has an unknown number of an enum.
pub fn state(state: Option<&pb::CompleteState>) -> Result<Value, ConvertError> {
    let Some(state) = state else { return Ok(json!({})) };
    let tree = convert::from_pb(state)?;
    let parts = tree.root().iter().map(|(name, part)| (name.to_string(), value(part)));
    Ok(Value::Object(parts.collect()))
}

/// The document of a subscription's first answer, or of one of its events.
///
/// # Errors
/// As [`state`].
pub fn change(response: &pb::CompleteStateResponse) -> Result<Value, ConvertError> {
    let complete_state = state(response.complete_state.as_ref())?;
    Ok(match &response.altered_fields {
        None => json!({ "completeState": complete_state }),
        // All three lists are always present, so a script needs no check for them.
        Some(altered) => json!({
            "alteredFields": {
                "addedFields": altered.added_fields,
                "updatedFields": altered.updated_fields,
                "removedFields": altered.removed_fields,
            },
            "completeState": complete_state,
        }),
    })
}

fn value(node: &Node) -> Value {
    match node {
        Node::Map(map) => {
            Value::Object(map.iter().map(|(name, node)| (name.to_string(), value(node))).collect())
        }
        Node::Seq(nodes) => nodes.iter().map(value).collect(),
        Node::Str(text) => Value::from(&**text),
        Node::Uint(number) => Value::from(*number),
        Node::Unset => Value::Null,
    }
}

/// JSON that is read as YAML, too, such as by `check`: characters that YAML does not take stand in texts
/// alone, and are escaped there.
#[must_use]
pub fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        if is_odd(c) { line += &escape(c) } else { line.push(c) }
    }
    line.push('\n');
    line
}

/// Whether a character is escaped in every text: YAML does not take it, or not as it is.
fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// YAML that every parser reads as this value.
///
/// # Errors
/// The emitter fails.
pub fn yaml(value: &Value) -> Result<String, saphyr::EmitError> {
    let mut text = String::new();
    let mut emitter = YamlEmitter::new(&mut text);
    // A text of several lines stays readable, as a block.
    emitter.multiline(true);
    emitter.dump(&yaml_node(value))?;
    // The emitter starts every document with a separator; ours stand between documents.
    let mut text = text.strip_prefix("---\n").unwrap_or(&text).to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn yaml_node(value: &Value) -> Yaml<'static> {
    match value {
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| (yaml_text(key), yaml_node(value)));
            Yaml::Mapping(entries.collect::<Mapping<'_>>())
        }
        Value::Array(values) => Yaml::Sequence(values.iter().map(yaml_node).collect()),
        Value::String(text) => yaml_text(text),
        // Written as a plain scalar: our numbers may exceed the range of the YAML crate.
        other => Yaml::Representation(other.to_string().into(), ScalarStyle::Plain, None),
    }
}

/// A scalar read as this text by every YAML parser.
fn yaml_text(text: &str) -> Yaml<'static> {
    if reads_as_text(text) {
        return Yaml::Value(saphyr::Scalar::String(text.to_owned().into()));
    }
    // Escaped here: a given representation is written by the emitter as it is.
    let escaped = text.chars().map(escape).collect::<String>();
    Yaml::Representation(escaped.into(), ScalarStyle::DoubleQuoted, None)
}

/// Whether the emitter may choose the style of `text`. It quotes by the rules of YAML 1.2. Many
/// older parsers read more texts as numbers, dates or line ends; for these the answer is false.
fn reads_as_text(text: &str) -> bool {
    let in_numbers = |c: char| c.is_ascii_digit() || "+-._:eE tTzZ".contains(c);
    let is_odd_here = |c: char| !matches!(c, '\n' | '\t') && is_odd(c);
    // Older parsers read dates, sexagesimal and binary numbers, such as 2001-01-01, 1:30 and 0b1.
    let like_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && (text.chars().all(in_numbers) || text.starts_with("0b"));
    !like_number && !text.contains(is_odd_here)
}

fn escape(c: char) -> String {
    match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{fefe}' | '\u{10000}'.. => {
            c.to_string()
        }
        other => format!("\\u{:04x}", u32::from(other)),
    }
}
