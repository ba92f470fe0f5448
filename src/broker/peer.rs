//! A peer: one served instance or the agent, with its rules, session, outbox and subscriptions.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{limits::Limits, state::Instance};

use super::{
    AckMode, Rules, Seq, Session, SubscriptionId, Tick,
    denial::Denial,
    forward::Forwards,
    memory::MemoryBudget,
    outbox::{Budget, Outbox, QueuedBytes},
    peer_kind::PeerKind,
    snapshots::Snapshots,
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
    /// True if its requests are being read. A workload that does not read its answers is not read.
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
    /// Its last denied request.
    pub(super) last_denial: Option<Box<Denial>>,
}

impl Peer {
    /// A peer without messages; its outbox counts into `queued` too.
    pub(super) fn new(instance: Instance, rules: Rules, queued: QueuedBytes) -> Self {
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
            last_denial: None,
        }
    }

    /// True if the outbox is empty and neither marked nor held, and the reader neither lags nor is paused
    /// or reported slow.
    pub(super) fn is_clean(&self) -> bool {
        let slow = self.slow_since.is_some() || !self.reading || !self.behind.is_empty();
        !slow && !self.dirty && !self.held && self.outbox.is_empty()
    }

    /// True if one more event may wait for this peer of this kind.
    pub(super) fn has_room(&self, kind: PeerKind, limits: &Limits, memory: &MemoryBudget) -> bool {
        // An empty outbox takes a message of any size, so the usual case needs no budget.
        self.outbox.is_empty() || self.outbox.has_room(self.budget(kind, limits, memory))
    }

    /// The budget of its outbox, as a peer of this kind.
    pub(super) fn budget(&self, kind: PeerKind, limits: &Limits, memory: &MemoryBudget) -> Budget {
        kind.budget(limits, memory.left_for_outbox(self.outbox.bytes()))
    }

    /// The number of an event that skips the queue, if the peer is clean and a workload. This is the
    /// usual case, and such events of one group leave as one [`Output::Multicast`](super::Output::Multicast).
    pub(super) fn pass_event(&mut self, kind: PeerKind, window: usize) -> Option<(Seq, AckMode)> {
        // A `Multicast` is for pairs: the link has message types of its own.
        if kind != PeerKind::Workload || !self.is_clean() {
            return None;
        }
        let passed = self.outbox.pass(window)?;
        self.counters.frames_out += 1;
        Some(passed)
    }
}
