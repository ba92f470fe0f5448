//! What differs between two versions of the state, and what of it a list of masks names (PROTOCOL
//! section 7, DECISIONS 7, 9, 10).
//!
//! Two trees go in; a [`ChangeSet`] comes out, and from it the three lists of an event. Shared parts
//! of the trees are never looked at, so the cost follows the change.

use super::{
    AGENTS, DESIRED_STATE, EFFECTIVE_STATE, Key, Map, Mask, MaskSet, Node, Segment, Selection,
    Tree, WORKLOAD_STATES,
};

/// What became of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new, with all that is below it.
    Added(Node),
    /// It is gone, with all that was below it.
    Removed(Node),
    /// It is another scalar, another sequence, or of another kind.
    Updated,
    /// It is a mapping before and after, and these entries differ.
    Inner(Changes),
}

/// Changed entries of a mapping in the order of their keys.
pub type Changes = Vec<(Key, Change)>;

/// Everything that differs between two trees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    root: Changes,
}

impl ChangeSet {
    /// What has to be told to somebody who knows `old` and shall know `new`.
    #[must_use]
    pub fn between(old: &Tree, new: &Tree) -> Self {
        Self { root: changes(old.root(), new.root()) }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// The changed parts of the state, in order.
    #[must_use]
    pub fn root(&self) -> &[(Key, Change)] {
        &self.root
    }

    /// What of the changes `masks` name; `None` if nothing.
    #[must_use]
    pub fn altered(&self, masks: &MaskSet) -> Option<Altered> {
        let whole = masks.masks().iter().map(Mask::segments);
        let mut rests: Vec<_> = whole.map(|left| Rest { left, len: left.len() }).collect();
        if masks.is_everything() {
            rests.push(Rest { left: &[], len: 0 });
        }
        let mut found =
            Found { path: Vec::new(), change_len: 0, rests, altered: Altered::default() };
        found.walk(&self.root, 0);
        found.finish()
    }
}

fn changes(old: &Map<Node>, new: &Map<Node>) -> Changes {
    let mut found = Vec::new();
    if old.ptr_eq(new) {
        return found;
    }
    old.diff(new, |key, old, new| {
        let change = match (old, new) {
            (None, Some(new)) => Some(Change::Added(new.clone())),
            (Some(old), None) => Some(Change::Removed(old.clone())),
            (Some(old), Some(new)) => change(old, new),
            (None, None) => None,
        };
        found.extend(change.map(|change| (key.clone(), change)));
    });
    found
}

fn change(old: &Node, new: &Node) -> Option<Change> {
    match (old, new) {
        (Node::Map(old), Node::Map(new)) => {
            let inner = changes(old, new);
            (!inner.is_empty()).then_some(Change::Inner(inner))
        }
        // An empty sequence counts as absent (PROTOCOL 7.3).
        (Node::Seq(old), Node::Seq(values)) if old.is_empty() && !values.is_empty() => {
            Some(Change::Added(new.clone()))
        }
        (Node::Seq(values), Node::Seq(new)) if new.is_empty() && !values.is_empty() => {
            Some(Change::Removed(old.clone()))
        }
        _ => (old != new).then_some(Change::Updated),
    }
}

/// What an event tells: three lists of paths, sorted and without duplicates, and what to send along.
#[derive(Debug, Default)]
pub struct Altered {
    /// Paths that are new.
    pub added: Vec<String>,
    /// Paths whose value is another.
    pub updated: Vec<String>,
    /// Paths that are gone.
    pub removed: Vec<String>,
    selection: Selection,
}

impl Altered {
    /// A resynchronisation: each mask up to its first `*` is reported as updated, and the selection is
    /// what the masks name. For a subscriber whose last known state is not kept any more.
    ///
    /// A `*` in front stands for the four parts of the state. No path is selected that a mask does not
    /// reach: the rules were asked for the masks, not for what lies around them.
    #[must_use]
    pub fn everything(masks: &MaskSet) -> Self {
        let parts = [AGENTS, DESIRED_STATE, EFFECTIVE_STATE, WORKLOAD_STATES];
        let mut updated = Vec::new();
        for mask in masks.masks() {
            match mask.segments() {
                [Segment::Any, below @ ..] => {
                    updated.extend(parts.map(|part| fixed_path(part, below)));
                }
                [Segment::Key(part), below @ ..] => updated.push(fixed_path(part.as_str(), below)),
                [] => {}
            }
        }
        let mut selection = Selection::of_masks(masks.masks());
        if masks.is_everything() {
            updated = parts.map(str::to_owned).into();
            parts.iter().for_each(|part| selection.add_path(&[(*part).into()]));
        }
        updated.sort();
        updated.dedup();
        Self { updated, selection, ..Self::default() }
    }

    /// What of the state of now belongs to the paths.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }
}

/// The path of `part` and the names that follow it, up to the first `*`.
fn fixed_path(part: &str, below: &[Segment]) -> String {
    let names = below.iter().map_while(|segment| match segment {
        Segment::Key(key) => Some(key.as_str()),
        Segment::Any => None,
    });
    names.fold(part.to_owned(), |path, name| path + "." + name)
}

/// What is left of a mask at some depth. One that is used up covers all that is below.
#[derive(Clone, Copy)]
struct Rest<'m> {
    left: &'m [Segment],
    /// Segments of the whole mask.
    len: usize,
}

impl Rest<'_> {
    fn below(self, key: &Key) -> Option<Self> {
        match self.left.split_first() {
            None => Some(self),
            Some((segment, left)) => segment.matches(key).then_some(Self { left, ..self }),
        }
    }
}

struct Found<'m> {
    path: Vec<Key>,
    /// How much of the path leads to what changed as a whole; what is deeper changed with it.
    change_len: usize,
    /// Of the masks, what is left below each part of the path, one part after the other.
    rests: Vec<Rest<'m>>,
    altered: Altered,
}

#[derive(Clone, Copy)]
enum List {
    Added,
    Updated,
    Removed,
}

impl Found<'_> {
    /// Walks the changes below the path, for whose end `rests` from `first` on are what is left.
    fn walk(&mut self, changes: &[(Key, Change)], first: usize) {
        let end = self.rests.len();
        for (key, change) in changes {
            for at in first..end {
                let below = self.rests[at].below(key);
                self.rests.extend(below);
            }
            if self.rests.len() > end {
                self.path.push(key.clone());
                self.change_len = self.path.len();
                match change {
                    Change::Inner(inner) => self.walk(inner, end),
                    Change::Added(node) => self.expand_all(List::Added, node, end),
                    Change::Removed(node) => self.expand_all(List::Removed, node, end),
                    Change::Updated => {
                        for at in end..self.rests.len() {
                            let mask = self.rests[at];
                            if mask.left.is_empty() {
                                self.tell(List::Updated, mask);
                            }
                        }
                    }
                }
                self.path.pop();
            }
            self.rests.truncate(end);
        }
    }

    fn expand_all(&mut self, list: List, node: &Node, first: usize) {
        for at in first..self.rests.len() {
            self.expand(list, node, self.rests[at]);
        }
    }

    /// Tells the places at and below `node`, which came or went as a whole, at which the mask ends.
    fn expand(&mut self, list: List, node: &Node, mask: Rest<'_>) {
        if mask.left.is_empty() {
            self.tell(list, mask);
        } else if let Node::Map(map) = node {
            self.expand_map(list, map, mask);
        }
    }

    fn expand_map(&mut self, list: List, map: &Map<Node>, mask: Rest<'_>) {
        let enter = |found: &mut Self, key: &Key, node: &Node| {
            let Some(below) = mask.below(key) else { return };
            found.path.push(key.clone());
            found.expand(list, node, below);
            found.path.pop();
        };
        match mask.left.first() {
            Some(Segment::Key(key)) => {
                if let Some((key, node)) = map.get_key_value(key.as_str()) {
                    enter(self, key, node);
                }
            }
            _ => map.iter().for_each(|(key, node)| enter(self, key, node)),
        }
    }

    /// Puts the path on `list`. A key that a path cannot address ends it: its parent is told
    /// instead, and told as updated where the parent was there before and after (DECISIONS 10).
    fn tell(&mut self, mut list: List, mask: Rest<'_>) {
        let told = self.path.iter().position(|key| !key.is_addressable());
        let told = told.unwrap_or(self.path.len());
        if told < self.change_len {
            list = List::Updated;
        }
        let text = join(&self.path[..told]);
        self.altered.selection.ask_version(&text);
        // The parent goes along whole, unless the mask looks deeper than the key: then only what the
        // mask names of it, which is all that its rules were asked for.
        let whole_parent = mask.len <= told + 1;
        let end = if whole_parent { told } else { self.path.len() };
        self.altered.selection.add_path(&self.path[..end]);
        match list {
            List::Added => self.altered.added.push(text),
            List::Updated => self.altered.updated.push(text),
            List::Removed => self.altered.removed.push(text),
        }
    }

    fn finish(self) -> Option<Altered> {
        let mut altered = self.altered;
        for list in [&mut altered.added, &mut altered.updated, &mut altered.removed] {
            list.sort();
            list.dedup();
        }
        let lists = [&altered.added, &altered.updated, &altered.removed];
        lists.iter().any(|list| !list.is_empty()).then_some(altered)
    }
}

fn join(path: &[Key]) -> String {
    let mut text = String::with_capacity(path.iter().map(|key| key.as_str().len() + 1).sum());
    for (at, key) in path.iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        text.push_str(key.as_str());
    }
    text
}
