//! Sessions of the peers, and the order of their messages.
//!
//! In come messages and notices of the server; out go answers, in the order of their queueing. Before a
//! message is queued, the pending event of the last change is: no answer overtakes the event of an
//! earlier change, except for lagging subscriptions.

use std::sync::Arc;

use crate::message::{FromWorkload, Phase, ResponseBody, ToWorkload};

use super::{
    Broker, Output, PeerId, Seq, Session, SubscriptionId,
    denial::Denial,
    outbox::{Kind, Outgoing},
    session::Verdict,
    snapshots::Snapshots,
    subscriptions::{Lag, Subscription, Subscriptions},
    timers::{Timer, Timers},
};

impl Broker {
    pub(super) fn on_message(&mut self, id: PeerId, message: FromWorkload) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.counters.frames_in += 1;
        match peer.session.judge(&message) {
            Verdict::Begin => self.begin_session(id),
            Verdict::Close(reason) => {
                peer.counters.malformed += 1;
                self.close_session(id, reason);
            }
            Verdict::Serve => self.serve(id, message),
            Verdict::Skip => {}
        }
    }

    /// Ends the session of an undecodable stream. The workload gets the reason, once.
    pub(super) fn on_broken(&mut self, id: PeerId, reason: String) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.counters.malformed += 1;
        if peer.session != Session::Closed {
            self.close_session(id, reason);
        }
    }

    pub(super) fn on_end_of_file(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.session = peer.session.after_end_of_file();
        }
    }

    /// Takes back the end of a session without a reader: the next process would take it for its own
    /// (docs/differences.md#22-connectionclosed-and-the-next-reader). Other messages stay.
    pub(super) fn on_unused(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        // In an open session there is none: its Hello has dropped all before it.
        if peer.session != Session::Open {
            let handed = peer.outbox.take_back_closed();
            self.outputs.push_back(Output::DropClosed(id, handed));
        }
    }

    pub(super) fn on_taken(&mut self, id: PeerId, seq: Seq) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let ready = peer.outbox.note_taken(seq, self.now);
        // Flushed when outputs are polled: several notices then cost one flush.
        self.dirty.note(id, peer);
        for subscription in ready {
            self.first_answer_taken(subscription);
        }
    }

    /// Begins a session. Everything of the one before ends, even messages handed out
    /// (docs/differences.md#1-every-hello-is-answered).
    fn begin_session(&mut self, id: PeerId) {
        self.end_subscriptions(id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.session = Session::Open;
        peer.malformed = 0;
        // Reset before Accepted is queued: it is the first message of the new session.
        peer.outbox.reset();
        peer.forwards.end_session();
        self.outputs.push_back(Output::Reset(id));
        self.push(id, Outgoing::Workload(ToWorkload::Accepted), Kind::Answer);
        self.tell_session(id, Phase::Connected);
    }

    /// Closes the session. Answers queued before are sent first.
    fn close_session(&mut self, id: PeerId, reason: String) {
        self.end_subscriptions(id);
        if let Some(peer) = self.peers.get_mut(id) {
            peer.session = Session::Closed;
            peer.forwards.end_session();
            let phase = Phase::Closed(reason.clone());
            // Queued, not sent at once: earlier answers keep their place.
            self.push(id, Outgoing::Workload(ToWorkload::Closed { reason }), Kind::Answer);
            self.tell_session(id, phase);
        }
    }

    pub(super) fn end_subscriptions(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        for subscription in std::mem::take(&mut peer.subscriptions).into_values() {
            peer.outbox.take_back_events(subscription);
            remove_subscription(&mut self.subscriptions, &mut self.timers, subscription);
        }
        peer.behind.clear();
        let needs = std::mem::take(&mut peer.needs);
        self.memory.forget(needs, id);
        // All subscriptions are gone, so no release is needed for each.
        peer.snapshots = Snapshots::default();
        peer.subscription_bytes = 0;
    }

    /// Ends one subscription. Returns true if it existed.
    pub(super) fn end_subscription(&mut self, id: PeerId, request_id: &str) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let Some(subscription) = peer.subscriptions.remove(request_id) else { return false };
        let removed = remove_subscription(&mut self.subscriptions, &mut self.timers, subscription);
        let Some(removed) = removed else { return false };
        peer.subscription_bytes -= removed.cost();
        // Only lagging ones stand in `behind`: others are spared the search.
        if removed.lag().is_some() {
            if peer.behind.front() == Some(&subscription) && peer.needs > 0 {
                // Its event was the one waiting for memory: the next one has its turn, and may be small.
                let needs = std::mem::take(&mut peer.needs);
                self.memory.forget(needs, id);
                self.dirty.note(id, peer);
            }
            peer.behind.retain(|behind| *behind != subscription);
        }
        if let Some(Lag::Since(version)) = removed.lag() {
            peer.snapshots.release(version);
        }
        true
    }

    /// Counts a malformed message. One above the limit closes the session; returns true in this case.
    pub(super) fn note_malformed(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        peer.counters.malformed += 1;
        peer.malformed += 1;
        let most = id.kind().most_malformed(&self.config.limits);
        let over = peer.malformed > most;
        if over {
            let reason = format!("Too many messages without sense, at most {most} are allowed");
            self.close_session(id, reason);
        }
        over
    }

    pub(super) fn answer(&mut self, id: PeerId, request_id: &Arc<str>, body: ResponseBody) {
        self.respond(id, Arc::clone(request_id), body, Kind::Answer);
    }

    /// Queues a response.
    pub(super) fn respond(
        &mut self,
        id: PeerId,
        request_id: Arc<str>,
        body: ResponseBody,
        kind: Kind,
    ) {
        self.push(id, id.kind().response(request_id, body), kind);
    }

    /// Denies a request. Its sender hears nothing of the reason.
    pub(super) fn deny(&mut self, id: PeerId, request_id: &Arc<str>, denial: Denial) {
        self.note_denied(id, denial);
        self.answer(id, request_id, ResponseBody::denied());
    }

    /// Counts a denied request, and reports the reason.
    pub(super) fn note_denied(&mut self, id: PeerId, denial: Denial) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.counters.denied += 1;
        }
        self.report_denial(id, denial);
    }

    /// Reports the reason of a denial, for the log and the status.
    pub(super) fn report_denial(&mut self, id: PeerId, denial: Denial) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        self.outputs.push_back(Output::Denied(peer.instance.clone(), denial.to_string()));
        peer.last_denial = Some(Box::new(denial));
    }

    /// Queues a message behind the peer's events of all changes so far.
    pub(super) fn push(&mut self, id: PeerId, message: Outgoing, kind: Kind) {
        self.deliver_pending(id);
        self.enqueue(id, message, kind);
    }

    /// Queues a message as it comes.
    #[inline] // the message is large, and would be copied for the call
    pub(super) fn enqueue(&mut self, id: PeerId, message: Outgoing, kind: Kind) {
        if let Some(peer) = self.peers.get_mut(id) {
            self.dirty.push(id, peer, message, kind, self.now);
            if peer.held {
                // The flush of a held outbox has passed already, and each slice lets one more message of
                // the author in.
                self.pause_if_full(id);
            }
        }
    }
}

/// Removes a subscription with its timer: a workload may subscribe and cancel thousands of times within one
/// grace time.
fn remove_subscription(
    subscriptions: &mut Subscriptions,
    timers: &mut Timers,
    id: SubscriptionId,
) -> Option<Subscription> {
    let removed = subscriptions.remove(id)?;
    if let Some(due) = removed.grace_until() {
        timers.cancel(due, Timer::GraceOver(id));
    }
    Some(removed)
}
