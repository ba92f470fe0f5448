//! Whether a workload or a config item has the fields and kinds of values that the schema gives it.

use crate::{
    limits::{MAX_NESTING, too_deep},
    state::{Key, Map, Node},
};

/// The workload as it is kept: default policy filled in, empty collections left out.
pub(super) fn workload(name: &Key, node: &Node) -> Result<Node, String> {
    let at = format!("desiredState.workloads.{name}");
    let Node::Map(fields) = node else { return Err(format!("{at} is not a mapping")) };
    for field in ["agent", "runtime", "runtimeConfig"] {
        match fields.get(field) {
            Some(Node::Str(_)) => {}
            Some(_) => return Err(format!("{at}.{field} is not a string")),
            None => return Err(format!("missing field `{field}` in {at}")),
        }
    }
    let mut kept = fields.clone();
    if kept.get("restartPolicy").is_none() {
        kept.insert("restartPolicy", Node::text("NEVER"));
    }
    for field in ["tags", "dependencies", "configs"] {
        if let Some(value) = fields.get(field) {
            string_map(&format!("{at}.{field}"), value)?;
            drop_if_empty(&mut kept, field, value);
        }
    }
    if let Some(value) = fields.get("files") {
        files(&format!("{at}.files"), value)?;
        drop_if_empty(&mut kept, "files", value);
    }
    if let Some(value) = fields.get("controlInterfaceAccess") {
        let value = access(&format!("{at}.controlInterfaceAccess"), value)?;
        drop_if_empty(&mut kept, "controlInterfaceAccess", &value);
        if !value.is_empty_collection() {
            kept.insert("controlInterfaceAccess", value);
        }
    }
    Ok(Node::Map(kept))
}

fn drop_if_empty(fields: &mut Map<Node>, name: &str, value: &Node) {
    if value.is_empty_collection() {
        fields.remove(name);
    }
}

fn string_map(at: &str, node: &Node) -> Result<(), String> {
    let Node::Map(entries) = node else { return Err(format!("{at} is not a mapping")) };
    match entries.iter().find(|(_, value)| value.as_str().is_none()) {
        None => Ok(()),
        Some((key, _)) => Err(format!("{at}.{key} is not a string")),
    }
}

fn files(at: &str, node: &Node) -> Result<(), String> {
    let Node::Seq(files) = node else { return Err(format!("{at} is not a sequence")) };
    for (index, file) in files.iter().enumerate() {
        if file.str_at("data").is_none() && file.str_at("binaryData").is_none() {
            return Err(format!("{at}.{index} has neither data nor binaryData"));
        }
    }
    Ok(())
}

/// The access rules without empty lists.
pub(super) fn access(at: &str, node: &Node) -> Result<Node, String> {
    let Node::Map(lists) = node else { return Err(format!("{at} is not a mapping")) };
    let mut kept = lists.clone();
    for (name, list) in lists {
        let Node::Seq(rules) = list else { return Err(format!("{at}.{name} is not a sequence")) };
        if let Some(index) = rules.iter().position(|rule| rule.str_at("type").is_none()) {
            return Err(format!("{at}.{name}.{index} is neither a StateRule nor a LogRule"));
        }
        drop_if_empty(&mut kept, name.as_str(), list);
    }
    Ok(Node::Map(kept))
}

/// A config item holds strings, sequences and mappings of them, all the way down to the bound of
/// nesting: whichever way it was put together, the state that it is kept in holds to that.
pub(super) fn config(at: &str, item: &Node) -> Result<(), String> {
    config_below(at, at, item, MAX_NESTING)
}

fn config_below(whole: &str, at: &str, item: &Node, levels: usize) -> Result<(), String> {
    let below = || levels.checked_sub(1).ok_or_else(|| too_deep(whole));
    match item {
        Node::Str(_) => Ok(()),
        Node::Seq(values) => {
            let below = below()?;
            values.iter().enumerate().try_for_each(|(index, value)| {
                config_below(whole, &format!("{at}.{index}"), value, below)
            })
        }
        Node::Map(fields) => {
            let below = below()?;
            fields.iter().try_for_each(|(key, value)| {
                config_below(whole, &format!("{at}.{key}"), value, below)
            })
        }
        Node::Uint(_) => Err(format!("{at} is a number; configs hold strings")),
        Node::Unset => Err(format!("{at} has no value: neither String, array nor object is set")),
    }
}
