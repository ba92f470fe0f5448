//! Who waits for what (docs/protocol.md#events, docs/differences.md#6-subscriptions-belong-to-a-session).
//!
//! Subscriptions of the same masks form a group, so that what they are told is made once. Groups are
//! found through an index over their masks, a tree of names in which `*` is one more name: a change
//! visits those that can see it, among any number of others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use crate::{
    id_map::IdMap,
    limits::SEGMENT,
    state::{Change, ChangeSet, Key, Map, Mask, MaskSet, Node, Segment},
};

use super::{PeerId, Tick, snapshots::Version};

/// Name of a subscription; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub(super) u64);

/// Name of a group of subscriptions with the same masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(u64);

/// When a subscription may be told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionPhase {
    /// Its first answer has not been taken.
    AwaitingFirstRead,
    /// Its first answer was taken; its reader is given until then to get ready
    /// (docs/differences.md#19-grace-time-for-subscribers).
    Grace(Tick),
    /// At once.
    Live,
}

/// What a subscription has to be told when there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lag {
    /// What differs from this version, which is kept for it.
    Since(Version),
    /// Everything that it sees: too many snapshots would have had to be kept.
    Resync,
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) peer: PeerId,
    pub(super) request_id: Arc<str>,
    pub(super) group: GroupId,
    pub(super) phase: SubscriptionPhase,
    /// What the reader was last told of, where that is not the state of now. All that happened since
    /// is told by one event.
    pub(super) lag: Option<Lag>,
    /// The version of the state at which it was told something last, or had missed nothing.
    pub(super) last_seen: Version,
    /// What it counts towards the limit of its workload.
    pub(super) cost: usize,
    /// Events sent.
    pub(super) events: u64,
    /// Changes that became part of an event with others.
    pub(super) merged: u64,
}

impl Subscription {
    /// It is sent an event with all that happened up to `version`.
    pub(super) fn note_seen(&mut self, version: Version) {
        self.events += 1;
        self.last_seen = version;
    }
}

/// Subscriptions that are told the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) masks: MaskSet,
    pub(super) members: BTreeSet<SubscriptionId>,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    next: u64,
    all: IdMap<SubscriptionId, Subscription>,
    groups: IdMap<GroupId, Group>,
    by_masks: BTreeMap<MaskSet, GroupId>,
    index: Index,
}

impl Subscriptions {
    pub(super) fn add(
        &mut self,
        peer: PeerId,
        request_id: Arc<str>,
        masks: &MaskSet,
        phase: SubscriptionPhase,
        last_seen: Version,
    ) -> SubscriptionId {
        let id = SubscriptionId(self.next);
        let group = match self.by_masks.get(masks) {
            Some(group) => *group,
            None => self.add_group(masks),
        };
        self.next += 1;
        if let Some(group) = self.groups.get_mut(&group) {
            group.members.insert(id);
        }
        let cost = cost(&request_id, masks);
        let subscription = Subscription {
            peer,
            request_id,
            group,
            phase,
            lag: None,
            last_seen,
            cost,
            events: 0,
            merged: 0,
        };
        self.all.insert(id, subscription);
        id
    }

    fn add_group(&mut self, masks: &MaskSet) -> GroupId {
        let id = GroupId(self.next);
        self.by_masks.insert(masks.clone(), id);
        for path in paths(masks) {
            self.index.insert(path, id);
        }
        self.groups.insert(id, Group { masks: masks.clone(), members: BTreeSet::new() });
        id
    }

    pub(super) fn remove(&mut self, id: SubscriptionId) -> Option<Subscription> {
        let subscription = self.all.remove(&id)?;
        let group = self.groups.get_mut(&subscription.group)?;
        group.members.remove(&id);
        if group.members.is_empty() {
            let group = self.groups.remove(&subscription.group)?;
            self.by_masks.remove(&group.masks);
            for path in paths(&group.masks) {
                self.index.remove(path, subscription.group);
            }
        }
        Some(subscription)
    }

    pub(super) fn get(&self, id: SubscriptionId) -> Option<&Subscription> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SubscriptionId) -> Option<&mut Subscription> {
        self.all.get_mut(&id)
    }

    /// A group, and all subscriptions, of which some are its members.
    pub(super) fn group_mut(
        &mut self,
        id: GroupId,
    ) -> Option<(&Group, &mut IdMap<SubscriptionId, Subscription>)> {
        Some((self.groups.get(&id)?, &mut self.all))
    }

    /// The members of a group behind this one, oldest first.
    pub(super) fn members_after(
        &self,
        group: GroupId,
        at: Option<SubscriptionId>,
    ) -> impl Iterator<Item = SubscriptionId> {
        let from = at.map_or(Bound::Unbounded, Bound::Excluded);
        let group = self.groups.get(&group).into_iter();
        group.flat_map(move |group| group.members.range((from, Bound::Unbounded)).copied())
    }

    pub(super) fn masks_of(&self, id: SubscriptionId) -> Option<&MaskSet> {
        Some(&self.groups.get(&self.all.get(&id)?.group)?.masks)
    }

    /// Whom `changes` touch.
    pub(super) fn touched(&self, changes: &ChangeSet) -> Touched {
        let mut touched = Touched { visits_left: MOST_VISITS, ..Touched::default() };
        if !changes.is_empty() {
            touched.groups.extend(&self.index.here);
            touched.visit(&[&self.index], changes.root());
        }
        if touched.visits_left == 0 {
            touched.groups = self.groups.keys().copied().collect();
            touched.unseen = true;
        }
        touched
    }
}

/// What a subscription counts towards the limit of its workload.
pub(super) fn cost(request_id: &str, masks: &MaskSet) -> usize {
    let of = |mask: &Mask| {
        let segment = |segment: &Segment| match segment {
            Segment::Any => SEGMENT,
            Segment::Key(key) => SEGMENT + key.as_str().len(),
        };
        mask.segments().iter().map(segment).sum::<usize>()
    };
    SEGMENT + request_id.len() + masks.masks().iter().map(of).sum::<usize>()
}

/// The paths under which a group is found; the empty one if it sees everything.
fn paths(masks: &MaskSet) -> impl Iterator<Item = &[Segment]> {
    let everything = masks.is_everything().then_some(&[][..]);
    everything.into_iter().chain(masks.masks().iter().map(|mask| mask.segments()))
}

/// A node of the index: the groups whose mask ends here, and where longer masks go on.
#[derive(Debug, Default)]
struct Index {
    here: BTreeSet<GroupId>,
    any: Option<Box<Index>>,
    keys: HashMap<Key, Index>,
}

impl Index {
    fn insert(&mut self, path: &[Segment], group: GroupId) {
        match path.split_first() {
            None => {
                self.here.insert(group);
            }
            Some((Segment::Any, rest)) => self.any.get_or_insert_default().insert(rest, group),
            Some((Segment::Key(key), rest)) => {
                self.keys.entry(key.clone()).or_default().insert(rest, group);
            }
        }
    }

    fn remove(&mut self, path: &[Segment], group: GroupId) {
        match path.split_first() {
            None => {
                self.here.remove(&group);
            }
            Some((Segment::Any, rest)) => {
                if let Some(below) = &mut self.any {
                    below.remove(rest, group);
                    if below.is_empty() {
                        self.any = None;
                    }
                }
            }
            Some((Segment::Key(key), rest)) => {
                if let Some(below) = self.keys.get_mut(key) {
                    below.remove(rest, group);
                    if below.is_empty() {
                        self.keys.remove(key);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty() && !self.goes_on()
    }

    fn goes_on(&self) -> bool {
        self.any.is_some() || !self.keys.is_empty()
    }

    fn below(&self, key: &Key) -> impl Iterator<Item = &Self> {
        self.any.as_deref().into_iter().chain(self.keys.get(key))
    }
}

/// What the index makes of changes.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// The groups that can see any of them.
    pub(super) groups: BTreeSet<GroupId>,
    /// At a place that some group looks below, something that is no mapping came, went or changed. The
    /// group is told nothing of that, and yet what comes there next counts for it as updated or added,
    /// depending on that.
    pub(super) unseen: bool,
    /// Places of the index that may still be looked at. When there is none left, every group counts as one
    /// that can see a change: whether it does is found when its event is made, in slices.
    visits_left: usize,
}

/// Most places of the index that one change is looked up at: masks of many wildcards all match one path.
const MOST_VISITS: usize = 1 << 20;

impl Touched {
    fn visit(&mut self, at: &[&Index], changes: &[(Key, Change)]) {
        for (key, change) in changes {
            let below = self.enter(at, key);
            if below.is_empty() {
                continue;
            }
            match change {
                Change::Inner(inner) => self.visit(&below, inner),
                Change::Added(node) | Change::Removed(node) => self.visit_node(&below, node),
                Change::Updated => self.unseen = true,
            }
        }
    }

    /// Looks for longer masks in what came or went as a whole.
    fn visit_node(&mut self, at: &[&Index], node: &Node) {
        let Node::Map(map) = node else {
            self.unseen = true;
            return;
        };
        if at.iter().any(|index| index.any.is_some()) {
            for (key, node) in map {
                self.visit_entry(at, key, node);
            }
            return;
        }
        let keys: BTreeSet<_> = at.iter().flat_map(|index| smaller(index, map)).collect();
        for (key, node) in keys.into_iter().filter_map(|key| map.get_key_value(key.as_str())) {
            self.visit_entry(at, key, node);
        }
    }

    fn visit_entry(&mut self, at: &[&Index], key: &Key, node: &Node) {
        let below = self.enter(at, key);
        if !below.is_empty() {
            self.visit_node(&below, node);
        }
    }

    /// Notes those whose mask ends at `key`; gives where longer ones go on.
    fn enter<'a>(&mut self, at: &[&'a Index], key: &Key) -> Vec<&'a Index> {
        let mut below = Vec::new();
        self.visits_left = self.visits_left.saturating_sub(at.len());
        if self.visits_left == 0 {
            return below;
        }
        for index in at.iter().flat_map(|index| index.below(key)) {
            self.groups.extend(&index.here);
            if index.goes_on() {
                below.push(index);
            }
        }
        below
    }
}

/// The keys of whichever has fewer of them; only those in both matter.
fn smaller<'a>(index: &'a Index, map: &'a Map<Node>) -> Vec<&'a Key> {
    if index.keys.len() <= map.len() { index.keys.keys().collect() } else { map.keys().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Tree;

    fn tree(pairs: &[(&str, &str)]) -> Tree {
        let mut root = Map::new();
        for (part, value) in pairs {
            let below = Node::map([("x", Node::map([("y", Node::text(value))]))]);
            root.insert(*part, below);
        }
        Tree::from_root(root)
    }

    fn peer() -> PeerId {
        PeerId(0)
    }

    #[test]
    fn change_touches_exactly_the_masks_that_can_see_it() {
        let mut subscriptions = Subscriptions::default();
        let all = ["", "a", "a.x", "a.*.y", "*.x.y", "a.x.y.z", "a.q", "b", "*", "b.*"];
        let groups: BTreeMap<_, _> = all
            .iter()
            .map(|text| {
                let masks = MaskSet::parse([text]);
                let id = subscriptions.add(peer(), "r".into(), &masks, SubscriptionPhase::Live, 0);
                (subscriptions.get(id).unwrap().group, *text)
            })
            .collect();
        let touched = |old: &Tree, new: &Tree| {
            let touched = subscriptions.touched(&ChangeSet::between(old, new));
            touched.groups.iter().map(|group| groups[group]).collect::<BTreeSet<_>>()
        };
        let sees_a = BTreeSet::from(["", "a", "a.x", "a.*.y", "*.x.y", "*"]);
        let (one, two) = (tree(&[("a", "1")]), tree(&[("a", "2")]));
        assert_eq!(touched(&one, &two), sees_a);
        assert_eq!(touched(&Tree::default(), &two), sees_a);
        assert_eq!(touched(&two, &Tree::default()), sees_a);
        assert_eq!(touched(&one, &one), BTreeSet::new());
    }

    #[test]
    fn what_is_no_mapping_is_unseen_by_masks_that_look_below_it() {
        let unseen = |mask: &str, old: &Tree, new: &Tree| {
            let mut subscriptions = Subscriptions::default();
            subscriptions.add(
                peer(),
                "r".into(),
                &MaskSet::parse([mask]),
                SubscriptionPhase::Live,
                0,
            );
            subscriptions.touched(&ChangeSet::between(old, new)).unseen
        };
        let (none, one, two) = (Tree::default(), tree(&[("a", "1")]), tree(&[("a", "2")]));
        for (old, new) in [(&one, &two), (&none, &one), (&one, &none)] {
            assert!(unseen("a.x.y.z", old, new) && unseen("*.*.y.*", old, new));
            assert!(
                !unseen("a.x.y", old, new) && !unseen("a.*", old, new) && !unseen("", old, new)
            );
            assert!(!unseen("a.x.z.z", old, new) && !unseen("b.x.y.z", old, new));
        }
    }

    #[test]
    fn nothing_is_left_when_the_last_subscription_goes() {
        let mut subscriptions = Subscriptions::default();
        let masks = MaskSet::parse(["a.*.b", "c", "a.x"]);
        let ids: Vec<_> = (0..3)
            .map(|_| subscriptions.add(peer(), "r".into(), &masks, SubscriptionPhase::Live, 0))
            .collect();
        assert_eq!(subscriptions.groups.len(), 1);
        for id in ids {
            assert!(subscriptions.remove(id).is_some());
            assert!(subscriptions.remove(id).is_none());
        }
        assert!(subscriptions.groups.is_empty() && subscriptions.by_masks.is_empty());
        assert!(subscriptions.index.is_empty() && subscriptions.all.is_empty());
    }
}
