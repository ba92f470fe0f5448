//! Flow control: hands out queued messages, and pauses the reads of peers with a full outbox.
//!
//! In go the outboxes marked as dirty; out come [`Output::Send`] and [`Output::SetReadEnabled`]. At
//! most a window and one message per peer are with the server. Lagging subscriptions catch up once
//! their outbox is half empty, and reads resume at the same mark, so neither alternates with each
//! message.

use std::collections::VecDeque;

use crate::message::ToAgent;

use super::{
    AckMode, Broker, Output, PeerId, Tick,
    outbox::{Budget, Handed, Kind, Outgoing},
    peer::Peer,
    peer_kind::PeerKind,
};

/// Peers with an outbox to flush, each once.
#[derive(Debug, Default)]
pub(super) struct DirtyOutboxes {
    ready: VecDeque<PeerId>,
    /// Peers with lagging subscriptions, deferred to a later slice of work.
    later: Vec<PeerId>,
}

impl DirtyOutboxes {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.later.is_empty()
    }

    /// Queues a message in the outbox of a peer, and marks it.
    #[inline] // the message is large, and would be copied for the call
    pub(super) fn push(
        &mut self,
        id: PeerId,
        peer: &mut Peer,
        message: Outgoing,
        kind: Kind,
        now: Tick,
    ) {
        peer.outbox.push(message, kind, now);
        self.note(id, peer);
    }

    /// Marks the outbox of a peer.
    pub(super) fn note(&mut self, id: PeerId, peer: &mut Peer) {
        if !std::mem::replace(&mut peer.dirty, true) {
            self.ready.push_back(id);
        }
    }

    fn pop(&mut self) -> Option<PeerId> {
        self.ready.pop_front()
    }

    /// Leaves a peer, still marked, to a later slice of work.
    fn defer(&mut self, id: PeerId) {
        self.later.push(id);
    }

    /// Begins with the deferred peers again.
    fn resume(&mut self) {
        if !self.later.is_empty() {
            self.ready.extend(self.later.drain(..));
        }
    }
}

impl Broker {
    /// Flushes all dirty outboxes.
    pub(super) fn flush_outboxes(&mut self) {
        // Once per call: a peer deferred in the loop below waits for the next slice.
        self.dirty.resume();
        while let Some(id) = self.dirty.pop() {
            self.flush_outbox(id);
        }
    }

    pub(super) fn flush_outbox(&mut self, id: PeerId) {
        let window = id.kind().window(&self.config);
        while let Some(peer) = self.peers.get_mut(id) {
            if peer.held {
                return; // still marked as dirty; its release flushes it
            }
            hand_all(id, peer, window, &mut self.outputs);
            let all_handed = peer.outbox.is_empty();
            // Kept session changes are queued only once all else is handed out: until then they merge.
            if id.is_agent() && all_handed && self.tell_waiting_sessions() {
                continue;
            }
            let Some(peer) = self.peers.get_mut(id) else { break };
            // Usual case: all messages are handed out, and there is no lag and no pause to end.
            let marked = std::mem::replace(&mut peer.dirty, false);
            if peer.is_clean() {
                return;
            }
            peer.dirty = marked;
            if !self.catch_up_next(id) {
                return;
            }
        }
    }

    /// Lets the first lagging subscription of a peer catch up, if there is room for its event; otherwise
    /// ends the flush. Returns true if the outbox is to be flushed again.
    fn catch_up_next(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        // Catching up begins at half of the budget: at the full budget every event would be a merged
        // one.
        let budget = peer.budget(id.kind(), &self.config.limits, &self.memory);
        // An event waiting for memory is tried again by `feed_starved`, not at each flush.
        let room = peer.needs == 0 && peer.outbox.is_half_empty(budget);
        let Some(subscription) = peer.behind.front().copied().filter(|_| room) else {
            peer.dirty = false;
            self.set_reading(id, budget);
            return false;
        };
        // The event of the running fan-out takes its place and its room first: a merged event of a later
        // state would overtake it.
        if self.deliver_pending(id) {
            return true;
        }
        let Some(peer) = self.peers.get_mut(id) else { return false };
        // A merged event may cost as much as thousands of small messages: leave it to a later slice.
        if self.work_left <= 0 {
            peer.dirty = true;
            self.dirty.defer(id);
            return false;
        }
        peer.behind.pop_front();
        let work = self.catch_up(subscription);
        self.spend(work);
        if let Some(peer) = self.peers.get_mut(id)
            && peer.needs > 0
        {
            // Back to the front: its turn is not lost while it waits for memory.
            peer.behind.push_front(subscription);
            self.memory.wait(peer.needs, id);
        }
        true
    }

    /// Stops reading from a peer whose outbox is over its budget.
    pub(super) fn pause_if_full(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(id) else { return };
        let budget = peer.budget(id.kind(), &self.config.limits, &self.memory);
        if peer.reading && !peer.outbox.has_room(budget) {
            self.set_reading(id, budget);
        }
    }

    /// Pauses the reads of a peer over its budget, and resumes them at half of it: its requests wait
    /// until it has read its answers.
    fn set_reading(&mut self, id: PeerId, budget: Budget) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let on = match peer.reading {
            true => peer.outbox.has_room(budget),
            false => peer.outbox.is_half_empty(budget),
        };
        if on != peer.reading {
            peer.reading = on;
            if id.kind() == PeerKind::Commander {
                let message = ToAgent::CommanderReading(peer.instance.clone(), on);
                self.tell_agent(message);
            } else {
                self.outputs.push_back(Output::SetReadEnabled(id, on));
            }
        }
        if !on {
            self.note_slow(id);
        } else if self.peers.get(id).is_some_and(|peer| peer.behind.is_empty()) {
            self.note_caught_up(id);
        }
    }

    /// Reports a slow reader, at most once per [`EPISODE_MS`].
    pub(super) fn note_slow(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.slow_since.is_some() {
            return;
        }
        peer.slow_since = Some(self.now);
        if peer.slow_told.is_none_or(|last| last.0 + EPISODE_MS <= self.now.0) {
            peer.slow_told = Some(self.now);
            let (instance, bytes) = (peer.instance.clone(), peer.outbox.bytes());
            self.outputs.push_back(Output::Slow(instance, bytes));
        }
    }

    fn note_caught_up(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        // Only a reported episode has its end reported: the log lines come in pairs.
        if let Some(since) = peer.slow_since.take()
            && peer.slow_told == Some(since)
        {
            let (instance, after) = (peer.instance.clone(), self.now.0 - since.0);
            self.outputs.push_back(Output::CaughtUp(instance, after));
        }
    }
}

/// Hands out the messages of one outbox, as many as the window allows.
#[inline]
fn hand_all(id: PeerId, peer: &mut Peer, window: usize, outputs: &mut VecDeque<Output>) {
    while let Some(Handed { seq, message, ack }) = peer.outbox.hand(window) {
        peer.counters.frames_out += 1;
        outputs.push_back(match message {
            // The window of the commander bounds it, not the outbox of the agent.
            Outgoing::Workload(message) if id.kind() == PeerKind::Commander => {
                let (instance, wants_took) = (peer.instance.clone(), ack != AckMode::None);
                let message = ToAgent::ToCommander { instance, seq, wants_took, message };
                Output::SendToAgent { seq, message, ack: AckMode::None }
            }
            Outgoing::Workload(message) => Output::Send { peer: id, seq, message, ack },
            Outgoing::Agent(message) => Output::SendToAgent { seq, message, ack },
        });
    }
}

/// Milliseconds before a workload is reported again as a slow reader.
// As promised in docs/operations.md#warnings-of-fifogate-run.
const EPISODE_MS: u64 = 10_000;
