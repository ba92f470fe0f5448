//! Old pairs: those left in the run directory by an earlier server, and not added to this one.
//!
//! In goes the run directory as found at the start; out go removals. A pair waits for its workload to be
//! added again: after a crash of the server the workload still has it open, and goes on with it.

use std::time::{Duration, Instant};

use super::Loop;

/// The names of the pairs found at the start, until they are removed or left to others.
#[derive(Debug, Default)]
pub(super) struct OldPairs {
    names: Vec<String>,
    /// Time of the removal, once the workloads are being added.
    pub(super) due: Option<Instant>,
}

impl OldPairs {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self { names, due: None }
    }
}

impl Loop {
    /// Begins the time for adding workloads. Only the first call counts.
    pub(super) fn expect_old_pairs(&mut self, time: Duration) {
        if !self.old_pairs.names.is_empty() {
            // A time beyond the clock's range is one that never comes.
            let due = Instant::now().checked_add(time);
            self.old_pairs.due = self.old_pairs.due.or(due);
        }
    }

    /// Removes the pairs that nobody has added in time.
    pub(super) fn remove_old_pairs(&mut self, now: Instant) {
        if self.old_pairs.due.is_none_or(|due| due > now) {
            return;
        }
        for name in std::mem::take(&mut self.old_pairs).names {
            let opening = self.opening.values().map(|opening| opening.pair().name());
            let served = self.ports.all().map(|entry| entry.pair().name());
            if opening.chain(served).any(|own| own == name) {
                continue;
            }
            match self.run_dir.remove_named(&name) {
                Ok(()) => log::info!("removed the pair of {name}: nobody has added it again"),
                Err(error) => log::warn!("cannot remove the old pair of {name}: {error}"),
            }
        }
    }
}
