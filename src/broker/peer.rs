//! One instance that is served: its rules, its session, and what it is owed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    message::{FromWorkload, Phase, ResponseBody, ToAgent, ToWorkload},
    state::Instance,
};

use super::{
    Broker, Output, PeerId, Rules, Seq, Session, SubscriptionId, Tick,
    forward::Forwards,
    outbox::{Kind, MemoryBudget, Outbox, Outgoing},
    session::Verdict,
    snapshots::Snapshots,
    subscriptions::Lag,
};

/// What has been counted of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that came from it.
    pub frames_in: u64,
    /// Messages that were handed out for it.
    pub frames_out: u64,
    /// Requests that its rules do not allow.
    pub denied: u64,
    /// Messages that made no sense.
    pub malformed: u64,
}

#[derive(Debug)]
#[repr(C)] // what every event touches comes first, in as few cache lines as it can
pub(super) struct Peer {
    /// Whether what it says is being read.
    pub(super) reading: bool,
    /// Whether its outbox changed since it was last looked at.
    pub(super) dirty: bool,
    /// Whether its FIFOs are there.
    pub(super) has_pair: bool,
    pub(super) session: Session,
    /// Since when it reads too slowly.
    pub(super) slow_since: Option<Tick>,
    pub(super) counters: Counters,
    pub(super) outbox: Outbox,
    /// Those that were not told of a change because too much was queued already.
    pub(super) behind: VecDeque<SubscriptionId>,
    /// Old snapshots of the state that are kept for its subscriptions.
    pub(super) snapshots: Snapshots,
    /// Its subscriptions by request id.
    pub(super) subscriptions: BTreeMap<Arc<str>, SubscriptionId>,
    /// What its subscriptions count towards their limit.
    pub(super) subscription_bytes: usize,
    /// Messages of this session that made no sense.
    pub(super) malformed: usize,
    /// Bytes of an event that it is owed and for which there was no room; 0 if there is none.
    pub(super) needs: usize,
    /// When it was last told that it reads too slowly.
    pub(super) slow_told: Option<Tick>,
    /// What it asked for that is the agent's to do.
    pub(super) forwards: Forwards,
    pub(super) instance: Instance,
    pub(super) rules: Rules,
}

impl Peer {
    /// What waits for it counts into `queued` as well.
    pub(super) fn new(instance: Instance, rules: Rules, queued: MemoryBudget) -> Self {
        Self {
            reading: true,
            dirty: false,
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

    /// Whether nothing waits for it, and nothing has to be said or done about how it reads.
    pub(super) fn is_clean(&self) -> bool {
        let slow = self.slow_since.is_some() || !self.reading || !self.behind.is_empty();
        !slow && !self.dirty && self.outbox.is_empty()
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

    /// A stream that cannot be understood ends the session; the workload is told why, once.
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

    /// Everything of the session before ends here, also what is on its way
    /// (docs/differences.md#1-every-hello-is-answered).
    fn begin_session(&mut self, id: PeerId) {
        self.end_subscriptions(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.session = Session::Open;
        peer.malformed = 0;
        peer.outbox.reset();
        peer.forwards = Forwards::default();
        self.outputs.push_back(Output::Reset(id));
        self.push(id, Outgoing::Workload(ToWorkload::Accepted), Kind::Answer);
        self.tell_session(id, Phase::Connected);
    }

    /// The session is over. Answers that it is still owed come first.
    fn close_session(&mut self, id: PeerId, reason: String) {
        self.end_subscriptions(id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.session = Session::Closed;
            peer.forwards = Forwards::default();
            let phase = Phase::Closed(reason.clone());
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
        peer.snapshots = Snapshots::default();
        peer.subscription_bytes = 0;
    }

    /// Ends one subscription; tells whether there was one of this id.
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

    /// Counts a message that makes no sense. One too many ends the session; tells whether it did.
    pub(super) fn note_malformed(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        peer.counters.malformed += 1;
        peer.malformed += 1;
        let most = self.config.limits.max_malformed;
        let over = peer.malformed > most && id != PeerId::AGENT;
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
        self.push(id, response(id, request_id, body), kind);
    }

    pub(super) fn deny(&mut self, id: PeerId, request_id: &Arc<str>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.counters.denied += 1;
        }
        self.answer(id, request_id, ResponseBody::error("Access denied"));
    }

    pub(super) fn push(&mut self, id: PeerId, message: Outgoing, kind: Kind) {
        self.deliver_pending(id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.outbox.push(message, kind, self.now);
            self.dirty.note(id, peer);
        }
    }
}

/// A response in the form that its receiver understands.
pub(super) fn response(to: PeerId, request_id: Arc<str>, body: ResponseBody) -> Outgoing {
    if to == PeerId::AGENT {
        Outgoing::Agent(ToAgent::Response { request_id, body })
    } else {
        Outgoing::Workload(ToWorkload::Response { request_id, body })
    }
}

/// Peers whose outbox changed since it was last looked at, each once.
#[derive(Debug, Default)]
pub(super) struct DirtyOutboxes {
    pub(super) peers: VecDeque<PeerId>,
    /// Those with subscriptions that can catch up when there is work left for it.
    pub(super) later: Vec<PeerId>,
}

impl DirtyOutboxes {
    pub(super) fn note(&mut self, id: PeerId, peer: &mut Peer) {
        if !std::mem::replace(&mut peer.dirty, true) {
            self.peers.push_back(id);
        }
    }
}
