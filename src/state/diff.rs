//! Difference between two versions of the state, and its part selected by a list of masks
//! (docs/protocol.md#events, docs/differences.md#7-altered-fields-are-sorted,
//! docs/differences.md#9-no-missed-events, docs/differences.md#10-paths-lead-somewhere).
//!
//! Two trees go in; a [`ChangeSet`] comes out, and from it the three lists of an event. Shared parts of
//! the trees are skipped, so the cost follows the change.

use std::ops::Range;

use super::{
    AGENTS, DESIRED_STATE, EFFECTIVE_STATE, Key, Map, Mask, MaskSet, Node, Segment, Selection,
    Tree, WORKLOAD_STATES,
};

/// Change of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new, with everything below it.
    Added(Node),
    /// It is gone, with everything below it.
    Removed(Node),
    /// It is another scalar, another sequence, or of another kind.
    Updated,
    /// It is a mapping before and after, and these entries differ.
    Inner(Changes),
}

/// Changed entries of a mapping in the order of their keys.
pub(crate) type Changes = Vec<(Key, Change)>;

/// All differences between two trees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    root: Changes,
}

impl ChangeSet {
    /// The differences from `old` to `new`.
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

    /// The changes at the masks; `None` if there is none. After [`MOST_WORK`] it is everything of the
    /// masks, [as without a kept state](Altered::everything).
    #[must_use]
    pub fn altered(&self, masks: &MaskSet) -> Option<Altered> {
        self.altered_at_cost(masks).0
    }

    /// As [`ChangeSet::altered`], and the work for it: about the number of elementary steps.
    #[must_use]
    pub fn altered_at_cost(&self, masks: &MaskSet) -> (Option<Altered>, usize) {
        let (altered, work) = self.exactly(masks);
        if work > MOST_WORK {
            return (Some(Altered::everything(masks)), work);
        }
        (altered, work)
    }

    /// Ends early, with a part of the changes, once more than [`MOST_WORK`] is done.
    fn exactly(&self, masks: &MaskSet) -> (Option<Altered>, usize) {
        let whole = masks.masks().iter().map(Mask::segments);
        let mut rests: Vec<_> = whole.map(|left| Rest { left, len: left.len() }).collect();
        // An empty set means everything: one rest without segments covers all.
        if masks.is_everything() {
            rests.push(Rest { left: &[], len: 0 });
        }
        let altered = Altered::default();
        let mut found = Found { path: Vec::new(), change_len: 0, rests, work: 0, altered };
        found.walk(&self.root, 0);
        let work = found.work;
        (found.finish(), work)
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
            // Not reported by `Map::diff`.
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
        // An empty sequence counts as absent (docs/protocol.md#comparison).
        (Node::Seq(old), Node::Seq(values)) if old.is_empty() && !values.is_empty() => {
            Some(Change::Added(new.clone()))
        }
        (Node::Seq(values), Node::Seq(new)) if new.is_empty() && !values.is_empty() => {
            Some(Change::Removed(old.clone()))
        }
        _ => (old != new).then_some(Change::Updated),
    }
}

/// Content of an event: three lists of paths, sorted and without duplicates, and the selection to send
/// along.
#[derive(Debug, Default)]
pub struct Altered {
    /// New paths.
    pub added: Vec<String>,
    /// Paths with another value.
    pub updated: Vec<String>,
    /// Removed paths.
    pub removed: Vec<String>,
    selection: Selection,
}

impl Altered {
    /// A full resync, for a subscriber without a kept snapshot: each mask up to its first `*` is
    /// reported as updated, and the masks select the state.
    ///
    /// A `*` in front stands for the four parts of the state. No mask selects a path beyond its own
    /// reach, because the rules allowed the masks, not their surroundings.
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
                // Impossible: such a mask makes the set everything, and the list of masks empty.
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

    /// The part of the current state at the paths.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }
}

/// The path of `part` and the following names, up to the first `*`.
fn fixed_path(part: &str, below: &[Segment]) -> String {
    let names = below.iter().map_while(|segment| match segment {
        Segment::Key(key) => Some(key.as_str()),
        Segment::Any => None,
    });
    names.fold(part.to_owned(), |path, name| path + "." + name)
}

/// The rest of a mask at some depth. An empty rest covers everything below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rest<'m> {
    left: &'m [Segment],
    /// Segments of the whole mask.
    len: usize,
}

impl<'m> Rest<'m> {
    fn below(self, key: &Key) -> Option<Self> {
        match self.left.split_first() {
            None => Some(self),
            Some((segment, left)) => segment.matches(key).then_some(Self { left, ..self }),
        }
    }

    /// The next name.
    fn name(&self) -> Option<&'m Key> {
        match self.left.first() {
            Some(Segment::Key(key)) => Some(key),
            _ => None,
        }
    }

    /// The rest behind the first segment.
    fn tail(mut self) -> Self {
        self.left = self.left.get(1..).unwrap_or_default();
        self
    }
}

struct Found<'m> {
    path: Vec<Key>,
    /// Length of the path of the current change; the values below it are reported with it.
    change_len: usize,
    /// The rests of the masks below each part of the path, one part after the other.
    ///
    /// More than [`MOST_APART`] rests of one part are sorted and unique: a binary search finds those for a
    /// key, and masks with equal rests count as one.
    rests: Vec<Rest<'m>>,
    work: usize,
    altered: Altered,
}

/// Most elementary steps for the changes of one event, a quarter of a second at the most: everybody
/// waits for them. 256 masks that all match the same four thousand paths take about as many.
const MOST_WORK: usize = 2 << 20;

/// Most masks matched one after the other.
const MOST_APART: usize = 8;

/// Reporting a path takes about as long as looking at this many masks.
const WORK_TO_TELL: usize = 16;

#[derive(Clone, Copy)]
enum List {
    Added,
    Updated,
    Removed,
}

impl Found<'_> {
    /// Walks the changes below the path; its rests are those from `first` on.
    fn walk(&mut self, changes: &[(Key, Change)], first: usize) {
        let end = self.rests.len();
        for (key, change) in changes {
            if self.work > MOST_WORK {
                return;
            }
            self.match_key(first, key);
            if self.rests.len() > end {
                self.path.push(key.clone());
                self.change_len = self.path.len();
                match change {
                    Change::Inner(inner) => self.walk(inner, end),
                    Change::Added(node) => self.expand(List::Added, node, end),
                    Change::Removed(node) => self.expand(List::Removed, node, end),
                    Change::Updated => self.tell(List::Updated, end),
                }
                self.path.pop();
            }
            self.rests.truncate(end);
        }
    }

    /// Appends the rests below `key`, made from those from `first` on.
    fn match_key(&mut self, first: usize, key: &Key) {
        let end = self.rests.len();
        // Without any order: their number never grows on the way down, so no search comes later.
        if end - first <= MOST_APART {
            self.work += end - first + 1;
            for at in first..end {
                let below = self.rests[at].below(key);
                self.rests.extend(below);
            }
            return;
        }
        let all = &self.rests[first..];
        // Sorted rests: first the empty ones, then those with `*`, then the names in order.
        let used_up = all.partition_point(|rest| rest.left.is_empty());
        let any = used_up + all[used_up..].partition_point(|rest| rest.left[0] == Segment::Any);
        let is_before = |rest: &Rest<'_>| match &rest.left[0] {
            Segment::Key(own) => own < key,
            Segment::Any => true,
        };
        let from = any + all[any..].partition_point(is_before);
        let named = all[from..].iter().take_while(|rest| rest.left[0].matches(key)).count();
        let of = |at| first + at;
        let runs = [of(used_up)..of(any), of(from)..of(from + named)];
        self.work += 2 * MOST_APART + used_up + runs.iter().map(Range::len).sum::<usize>();
        // An empty rest covers everything below, so it goes on unchanged.
        self.rests.extend_from_within(of(0)..of(used_up));
        self.merge(runs, end);
    }

    /// Appends the tails of two runs of rests, in order and each once. `end` is where the list begins.
    fn merge(&mut self, [mut one, mut two]: [Range<usize>; 2], end: usize) {
        loop {
            let next = |run: &Range<usize>| (!run.is_empty()).then(|| self.rests[run.start].tail());
            let rest = match (next(&one), next(&two)) {
                (Some(first), second) if second.is_none_or(|second| first <= second) => {
                    one.start += 1;
                    first
                }
                (_, Some(second)) => {
                    two.start += 1;
                    second
                }
                _ => return,
            };
            if self.rests[end..].last() != Some(&rest) {
                self.rests.push(rest);
            }
        }
    }

    /// Reports the ends of masks at and below `node`, a value added or removed as a whole.
    fn expand(&mut self, list: List, node: &Node, first: usize) {
        self.tell(list, first);
        let Node::Map(map) = node else { return };
        if self.work > MOST_WORK {
            return;
        }
        // A mask that ends here has told of all that is below.
        let end = self.rests.len();
        for at in first..end {
            if !self.rests[at].left.is_empty() {
                self.rests.push(self.rests[at]);
            }
        }
        let below = &self.rests[end..];
        if below.iter().any(|rest| rest.left[0] == Segment::Any) {
            map.iter().for_each(|(key, node)| self.expand_entry(list, key, node, end));
        } else {
            // Looked up by name: an added subtree may be far larger than the masks.
            let mut named: Vec<_> = below.iter().filter_map(Rest::name).collect();
            named.sort_unstable();
            named.dedup();
            // A name that is not there takes as long to look up.
            self.work += named.len();
            for (key, node) in named.into_iter().filter_map(|key| map.get_key_value(key.as_str())) {
                self.expand_entry(list, key, node, end);
            }
        }
        self.rests.truncate(end);
    }
    fn expand_entry(&mut self, list: List, key: &Key, node: &Node, first: usize) {
        let end = self.rests.len();
        self.match_key(first, key);
        if self.rests.len() > end {
            self.path.push(key.clone());
            self.expand(list, node, end);
            self.path.pop();
        }
        self.rests.truncate(end);
    }

    /// Puts the path on `list` if a mask from `first` on ends here. At a key without an address the
    /// path ends: its parent is reported instead, and as updated if the parent was there before and
    /// after (docs/differences.md#10-paths-lead-somewhere).
    fn tell(&mut self, mut list: List, first: usize) {
        let here = self.rests[first..].iter().filter(|rest| rest.left.is_empty());
        // Of several, the shortest has the most come along.
        let Some(mask_len) = here.map(|rest| rest.len).min() else { return };
        self.work += WORK_TO_TELL;
        let told = self.path.iter().position(|key| !key.is_addressable());
        let told = told.unwrap_or(self.path.len());
        if told < self.change_len {
            list = List::Updated;
        }
        let text = join(&self.path[..told]);
        // Also of a removed path, with nothing else to find (docs/protocol.md#content-of-an-event).
        self.altered.selection.ask_version(&text);
        // The parent goes along whole, unless the mask looks deeper than the key: then only what
        // the mask names of it, which is all that its rules were asked for.
        let whole_parent = mask_len <= told + 1;
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
            // Masks may end at one path, and a parent stands for all its unaddressable keys.
            list.sort();
            list.dedup();
        }
        let lists = [&altered.added, &altered.updated, &altered.removed];
        // A change beside the masks is no event (docs/protocol.md#events).
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

#[cfg(test)]
mod tests;
