//! From a change of the state to what each subscriber is told of it (docs/protocol.md#events,
//! docs/differences.md#9-no-missed-events, docs/differences.md#delivery).
//!
//! What subscribers of the same masks are told is made once. They are told some at a time, and others
//! are served between; but whatever a subscriber is told after a change comes behind its event, and
//! the next change waits until all were told of this one. One that is not ready, or has too much
//! waiting already, keeps the state that it was last told of; when there is room, one event tells it
//! the difference to the state of now.

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
    flow_control::budget_of,
    outbox::Kind,
    peer::response,
    subscriptions::{GroupId, Lag, Subscription, SubscriptionPhase, Touched},
};

/// The last change, while there are subscribers that were not told of it.
#[derive(Debug)]
pub(super) struct FanOut {
    /// The state before it.
    old: Tree,
    changes: ChangeSet,
    /// Groups with members that were not told; in the first one, those up to `at` were.
    groups: BTreeSet<GroupId>,
    at: Option<SubscriptionId>,
    /// What each group is told, made for the first member that is told at once: most of the time all
    /// are, or none.
    events: BTreeMap<GroupId, Event>,
    /// Members that were told before it was their turn.
    early: BTreeSet<SubscriptionId>,
    /// Who made the change.
    pub(super) asker: Option<PeerId>,
}

/// What the members of a group are told.
#[derive(Debug)]
enum Event {
    /// They see nothing of the change.
    Nothing,
    Made(ResponseBody),
    /// There is no room for it now: they are told later.
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
    /// Whether this member of a group is still to be told.
    fn awaits(&self, group: GroupId, id: SubscriptionId) -> bool {
        let passed = self.groups.first() == Some(&group) && self.at.is_some_and(|at| id <= at);
        self.groups.contains(&group) && !passed && !self.early.contains(&id)
    }
}

impl Broker {
    /// Makes `updated` the state of now and tells its subscribers; gives the instances that ended
    /// and those that started.
    pub(super) fn commit(&mut self, updated: &Updated) -> (Vec<Instance>, Vec<Instance>) {
        let (ended, started) = updated.instances();
        let mut tree = updated.tree.clone();
        if let Some(states) = tree.get(&[WORKLOAD_STATES]).and_then(Node::as_map) {
            // An agent that is there tells itself how an instance ends.
            let (scheduled, gone): (Vec<_>, Vec<_>) =
                ended.iter().cloned().partition(|instance| !instance.agent.is_empty());
            let gone = if self.link.is_some() { gone } else { [scheduled, gone].concat() };
            let states = follow_workloads(states, &gone, &started);
            tree = tree.with(WORKLOAD_STATES, Some(Node::Map(states)));
        }
        self.replace_state(tree);
        (ended, started)
    }

    /// Makes `tree` the state of now, and begins to tell its subscribers what differs.
    pub(super) fn replace_state(&mut self, tree: Tree) {
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

    /// Whether somebody is still to be told of the last change.
    #[must_use]
    pub fn is_fanning_out(&self) -> bool {
        self.fanout.is_some()
    }

    /// Whether something is to be told for which no input is needed but time.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_fanning_out() || !self.dirty.later.is_empty()
    }

    /// Ends with fanout the last change: as much of it as others may have to wait for is told now; who is
    /// left then is told later, together with the next change.
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

    /// Has the outbox of a subscriber looked at: it may have room for what it is behind with.
    fn mark_dirty_of(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get(id) else { return };
        let peer = subscription.peer;
        if let Some(found) = self.peers.get_mut(&peer) {
            self.dirty.note(peer, found);
        }
    }

    /// Tells some more subscribers of the last change, about `work` worth; gives how much it was.
    pub(super) fn deliver_some(&mut self, work: usize) -> usize {
        let Some(mut fanout) = self.fanout.take() else { return 0 };
        let work = work.max(1);
        let mut done = 0;
        while done < work
            && let Some(group) = fanout.groups.first().copied()
        {
            let wanted = work - done;
            let members = self.subscriptions.members_after(group, fanout.at);
            let members: Vec<_> = members.take(wanted).collect();
            done += members.len() + self.deliver(&mut fanout, group, &members);
            fanout.at = members.last().copied();
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

    /// Tells a peer now what it is still to be told of the last change, as something else is to follow;
    /// gives whether there was anything.
    pub(super) fn deliver_pending(&mut self, peer: PeerId) -> bool {
        let Some(fanout) = &self.fanout else { return false };
        let Some(peer) = self.peers.get(&peer) else { return false };
        let group_of = |id: &SubscriptionId| Some(self.subscriptions.get(*id)?.group);
        let all = peer.subscriptions.values().filter_map(|id| Some((group_of(id)?, *id)));
        let awaited: Vec<_> = all.filter(|(group, id)| fanout.awaits(*group, *id)).collect();
        let mut left = self.config.most_at_once;
        for (group, id) in &awaited {
            let Some(mut fanout) = self.fanout.take() else { break };
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

    /// Tells some members of a group of the last change, or notes what they miss. Gives the work that it
    /// took to make their event.
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
            // Or it began, or caught up, after the change.
            let awaits = |own: &&mut Subscription| !early && own.last_seen != self.version;
            let Some(subscription) = all.get_mut(id).filter(awaits) else { continue };
            let Some(peer) = self.peers.get_mut(&subscription.peer) else { continue };
            let ready = subscription.phase == SubscriptionPhase::Live && subscription.lag.is_none();
            let budget = || budget_of(&self.config.limits, &self.queued, subscription.peer, peer);
            if !ready || !(peer.outbox.is_empty() || peer.outbox.has_room(budget())) {
                late.push(*id);
                continue;
            }
            let made = || {
                let (body, own) = event_body(&fanout.changes, &group.masks, &self.state);
                work = own;
                Event::of(body, |body| self.large.charge(body, self.config.limits.total_bytes))
            };
            let body = match event.get_or_insert_with(made) {
                Event::Nothing => continue,
                Event::Made(body) => body,
                Event::NoRoom => {
                    late.push(*id);
                    self.dirty.note(subscription.peer, peer);
                    continue;
                }
            };
            subscription.note_seen(self.version);
            let (to, request_id) = (subscription.peer, Arc::clone(&subscription.request_id));
            // Most of the time nothing waits for it, and it need not either.
            let direct = peer.is_clean() && to != PeerId::AGENT && fanout.asker != Some(to);
            if direct && let Some((seq, ack)) = peer.outbox.pass(self.config.window) {
                peer.counters.frames_out += 1;
                deliveries.push(Delivery { peer: to, seq, request_id, ack });
                continue;
            }
            peer.outbox.push(response(to, request_id, body.clone()), Kind::Event(*id), self.now);
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

    /// Remembers what the subscriber was last told, instead of fanout it.
    fn fall_behind(&mut self, id: SubscriptionId, old: &Tree) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let Some(peer) = self.peers.get_mut(&subscription.peer) else { return };
        if subscription.lag.is_some() {
            subscription.merged += 1;
            return;
        }
        let (version, most) = ((self.version - 1, old), self.config.limits.max_versions);
        let alike = subscription.last_seen.max(self.unseen.min(version.0));
        let kept = peer.snapshots.keep(alike, version, most);
        subscription.lag = Some(kept.map_or(Lag::Resync, Lag::Since));
        if subscription.phase == SubscriptionPhase::Live {
            peer.behind.push_back(id);
            let peer = subscription.peer;
            self.note_slow(peer);
        }
    }

    /// Tells one event with all that the subscriber missed, if it missed anything. Gives the work that it
    /// took to make it.
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
            && let Some(Lag::Since(version)) = subscription.lag.take()
            && let Some(peer) = self.peers.get_mut(&to)
        {
            peer.snapshots.release(version);
        }
        match body {
            Some(body) => self.push_event(id, body),
            // All went back to what it knows: it has seen the state of now all the same.
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

    /// Does what is due by now.
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

    /// The subscriber had its time to get ready; what happened meanwhile it is told now.
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

/// The event that tells a subscriber of `masks` that anything that it sees may be another, and the work
/// that it took.
fn everything_body(masks: &MaskSet, now: &Tree) -> (Option<ResponseBody>, usize) {
    let altered = Altered::everything(masks);
    let state = now.select(altered.selection());
    let body = ResponseBody::event(&state, &altered);
    let work = body.len() / BYTES_A_SUBSCRIBER;
    (Some(body), work)
}

/// The event that tells `changes` to a subscriber of `masks`, none if it sees nothing of them; and the
/// work that it took.
fn event_body(changes: &ChangeSet, masks: &MaskSet, now: &Tree) -> (Option<ResponseBody>, usize) {
    let (altered, looked_at) = changes.altered_at_cost(masks);
    let body =
        altered.map(|altered| ResponseBody::event(&now.select(altered.selection()), &altered));
    let bytes = body.as_ref().map_or(0, ResponseBody::len);
    (body, looked_at / LOOKS_A_SUBSCRIBER + bytes / BYTES_A_SUBSCRIBER)
}

/// Work is counted in subscribers that are told something that is made already. As long takes a look at
/// so many masks, or so many bytes of an event.
const LOOKS_A_SUBSCRIBER: usize = 64;
const BYTES_A_SUBSCRIBER: usize = 256;
