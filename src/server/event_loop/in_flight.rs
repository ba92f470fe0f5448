//! What is on its way from a port to the worker, which bounds what a workload can have there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::limits::Limits;

/// What one workload has on its way to the worker, given back when it was handled.
#[derive(Debug)]
pub(in super::super) struct InFlight {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Reading has stopped, and goes on when there is room.
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

    /// PortState that reading stops for now, if there is too much on its way. The worker says once that
    /// it may go on, so the order matters: first the flag is set, then there is one more look.
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

    /// Messages that may come on top; one is always read where reading is allowed.
    pub(super) fn room(&self) -> usize {
        self.most_messages.saturating_sub(self.messages.load(Ordering::Relaxed)).max(1)
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.load(Ordering::Relaxed) >= self.most_messages
            || self.bytes.load(Ordering::Relaxed) >= self.most_bytes
    }

    /// Gives one message back; tells whether reading may go on that had stopped.
    pub(in super::super) fn handled(&self, bytes: usize) -> bool {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let half = self.messages.load(Ordering::Relaxed) <= self.most_messages / 2
            && self.bytes.load(Ordering::Relaxed) <= self.most_bytes / 2;
        half && self.parked.swap(false, Ordering::AcqRel)
    }
}
