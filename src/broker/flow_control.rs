//! From outboxes to the server: what there is room for is handed out, those that were behind catch up,
//! and whoever has too much waiting is not read.

use crate::limits::Limits;

use super::{
    Broker, Output, PeerId,
    outbox::{Budget, Handed, MemoryBudget, Outgoing},
    peer::Peer,
};

impl Broker {
    /// Hands out what there is room for, and lets those catch up that were behind. Whoever made a change
    /// that others are still being told of waits: the events that its update caused come before its
    /// answer, also to others.
    pub(super) fn flush_outboxes(&mut self) {
        let waits = self.fanout.as_ref().and_then(|fanout| fanout.asker);
        let later = std::mem::take(&mut self.dirty.later);
        self.dirty.peers.extend(later);
        while let Some(id) = self.dirty.peers.pop_front() {
            // It stays marked, so that it does not come here again before that.
            if Some(id) != waits {
                self.flush_outbox(id);
            }
        }
    }

    pub(super) fn flush_outbox(&mut self, id: PeerId) {
        let window = if id == PeerId::AGENT { LINK_WINDOW } else { self.config.window };
        while let Some(peer) = self.peers.get_mut(&id) {
            while let Some(Handed { seq, message, ack }) = peer.outbox.hand(window) {
                peer.counters.frames_out += 1;
                self.outputs.push_back(match message {
                    Outgoing::Workload(message) => Output::Send { peer: id, seq, message, ack },
                    Outgoing::Agent(message) => Output::SendToAgent { seq, message, ack },
                });
            }
            let all_handed = peer.outbox.is_empty();
            if id == PeerId::AGENT && all_handed && self.tell_waiting_sessions() {
                continue;
            }
            let Some(peer) = self.peers.get_mut(&id) else { break };
            // Most of the time that was all.
            let marked = std::mem::replace(&mut peer.dirty, false);
            if peer.is_clean() {
                return;
            }
            peer.dirty = marked;
            // What it is still to be told of the last change takes its room before them.
            if self.deliver_pending(id) {
                continue;
            }
            let Some(peer) = self.peers.get_mut(&id) else { break };
            // Those behind go on at half the budget: at its server, every event would be a merged one.
            let budget = budget_of(&self.config.limits, &self.queued, id, peer);
            let room = peer.needs == 0 && peer.outbox.is_half_empty(budget);
            let Some(subscription) = peer.behind.front().copied().filter(|_| room) else {
                self.set_reading(id, budget);
                break;
            };
            // What one missed may take as long to tell as thousands of small messages to serve.
            if self.work_left <= 0 {
                peer.dirty = true;
                self.dirty.later.push(id);
                return;
            }
            peer.behind.pop_front();
            let work = self.catch_up(subscription);
            self.spend(work);
            if let Some(peer) = self.peers.get_mut(&id)
                && peer.needs > 0
            {
                peer.behind.push_front(subscription);
                self.starved.insert((peer.needs, id));
            }
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.dirty = false;
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
            self.outputs.push_back(Output::SetReadEnabled(id, on));
        }
        if !on {
            self.note_slow(id);
        } else if peer.behind.is_empty() {
            self.note_caught_up(id);
        }
    }

    /// Has it told once that a workload reads too slowly.
    pub(super) fn note_slow(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.slow_since.is_some() {
            return;
        }
        peer.slow_since = Some(self.now);
        if peer.slow_told.is_none_or(|last_seen| last_seen.0 + EPISODE_MS <= self.now.0) {
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
pub(super) fn budget_of(limits: &Limits, queued: &MemoryBudget, id: PeerId, peer: &Peer) -> Budget {
    if id == PeerId::AGENT {
        return Budget { bytes: limits.link_bytes, messages: usize::MAX };
    }
    let others = queued.bytes().saturating_sub(peer.outbox.bytes());
    let bytes = limits.outbox_bytes.min(limits.total_bytes.saturating_sub(others));
    Budget { bytes, messages: limits.outbox_messages }
}

/// A workload that reads slowly again before this time, in milliseconds, is not told of again.
const EPISODE_MS: u64 = 10_000;

/// Most messages to the agent that the server is given at a time: its stream takes any number of them
/// in any pieces.
pub(super) const LINK_WINDOW: usize = 64;
