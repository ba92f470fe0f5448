//! Timers: actions with a deadline, the earliest first.
//!
//! In go times, out come the actions due. No clock is read here: time passes with the inputs.

use std::collections::BTreeSet;

use super::{PeerId, SubscriptionId, Tick};

/// An action with a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The grace time of a subscription is over.
    GraceOver(SubscriptionId),
    /// The agent's time to answer a forwarded request of this peer may be over.
    Forwards(PeerId),
}

/// All timers. One of a removed peer stays until its time, and has no effect then.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Tick, Timer)>);

impl Timers {
    pub(super) fn add(&mut self, due: Tick, timer: Timer) {
        self.0.insert((due, timer));
    }

    /// Takes a timer back, if it is set.
    pub(super) fn cancel(&mut self, due: Tick, timer: Timer) {
        self.0.remove(&(due, timer));
    }

    /// Removes the next timer due by `now`. One at a time: its action may add a timer that is due, too.
    pub(super) fn pop_due(&mut self, now: Tick) -> Option<Timer> {
        self.next_due().filter(|due| *due <= now)?;
        self.0.pop_first().map(|(_, timer)| timer)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn next_due(&self) -> Option<Tick> {
        self.0.first().map(|(due, _)| *due)
    }
}
