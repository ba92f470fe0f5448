//! Index from configs to the workloads referring to them.
//!
//! Trees go in; the users of a config come out. The index always belongs to one state and moves to the
//! next one at a cost proportional to the difference.

use std::collections::{BTreeSet, HashMap};

use fifogate::state::{Key, Map, Node, Tree};

use super::WORKLOADS;

/// Selects the workloads to render again after a change of configs.
#[derive(Clone, Debug, Default)]
pub struct ConfigIndex {
    /// The workloads of the indexed state.
    workloads: Map<Node>,
    /// Referring workloads, by config.
    users: HashMap<Key, BTreeSet<Key>>,
}

impl ConfigIndex {
    /// Moves the index from its current state to `tree`.
    pub fn follow(&mut self, tree: &Tree) {
        let workloads = tree.entries(&WORKLOADS);
        // Shared nodes are skipped, so the cost follows the change.
        self.workloads.diff(workloads, |name, was, is| {
            // The old ones first: a config in both versions has to stay.
            for config in was.into_iter().flat_map(configs_of) {
                if let Some(users) = self.users.get_mut(config) {
                    users.remove(name);
                    // Without this, configs long gone would stay in the map.
                    if users.is_empty() {
                        self.users.remove(config);
                    }
                }
            }
            for config in is.into_iter().flat_map(configs_of) {
                self.users.entry(config.into()).or_default().insert(name.clone());
            }
        });
        self.workloads = workloads.clone();
    }

    /// The workloads referring to a config, by name.
    pub fn of(&self, config: &str) -> impl Iterator<Item = &Key> {
        self.users.get(config).into_iter().flatten()
    }
}

/// The configs named by a workload.
pub fn configs_of(workload: &Node) -> impl Iterator<Item = &str> {
    let own = workload.get("configs").and_then(Node::as_map);
    own.into_iter().flatten().filter_map(|(_, config)| config.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        let workload = "agent: a, runtime: process, runtimeConfig: ''";
        let text = text.replace("...", workload);
        fifogate::manifest::parse("t.yaml", &text).unwrap().updated.tree
    }

    #[test]
    fn follows_from_any_state_to_any_other() {
        let configs = "configs: {c: {}, d: {}}";
        let two = "w: {..., configs: {x: c, y: d}}, v: {..., configs: {x: c}}";
        let states = [
            format!("apiVersion: v1\nworkloads: {{{two}}}\n{configs}"),
            format!("apiVersion: v1\nworkloads: {{w: {{..., configs: {{z: d}}}}}}\n{configs}"),
            "apiVersion: v1\nworkloads: {v: {...}}".to_owned(),
        ];
        let users = [(["v", "w"].as_slice(), ["w"].as_slice()), (&[], &["w"]), (&[], &[])];
        let mut uses = ConfigIndex::default();
        for at in [0, 1, 0, 2, 1, 2, 0] {
            uses.follow(&tree(&states[at]));
            let of = |config| uses.of(config).map(Key::as_str).collect::<Vec<_>>();
            assert_eq!((of("c").as_slice(), of("d").as_slice()), users[at]);
        }
        uses.follow(&Tree::default());
        assert!(uses.users.is_empty());
    }
}
