//! Updates of the state by the agent: unlike an update of a workload, they may touch every part
//! (docs/agent-link.md).
//!
//! Equal values keep their place in memory. So a later comparison of the versions costs as much as the
//! difference, however much the agent sent.

use std::{error::Error, fmt};

use super::{
    AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, Instance, Key, Map, Mask, Node, Segment,
    Tree, WORKLOAD_STATES, instance,
    reuse::reused,
    update::{UpdateError, find, set, unset},
    validate,
};

/// All parts of the state.
const PARTS: [&str; 4] = [DESIRED_STATE, WORKLOAD_STATES, AGENTS, EFFECTIVE_STATE];

/// Reason why an update by the agent changes nothing. The author of the agent made the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentUpdateError {
    /// A mask with `*`: its fields would depend on the time of the update.
    Wildcard(Mask),
    /// A mask that begins with no part of the state.
    UnknownPart(Mask),
    /// A mask through a value without fields.
    MaskThroughValue(Mask),
    /// A path through a value without fields.
    PathThroughValue(String),
    /// An effective state without its version, which no client can read.
    NoVersion,
    /// The resulting desired state breaks a rule.
    DesiredState(UpdateError),
}

impl fmt::Display for AgentUpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wildcard(mask) => write!(f, "wildcards are not allowed in update mask {mask}"),
            Self::UnknownPart(mask) => {
                let parts = PARTS.join(", ");
                write!(f, "unknown mask '{mask}': a mask begins with one of {parts}")
            }
            Self::MaskThroughValue(mask) => {
                write!(f, "mask '{mask}' leads through something that is no mapping")
            }
            Self::PathThroughValue(path) => {
                write!(f, "'{path}' leads through something that is no mapping")
            }
            Self::NoVersion => f.write_str("effectiveState has no apiVersion"),
            Self::DesiredState(error) => error.fmt(f),
        }
    }
}

impl Error for AgentUpdateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::DesiredState(error) => error.source(),
            _ => None,
        }
    }
}

/// Replaces `current` by `given`. A part missing from `given` is empty then.
///
/// # Errors
/// A fault of the desired state.
pub fn replace(current: &Tree, given: &Tree) -> Result<Tree, AgentUpdateError> {
    let initial = Tree::initial();
    let mut root = Map::new();
    for part in PARTS {
        // The initial state has no effective state, so without a given one there is none.
        let node = given.root().get(part).or_else(|| initial.root().get(part));
        if let Some(node) = node {
            root.insert(part, reused(current.root().get(part), node));
        }
    }
    finish(current, root)
}

/// Takes the parts at `masks` from `new_state`; a part missing there is removed. Without masks, takes
/// all parts of `new_state`.
///
/// # Errors
/// A mask outside of the state, with a wildcard or through a value without fields, or a fault of the
/// resulting desired state.
pub fn update(current: &Tree, new_state: &Tree, masks: &[Mask]) -> Result<Tree, AgentUpdateError> {
    let mut root = current.root().clone();
    if masks.is_empty() {
        for (part, node) in new_state.root() {
            root.insert(part.clone(), reused(current.root().get(part.as_str()), node));
        }
    }
    for mask in masks {
        let path: Option<Vec<Key>> = mask.segments().iter().map(concrete).collect();
        let path = path.ok_or_else(|| AgentUpdateError::Wildcard(mask.clone()))?;
        if !path.first().is_some_and(|part| PARTS.contains(&part.as_str())) {
            return Err(AgentUpdateError::UnknownPart(mask.clone()));
        }
        if !put(&mut root, &path, find(new_state.root(), &path)) {
            return Err(AgentUpdateError::MaskThroughValue(mask.clone()));
        }
    }
    // A mask can remove a part, but these two keys are never absent (docs/protocol.md#fields).
    for part in [WORKLOAD_STATES, AGENTS] {
        if root.get(part).is_none() {
            root.insert(part, Node::Map(Map::new()));
        }
    }
    finish(current, root)
}

/// Sets these values at their paths; without a value, removes the path.
///
/// # Errors
/// A path through a value without fields, or a fault of the resulting desired state.
pub fn set_items<'a>(
    current: &Tree,
    items: impl IntoIterator<Item = (Vec<&'a str>, Option<Node>)>,
) -> Result<Tree, AgentUpdateError> {
    let mut root = current.root().clone();
    for (path, value) in items {
        if !put(&mut root, &path, value.as_ref()) {
            return Err(AgentUpdateError::PathThroughValue(path.join(".")));
        }
    }
    finish(current, root)
}

fn concrete(segment: &Segment) -> Option<Key> {
    match segment {
        Segment::Key(key) => Some(key.clone()),
        Segment::Any => None,
    }
}

fn finish(current: &Tree, mut root: Map<Node>) -> Result<Tree, AgentUpdateError> {
    if let Some(state) = root.get(EFFECTIVE_STATE)
        && state.get(API_VERSION).is_none()
    {
        return Err(AgentUpdateError::NoVersion);
    }
    let desired = root.get(DESIRED_STATE).cloned();
    let valid = validate::validate(current.get(&[DESIRED_STATE]), desired)
        .map_err(AgentUpdateError::DesiredState)?;
    // Validation keeps equal workloads and configs in place, but not the mapping around them:
    // without this, an equal desired state would look like a new version.
    let mut desired = valid.desired;
    if let (Node::Map(own), Some(Node::Map(old))) = (&desired, current.root().get(DESIRED_STATE))
        && holds_the_same(old, own)
    {
        desired = Node::Map(old.clone());
    }
    root.insert(DESIRED_STATE, desired);
    let is_same = holds_the_same(current.root(), &root);
    Ok(if is_same { current.clone() } else { Tree::from_root(root) })
}

/// Whether two mappings hold the same values in memory.
fn holds_the_same(old: &Map<Node>, new: &Map<Node>) -> bool {
    // By place in memory, as a comparison of values would walk through all of them.
    let mut pairs = old.iter().zip(new);
    old.len() == new.len() && pairs.all(|((a, was), (b, is))| a == b && was.ptr_eq(is))
}

/// Sets a value at `path`, reusing equal parts of the old one; without a value, removes the path. False
/// if a parent is no mapping.
fn put<K>(root: &mut Map<Node>, path: &[K], value: Option<&Node>) -> bool
where
    K: AsRef<str> + Clone + Into<Key>,
{
    let Some(value) = value else { return unset(root, path) };
    let there = path.split_first().and_then(|(first, rest)| {
        rest.iter().try_fold(root.get(first.as_ref())?, |node, name| node.get(name.as_ref()))
    });
    let value = reused(there, value);
    // `set` would copy the shared nodes above an equal value for nothing.
    there.is_some_and(|old| old.ptr_eq(&value)) || set(root, path, value)
}

/// `current` with these execution states set; without a value, an entry is removed.
#[must_use]
pub fn set_states(current: &Tree, states: &[(Instance, Option<Node>)]) -> Tree {
    if states.is_empty() {
        return current.clone();
    }
    let whole = current.get(&[WORKLOAD_STATES]).and_then(Node::as_map);
    let mut entries = whole.cloned().unwrap_or_default();
    for (instance, state) in states {
        let names = [&instance.agent, &instance.workload, &instance.id];
        match state {
            Some(state) => {
                // Never false: the levels above an execution state are mappings in every message.
                set(&mut entries, &names.map(String::as_str), state.clone());
            }
            None => instance::remove(&mut entries, &names.map(String::as_str)),
        }
    }
    current.with(WORKLOAD_STATES, Some(Node::Map(entries)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ChangeSet;

    fn workload(tag: &str) -> Node {
        Node::map([
            ("agent", Node::text("a")),
            ("runtime", Node::text("r")),
            ("runtimeConfig", Node::text("")),
            ("tags", Node::map([("t", Node::text(tag))])),
        ])
    }

    fn state(count: usize, odd: &[usize]) -> Tree {
        let tag = |n| if odd.contains(&n) { "odd" } else { "even" };
        let workloads = (0..count).map(|n| (format!("w{n}"), workload(tag(n))));
        let desired = [(API_VERSION, Node::text("v1")), ("workloads", Node::map(workloads))];
        Tree::default().with(DESIRED_STATE, Some(Node::map(desired)))
    }

    #[test]
    fn replaced_state_shares_all_that_is_equal() {
        let one = replace(&Tree::initial(), &state(1_000, &[])).unwrap();
        let same = replace(&one, &state(1_000, &[])).unwrap();
        assert!(one.root().ptr_eq(same.root()));
        let other = replace(&one, &state(1_000, &[3, 500, 999])).unwrap();
        let masks = crate::state::MaskSet::parse([""; 0]);
        let altered = ChangeSet::between(&one, &other).altered(&masks).unwrap();
        let expected = [3, 500, 999].map(|n| format!("desiredState.workloads.w{n}.tags.t"));
        assert_eq!(altered.updated, expected);
        assert!(altered.added.is_empty() && altered.removed.is_empty());
        let workload = |tree: &Tree, name: &str| {
            tree.get(&[DESIRED_STATE, "workloads", name]).and_then(Node::as_map).cloned().unwrap()
        };
        assert!(workload(&one, "w4").ptr_eq(&workload(&other, "w4")));
    }

    #[test]
    fn unknown_and_impossible_masks_are_named() {
        let current = Tree::initial();
        let refuse = |mask: &str| {
            update(&current, &Tree::default(), &[Mask::parse(mask)]).unwrap_err().to_string()
        };
        assert!(refuse("foo.bar").starts_with("unknown mask 'foo.bar'"));
        assert!(refuse("").starts_with("unknown mask ''"));
        assert!(refuse("agents.*").contains("wildcards"));
        assert!(refuse("desiredState.apiVersion.x").contains("no mapping"));
        assert!(refuse("desiredState.apiVersion").contains("apiVersion"));
    }

    #[test]
    fn execution_state_is_set_and_removed_with_its_empty_parents() {
        let instance = Instance { workload: "w".into(), agent: String::new(), id: "1".into() };
        let running = Node::map([("state", Node::text("Running")), ("subState", Node::text("Ok"))]);
        let current = Tree::initial();
        let set = set_states(&current, &[(instance.clone(), Some(running))]);
        assert_eq!(
            set.get(&[WORKLOAD_STATES, "", "w", "1", "state"]),
            Some(&Node::text("Running"))
        );
        assert_eq!(set_states(&set, &[(instance, None)]), current);
    }
}
