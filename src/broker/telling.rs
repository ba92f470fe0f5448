//! From a change of the state to what each subscriber is told of it (PROTOCOL section 7, DECISIONS 9,
//! 17 to 19).
//!
//! What subscribers of the same masks are told is made once. One that is not ready, or has too much
//! waiting already, keeps the state that it was last told of; when there is room, one event tells it
//! the difference to the state of now.

use std::sync::Arc;

use crate::{
    limits::Limits,
    message::Body,
    state::{
        Altered, ChangeSet, Instance, MaskSet, Tree, WORKLOAD_STATES, follow_workloads,
        update::Updated, weight_after,
    },
};

use super::{
    Broker, Output, PeerId, SubscriptionId, Tick, Timer,
    outbox::{Budget, Handed, Kind, Outgoing, Total},
    peer::{Peer, response},
    subscriptions::{GroupId, Missed, Pace},
};

impl Broker {
    /// Makes `updated` the state of now and tells its subscribers; gives the instances that ended
    /// and those that started.
    pub(super) fn commit(&mut self, updated: &Updated) -> (Vec<Instance>, Vec<Instance>) {
        let (ended, started) = updated.instances();
        let mut tree = updated.tree.clone();
        if let Some(states) = tree.get(&[WORKLOAD_STATES]) {
            // An agent that is there tells itself how an instance ends.
            let (scheduled, gone): (Vec<_>, Vec<_>) =
                ended.iter().cloned().partition(|instance| !instance.agent.is_empty());
            let gone = if self.link.is_some() { gone } else { [scheduled, gone].concat() };
            let states = follow_workloads(states, &gone, &started);
            tree = tree.with(WORKLOAD_STATES, Some(states));
        }
        self.replace_state(tree);
        (ended, started)
    }

    /// Makes `tree` the state of now and tells its subscribers what differs.
    pub(super) fn replace_state(&mut self, tree: Tree) {
        let old = std::mem::replace(&mut self.state, tree);
        self.state_bytes = weight_after(&old, self.state_bytes, &self.state);
        self.version += 1;
        self.answers.clear();
        let changes = ChangeSet::between(&old, &self.state);
        for group in self.subscriptions.touched(&changes) {
            self.tell_group(group, &old, &changes);
        }
    }

    fn tell_group(&mut self, group: GroupId, old: &Tree, changes: &ChangeSet) {
        let Some((group, all)) = self.subscriptions.group_mut(group) else { return };
        // Made for the first member that is told at once; most of the time all are, or none.
        let mut event = None;
        let mut late = Vec::new();
        for id in &group.members {
            let Some(subscription) = all.get_mut(id) else { continue };
            let Some(peer) = self.peers.get_mut(&subscription.peer) else { continue };
            let budget = budget_of(&self.config.limits, &self.queued, subscription.peer, peer);
            let ready = subscription.pace == Pace::Live && subscription.missed.is_none();
            if !ready || !peer.outbox.has_room(budget) {
                late.push(*id);
                continue;
            }
            let made = event.get_or_insert_with(|| event_body(changes, &group.masks, &self.state));
            if let Some(body) = made.clone() {
                subscription.note_told(self.version);
                let message =
                    response(subscription.peer, Arc::clone(&subscription.request_id), body);
                peer.outbox.push(message, Kind::Event(*id), self.now);
                self.unsettled.note(subscription.peer, peer);
            }
        }
        for id in late {
            self.fall_behind(id, old);
        }
    }

    /// Remembers what the subscriber was last told, instead of telling it.
    fn fall_behind(&mut self, id: SubscriptionId, old: &Tree) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let Some(peer) = self.peers.get_mut(&subscription.peer) else { return };
        if subscription.missed.is_some() {
            subscription.merged += 1;
            return;
        }
        let (version, most) = ((self.version - 1, old), self.config.limits.max_versions);
        let kept = peer.versions.keep(subscription.told, version, most);
        subscription.missed = Some(kept.map_or(Missed::Everything, Missed::Since));
        if subscription.pace == Pace::Live {
            peer.behind.push_back(id);
            let peer = subscription.peer;
            self.note_slow(peer);
        }
    }

    /// Tells one event with all that the subscriber missed, if it missed anything.
    fn catch_up(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let (peer, missed) = (subscription.peer, subscription.missed.take());
        let Some(masks) = self.subscriptions.masks_of(id) else { return };
        let body = match missed {
            None => return,
            Some(Missed::Everything) => everything_body(masks, &self.state),
            Some(Missed::Since(version)) => {
                let Some(peer) = self.peers.get_mut(&peer) else { return };
                let Some(old) = peer.versions.get(version) else { return };
                let changes = ChangeSet::between(old, &self.state);
                peer.versions.release(version);
                event_body(&changes, masks, &self.state)
            }
        };
        if let Some(body) = body {
            self.push_event(id, body);
        }
    }

    fn push_event(&mut self, id: SubscriptionId, body: Body) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.note_told(self.version);
        let request_id = Arc::clone(&subscription.request_id);
        let peer = subscription.peer;
        self.respond(peer, request_id, body, Kind::Event(id));
    }

    pub(super) fn first_answer_taken(&mut self, id: SubscriptionId) {
        let due = Tick(self.now.0.saturating_add(self.config.settle_ms));
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            subscription.pace = Pace::Settling(due);
            self.timers.insert((due, Timer::Settled(id)));
        }
    }

    /// Does what is due by now.
    pub(super) fn run_timers(&mut self) {
        while let Some(&(due, timer)) = self.timers.first()
            && due <= self.now
        {
            self.timers.pop_first();
            match timer {
                Timer::Settled(id) => self.go_live(id),
                Timer::Forward(peer, number) => self.forward_timed_out(peer, number),
            }
        }
    }

    /// The subscriber had its time to get ready; what happened meanwhile it is told now.
    fn go_live(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.pace = Pace::Live;
        let peer = subscription.peer;
        if subscription.missed.is_some() {
            self.queue_catch_up(peer, id);
        }
    }

    fn queue_catch_up(&mut self, peer: PeerId, id: SubscriptionId) {
        if let Some(found) = self.peers.get_mut(&peer) {
            found.behind.push_back(id);
            self.unsettled.note(peer, found);
        }
    }

    /// Hands out what there is room for, and lets those catch up that were behind. `last` is whoever
    /// asked: the events that its update caused come before its answer, also to others.
    pub(super) fn settle_outboxes(&mut self, last: Option<PeerId>) {
        let mut waits = None;
        while let Some(id) = self.unsettled.0.pop_front() {
            if Some(id) == last {
                waits = last;
            } else {
                self.settle_outbox(id);
            }
        }
        if let Some(id) = waits {
            self.settle_outbox(id);
        }
    }

    fn settle_outbox(&mut self, id: PeerId) {
        let window = if id == PeerId::AGENT { LINK_WINDOW } else { self.config.window };
        while let Some(peer) = self.peers.get_mut(&id) {
            while let Some(Handed { seq, message, notice }) = peer.outbox.hand(window) {
                peer.counters.frames_out += 1;
                self.outputs.push_back(match message {
                    Outgoing::Workload(message) => Output::Send { peer: id, seq, message, notice },
                    Outgoing::Agent(message) => Output::Tell { seq, message, notice },
                });
            }
            // Most of the time that was all.
            let slow = peer.slow_since.is_some() || !peer.reading || !peer.behind.is_empty();
            if !slow && peer.outbox.is_empty() {
                break;
            }
            // Those behind go on at half the budget: at its edge, every event would be a merged one.
            let budget = budget_of(&self.config.limits, &self.queued, id, peer);
            let room = peer.outbox.is_half_empty(budget);
            let Some(subscription) = peer.behind.front().copied().filter(|_| room) else {
                self.set_reading(id, budget);
                break;
            };
            peer.behind.pop_front();
            self.catch_up(subscription);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.unsettled = false;
        }
    }

    /// Over its budget a workload is not read: it may ask again when it has taken its answers.
    fn set_reading(&mut self, id: PeerId, budget: Budget) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let on = match peer.reading {
            true => peer.outbox.has_room(budget),
            false => peer.outbox.is_half_empty(budget),
        };
        if on != peer.reading {
            peer.reading = on;
            self.outputs.push_back(Output::Reading(id, on));
        }
        if !on {
            self.note_slow(id);
        } else if peer.behind.is_empty() {
            self.note_caught_up(id);
        }
    }

    /// Has it told once that a workload reads too slowly.
    fn note_slow(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.slow_since.is_some() {
            return;
        }
        peer.slow_since = Some(self.now);
        if peer.slow_told.is_none_or(|told| told.0 + EPISODE_MS <= self.now.0) {
            peer.slow_told = Some(self.now);
            let (instance, bytes) = (peer.instance.clone(), peer.outbox.bytes());
            self.outputs.push_back(Output::Slow(instance, bytes));
        }
    }

    fn note_caught_up(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(since) = peer.slow_since.take()
            && peer.slow_told == Some(since)
        {
            let (instance, after) = (peer.instance.clone(), self.now.0 - since.0);
            self.outputs.push_back(Output::CaughtUp(instance, after));
        }
    }
}

/// What may wait for this peer.
pub(super) fn budget_of(limits: &Limits, queued: &Total, id: PeerId, peer: &Peer) -> Budget {
    if id == PeerId::AGENT {
        return Budget { bytes: limits.link_bytes, messages: usize::MAX };
    }
    let others = queued.bytes().saturating_sub(peer.outbox.bytes());
    let bytes = limits.outbox_bytes.min(limits.total_bytes.saturating_sub(others));
    Budget { bytes, messages: limits.outbox_messages }
}

/// A workload that reads slowly again before this time, in milliseconds, is not told of again.
const EPISODE_MS: u64 = 10_000;

/// Most messages to the agent that the edge is given at a time: its stream takes any number of them
/// in any pieces.
const LINK_WINDOW: usize = 64;

/// The event that tells a subscriber of `masks` that anything that it sees may be another.
fn everything_body(masks: &MaskSet, now: &Tree) -> Option<Body> {
    let altered = Altered::everything(masks);
    let state = now.select(altered.selection());
    Some(Body::event(&state, &altered))
}

/// The event that tells `changes` to a subscriber of `masks`; none if it sees nothing of them.
fn event_body(changes: &ChangeSet, masks: &MaskSet, now: &Tree) -> Option<Body> {
    let altered = changes.altered(masks)?;
    let state = now.select(altered.selection());
    Some(Body::event(&state, &altered))
}
