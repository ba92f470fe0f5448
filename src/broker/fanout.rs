//! Fan-out: the way of one change of the state through the groups of its subscribers
//! (docs/protocol.md#events).
//!
//! In go the change and the groups able to see it; out come their members in order, a few at a time,
//! and the event of each group. The fan-out owns its cursor, so it can be continued at any later time.
//! Invariant: each group's event is encoded at most once.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    message::ResponseBody,
    state::{Altered, ChangeSet, MaskSet, Tree},
};

use super::{
    PeerId,
    subscriptions::{GroupId, SubscriptionId, Subscriptions},
};

/// The delivery of the last change, until all affected subscriptions are handled.
#[derive(Debug)]
pub(super) struct FanOut {
    /// The state before the change.
    old: Tree,
    changes: ChangeSet,
    /// The author of the change.
    author: Option<PeerId>,
    /// Groups not yet handled to the end. In the first group, the members up to `at` are handled.
    groups: BTreeSet<GroupId>,
    at: Option<SubscriptionId>,
    /// The event of each group, encoded for its first member with room: usually all members have room,
    /// or none.
    events: BTreeMap<GroupId, Event>,
}

/// The event of one group.
#[derive(Debug)]
pub(super) enum Event {
    /// The masks see nothing of the change.
    Nothing,
    Made(ResponseBody),
    /// The memory budget has no room for the event: the members fall behind.
    NoRoom,
}

impl Event {
    pub(super) fn of(
        body: Option<ResponseBody>,
        charge: impl FnOnce(ResponseBody) -> Result<ResponseBody, usize>,
    ) -> Self {
        match body.map(charge) {
            None => Self::Nothing,
            Some(Ok(body)) => Self::Made(body),
            Some(Err(_)) => Self::NoRoom,
        }
    }
}

impl FanOut {
    pub(super) fn new(
        old: Tree,
        changes: ChangeSet,
        groups: BTreeSet<GroupId>,
        author: Option<PeerId>,
    ) -> Self {
        Self { old, changes, author, groups, at: None, events: BTreeMap::new() }
    }

    pub(super) fn author(&self) -> Option<PeerId> {
        self.author
    }

    /// The state before the change.
    pub(super) fn old(&self) -> &Tree {
        &self.old
    }

    pub(super) fn changes(&self) -> &ChangeSet {
        &self.changes
    }

    /// True if all groups are handled.
    pub(super) fn is_over(&self) -> bool {
        self.groups.is_empty()
    }

    /// True if not all members of this group are handled.
    pub(super) fn awaits(&self, group: GroupId) -> bool {
        self.groups.contains(&group)
    }

    /// The next members, all of one group and at most `most`; the cursor moves behind them. Fewer than
    /// `most` at the end of a group, `None` at the end of the fan-out.
    pub(super) fn advance(
        &mut self,
        subscriptions: &Subscriptions,
        most: usize,
    ) -> Option<(GroupId, Vec<SubscriptionId>)> {
        let group = self.groups.first().copied()?;
        let members: Vec<_> = subscriptions.members_after(group, self.at).take(most).collect();
        self.at = members.last().copied();
        // After a full piece the group may be at its end: then the next call finds no member.
        if members.len() < most {
            self.groups.pop_first();
            self.at = None;
        }
        Some((group, members))
    }

    /// Takes the event of a group out, if it is made.
    pub(super) fn take_event(&mut self, group: GroupId) -> Option<Event> {
        self.events.remove(&group)
    }

    /// Keeps the event of a group for its next members. Behind its last member it is dropped: this
    /// frees its memory before the end of the fan-out.
    pub(super) fn keep_event(&mut self, group: GroupId, event: Option<Event>) {
        if self.awaits(group) {
            self.events.extend(event.map(|event| (group, event)));
        }
    }
}

/// The resync event for a subscriber of `masks`, with everything visible reported as updated; and its
/// work.
pub(super) fn everything_body(masks: &MaskSet, now: &Tree) -> (Option<ResponseBody>, usize) {
    let altered = Altered::everything(masks);
    let state = now.select(altered.selection());
    let body = ResponseBody::event(&state, &altered);
    let work = body.len() / BYTES_A_SUBSCRIBER;
    (Some(body), work)
}

/// The event of `changes` for a subscriber of `masks`, `None` if nothing of them is visible; and its
/// work.
pub(super) fn event_body(
    changes: &ChangeSet,
    masks: &MaskSet,
    now: &Tree,
) -> (Option<ResponseBody>, usize) {
    let (altered, looked_at) = changes.altered_at_cost(masks);
    let body =
        altered.map(|altered| ResponseBody::event(&now.select(altered.selection()), &altered));
    let bytes = body.as_ref().map_or(0, ResponseBody::len);
    (body, looked_at / LOOKS_A_SUBSCRIBER + bytes / BYTES_A_SUBSCRIBER)
}

/// The unit of work is one delivery of an encoded event. Matching so many masks, or encoding so many
/// bytes, takes as long.
const LOOKS_A_SUBSCRIBER: usize = 64;
const BYTES_A_SUBSCRIBER: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::subscriptions::SubscriptionPhase;

    #[test]
    fn cursor_passes_each_member_once_while_others_come_and_go() {
        let mut subscriptions = Subscriptions::default();
        let add = |subscriptions: &mut Subscriptions, mask: &str| {
            let (masks, phase) = (MaskSet::parse([mask]), SubscriptionPhase::Live);
            subscriptions.add(PeerId(0), "r".into(), &masks, phase, 0)
        };
        let ids = ["a", "a", "a", "b"].map(|mask| add(&mut subscriptions, mask));
        let groups = ids.iter().map(|id| subscriptions.get(*id).unwrap().group()).collect();
        let changes = ChangeSet::between(&Tree::default(), &Tree::initial());
        let mut fanout = FanOut::new(Tree::default(), changes, groups, None);
        let mut next = |subscriptions: &Subscriptions| {
            let members = fanout.advance(subscriptions, 2).map(|(_, members)| members);
            (members, fanout.is_over())
        };
        assert_eq!(next(&subscriptions), (Some(vec![ids[0], ids[1]]), false));
        subscriptions.remove(ids[1]);
        subscriptions.remove(ids[2]);
        let new = add(&mut subscriptions, "a");
        assert_eq!(next(&subscriptions), (Some(vec![new]), false), "the end of the group");
        subscriptions.remove(ids[3]);
        assert_eq!(next(&subscriptions), (Some(vec![]), true), "its group is gone");
        assert_eq!(next(&subscriptions), (None, true));
    }
}
