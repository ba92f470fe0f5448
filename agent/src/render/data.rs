//! Template data: the configs of a workload as JSON for the engine.
//!
//! Aliases and configs go in; a [`Context`] and the cost of a lookup in it come out. The steps for
//! copying are charged before the copy.

use fifogate::state::{Map, Node};
use handlebars::Context;
use serde_json::Value;

use super::steps::{Budget, OutOfSteps};

/// Bytes of text copied or compared in one step.
// `render::search` measures these numbers together with those of `tame`.
const BYTES_A_STEP: usize = 64;
/// Steps for creating one value.
const A_VALUE: u64 = 2;

/// The template data of a workload.
pub(super) struct Data {
    pub(super) context: Context,
    /// Most steps of a lookup, without those for the text of the path.
    pub(super) way: u64,
}

impl Data {
    /// # Errors
    /// The configs are larger than there are steps left.
    pub(super) fn new(
        aliases: &Map<Node>,
        configs: &Map<Node>,
        budget: &mut Budget,
    ) -> Result<Self, OutOfSteps> {
        let mut data = serde_json::Map::new();
        for (alias, key) in aliases {
            let config = configs.get(key.as_str().unwrap_or_default());
            // Charged before the copy: many aliases may refer to one large config.
            let steps = config.map_or(1, |node| size(node, u64::MAX));
            budget.charge(steps.saturating_mul(A_VALUE))?;
            data.insert(alias.to_string(), config.map_or(Value::Null, json));
        }
        let value = Value::Object(data);
        let way = 1 + way(&value);
        Ok(Self { context: Context::from(value), way })
    }
}

fn steps(length: usize) -> u64 {
    u64::try_from(length / BYTES_A_STEP).unwrap_or(u64::MAX)
}

/// Steps for visiting a value; stops counting at `most`.
fn size(node: &Node, most: u64) -> u64 {
    let mut sum = 1_u64;
    match node {
        Node::Map(map) => {
            for (key, value) in map {
                // Beyond this the exact size does not matter, and counting it would be work
                // without a charge.
                if sum >= most {
                    return sum;
                }
                sum += steps(key.as_str().len()) + 1 + size(value, most - sum);
            }
        }
        Node::Seq(values) => {
            for value in values.iter() {
                if sum >= most {
                    return sum;
                }
                sum += size(value, most - sum);
            }
        }
        Node::Str(text) => sum += steps(text.len()),
        Node::Uint(_) | Node::Unset => {}
    }
    sum
}

/// Like [`size`], for a value of the engine.
pub(super) fn size_of(value: &Value, most: u64) -> u64 {
    let mut sum = 1_u64;
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if sum >= most {
                    return sum;
                }
                sum += steps(key.len()) + 1 + size_of(value, most - sum);
            }
        }
        Value::Array(values) => {
            for value in values {
                if sum >= most {
                    return sum;
                }
                sum += size_of(value, most - sum);
            }
        }
        Value::String(text) => sum += steps(text.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    sum
}

/// Most steps from the top of a value to any part: each name on the path is looked up and copied.
fn way(value: &Value) -> u64 {
    match value {
        Value::Object(map) => {
            let ways = map.iter().map(|(key, value)| 1 + steps(key.len()) + way(value));
            ways.max().unwrap_or(0)
        }
        Value::Array(values) => 1 + values.iter().map(way).max().unwrap_or(0),
        _ => 0,
    }
}

fn json(node: &Node) -> Value {
    match node {
        Node::Map(map) => {
            Value::Object(map.iter().map(|(k, v)| (k.to_string(), json(v))).collect())
        }
        Node::Seq(values) => Value::Array(values.iter().map(json).collect()),
        Node::Str(text) => Value::String(text.as_ref().to_owned()),
        Node::Uint(number) => (*number).into(),
        Node::Unset => Value::Null,
    }
}
