//! Differences between two states, and the events that the real server makes of them.
//!
//! Written for the tests, beside fifogate's own: where fifogate tells more than the real server (an inner node of
//! something new, the first value of an empty list, an empty part of a path), this tells what the real one does.

use fifogate::{
    internal::state::{MaskSet, Selection},
    pb::ank_base as pb,
    state::{
        Map, Node, Tree,
        convert::{Fill, to_pb},
    },
};

/// Change of one value.
enum Change {
    Added(Node),
    Removed(Node),
    Updated,
    Inner(Vec<(String, Change)>),
}

/// All that differs between two states.
pub(super) struct Changes(Vec<(String, Change)>);

impl Changes {
    pub(super) fn between(old: &Tree, new: &Tree) -> Self {
        Self(changes(old.root(), new.root()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The event for a subscription of these masks, if there is one.
    pub(super) fn event(&self, new: &Tree, masks: &[String]) -> Option<pb::CompleteStateResponse> {
        let mut found = pb::AlteredFields::default();
        let everything = [String::new()];
        for mask in if masks.is_empty() { &everything } else { masks } {
            let segments: Vec<_> = mask.split('.').filter(|_| !mask.is_empty()).collect();
            walk(&self.0, &segments, &mut Vec::new(), &mut found);
        }
        let lists = [&found.added_fields, &found.updated_fields, &found.removed_fields];
        let paths: Vec<_> = lists.into_iter().flatten().cloned().collect();
        if paths.is_empty() {
            return None;
        }
        let complete_state = Some(to_pb(&pick(new, &paths), Fill::Sparse));
        Some(pb::CompleteStateResponse { complete_state, altered_fields: Some(found) })
    }
}

/// The answer to a request with these masks; `None` where the real server fails inside, answers with an empty
/// state and subscribes nothing.
pub(super) fn read(tree: &Tree, masks: &[String]) -> Option<pb::CompleteState> {
    if masks.is_empty() {
        return Some(to_pb(tree, Fill::Full));
    }
    // The result would hold a desired state without its version.
    let is_without_version = |mask: &String| {
        let parts: Vec<_> = mask.split('.').collect();
        parts.len() > 1 && parts[0] == "*" && (parts.len() > 2 || parts[1] != "*")
    };
    if masks.iter().any(|mask| mask.is_empty() || is_without_version(mask)) {
        return None;
    }
    Some(to_pb(&pick(tree, masks), Fill::Sparse))
}

fn pick(tree: &Tree, masks: &[String]) -> Tree {
    tree.select(&Selection::of_masks(MaskSet::parse(masks).masks()))
}

fn changes(old: &Map<Node>, new: &Map<Node>) -> Vec<(String, Change)> {
    let mut found = Vec::new();
    old.diff(new, |key, old, new| {
        let change = match (old, new) {
            (None, Some(new)) => Some(Change::Added(new.clone())),
            (Some(old), None) => Some(Change::Removed(old.clone())),
            (Some(Node::Map(old)), Some(Node::Map(new))) => {
                Some(Change::Inner(changes(old, new))).filter(|change| !change.is_nothing())
            }
            (Some(Node::Seq(old)), Some(Node::Seq(new))) if old.is_empty() || new.is_empty() => {
                None
            }
            (old, new) => (old != new).then_some(Change::Updated),
        };
        found.extend(change.map(|change| (key.as_str().to_owned(), change)));
    });
    found
}

impl Change {
    fn is_nothing(&self) -> bool {
        matches!(self, Self::Inner(inner) if inner.is_empty())
    }
}

/// The rest of a mask below `key`; `None` if the mask leads elsewhere. A mask that has ended names all below.
fn below<'m>(mask: &'m [&'m str], key: &str) -> Option<&'m [&'m str]> {
    match mask {
        [] => Some(mask),
        [first, rest @ ..] => (*first == "*" || *first == key).then_some(rest),
    }
}

fn walk(
    changes: &[(String, Change)],
    mask: &[&str],
    path: &mut Vec<String>,
    found: &mut pb::AlteredFields,
) {
    for (key, change) in changes {
        let Some(rest) = below(mask, key) else { continue };
        path.push(key.clone());
        match change {
            Change::Inner(inner) => walk(inner, rest, path, found),
            Change::Added(node) => expand(node, rest, path, &mut found.added_fields, true),
            Change::Removed(node) => expand(node, rest, path, &mut found.removed_fields, true),
            Change::Updated if rest.is_empty() => found.updated_fields.push(text(path)),
            Change::Updated => {}
        }
        path.pop();
    }
}

/// Reports the node itself if the mask ends here or above; otherwise the leaves below at which it ends.
fn expand(
    node: &Node,
    mask: &[&str],
    path: &mut Vec<String>,
    list: &mut Vec<String>,
    is_top: bool,
) {
    if mask.is_empty() {
        if is_top || node.as_map().is_none() {
            list.push(text(path));
        }
        return;
    }
    for (key, node) in node.entries() {
        if let Some(rest) = below(mask, key.as_str()) {
            path.push(key.as_str().to_owned());
            expand(node, rest, path, list, false);
            path.pop();
        }
    }
}

/// A path as the real server writes it: an empty part is lost.
fn text(path: &[String]) -> String {
    let parts: Vec<_> = path.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(".")
}
