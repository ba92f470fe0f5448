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
    Broker, PeerId, SubscriptionId, Tick,
    fanout::{event_body, everything_body},
    outbox::Kind,
    snapshots::Version,
    subscriptions::Lag,
    timers::Timer,
};

impl Broker {
    /// Records the state before the change as the base of the subscriber's next event, instead of an
    /// event.
    pub(super) fn fall_behind(&mut self, id: SubscriptionId, old: &Tree) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let to = subscription.peer();
        let Some(peer) = self.peers.get_mut(to) else { return };
        let (before, most) = (self.version - 1, self.config.limits.max_versions);
        let base = |last_seen: Version| {
            // Versions since its last event look alike to it, except across an unreported change.
            let alike = last_seen.max(self.unseen.min(before));
            let kept = peer.snapshots.keep(alike, (before, old), most);
            kept.map_or(Lag::Resync, Lag::Since)
        };
        if subscription.fall_behind(self.version, base) {
            peer.behind.push_back(id);
            self.note_slow(to);
        }
    }

    /// Queues one event with all changes missed by the subscription, if any. Returns the work of
    /// encoding it.
    pub(super) fn catch_up(&mut self, id: SubscriptionId) -> usize {
        let Some(subscription) = self.subscriptions.get(id) else { return 1 };
        let (to, lag) = (subscription.peer(), subscription.lag());
        let Some(masks) = self.subscriptions.masks_of(id) else { return 1 };
        let (body, work) = match lag {
            None => return 1,
            Some(Lag::Resync) => everything_body(masks, &self.state),
            Some(Lag::Since(version)) => {
                let Some(peer) = self.peers.get_mut(to) else { return 1 };
                let Some(old) = peer.snapshots.get(version) else { return 1 };
                let changes = ChangeSet::between(old, &self.state);
                event_body(&changes, masks, &self.state)
            }
        };
        let len = body.as_ref().map_or(0, ResponseBody::len);
        if !self.memory.has_room_for_event(to.kind(), len) {
            // Cached answers count as held, but no reader waits for them: drop them first.
            self.read_cache.clear();
        }
        let body = match body.map(|body| self.memory.charge_event(to.kind(), body)).transpose() {
            Ok(body) => body,
            Err(len) => {
                if let Some(peer) = self.peers.get_mut(to) {
                    peer.needs = len;
                }
                return work;
            }
        };
        // The lag ends only now: without memory for the event, its snapshot is still needed.
        let ended = self.subscriptions.get_mut(id).and_then(|own| own.end_lag(self.version));
        if let Some(Lag::Since(version)) = ended
            && let Some(peer) = self.peers.get_mut(to)
        {
            peer.snapshots.release(version);
        }
        // Without a body the changes cancelled each other out.
        if let Some(body) = body {
            self.push_event(id, body);
        }
        // At least 1: a slice has to end with many catch-ups without an event, too.
        work.max(1)
    }

    fn push_event(&mut self, id: SubscriptionId, body: ResponseBody) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.note_event(self.version);
        let (to, request_id) = (subscription.peer(), Arc::clone(subscription.request_id()));
        // Not behind pending events: the flush has queued these, and this event covers their change.
        self.enqueue(to, to.kind().response(request_id, body), Kind::Event(id));
    }

    pub(super) fn first_answer_taken(&mut self, id: SubscriptionId) {
        let due = Tick(self.now.0.saturating_add(self.config.subscribe_grace_ms));
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            subscription.begin_grace(due);
            self.timers.add(due, Timer::GraceOver(id));
        }
    }

    /// Ends the grace time of a subscription, and queues the changes made meanwhile as one event.
    pub(super) fn go_live(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let peer = subscription.peer();
        if subscription.go_live() {
            self.queue_catch_up(peer, id);
        }
    }

    fn queue_catch_up(&mut self, peer: PeerId, id: SubscriptionId) {
        // Marked as dirty too: an idle reader sends no notice that would flush its outbox.
        if let Some(found) = self.peers.get_mut(peer) {
            found.behind.push_back(id);
            self.dirty.note(peer, found);
        }
    }
}
