//! Reader of access rules in a manifest (`controlInterfaceAccess` of a workload).

use super::{reader::Reader, yaml::Yaml};
use crate::state::{Map, Node, validate};

const OPERATIONS: &[&str] = &["Nothing", "Read", "Write", "ReadWrite"];

/// Reads the allow and deny rules.
pub(super) fn access(reader: &mut Reader, node: &Yaml<'_>) -> Option<Node> {
    let known = ["allowRules", "denyRules"];
    let mut lists = Map::new();
    for (name, key, value) in reader.entries(node, "controlInterfaceAccess")? {
        if !known.contains(&name) {
            reader.unknown_key::<()>(key, name, "controlInterfaceAccess", &known);
            continue;
        }
        let items = reader.items(value, name)?;
        let rules: Vec<_> = items.iter().filter_map(|item| rule(reader, item)).collect();
        lists.insert(reader.key(name), Node::seq(rules));
    }
    Some(Node::Map(lists))
}

fn rule(reader: &mut Reader, node: &Yaml<'_>) -> Option<Node> {
    let entries = reader.entries(node, "a rule")?;
    let types = ["StateRule", "LogRule"];
    let Some((_, _, kind)) = entries.iter().find(|(name, ..)| *name == "type") else {
        return reader.fault(node, "a rule has no `type`; it is StateRule or LogRule");
    };
    let kind = reader.one_of(kind, "type", &types)?;
    let is_state = kind.as_str() == Some("StateRule");
    let known: &[&str] =
        if is_state { &["type", "operation", "filterMasks"] } else { &["type", "workloadNames"] };
    let mut fields = Map::new();
    for (name, key, value) in entries {
        let (field, read) = match name {
            "type" => (name, Some(kind.clone())),
            "operation" if is_state => (name, reader.one_of(value, name, OPERATIONS)),
            "filterMasks" if is_state => (name, list(reader, value, name, validate::filter_mask)),
            "filterMask" if is_state => {
                reader.deprecated(key, "filterMask", "filterMasks");
                ("filterMasks", list(reader, value, name, validate::filter_mask))
            }
            "workloadNames" if !is_state => {
                (name, list(reader, value, name, validate::name_pattern))
            }
            _ => (name, reader.unknown_key(key, name, "a rule", known)),
        };
        if let Some(read) = read {
            fields.insert(reader.key(field), read);
        }
    }
    let missing: Vec<_> = known.iter().filter(|name| fields.get(name).is_none()).collect();
    for name in missing {
        // A field with a faulty value is missing as well, and has its fault already.
        if !reader.faults.iter().any(|(line, ..)| *line >= node.line()) {
            reader.fault::<()>(node, format!("a rule has no `{name}`"));
        }
    }
    Some(Node::Map(fields))
}

fn list(
    reader: &mut Reader,
    node: &Yaml<'_>,
    what: &str,
    check: fn(&str) -> Result<(), String>,
) -> Option<Node> {
    let mut texts = Vec::new();
    for item in reader.items(node, what)? {
        let Some(text) = reader.text(item, what) else { continue };
        match check(&text) {
            Ok(()) => texts.push(reader.leaf(&text)),
            Err(why) => {
                reader.fault::<()>(item, why);
            }
        }
    }
    Some(Node::seq(texts))
}
