//! The state as values by path, with cheap snapshots (docs/protocol.md#state-tree).
//!
//! A [`Tree`] is a mapping of up to four parts; below them are mappings, sequences and scalars. It
//! knows no rules and no subscribers.

use std::{fmt, sync::Arc};

use super::{Key, Map, Selection};

/// `desiredState`: the requested workloads and configs.
pub const DESIRED_STATE: &str = "desiredState";
/// `workloadStates`: how the instances are doing, by agent, workload and id.
pub const WORKLOAD_STATES: &str = "workloadStates";
/// `agents`: the connected agents, with tags and load.
pub const AGENTS: &str = "agents";
/// `effectiveState`: the desired state as the agent rendered it.
pub const EFFECTIVE_STATE: &str = "effectiveState";
/// `apiVersion` of a desired or effective state.
pub const API_VERSION: &str = "apiVersion";

/// A value of the state.
#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    /// Values by name.
    Map(Map<Node>),
    /// A sequence: one leaf, with any content.
    Seq(Arc<[Node]>),
    /// Text, also the values of enums.
    Str(Arc<str>),
    /// A number of an agent's status.
    Uint(u64),
    /// An unset oneof. A request may bring it in; no valid state has one.
    Unset,
}

impl Node {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Str(text.into())
    }

    /// A mapping of these entries.
    #[must_use]
    pub fn map<K: Into<Key>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// A sequence of these values.
    #[must_use]
    pub fn seq(values: impl IntoIterator<Item = Self>) -> Self {
        Self::Seq(values.into_iter().collect())
    }

    /// The entries, if this is a mapping.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map<Self>> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The values, if this is a sequence.
    #[must_use]
    pub fn as_seq(&self) -> Option<&[Self]> {
        match self {
            Self::Seq(values) => Some(values),
            _ => None,
        }
    }

    /// The text, if this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The entries; none if this is no mapping.
    #[must_use]
    pub fn entries(&self) -> &Map<Self> {
        self.as_map().unwrap_or(&NO_ENTRIES)
    }

    /// The value of `name` in this mapping.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_map()?.get(name)
    }

    /// The text of `name` in this mapping.
    #[must_use]
    pub fn str_at(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A mapping or a sequence without anything in it.
    #[must_use]
    pub fn is_empty_collection(&self) -> bool {
        match self {
            Self::Map(map) => map.is_empty(),
            Self::Seq(values) => values.is_empty(),
            _ => false,
        }
    }

    /// Whether both are one value in memory, told in O(1). Equal values may still differ here.
    #[must_use]
    pub(super) fn ptr_eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Map(a), Self::Map(b)) => a.ptr_eq(b),
            (Self::Seq(a), Self::Seq(b)) => Arc::ptr_eq(a, b),
            (Self::Str(a), Self::Str(b)) => Arc::ptr_eq(a, b),
            // A number has no place of its own; values of two kinds are never equal.
            _ => self == other,
        }
    }

    /// How many scalars, sequences and empty mappings this holds.
    #[must_use]
    pub fn leaves(&self) -> usize {
        match self {
            Self::Map(map) if !map.is_empty() => map.iter().map(|(_, node)| node.leaves()).sum(),
            _ => 1,
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(map) => map.fmt(f),
            Self::Seq(values) => values.fmt(f),
            Self::Str(text) => text.fmt(f),
            Self::Uint(number) => number.fmt(f),
            Self::Unset => f.write_str("unset"),
        }
    }
}

/// The entries of any value that is no mapping.
pub(super) static NO_ENTRIES: Map<Node> = Map::new();

/// One version of the complete state, or of some of it. Cloning is cheap.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tree {
    root: Map<Node>,
}

impl Tree {
    /// The state before anything is known: nothing desired, no instance, no agent.
    #[must_use]
    pub fn initial() -> Self {
        let empty = || Node::Map(Map::new());
        let desired = Node::map([(API_VERSION, Node::text("v1")), ("workloads", empty())]);
        // Without an effective state: only an agent renders one
        // (docs/differences.md#12-templates-belong-to-the-agent).
        let parts = [(AGENTS, empty()), (DESIRED_STATE, desired), (WORKLOAD_STATES, empty())];
        Self { root: parts.into_iter().map(|(name, part)| (name.into(), part)).collect() }
    }

    /// A tree of these parts.
    #[must_use]
    pub fn from_root(root: Map<Node>) -> Self {
        Self { root }
    }

    /// The parts by name.
    #[must_use]
    pub fn root(&self) -> &Map<Node> {
        &self.root
    }

    /// The value at `path`.
    #[must_use]
    pub fn get(&self, path: &[&str]) -> Option<&Node> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.root.get(first)?, |node, name| node.get(name))
    }

    /// The entries of the mapping at `path`; none if there is no mapping.
    #[must_use]
    pub fn entries(&self, path: &[&str]) -> &Map<Node> {
        self.get(path).map_or(&NO_ENTRIES, Node::entries)
    }

    /// The same tree with another `part`; without it if there is none. If the part is the same in
    /// memory, the tree keeps its place in memory, and a comparison has nothing to walk.
    #[must_use]
    pub fn with(&self, part: &str, value: Option<Node>) -> Self {
        if let (Some(own), Some(value)) = (self.root.get(part), &value)
            && own.ptr_eq(value)
        {
            return self.clone();
        }
        // Copies one small node: the parts themselves stay shared.
        let mut root = self.root.clone();
        match value {
            Some(value) => root.insert(part, value),
            None => {
                root.remove(part);
            }
        }
        Self { root }
    }

    /// The selected parts of this tree, with their parents.
    #[doc(hidden)] // its argument is internal
    #[must_use]
    pub fn select(&self, selection: &Selection) -> Self {
        let mut root = match selection.pick_map(&self.root) {
            Some(Node::Map(root)) => root,
            _ => Map::new(),
        };
        // A State without its version cannot be read by anyone (docs/protocol.md#additions,
        // docs/differences.md#8-no-mask-means-everything).
        for part in [DESIRED_STATE, EFFECTIVE_STATE] {
            let wanted = selection.wants_version_of(part) || root.get(part).is_some();
            let version = self.get(&[part, API_VERSION]).filter(|_| wanted);
            if let Some(version) = version {
                let mut state = root.get(part).and_then(Node::as_map).cloned().unwrap_or_default();
                state.insert(API_VERSION, version.clone());
                root.insert(part, Node::Map(state));
            }
        }
        Self { root }
    }

    /// How many leaves the tree holds.
    #[must_use]
    pub fn leaves(&self) -> usize {
        self.root.iter().map(|(_, node)| node.leaves()).sum()
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MaskSet;

    #[test]
    fn a_part_put_where_it_is_leaves_the_tree_where_it_is() {
        let part = Node::Map([("a".into(), Node::text("1"))].into_iter().collect());
        let tree = Tree::default().with(DESIRED_STATE, Some(part.clone()));
        let same = tree.with(DESIRED_STATE, Some(part.clone()));
        assert!(same.root.ptr_eq(&tree.root));

        let other = tree.with(EFFECTIVE_STATE, Some(part));
        assert!(!other.root.ptr_eq(&tree.root));
        assert_eq!(other.with(EFFECTIVE_STATE, None), tree);
    }

    #[test]
    fn what_is_selected_as_a_whole_is_shared_and_empty_mappings_are_not_selected_by_wildcards() {
        let inner = |n: usize| Node::map((0..n).map(|k| (format!("k{k}"), Node::text("v"))));
        let tree = |n| {
            let configs = Node::map([("a", inner(2)), ("b", inner(n))]);
            Tree::default().with(DESIRED_STATE, Some(Node::map([("configs", configs)])))
        };
        let configs = &[DESIRED_STATE, "configs"];
        let select =
            |tree: &Tree, mask| tree.select(&Selection::of_masks(MaskSet::parse([mask]).masks()));
        for mask in ["desiredState.configs.*.*", "desiredState.*", "*.*.*"] {
            let tree = tree(40);
            assert!(select(&tree, mask).entries(configs).ptr_eq(tree.entries(configs)), "{mask}");
        }
        let with_empty = tree(0);
        let picked = select(&with_empty, "desiredState.configs.*.*");
        assert_eq!(picked.entries(configs), &[("a".into(), inner(2))].into_iter().collect());
        let picked = select(&with_empty, "desiredState.configs.*.k1");
        assert_eq!(picked.leaves(), 1);
    }
}
