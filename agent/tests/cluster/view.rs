//! The state as leaves by path, as a subscriber makes it from its first answer and all events, and a
//! digest of it by which two of them are compared.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use fifogate::{
    pb::ank_base as pb,
    state::{Node, Tree, convert},
};

/// The masks of followers: not the agents, which differ every two seconds.
pub(crate) const MASKS: [&str; 3] =
    ["desiredState.configs", "desiredState.workloads.same", "workloadStates"];

/// The leaves of what followers follow, with the sum of their hashes.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    leaves: BTreeMap<String, String>,
    digest: u64,
}

impl View {
    pub(crate) fn of(tree: &Tree) -> Self {
        let mut view = Self::default();
        for (name, part) in tree.root() {
            view.insert_below(name.as_str(), part);
        }
        view
    }

    fn insert_below(&mut self, path: &str, node: &Node) {
        if let Some(map) = node.as_map() {
            for (name, child) in map {
                self.insert_below(&format!("{path}.{name}"), child);
            }
        } else if MASKS.iter().any(|mask| is_at_or_below(path, mask)) {
            self.insert(path, format!("{node:?}"));
        }
    }

    fn insert(&mut self, path: &str, value: String) {
        self.digest = self.digest.wrapping_add(digest_of(path, &value));
        if let Some(old) = self.leaves.insert(path.to_owned(), value) {
            self.digest = self.digest.wrapping_sub(digest_of(path, &old));
        }
    }

    fn remove_below(&mut self, path: &str) {
        let all: Vec<_> = self
            .leaves
            .range(path.to_owned()..)
            .take_while(|(leaf, _)| leaf.starts_with(path))
            .filter(|(leaf, _)| is_at_or_below(leaf, path))
            .map(|(leaf, _)| leaf.clone())
            .collect();
        for leaf in all {
            if let Some(old) = self.leaves.remove(&leaf) {
                self.digest = self.digest.wrapping_sub(digest_of(&leaf, &old));
            }
        }
    }

    /// Takes in what is now at a path, with all below it; nothing if it is gone.
    pub(crate) fn set(&mut self, path: &[&str], node: Option<&Node>) {
        let dotted = path.join(".");
        self.remove_below(&dotted);
        if let Some(node) = node {
            self.insert_below(&dotted, node);
        }
    }

    /// Takes in a first answer or an event.
    pub(crate) fn take(&mut self, told: &pb::CompleteStateResponse) {
        let state = told.complete_state.clone().unwrap_or_default();
        let tree = convert::from_pb(&state).expect("a state");
        let Some(altered) = &told.altered_fields else {
            *self = Self::of(&tree);
            return;
        };
        let changed = altered.added_fields.iter().chain(&altered.updated_fields);
        for path in changed.chain(&altered.removed_fields) {
            let path: Vec<_> = path.split('.').collect();
            self.set(&path, tree.get(&path));
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// In what two views differ.
    pub(crate) fn difference(&self, other: &Self) -> Vec<String> {
        let missing = other.leaves.keys().filter(|path| !self.leaves.contains_key(*path));
        let paths = self.leaves.keys().chain(missing);
        let differs = |path: &&String| self.leaves.get(*path) != other.leaves.get(*path);
        let told = |path: &String| {
            let (own, others) = (self.leaves.get(path), other.leaves.get(path));
            format!("{path}: {own:?}, {others:?}")
        };
        paths.filter(differs).map(told).collect()
    }
}

fn is_at_or_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Sums of these do not depend on an order, so a view's digest follows each of its changes.
fn digest_of(path: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (path, value).hash(&mut hasher);
    hasher.finish()
}
