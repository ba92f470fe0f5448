//! Ready queue: the ports due for a turn, in two queues that alternate.
//!
//! Ports with an event of their pair stand in one queue, ports with outbound messages in the other one. So a
//! request does not wait for the delivery of an event to thousands of other ports.
//!
//! Invariant: a port is at most once in each queue. Its [`Queued`] flags are kept in its entry, beside
//! everything else that a turn touches.

use std::collections::VecDeque;

use crate::broker::PeerId;

/// Reason of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// An event of its pair.
    Event = 0,
    /// A frame or a reset for it.
    Outbound = 1,
}

/// Membership of a port in the queues, by [`Why`].
#[derive(Debug, Default)]
pub(super) struct Queued([bool; 2]);

impl Queued {
    /// Notes that the port was popped for this reason.
    pub(super) fn popped(&mut self, why: Why) {
        self.0[why as usize] = false;
    }
}

#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    queues: [VecDeque<PeerId>; 2],
    /// Index of the next queue.
    next: usize,
}

impl ReadyQueue {
    /// Number of turns waiting.
    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Queues a port, unless it is queued for this reason already.
    pub(super) fn push(&mut self, peer: PeerId, queued: &mut Queued, why: Why) {
        if !std::mem::replace(&mut queued.0[why as usize], true) {
            self.queues[why as usize].push_back(peer);
        }
    }

    /// The next port, and its reason.
    pub(super) fn pop(&mut self) -> Option<(PeerId, Why)> {
        if self.queues[self.next].is_empty() {
            self.next = 1 - self.next;
        }
        let why = if self.next == 0 { Why::Event } else { Why::Outbound };
        let peer = self.queues[self.next].pop_front()?;
        self.next = 1 - self.next;
        Some((peer, why))
    }

    /// True if the next turn belongs to the outbound queue and that queue is empty. The turn then counts
    /// as used.
    pub(super) fn take_outbound_turn(&mut self) -> bool {
        let [events, outbound] = [&self.queues[0], &self.queues[1]].map(VecDeque::is_empty);
        let free = outbound && (events || self.next == Why::Outbound as usize);
        if free {
            self.next = Why::Event as usize;
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues a port of each number for this reason.
    fn push(queue: &mut ReadyQueue, numbers: &[u64], why: Why) {
        numbers.iter().for_each(|number| queue.push(PeerId(*number), &mut Queued::default(), why));
    }

    fn pop_all(queue: &mut ReadyQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|(peer, _)| peer.0).collect()
    }

    #[test]
    fn queues_alternate_and_one_of_them_does_not_wait_for_the_other() {
        let mut queue = ReadyQueue::default();
        push(&mut queue, &[1, 2, 3], Why::Outbound);
        push(&mut queue, &[4], Why::Event);
        assert_eq!(pop_all(&mut queue), [4, 1, 2, 3]);
    }

    #[test]
    fn port_is_once_in_a_queue_until_it_is_popped() {
        let (mut queue, mut queued) = (ReadyQueue::default(), Queued::default());
        for why in [Why::Event, Why::Event, Why::Outbound, Why::Outbound] {
            queue.push(PeerId(1), &mut queued, why);
        }
        assert_eq!(queue.len(), 2);
        queued.popped(Why::Event);
        queue.push(PeerId(1), &mut queued, Why::Event);
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn multicast_takes_every_second_turn_beside_ready_ports() {
        let mut queue = ReadyQueue::default();
        assert!(queue.take_outbound_turn() && queue.take_outbound_turn(), "nobody else waits");
        push(&mut queue, &[1, 2], Why::Event);
        assert!(!queue.take_outbound_turn());
        assert_eq!(queue.pop(), Some((PeerId(1), Why::Event)));
        assert!(queue.take_outbound_turn());
        assert!(!queue.take_outbound_turn(), "the other ready port first");
    }
}
