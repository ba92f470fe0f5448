//! Dropped frames: those of a session before, and the end of a session without a reader
//! (docs/differences.md#22-connectionclosed-and-the-next-reader).
//!
//! Invariant: only frames not begun yet are dropped. Whole frames in the pipe stay, and a partial one is
//! finished: no reader could continue behind half a frame.

use crate::broker::Seq;

use super::{Notices, PipeWriter};

impl PipeWriter {
    /// Drops all frames.
    pub(in super::super) fn reset(&mut self) {
        self.queue.clear();
        self.count_dropped();
    }

    /// Drops the ends of sessions up to this frame.
    pub(in super::super) fn drop_closed(&mut self, up_to: Seq, notices: &mut Notices) {
        let before = self.queue.len();
        self.queue.retain(|frame| !frame.closes || frame.seq > up_to);
        if self.queue.len() < before {
            self.count_dropped();
            notices.written = Some(self.written);
        }
    }

    /// Counts dropped frames as written: otherwise the broker would wait for them before it hands out more.
    fn count_dropped(&mut self) {
        // With a frame in parts the count goes on at its end.
        if self.rest.is_none() {
            self.written = self.queue.front().map_or(self.pushed, |next| next.seq - 1);
        }
    }
}
