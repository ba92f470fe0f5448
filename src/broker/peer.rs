//! A peer: one served instance or the agent, with its rules, session, outbox and subscriptions.
//!
//! In come messages and notices of the server; out go answers, in the order of their queueing. Before a
//! message is queued, the pending event of the last change is: no answer overtakes the event of an
//! earlier change, except for lagging subscriptions.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    limits::Limits,
    message::{FromWorkload, Phase, ResponseBody, ToWorkload},
    state::Instance,
};

use super::{
    AckMode, Broker, Output, PeerId, Rules, Seq, Session, SubscriptionId, Tick,
    forward::Forwards,
    outbox::{Kind, MemoryBudget, Outbox, Outgoing},
    peer_kind::PeerKind,
    session::Verdict,
    snapshots::Snapshots,
    subscriptions::Lag,
};

/// Counters of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages received from it.
    pub frames_in: u64,
    /// Messages handed out for it.
    pub frames_out: u64,
    /// Requests denied by its rules.
    pub denied: u64,
    /// Messages without a valid meaning.
    pub malformed: u64,
}

#[derive(Debug)]
#[repr(C)] // what every event touches comes first, in as few cache lines as it can
pub(super) struct Peer {
    /// True if its requests are being read.
    pub(super) reading: bool,
    /// True if its outbox is queued for a flush.
    pub(super) dirty: bool,
    /// True during the fan-out of its own change: its outbox waits for the events of others.
    pub(super) held: bool,
    /// True if its FIFOs exist.
    pub(super) has_pair: bool,
    pub(super) session: Session,
    /// Time since when it reads too slowly.
    pub(super) slow_since: Option<Tick>,
    pub(super) counters: Counters,
    pub(super) outbox: Outbox,
    /// Lagging subscriptions with their grace time over, in the order of catching up.
    pub(super) behind: VecDeque<SubscriptionId>,
    /// Old versions of the state, kept for its lagging subscriptions.
    pub(super) snapshots: Snapshots,
    /// Its subscriptions by request id.
    pub(super) subscriptions: BTreeMap<Arc<str>, SubscriptionId>,
    /// Cost of its subscriptions, counted against their limit.
    pub(super) subscription_bytes: usize,
    /// Malformed messages in this session.
    pub(super) malformed: usize,
    /// Length of a merged event waiting for memory; 0 if there is none.
    pub(super) needs: usize,
    /// Time of the last report as a slow reader.
    pub(super) slow_told: Option<Tick>,
    /// Its requests forwarded to the agent.
    pub(super) forwards: Forwards,
    pub(super) instance: Instance,
    pub(super) rules: Rules,
}

impl Peer {
    /// A peer without messages; its outbox counts into `queued` too.
    pub(super) fn new(instance: Instance, rules: Rules, queued: MemoryBudget) -> Self {
        Self {
            reading: true,
            dirty: false,
            held: false,
            has_pair: false,
            session: Session::default(),
            slow_since: None,
            counters: Counters::default(),
            outbox: Outbox::new(queued),
            behind: VecDeque::new(),
            snapshots: Snapshots::default(),
            subscriptions: BTreeMap::new(),
            subscription_bytes: 0,
            malformed: 0,
            needs: 0,
            slow_told: None,
            forwards: Forwards::default(),
            instance,
            rules,
        }
    }

    /// True if the outbox is empty and neither marked nor held, and the reader neither lags nor is paused
    /// or reported slow.
    pub(super) fn is_clean(&self) -> bool {
        let slow = self.slow_since.is_some() || !self.reading || !self.behind.is_empty();
        !slow && !self.dirty && !self.held && self.outbox.is_empty()
    }

    /// True if one more event may wait for this peer of this kind.
    pub(super) fn has_room(&self, kind: PeerKind, limits: &Limits, queued: &MemoryBudget) -> bool {
        self.outbox.is_empty() || self.outbox.has_room(kind.budget(limits, queued, &self.outbox))
    }

    /// The number of an event that skips the queue, if the peer is clean and a workload. This is the
    /// usual case, and such events of one group leave as one [`Output::Multicast`].
    pub(super) fn pass_event(&mut self, kind: PeerKind, window: usize) -> Option<(Seq, AckMode)> {
        if kind == PeerKind::Agent || !self.is_clean() {
            return None;
        }
        let passed = self.outbox.pass(window)?;
        self.counters.frames_out += 1;
        Some(passed)
    }
}

impl Broker {
    pub(super) fn on_message(&mut self, id: PeerId, message: FromWorkload) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
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
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.counters.malformed += 1;
        if peer.session != Session::Closed {
            self.close_session(id, reason);
        }
    }

    pub(super) fn on_end_of_file(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.session = peer.session.after_end_of_file();
        }
    }

    pub(super) fn on_taken(&mut self, id: PeerId, seq: Seq) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let ready = peer.outbox.note_taken(seq, self.now);
        self.dirty.note(id, peer);
        for subscription in ready {
            self.first_answer_taken(subscription);
        }
    }

    /// Begins a session. Everything of the one before ends, even messages handed out
    /// (docs/differences.md#1-every-hello-is-answered).
    fn begin_session(&mut self, id: PeerId) {
        self.end_subscriptions(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.session = Session::Open;
        peer.malformed = 0;
        // Reset before Accepted is queued: it is the first message of the new session.
        peer.outbox.reset();
        peer.forwards = Forwards::default();
        self.outputs.push_back(Output::Reset(id));
        self.push(id, Outgoing::Workload(ToWorkload::Accepted), Kind::Answer);
        self.tell_session(id, Phase::Connected);
    }

    /// Closes the session. Answers queued before are sent first.
    fn close_session(&mut self, id: PeerId, reason: String) {
        self.end_subscriptions(id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.session = Session::Closed;
            peer.forwards = Forwards::default();
            let phase = Phase::Closed(reason.clone());
            // Queued, not sent at once: earlier answers keep their place.
            self.push(id, Outgoing::Workload(ToWorkload::Closed { reason }), Kind::Answer);
            self.tell_session(id, phase);
        }
    }

    pub(super) fn end_subscriptions(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for subscription in std::mem::take(&mut peer.subscriptions).into_values() {
            peer.outbox.take_back_events(subscription);
            self.subscriptions.remove(subscription);
        }
        peer.behind.clear();
        peer.needs = 0;
        // All subscriptions are gone, so no release is needed for each.
        peer.snapshots = Snapshots::default();
        peer.subscription_bytes = 0;
    }

    /// Ends one subscription. Returns true if it existed.
    pub(super) fn end_subscription(&mut self, id: PeerId, request_id: &str) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let Some(subscription) = peer.subscriptions.remove(request_id) else { return false };
        let Some(removed) = self.subscriptions.remove(subscription) else { return false };
        peer.subscription_bytes -= removed.cost;
        if removed.lag.is_some() {
            peer.behind.retain(|behind| *behind != subscription);
        }
        if let Some(Lag::Since(version)) = removed.lag {
            peer.snapshots.release(version);
        }
        true
    }

    /// Counts a malformed message. One above the limit closes the session; returns true in this case.
    pub(super) fn note_malformed(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
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

    pub(super) fn deny(&mut self, id: PeerId, request_id: &Arc<str>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.counters.denied += 1;
        }
        self.answer(id, request_id, ResponseBody::error("Access denied"));
    }

    /// Queues a message behind the peer's events of all changes so far.
    pub(super) fn push(&mut self, id: PeerId, message: Outgoing, kind: Kind) {
        self.deliver_pending(id);
        self.enqueue(id, message, kind);
    }

    pub(super) fn enqueue(&mut self, id: PeerId, message: Outgoing, kind: Kind) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.outbox.push(message, kind, self.now);
            self.dirty.note(id, peer);
        }
    }
}

/// Peers with an outbox to flush, each once.
#[derive(Debug, Default)]
pub(super) struct DirtyOutboxes {
    pub(super) peers: VecDeque<PeerId>,
    /// Peers with lagging subscriptions, deferred to a later slice of work.
    pub(super) later: Vec<PeerId>,
}

impl DirtyOutboxes {
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.later.is_empty()
    }

    pub(super) fn note(&mut self, id: PeerId, peer: &mut Peer) {
        if !std::mem::replace(&mut peer.dirty, true) {
            self.peers.push_back(id);
        }
    }
}
