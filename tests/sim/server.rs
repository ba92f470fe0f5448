//! One workload's pipe, and whoever reads it: how fast is for the world to say.

use std::collections::VecDeque;

use fifogate::broker::{AckMode, Seq};
use serde_json::Value;

use super::tree;

/// What a message means to the client that reads it.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Other,
    /// The first answer of a subscription.
    First(u64, Value),
    Event(u64, tree::Event),
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) seq: Seq,
    pub(crate) ack: AckMode,
    pub(crate) seen: Seen,
    /// The session that it belongs to.
    pub(crate) session: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Edge {
    waiting: VecDeque<Frame>,
    pipe: VecDeque<Frame>,
    /// The last message that is in the pipe, or was forgotten.
    pub(crate) written: Seq,
}

impl Edge {
    pub(crate) fn send(&mut self, frame: Frame) {
        self.waiting.push_back(frame);
    }

    /// Puts the next message into the pipe, if there is room; tells it if that is wanted.
    pub(crate) fn write(&mut self, window: usize) -> Option<Option<Seq>> {
        if self.pipe.len() >= window {
            return None;
        }
        let frame = self.waiting.pop_front()?;
        self.written = frame.seq;
        let tell = (frame.ack == AckMode::Written).then_some(frame.seq);
        self.pipe.push_back(frame);
        Some(tell)
    }

    /// The reader takes a message out.
    pub(crate) fn take(&mut self) -> Option<Frame> {
        self.pipe.pop_front()
    }

    /// What is not in the pipe yet is forgotten.
    pub(crate) fn reset(&mut self) {
        if let Some(last) = self.waiting.back() {
            self.written = last.seq;
        }
        self.waiting.clear();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.pipe.is_empty()
    }
}
