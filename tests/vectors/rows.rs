//! Reading rows and fanout how many passed.

use std::{env, fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use fifogate::{pb::ank_base as pb, state::Node};
use prost::Message;
use serde_json::Value;

/// The rows of `NAME.jsonl`.
pub(crate) fn rows(name: &str) -> Vec<Value> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/vectors");
    let dir = env::var_os("VECTORS").map_or(own, PathBuf::from);
    let file = dir.join(name).with_extension("jsonl");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The message that a row holds as base64; none where the row says so.
pub(crate) fn message(value: &Value) -> Option<pb::CompleteState> {
    let bytes = STANDARD.decode(value.as_str()?).unwrap();
    Some(pb::CompleteState::decode(&*bytes).unwrap())
}

/// The access rules of a row, as the state holds them.
pub(crate) fn access(row: &Value) -> Node {
    fn node(value: &Value) -> Node {
        match value {
            Value::Array(values) => Node::seq(values.iter().map(node)),
            Value::Object(entries) => {
                Node::map(entries.iter().map(|(key, value)| (key.as_str(), node(value))))
            }
            other => Node::text(other.as_str().unwrap()),
        }
    }
    Node::map([("allowRules", node(&row["allow"])), ("denyRules", node(&row["deny"]))])
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    let values = value.as_array().into_iter().flatten();
    values.map(|value| value.as_str().unwrap().to_owned()).collect()
}

pub(crate) fn name(row: &Value) -> &str {
    row["name"].as_str().unwrap()
}

pub(crate) fn has_quirk(row: &Value, quirk: &str) -> bool {
    strings(&row["quirk"]).iter().any(|own| own == quirk)
}

/// Which rows did what, told at the end.
#[derive(Default)]
pub(crate) struct Count {
    passed: usize,
    decided_otherwise: Vec<String>,
    failed: Vec<String>,
}

impl Count {
    pub(crate) fn row(&mut self, row: &Value, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(why) => self.failed.push(format!("{}: {why}", name(row))),
        }
    }

    /// A row that this project answers otherwise; `result` is whether it does so rightly.
    pub(crate) fn otherwise(&mut self, row: &Value, decision: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.decided_otherwise.push(format!("{} ({decision})", name(row))),
            Err(why) => self.failed.push(format!("{} ({decision}): {why}", name(row))),
        }
    }

    #[allow(clippy::print_stdout)] // the counts are part of what the test is for
    pub(crate) fn finish(self, file: &str) {
        let (passed, other) = (self.passed, self.decided_otherwise.len());
        println!(
            "{file}: {passed} as recorded, {other} decided otherwise, {} failed",
            self.failed.len()
        );
        for row in &self.decided_otherwise {
            println!("  otherwise: {row}");
        }
        assert!(self.failed.is_empty(), "{file}:\n{}", self.failed.join("\n"));
        assert!(passed + other > 0, "{file} holds no row");
    }
}

pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    ours: &T,
    theirs: &T,
) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    Err(format!("{what}:\n  ours   {ours:?}\n  theirs {theirs:?}"))
}
