//! Fair queue: messages of all peers, ordered by the worker's time used per peer.
//!
//! Messages and the time of their handling come in; the oldest message of the peer with the least used
//! time comes out. So a flood of expensive requests delays its own sender, and a peer that was idle
//! waits for one message of another peer.
//!
//! Invariant: a peer is in `ready` exactly if it has messages and no pause, except between `pop` and
//! `charge`.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use crate::{broker::PeerId, id_map::IdMap};

#[derive(Debug)]
pub(super) struct FairQueue<T> {
    lanes: IdMap<PeerId, Lane<T>>,
    /// Peers with messages and without a pause, by used time.
    ready: BTreeSet<(Duration, PeerId)>,
    /// Used time of the last served peer: an idle peer does not save up unused time.
    floor: Duration,
}

/// Most peers remembered without messages.
const MOST_IDLE: usize = 64;

#[derive(Debug)]
struct Lane<T> {
    messages: VecDeque<T>,
    used: Duration,
    paused: bool,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lanes: IdMap::default(), ready: BTreeSet::new(), floor: Duration::ZERO }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn push(&mut self, peer: PeerId, message: T) {
        let lane = self.lanes.entry(peer).or_insert_with(|| Lane {
            messages: VecDeque::new(),
            used: Duration::ZERO,
            paused: false,
        });
        if lane.messages.is_empty() {
            // A lane with messages keeps its place: `used` is a part of its key in `ready`.
            lane.used = lane.used.max(self.floor);
            if !lane.paused {
                self.ready.insert((lane.used, peer));
            }
        }
        lane.messages.push_back(message);
    }

    /// Removes the next message. Call [`FairQueue::charge`] for its sender before the next call.
    pub(super) fn pop(&mut self) -> Option<(PeerId, T)> {
        let (used, peer) = self.ready.pop_first()?;
        self.floor = used;
        let message = self.lanes.get_mut(&peer)?.messages.pop_front()?;
        Some((peer, message))
    }

    /// Adds the time of a popped message to its sender.
    pub(super) fn charge(&mut self, peer: PeerId, time: Duration) {
        let Some(lane) = self.lanes.get_mut(&peer) else { return };
        lane.used += time;
        if !lane.messages.is_empty() && !lane.paused {
            self.ready.insert((lane.used, peer));
        }
        // With an empty queue the used times no longer matter.
        if self.ready.is_empty() && self.lanes.len() > MOST_IDLE {
            self.lanes.retain(|_, lane| lane.paused || !lane.messages.is_empty());
            self.lanes.shrink_to_fit();
        }
    }

    /// Pauses or resumes the messages of a peer.
    pub(super) fn pause(&mut self, peer: PeerId, paused: bool) {
        let Some(lane) = self.lanes.get_mut(&peer) else { return };
        lane.paused = paused;
        if paused || lane.messages.is_empty() {
            self.ready.remove(&(lane.used, peer));
        } else {
            self.ready.insert((lane.used, peer));
        }
    }

    /// Removes a peer with its messages.
    pub(super) fn remove(&mut self, peer: PeerId) {
        if let Some(lane) = self.lanes.remove(&peer) {
            self.ready.remove(&(lane.used, peer));
        }
    }

    /// True if no message can be handled now.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: PeerId = PeerId(1);
    const OTHER: PeerId = PeerId(2);
    const LONG: Duration = Duration::from_millis(50);

    #[test]
    fn flood_of_expensive_messages_delays_others_by_one_of_them() {
        let mut queue = FairQueue::default();
        (0..100).for_each(|n| queue.push(FLOOD, n));
        for _ in 0..10 {
            let (peer, _) = queue.pop().unwrap();
            queue.charge(peer, LONG);
        }
        for n in 0..3 {
            queue.push(OTHER, n);
            assert_eq!(queue.pop(), Some((OTHER, n)));
            queue.charge(OTHER, Duration::from_micros(20));
        }
        assert_eq!(queue.pop(), Some((FLOOD, 10)), "whoever was idle has not saved up time");
    }

    #[test]
    fn peers_that_said_something_once_are_forgotten_when_nobody_waits() {
        let mut queue = FairQueue::default();
        queue.push(FLOOD, 0);
        queue.pause(FLOOD, true);
        for peer in 2..200 {
            queue.push(PeerId(peer), 0);
        }
        while let Some((peer, _)) = queue.pop() {
            queue.charge(peer, LONG);
        }
        assert_eq!(queue.lanes.len(), 1, "whoever is paused has something here");
    }

    #[test]
    fn messages_of_one_peer_keep_their_order_through_pauses() {
        let mut queue = FairQueue::default();
        queue.push(FLOOD, 1);
        queue.pause(FLOOD, true);
        queue.push(FLOOD, 2);
        assert!(queue.is_idle() && queue.pop().is_none());
        queue.pause(FLOOD, false);
        assert_eq!(queue.pop(), Some((FLOOD, 1)));
        queue.pause(FLOOD, true);
        queue.charge(FLOOD, LONG);
        assert!(queue.is_idle());
        queue.pause(FLOOD, false);
        assert_eq!(queue.pop(), Some((FLOOD, 2)));
        queue.charge(FLOOD, LONG);
        assert!(queue.is_idle());
        queue.push(FLOOD, 3);
        queue.remove(FLOOD);
        assert!(queue.pop().is_none());
    }
}
