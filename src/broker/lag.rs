//! Lag: subscriptions that cannot be sent a change at once, and their merged events
//! (docs/protocol.md#merged-events).
//!
//! A subscription in its grace time, or with a full outbox, falls behind: the state before the change is
//! kept if possible. Later it catches up by one event with the difference to the state of then.

use std::sync::Arc;

use crate::{
    message::ResponseBody,
    state::{ChangeSet, Tree},
};

use super::{
    Broker, PeerId, SubscriptionId, Tick, Timer,
    fanout::{event_body, everything_body},
    outbox::Kind,
    subscriptions::{Lag, SubscriptionPhase},
};

impl Broker {
    /// Records the state before the change as the base of the subscriber's next event, instead of an
    /// event.
    pub(super) fn fall_behind(&mut self, id: SubscriptionId, old: &Tree) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.handled = self.version;
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
        // The lag ends only now: without memory for the event, its snapshot is still needed.
        let ended = self.subscriptions.get_mut(id).and_then(|own| own.end_lag(self.version));
        if let Some(Lag::Since(version)) = ended
            && let Some(peer) = self.peers.get_mut(&to)
        {
            peer.snapshots.release(version);
        }
        // Without a body the changes cancelled each other out.
        if let Some(body) = body {
            self.push_event(id, body);
        }
        work.max(1)
    }

    fn push_event(&mut self, id: SubscriptionId, body: ResponseBody) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.note_event(self.version);
        let request_id = Arc::clone(&subscription.request_id);
        let peer = subscription.peer;
        self.enqueue(peer, peer.kind().response(request_id, body), Kind::Event(id));
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
