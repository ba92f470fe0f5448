//! Acknowledgements of the agent's commands, in the order of the commands.
//!
//! In go the commands and, later, the results of opening or closing pairs; out come the results from
//! the front, as far as they are known. A waiting acknowledgement keeps its place and is found by its
//! peer, so the cost does not grow with the number of commands under way.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    message::{RejectCode, Rejected},
    state::Instance,
};

use super::PeerId;

/// The progress of a command.
#[derive(Debug)]
pub(super) enum Done {
    /// Done, with this result.
    Now(Result<(), Rejected>),
    /// Waiting until the pair of this peer exists.
    Opening(PeerId),
    /// Waiting until the pair of this peer is removed.
    Closing(PeerId),
}

impl Done {
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Now(_) => None,
            Self::Opening(id) | Self::Closing(id) => Some(*id),
        }
    }
}

/// The acknowledgement of one command.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) id: u64,
    pub(super) rejections_only: bool,
    pub(super) done: Done,
}

/// The rejection of a command about an instance without a peer.
pub(super) fn unknown_instance(instance: &Instance) -> Rejected {
    Rejected::new(RejectCode::UnknownInstance, format!("unknown instance {instance}"))
}

/// Acknowledgements not yet sent.
#[derive(Debug, Default)]
pub(super) struct Acks {
    queue: VecDeque<Ack>,
    /// Number of the first one in the queue, counted over all commands.
    first: u64,
    /// Numbers of the acknowledgements waiting for a pair.
    waiting: BTreeMap<PeerId, Vec<u64>>,
}

impl Acks {
    pub(super) fn push(&mut self, ack: Ack) {
        if let Some(peer) = ack.done.peer() {
            self.waiting.entry(peer).or_default().push(self.first + self.queue.len() as u64);
        }
        self.queue.push_back(ack);
    }

    /// Notes the result of all commands waiting for the pair of `peer` in this way.
    pub(super) fn resolve(
        &mut self,
        peer: PeerId,
        waits: impl Fn(&Done) -> bool,
        result: &Result<(), Rejected>,
    ) {
        // A command to close may wait for the same pair as one to open: the other kind stays.
        let mut numbers = self.waiting.remove(&peer).unwrap_or_default();
        numbers.retain(|number| {
            // Waiting numbers are never below `first`: `pop` stops at an unresolved acknowledgement.
            let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
            let Some(ack) = self.queue.get_mut(at) else { return false };
            let resolved = waits(&ack.done);
            if resolved {
                ack.done = Done::Now(result.clone());
            }
            !resolved
        });
        if !numbers.is_empty() {
            self.waiting.insert(peer, numbers);
        }
    }

    /// The next acknowledgement in the order of the commands, if its result is known.
    pub(super) fn pop(&mut self) -> Option<(Ack, Result<(), Rejected>)> {
        let Done::Now(result) = &self.queue.front()?.done else { return None };
        let result = result.clone();
        self.first += 1;
        self.queue.pop_front().map(|ack| (ack, result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_keep_the_order_of_the_commands_whatever_is_done_first() {
        let mut acks = Acks::default();
        let (a, b) = (PeerId(1), PeerId(2));
        let all = [Done::Opening(a), Done::Opening(b), Done::Closing(a), Done::Opening(a)];
        for (id, done) in (1..).zip(all) {
            acks.push(Ack { id, rejections_only: false, done });
        }
        let opened = |done: &Done| matches!(done, Done::Opening(_));
        let popped = |acks: &mut Acks| -> Vec<(u64, bool)> {
            std::iter::from_fn(|| acks.pop())
                .map(|(ack, result)| (ack.id, result.is_ok()))
                .collect()
        };
        acks.resolve(b, opened, &Err(Rejected::new(RejectCode::PairFailed, "no folder")));
        assert_eq!(popped(&mut acks), []);
        acks.resolve(a, opened, &Ok(()));
        assert_eq!(popped(&mut acks), [(1, true), (2, false)]);
        acks.resolve(a, |done| matches!(done, Done::Closing(_)), &Ok(()));
        assert_eq!(popped(&mut acks), [(3, true), (4, true)]);
        assert!(acks.waiting.is_empty());
    }
}
