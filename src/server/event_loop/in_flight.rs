//! In-flight counter: bounds the messages of one port on their way to the worker.
//!
//! The event loop adds each message, the worker subtracts it after handling. Invariant: a reader parked
//! at the limit always gets a `Handled` of the worker.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::limits::Limits;

/// Messages and bytes of one peer on their way to the worker.
#[derive(Debug)]
pub(crate) struct InFlight {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Reading is stopped until the worker has handled half of the limit.
    parked: AtomicBool,
    most_messages: usize,
    most_bytes: usize,
}

impl InFlight {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            most_messages: limits.max_in_flight,
            most_bytes: limits.in_flight_bytes,
        }
    }

    pub(super) fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Parks the reader if the limit is reached. The worker resumes a parked reader once, so the order
    /// matters: the flag is set first, and the limit is checked again after it.
    pub(super) fn park(&self) -> bool {
        if !self.is_full() {
            return false;
        }
        self.parked.store(true, Ordering::Release);
        if self.is_full() {
            return true;
        }
        self.parked.store(false, Ordering::Release);
        false
    }

    /// Number of messages to read at most; at least one where reading is allowed.
    pub(super) fn room(&self) -> usize {
        self.most_messages.saturating_sub(self.messages.load(Ordering::Relaxed)).max(1)
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.load(Ordering::Relaxed) >= self.most_messages
            || self.bytes.load(Ordering::Relaxed) >= self.most_bytes
    }

    /// Subtracts a handled message. Returns true if a parked reader may go on.
    pub(crate) fn handled(&self, bytes: usize) -> bool {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        // Half of the limit, not one below it: fewer switches between parked and reading.
        let half = self.messages.load(Ordering::Relaxed) <= self.most_messages / 2
            && self.bytes.load(Ordering::Relaxed) <= self.most_bytes / 2;
        half && self.parked.swap(false, Ordering::AcqRel)
    }
}
