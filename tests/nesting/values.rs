//! Nested values, and each spelling of them that a door takes.

use std::ops::RangeInclusive;

use fifogate::{
    internal::parts,
    limits::MAX_NESTING,
    pb::ank_base::{self as pb, request::RequestContent},
    state::Node,
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

/// Part of each refusal.
pub(crate) const LIMIT: &str = "at most 20 levels";

pub(crate) const MASK: &str = "desiredState.configs.k";

/// Levels that a door accepts, and some above that it does not.
pub(crate) const WITHIN: RangeInclusive<usize> = 0..=MAX_NESTING;
pub(crate) const ABOVE: RangeInclusive<usize> = MAX_NESTING + 1..=MAX_NESTING + 30;

/// One level around a value: a mapping or a sequence, alone in it or beside others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    pub(crate) is_mapping: bool,
    pub(crate) has_others: bool,
}

/// Values of this many levels, of mappings alone, of sequences alone, and of any mix.
pub(crate) fn nested(levels: RangeInclusive<usize>) -> impl Strategy<Value = Node> {
    let kind = prop_oneof![Just(Some(true)), Just(Some(false)), Just(None), Just(None)];
    let level = (any::<bool>(), any::<bool>());
    (kind, vec(level, levels), "[ -~]{0,8}").prop_map(|(kind, levels, text)| {
        let level = |(is_mapping, has_others)| {
            let is_mapping = kind.unwrap_or(is_mapping);
            Level { is_mapping, has_others }
        };
        let levels: Vec<_> = levels.into_iter().map(level).collect();
        wrapped(Node::text(&text), &levels)
    })
}

/// Values within the bound, half of them at it.
pub(crate) fn within() -> impl Strategy<Value = Node> {
    prop_oneof![nested(WITHIN), nested(MAX_NESTING..=MAX_NESTING)]
}

/// Values above the bound, half of them by one level.
pub(crate) fn above() -> impl Strategy<Value = Node> {
    prop_oneof![nested(ABOVE), nested(MAX_NESTING + 1..=MAX_NESTING + 1)]
}

pub(crate) fn wrapped(value: Node, levels: &[Level]) -> Node {
    levels.iter().fold(value, |value, level| {
        let other = level.has_others.then(|| Node::text("other"));
        if level.is_mapping {
            Node::map([("k", value)].into_iter().chain(other.map(|own| ("a", own))))
        } else {
            Node::seq(other.into_iter().chain([value]))
        }
    })
}

/// `mappings` around `sequences`, the innermost of which is empty where there is one.
pub(crate) fn tower(mappings: usize, sequences: usize) -> Node {
    let level = |is_mapping| Level { is_mapping, has_others: false };
    let innermost = if sequences > 0 { Node::seq([]) } else { Node::text("") };
    let mut levels = vec![level(false); sequences.saturating_sub(1)];
    levels.extend(vec![level(true); mappings]);
    wrapped(innermost, &levels)
}

/// Plays `cases` values, or as many as the environment asks for.
pub(crate) fn for_each(
    cases: u32,
    values: impl Strategy<Value = Node>,
    mut check: impl FnMut(&Node),
) {
    let cases = std::env::var("NESTING_CASES").map_or(cases, |text| text.parse().unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let check = std::cell::RefCell::new(&mut check);
    let mut runner = TestRunner::new(config);
    let played = runner.run(&values, |value| {
        check.borrow_mut()(&value);
        Ok(())
    });
    played.unwrap();
}

/// A state with the value as the config `k`.
pub(crate) fn state(value: &Node) -> pb::CompleteState {
    let configs = [("k".to_owned(), parts::config_to_pb(value))].into();
    let desired = pb::State {
        api_version: "v1".to_owned(),
        workloads: Some(pb::WorkloadMap::default()),
        configs: Some(pb::ConfigMap { configs }),
    };
    pb::CompleteState { desired_state: Some(desired), ..Default::default() }
}

/// The config `k` of a state.
pub(crate) fn config_of(state: &pb::CompleteState) -> Option<&pb::ConfigItem> {
    state.desired_state.as_ref()?.configs.as_ref()?.configs.get("k")
}

pub(crate) fn update(value: &Node) -> RequestContent {
    RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
        new_state: Some(state(value)),
        update_mask: vec![MASK.to_owned()],
    })
}

/// The value in JSON, which is YAML of the flow style, too.
pub(crate) fn json_of(value: &Node) -> Value {
    match value {
        Node::Map(map) => {
            map.iter().map(|(key, value)| (key.to_string(), json_of(value))).collect()
        }
        Node::Seq(values) => values.iter().map(json_of).collect(),
        other => other.as_str().unwrap().into(),
    }
}

/// The value in YAML of the block style, to stand behind a `:` or a `-`.
pub(crate) fn block_of(value: &Node, indent: usize) -> String {
    let spaces = " ".repeat(indent);
    match value {
        Node::Map(map) if !map.is_empty() => {
            let line =
                |(key, value): (_, &Node)| format!("{spaces}{key}:{}", block_of(value, indent + 1));
            format!("\n{}", map.iter().map(line).collect::<String>())
        }
        Node::Seq(values) if !values.is_empty() => {
            let line = |value| format!("{spaces}-{}", block_of(value, indent + 1));
            format!("\n{}", values.iter().map(line).collect::<String>())
        }
        other => format!(" {}\n", json_of(other)),
    }
}

/// The value in the JSON of protobuf.
pub(crate) fn protobuf_json_of(value: &Node) -> Value {
    match value {
        Node::Map(map) => {
            let fields = map.iter().map(|(key, own)| (key.to_string(), protobuf_json_of(own)));
            json!({ "object": { "fields": fields.collect::<serde_json::Map<_, _>>() } })
        }
        Node::Seq(values) => {
            let values: Vec<_> = values.iter().map(protobuf_json_of).collect();
            json!({ "array": { "values": values } })
        }
        other => json!({ "String": other.as_str().unwrap() }),
    }
}
