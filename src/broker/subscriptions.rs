//! The table of subscriptions (docs/protocol.md#events,
//! docs/differences.md#6-subscriptions-belong-to-a-session).
//!
//! In goes a change; out come the groups able to see it. Subscriptions with equal masks form a group,
//! so their event is encoded once. An index over the masks finds the groups: a tree of names with `*`
//! as one more name. The cost of a change depends on the matching masks, not on the number of
//! subscriptions.

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

/// Number of a subscription; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SubscriptionId(pub(super) u64);

/// Number of a group of subscriptions with equal masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(u64);

/// The progress of a subscription towards its first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionPhase {
    /// The workload has not read the first answer.
    AwaitingFirstRead,
    /// The workload has read the first answer, and gets no event until this time
    /// (docs/differences.md#19-grace-time-for-subscribers).
    Grace(Tick),
    /// Events are delivered at once.
    Live,
}

/// The base of a lagging subscription's next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lag {
    /// The difference from this version, kept as a snapshot.
    Since(Version),
    /// Everything visible: no snapshot could be kept below the limit.
    Resync,
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    peer: PeerId,
    request_id: Arc<str>,
    group: GroupId,
    phase: SubscriptionPhase,
    /// Set if changes are undelivered. One event will cover all of them.
    lag: Option<Lag>,
    /// The last version covered by its first answer, an event, or a catch-up without a difference.
    /// Versions from there on look alike to it, up to its lag.
    last_seen: Version,
    /// The last version handled for it: delivered, recorded as its lag, or found to be invisible.
    handled: Version,
    /// Its share of the workload's limit, as computed by [`cost`].
    cost: usize,
    /// Events sent.
    events: u64,
    /// Changes merged into the event of an earlier one.
    merged: u64,
}

impl Subscription {
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(super) fn request_id(&self) -> &Arc<str> {
        &self.request_id
    }

    pub(super) fn group(&self) -> GroupId {
        self.group
    }

    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn lag(&self) -> Option<Lag> {
        self.lag
    }

    /// Numbers of events sent, and of changes merged into the event of an earlier one.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.events, self.merged)
    }

    /// True if `version` is not yet handled for it. One added or caught up after the change has its
    /// effect already.
    pub(super) fn awaits(&self, version: Version) -> bool {
        self.handled != version
    }

    /// True if events are delivered at once and none is missing.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.phase == SubscriptionPhase::Live && self.lag.is_none()
    }

    /// Counts an event with all changes up to `version`.
    pub(super) fn note_event(&mut self, version: Version) {
        self.events += 1;
        self.last_seen = version;
        self.handled = version;
    }

    /// Notes that its masks see nothing of `version`. This is no base for a later event: to it, versions
    /// since its last event still look alike.
    pub(super) fn note_invisible(&mut self, version: Version) {
        self.handled = version;
    }

    /// Records `version` as undelivered. For the first such version, `base` gives the base of its next
    /// event, from the last version that it has seen. Returns true if it has to catch up from now on.
    pub(super) fn fall_behind(
        &mut self,
        version: Version,
        base: impl FnOnce(Version) -> Lag,
    ) -> bool {
        self.handled = version;
        if self.lag.is_some() {
            self.merged += 1;
            return false;
        }
        self.lag = Some(base(self.last_seen));
        // In its grace time it catches up at the end of it, with all changes until then.
        self.phase == SubscriptionPhase::Live
    }

    /// Begins its grace time.
    pub(super) fn begin_grace(&mut self, until: Tick) {
        self.phase = SubscriptionPhase::Grace(until);
    }

    /// The end of its grace time, if it is in it.
    pub(super) fn grace_until(&self) -> Option<Tick> {
        match self.phase {
            SubscriptionPhase::Grace(until) => Some(until),
            SubscriptionPhase::AwaitingFirstRead | SubscriptionPhase::Live => None,
        }
    }

    /// Ends its grace time. Returns true if it has to catch up.
    pub(super) fn go_live(&mut self) -> bool {
        self.phase = SubscriptionPhase::Live;
        self.lag.is_some()
    }

    /// Ends its lag, and returns it: the state of `version` is delivered next, or does not differ.
    pub(super) fn end_lag(&mut self, version: Version) -> Option<Lag> {
        self.last_seen = version;
        self.handled = version;
        self.lag.take()
    }
}

/// Subscriptions with equal masks; they get equal events.
#[derive(Debug)]
struct Group {
    masks: MaskSet,
    members: BTreeSet<SubscriptionId>,
}

/// All subscriptions, their groups, and the index over the masks.
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
            handled: last_seen,
            cost,
            events: 0,
            merged: 0,
        };
        self.all.insert(id, subscription);
        id
    }

    fn add_group(&mut self, masks: &MaskSet) -> GroupId {
        // The number of its first member, which is added next: so it is unique without a counter.
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
        // Index nodes go with the last member: masks of ended sessions must not pile up.
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

    /// The masks of a group, and the table of all subscriptions: its members are entries there.
    pub(super) fn group_mut(
        &mut self,
        id: GroupId,
    ) -> Option<(&MaskSet, &mut IdMap<SubscriptionId, Subscription>)> {
        Some((&self.groups.get(&id)?.masks, &mut self.all))
    }

    /// The members of a group after this one, oldest first.
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

    /// The groups affected by `changes`.
    pub(super) fn touched(&self, changes: &ChangeSet) -> Touched {
        let mut touched = Touched { visits_left: MOST_VISITS, ..Touched::default() };
        if !changes.is_empty() {
            // Groups at the root see everything, without a look at the changes.
            touched.groups.extend(&self.index.here);
            touched.visit(&[&self.index], changes.root());
        }
        if touched.visits_left == 0 {
            // The rest is unknown: a group too many is found out later, a missed one never.
            touched.groups = self.groups.keys().copied().collect();
            touched.unseen = true;
        }
        touched
    }
}

/// Cost of a subscription, counted against the limit of its workload.
pub(super) fn cost(request_id: &str, masks: &MaskSet) -> usize {
    let of = |mask: &Mask| {
        let segment = |segment: &Segment| match segment {
            Segment::Any => SEGMENT,
            Segment::Key(key) => SEGMENT + key.as_str().len(),
        };
        mask.segments().iter().map(segment).sum::<usize>()
    };
    // The first `SEGMENT` is for the subscription: without masks it takes memory, too.
    SEGMENT + request_id.len() + masks.masks().iter().map(of).sum::<usize>()
}

/// The index paths of a group; the empty path if its masks select everything.
fn paths(masks: &MaskSet) -> impl Iterator<Item = &[Segment]> {
    let everything = masks.is_everything().then_some(&[][..]);
    everything.into_iter().chain(masks.masks().iter().map(|mask| mask.segments()))
}

/// A node of the index: the groups with a mask ending here, and the nodes of longer masks.
#[derive(Debug, Default)]
struct Index {
    here: BTreeSet<GroupId>,
    any: Option<Box<Index>>,
    // With the standard hasher: workloads choose these keys, and could make a weak one collide.
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

/// The result of looking up a change in the index.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// The groups able to see any part of the change.
    pub(super) groups: BTreeSet<GroupId>,
    /// A scalar was added, removed or changed at a proper prefix of a mask. Subscribers get no event
    /// for it, but it decides whether the next value below is reported as added or updated.
    pub(super) unseen: bool,
    /// Index nodes left to visit. At zero every group counts as affected; the exact answer is found
    /// when its event is made, in slices.
    visits_left: usize,
}

/// Most index nodes visited for one change: masks with many wildcards all match the same path.
const MOST_VISITS: usize = 1 << 19;

impl Touched {
    fn visit(&mut self, at: &[&Index], changes: &[(Key, Change)]) {
        for (key, change) in changes {
            if self.visits_left == 0 {
                return;
            }
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

    /// Looks up an added or removed node with all its descendants.
    fn visit_node(&mut self, at: &[&Index], node: &Node) {
        let Node::Map(map) = node else {
            self.unseen = true;
            return;
        };
        // A wildcard matches every entry; otherwise only keys in both the index and the map matter.
        if at.iter().any(|index| index.any.is_some()) {
            for (key, node) in map {
                if self.visits_left == 0 {
                    break;
                }
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

    /// Collects the groups with a mask ending at `key`. Returns the index nodes of longer masks.
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

/// The keys of the smaller one of the two: only the keys in both matter.
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
