//! The values that acknowledged updates leave behind, item by item.

use std::collections::BTreeMap;

use fifogate::state::Tree;

/// How the names of those configs begin that are set together.
pub(crate) const TOGETHER: &str = "many";

/// The possible values of each item.
#[derive(Clone, Default)]
pub(crate) struct Known(BTreeMap<String, Item>);

#[derive(Clone, Default)]
struct Item {
    last: Option<String>,
    /// Values of updates with an unknown outcome. One that was held by a cut network can be done at any
    /// later time.
    unsure: Vec<Option<String>>,
}

impl Known {
    /// Notes the answer to an update of one item.
    pub(crate) fn note(&mut self, item: &str, value: Option<String>, answer: &Result<(), String>) {
        let item = self.0.entry(item.to_owned()).or_default();
        match answer {
            Ok(()) => item.last = value,
            Err(why) if why.contains("not known") => item.unsure.push(value),
            Err(_) => {}
        }
    }

    /// What holds after etcd went back to the time of `before`.
    pub(crate) fn back_to(&mut self, before: &Self) {
        for (name, item) in &mut self.0 {
            let then = before.0.get(name).cloned().unwrap_or_default();
            item.last = then.last;
            item.unsure.extend(then.unsure);
        }
    }

    /// The items with a value that none of their updates explains.
    pub(crate) fn unexplained(&self, tree: &Tree) -> Vec<String> {
        let wrong = |(name, item): (&String, &Item)| {
            let found = value(tree, name);
            let is_known = found == item.last || item.unsure.contains(&found);
            (!is_known).then(|| format!("{name} is {found:?}, acknowledged was {:?}", item.last))
        };
        let mut all: Vec<_> = self.0.iter().filter_map(wrong).collect();
        let together = self.0.keys().filter(|name| name.contains(TOGETHER));
        let mut values: Vec<_> = together.map(|name| value(tree, name)).collect();
        values.dedup();
        if values.len() > 1 {
            all.push(format!("only a part of an update was done: {values:?}"));
        }
        all
    }
}

/// A config's text, or a workload's agent with its `runtimeConfig`.
fn value(tree: &Tree, name: &str) -> Option<String> {
    let (part, name) = name.split_once('.').unwrap();
    let node = tree.get(&["desiredState", part, name])?;
    let of = |field| node.str_at(field).unwrap_or_default();
    let workload = || format!("{} {}", of("agent"), of("runtimeConfig"));
    Some(node.as_str().map_or_else(workload, ToOwned::to_owned))
}
