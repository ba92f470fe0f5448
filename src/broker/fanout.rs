//! Fan-out: from one change of the state to the events of its subscribers (docs/protocol.md#events,
//! docs/differences.md#9-no-missed-events, docs/differences.md#delivery).
//!
//! In goes a new state; out come events, encoded once per group of equal masks. Delivery is done in
//! slices, with other inputs between them. Two invariants hold: later messages to a subscriber are
//! queued after its event, unless it lags; and the next change begins after this one is delivered or
//! recorded as lag. A subscription in its grace time, or with a full outbox, lags: the state before the
//! change is kept if possible, and one later event reports the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    message::ResponseBody,
    state::{
        Altered, ChangeSet, Instance, MaskSet, Node, Tree, WORKLOAD_STATES, follow_workloads,
        update::Updated, weight_after,
    },
};

use super::{
    Broker, Delivery, Output, PeerId, SubscriptionId, Tick, Timer,
    outbox::Kind,
    subscriptions::{GroupId, Lag, Subscription, SubscriptionPhase, Touched},
};

/// The delivery of the last change, until all affected subscriptions are handled.
#[derive(Debug)]
pub(super) struct FanOut {
    /// The state before the change.
    old: Tree,
    changes: ChangeSet,
    /// Groups with members not yet handled. In the first group, the members up to `at` are handled.
    groups: BTreeSet<GroupId>,
    at: Option<SubscriptionId>,
    /// The event of each group, encoded for its first member with room: usually all members have room,
    /// or none.
    events: BTreeMap<GroupId, Event>,
    /// Members handled before their turn by [`Broker::deliver_pending`].
    early: BTreeSet<SubscriptionId>,
    /// The author of the change.
    pub(super) asker: Option<PeerId>,
}

/// The event of one group.
#[derive(Debug)]
enum Event {
    /// The masks see nothing of the change.
    Nothing,
    Made(ResponseBody),
    /// The memory budget has no room for the event: the members fall behind.
    NoRoom,
}

impl Event {
    fn of(
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
    /// True if this member of a group is not yet handled.
    fn awaits(&self, group: GroupId, id: SubscriptionId) -> bool {
        let passed = self.groups.first() == Some(&group) && self.at.is_some_and(|at| id <= at);
        self.groups.contains(&group) && !passed && !self.early.contains(&id)
    }
}

impl Broker {
    /// Makes `updated` the current state and begins its fan-out. Returns the instances ended and
    /// started by it.
    pub(super) fn commit(&mut self, updated: &Updated) -> (Vec<Instance>, Vec<Instance>) {
        let (ended, started) = updated.instances();
        let mut tree = updated.tree.clone();
        if let Some(states) = tree.get(&[WORKLOAD_STATES]).and_then(Node::as_map) {
            // A linked agent reports the end of its instances itself; their states stay until then.
            let (scheduled, gone): (Vec<_>, Vec<_>) =
                ended.iter().cloned().partition(|instance| !instance.agent.is_empty());
            let gone = if self.link.is_some() { gone } else { [scheduled, gone].concat() };
            let states = follow_workloads(states, &gone, &started);
            tree = tree.with(WORKLOAD_STATES, Some(Node::Map(states)));
        }
        self.replace_state(tree);
        (ended, started)
    }

    /// Makes `tree` the current state, and begins the fan-out of the difference.
    pub(super) fn replace_state(&mut self, tree: Tree) {
        // Before the swap: the events of the last change are made from the state it led to.
        self.finish_fanout();
        let old = std::mem::replace(&mut self.state, tree);
        self.state_bytes = weight_after(&old, self.state_bytes, &self.state);
        self.version += 1;
        self.read_cache.clear();
        let changes = ChangeSet::between(&old, &self.state);
        let Touched { groups, unseen, .. } = self.subscriptions.touched(&changes);
        if unseen {
            self.unseen = self.version;
        }
        if !groups.is_empty() {
            self.fanout = Some(FanOut {
                old,
                changes,
                groups,
                at: None,
                events: BTreeMap::new(),
                early: BTreeSet::new(),
                asker: self.asking,
            });
        }
    }

    /// True while subscribers of the last change are not yet handled.
    #[must_use]
    pub fn is_fanning_out(&self) -> bool {
        self.fanout.is_some()
    }

    /// True if events are due without any further input: only a [`Tick`](super::Input::Tick) is needed.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_fanning_out() || !self.dirty.later.is_empty()
    }

    /// Ends the fan-out of the last change. Up to `most_at_once` work is done now, as the next change
    /// waits for it; the remaining subscribers fall behind and get one event for both changes.
    fn finish_fanout(&mut self) {
        let mut left = self.config.most_at_once;
        while self.is_fanning_out() && left > 0 {
            left = left.saturating_sub(self.deliver_some(self.config.slice));
        }
        let Some(mut fanout) = self.fanout.take() else { return };
        while let Some(group) = fanout.groups.pop_first() {
            let members: Vec<_> = self.subscriptions.members_after(group, fanout.at).collect();
            fanout.at = None;
            for id in members {
                let subscription = self.subscriptions.get(id);
                let knows = subscription.is_none_or(|own| own.last_seen == self.version);
                if !fanout.early.contains(&id) && !knows {
                    self.fall_behind(id, &fanout.old);
                    self.mark_dirty_of(id);
                }
            }
        }
        if let Some(asker) = fanout.asker {
            self.flush_outbox(asker);
        }
    }

    /// Marks the outbox of a subscriber as dirty: it may have room to catch up.
    fn mark_dirty_of(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get(id) else { return };
        let peer = subscription.peer;
        if let Some(found) = self.peers.get_mut(&peer) {
            self.dirty.note(peer, found);
        }
    }

    /// Delivers the last change to more subscribers, for about `work`. Returns the work done.
    pub(super) fn deliver_some(&mut self, work: usize) -> usize {
        let Some(mut fanout) = self.fanout.take() else { return 0 };
        let work = work.max(1);
        let mut done = 0;
        while done < work
            && let Some(group) = fanout.groups.first().copied()
        {
            // Few members at a time: a group may have thousands, and each takes a share of the slice.
            let wanted = work - done;
            let members = self.subscriptions.members_after(group, fanout.at);
            let members: Vec<_> = members.take(wanted).collect();
            done += members.len() + self.deliver(&mut fanout, group, &members);
            fanout.at = members.last().copied();
            // The group is exhausted. Dropping its event here frees its memory early.
            if members.len() < wanted {
                fanout.groups.pop_first();
                fanout.events.remove(&group);
                fanout.at = None;
                done += 1;
            }
        }
        let (asker, over) = (fanout.asker, fanout.groups.is_empty());
        self.fanout = Some(fanout);
        self.flush_outboxes();
        if over {
            self.fanout = None;
            asker.into_iter().for_each(|asker| self.flush_outbox(asker));
        }
        done
    }

    /// Delivers the last change to one peer ahead of its turn, before another message to it is queued.
    /// Returns true if any delivery was due.
    pub(super) fn deliver_pending(&mut self, peer: PeerId) -> bool {
        let Some(fanout) = &self.fanout else { return false };
        let Some(peer) = self.peers.get(&peer) else { return false };
        let group_of = |id: &SubscriptionId| Some(self.subscriptions.get(*id)?.group);
        let all = peer.subscriptions.values().filter_map(|id| Some((group_of(id)?, *id)));
        let awaited: Vec<_> = all.filter(|(group, id)| fanout.awaits(*group, *id)).collect();
        let mut left = self.config.most_at_once;
        for (group, id) in &awaited {
            let Some(mut fanout) = self.fanout.take() else { break };
            // One peer may have many costly subscriptions: beyond the bound they fall behind.
            if left > 0 {
                left = left.saturating_sub(1 + self.deliver(&mut fanout, *group, &[*id]));
            } else {
                self.fall_behind(*id, &fanout.old);
            }
            fanout.early.insert(*id);
            self.fanout = Some(fanout);
        }
        !awaited.is_empty()
    }

    /// Delivers the last change to some members of a group; members without room fall behind. Returns
    /// the work of encoding their event.
    fn deliver(
        &mut self,
        fanout: &mut FanOut,
        group_id: GroupId,
        members: &[SubscriptionId],
    ) -> usize {
        let Some((group, all)) = self.subscriptions.group_mut(group_id) else { return 0 };
        let mut work = 0;
        let mut event = fanout.events.remove(&group_id);
        let (mut late, mut deliveries) = (Vec::new(), Vec::with_capacity(members.len()));
        for id in members {
            let early = fanout.early.remove(id);
            // A subscription added or caught up after the change has its effect already.
            let awaits = |own: &&mut Subscription| !early && own.last_seen != self.version;
            let Some(subscription) = all.get_mut(id).filter(awaits) else { continue };
            let Some(peer) = self.peers.get_mut(&subscription.peer) else { continue };
            let (to, limits) = (subscription.peer, &self.config.limits);
            let budget = || to.kind().budget(limits, &self.queued, &peer.outbox);
            let has_room = peer.outbox.is_empty() || peer.outbox.has_room(budget());
            if !has_room || !subscription.is_up_to_date() {
                late.push(*id);
                continue;
            }
            let made = || {
                let (body, own) = event_body(&fanout.changes, &group.masks, &self.state);
                work = own;
                Event::of(body, |body| self.large.charge(body, limits.total_bytes))
            };
            let body = match event.get_or_insert_with(made) {
                Event::Nothing => continue,
                Event::Made(body) => body,
                Event::NoRoom => {
                    late.push(*id);
                    self.dirty.note(to, peer);
                    continue;
                }
            };
            subscription.note_seen(self.version);
            let request_id = Arc::clone(&subscription.request_id);
            // Usual case: an empty outbox. The event skips the queue and joins the multicast.
            let direct = peer.is_clean() && !to.is_agent() && fanout.asker != Some(to);
            if direct && let Some((seq, ack)) = peer.outbox.pass(self.config.window) {
                peer.counters.frames_out += 1;
                deliveries.push(Delivery { peer: to, seq, request_id, ack });
                continue;
            }
            let message = to.kind().response(request_id, body.clone());
            peer.outbox.push(message, Kind::Event(*id), self.now);
            self.dirty.note(to, peer);
        }
        if let Some(Event::Made(body)) = event.as_ref().filter(|_| !deliveries.is_empty()) {
            self.outputs.push_back(Output::Multicast { body: body.clone(), deliveries });
        }
        fanout.events.extend(event.map(|event| (group_id, event)));
        late.into_iter().for_each(|id| self.fall_behind(id, &fanout.old));
        #[cfg(test)]
        (self.work_done += members.len() + work);
        work
    }

    /// Records the state before the change as the base of the subscriber's next event, instead of an
    /// event.
    fn fall_behind(&mut self, id: SubscriptionId, old: &Tree) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let Some(peer) = self.peers.get_mut(&subscription.peer) else { return };
        if subscription.lag.is_some() {
            subscription.merged += 1;
            return;
        }
        let (version, most) = ((self.version - 1, old), self.config.limits.max_versions);
        // Versions since its last event look alike to it, except across an unreported change.
        let alike = subscription.last_seen.max(self.unseen.min(version.0));
        let kept = peer.snapshots.keep(alike, version, most);
        subscription.lag = Some(kept.map_or(Lag::Resync, Lag::Since));
        if subscription.phase == SubscriptionPhase::Live {
            peer.behind.push_back(id);
            let peer = subscription.peer;
            self.note_slow(peer);
        }
    }

    /// Queues one event with all changes missed by the subscription, if any. Returns the work of
    /// encoding it.
    pub(super) fn catch_up(&mut self, id: SubscriptionId) -> usize {
        let most = self.subscriptions.get(id).map_or(0, |own| self.most_large(own.peer));
        let Some(subscription) = self.subscriptions.get_mut(id) else { return 1 };
        let (to, lag) = (subscription.peer, subscription.lag);
        let Some(masks) = self.subscriptions.masks_of(id) else { return 1 };
        let (body, work) = match lag {
            None => return 1,
            Some(Lag::Resync) => everything_body(masks, &self.state),
            Some(Lag::Since(version)) => {
                let Some(peer) = self.peers.get_mut(&to) else { return 1 };
                let Some(old) = peer.snapshots.get(version) else { return 1 };
                let changes = ChangeSet::between(old, &self.state);
                event_body(&changes, masks, &self.state)
            }
        };
        let body = match body.map(|body| self.large.charge(body, most)).transpose() {
            Ok(body) => body,
            Err(len) => {
                if let Some(peer) = self.peers.get_mut(&to) {
                    peer.needs = len;
                }
                return work;
            }
        };
        if let Some(subscription) = self.subscriptions.get_mut(id)
            // The lag ends only now: without memory for the event, its snapshot is still needed.
            && let Some(Lag::Since(version)) = subscription.lag.take()
            && let Some(peer) = self.peers.get_mut(&to)
        {
            peer.snapshots.release(version);
        }
        match body {
            Some(body) => self.push_event(id, body),
            // The changes cancelled each other out: no event, but the state of now counts as seen.
            None => {
                if let Some(subscription) = self.subscriptions.get_mut(id) {
                    subscription.last_seen = self.version;
                }
            }
        }
        work.max(1)
    }

    fn push_event(&mut self, id: SubscriptionId, body: ResponseBody) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.note_seen(self.version);
        let request_id = Arc::clone(&subscription.request_id);
        let peer = subscription.peer;
        self.respond(peer, request_id, body, Kind::Event(id));
    }

    pub(super) fn first_answer_taken(&mut self, id: SubscriptionId) {
        let due = Tick(self.now.0.saturating_add(self.config.subscribe_grace_ms));
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            subscription.phase = SubscriptionPhase::Grace(due);
            self.timers.insert((due, Timer::GraceOver(id)));
        }
    }

    /// Handles all timers due by now.
    pub(super) fn run_timers(&mut self) {
        while let Some(&(due, timer)) = self.timers.first()
            && due <= self.now
        {
            self.timers.pop_first();
            match timer {
                Timer::GraceOver(id) => self.go_live(id),
                Timer::Forward(peer, number) => self.forward_timed_out(peer, number),
            }
        }
    }

    /// Ends the grace time of a subscription, and queues the changes made meanwhile as one event.
    fn go_live(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.phase = SubscriptionPhase::Live;
        let peer = subscription.peer;
        if subscription.lag.is_some() {
            self.queue_catch_up(peer, id);
        }
    }

    fn queue_catch_up(&mut self, peer: PeerId, id: SubscriptionId) {
        if let Some(found) = self.peers.get_mut(&peer) {
            found.behind.push_back(id);
            self.dirty.note(peer, found);
        }
    }
}

/// The resync event for a subscriber of `masks`, with everything visible reported as updated; and its
/// work.
fn everything_body(masks: &MaskSet, now: &Tree) -> (Option<ResponseBody>, usize) {
    let altered = Altered::everything(masks);
    let state = now.select(altered.selection());
    let body = ResponseBody::event(&state, &altered);
    let work = body.len() / BYTES_A_SUBSCRIBER;
    (Some(body), work)
}

/// The event of `changes` for a subscriber of `masks`, `None` if nothing of them is visible; and its
/// work.
fn event_body(changes: &ChangeSet, masks: &MaskSet, now: &Tree) -> (Option<ResponseBody>, usize) {
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
