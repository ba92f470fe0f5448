//! `state.jsonl`: what a list of masks reads.

use fifogate::{
    internal::state::{MaskSet, Selection},
    state::{Tree, convert},
};
use serde_json::Value;

use super::rows::{Count, has_quirk, message, rows, same, strings};

fn read(tree: &Tree, masks: &[String]) -> fifogate::pb::ank_base::CompleteState {
    let masks = MaskSet::parse(masks);
    if masks.is_everything() {
        return convert::to_pb(tree, convert::Fill::Full);
    }
    let read = tree.select(&Selection::of_masks(masks.masks()));
    convert::to_pb(&read, convert::Fill::Sparse)
}

/// Where the reference loses what a leading wildcard finds, or half an execution state, or takes an
/// empty mask for an error, we answer what was asked (docs/differences.md#8-no-mask-means-everything): as a
/// reader finds by looking the
/// masks up in the row's tree.
fn asked(row: &Value, masks: &[String]) -> Value {
    let whole = &row["state"];
    if masks.iter().any(String::is_empty) {
        return whole.clone();
    }
    let mut found = Value::Object(Default::default());
    for mask in masks {
        let segments: Vec<_> = mask.split('.').collect();
        copy(whole, &segments, &mut Vec::new(), whole, &mut found);
        for part in ["desiredState", "effectiveState"] {
            if mask.starts_with(part) {
                copy(whole, &[part, "apiVersion"], &mut Vec::new(), whole, &mut found);
            }
        }
    }
    for part in ["desiredState", "effectiveState"] {
        if found.get(part).is_some() {
            found[part]["apiVersion"] = whole[part]["apiVersion"].clone();
        }
    }
    found
}

fn copy(node: &Value, mask: &[&str], path: &mut Vec<String>, whole: &Value, found: &mut Value) {
    let Some((first, rest)) = mask.split_first() else {
        put(found, path, node.clone());
        // The halves of an execution state come together.
        let half = path.last().map(String::as_str);
        if path.len() == 5
            && path[0] == "workloadStates"
            && matches!(half, Some("state" | "subState"))
        {
            for half in ["state", "subState"] {
                let id = path[..4].iter().fold(whole, |node, key| &node[key.as_str()]);
                path[4] = half.to_owned();
                put(found, path, id[half].clone());
            }
        }
        return;
    };
    for (key, below) in node.as_object().into_iter().flatten() {
        if *first == "*" || first == key {
            path.push(key.clone());
            copy(below, rest, path, whole, found);
            path.pop();
        }
    }
}

fn put(found: &mut Value, path: &[String], value: Value) {
    let (last, parents) = path.split_last().unwrap();
    let at = parents.iter().fold(found, |node, key| {
        node.as_object_mut().unwrap().entry(key).or_insert(Value::Object(Default::default()))
    });
    at[last] = value;
}

/// The tree as the rows write it.
pub(crate) fn json(tree: &Tree) -> Value {
    use fifogate::state::{Map, Node};
    fn node_json(node: &Node) -> Value {
        match node {
            Node::Map(map) => map_json(map),
            Node::Seq(values) => values.iter().map(node_json).collect(),
            Node::Str(text) => text.as_ref().into(),
            Node::Uint(number) => (*number).into(),
            Node::Unset => Value::Null,
        }
    }
    fn map_json(map: &Map<Node>) -> Value {
        let entries = map.iter().map(|(key, node)| (key.as_str().to_owned(), node_json(node)));
        Value::Object(entries.collect())
    }
    map_json(tree.root())
}

#[test]
fn masked_reads_are_as_recorded() {
    let mut count = Count::default();
    for row in rows("state") {
        let masks = strings(&row["masks"]);
        let tree = convert::from_pb(&message(&row["state_pb"]).unwrap()).unwrap();
        let ours = read(&tree, &masks);
        let quirks = ["first-segment-wildcard", "empty-string-mask", "state-not-paired"];
        if quirks.iter().any(|quirk| has_quirk(&row, quirk)) {
            let ours = json(&convert::from_pb(&ours).unwrap());
            count.otherwise(&row, "8", same("read", &ours, &asked(&row, &masks)));
        } else {
            let theirs = message(&row["result_pb"]).unwrap();
            count.row(&row, same("read", &ours, &theirs));
        }
    }
    count.finish("state.jsonl");
}
