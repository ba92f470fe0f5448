//! Ends of sessions without a reader (docs/differences.md#22-connectionclosed-and-the-next-reader).

use crate::broker::Seq;

use super::{Notices, PipeWriter};

impl PipeWriter {
    /// Drops the ends of sessions up to this frame, as far as they are not in the pipe. They count as
    /// written: otherwise the broker would wait for them before it hands out more.
    pub(in super::super) fn drop_closed(&mut self, up_to: Seq, notices: &mut Notices) {
        let before = self.queue.len();
        self.queue.retain(|frame| !frame.closes || frame.seq > up_to);
        // With a frame in parts the count goes on at its end.
        if self.queue.len() < before && self.rest.is_none() {
            self.written = self.queue.front().map_or(self.pushed, |next| next.seq - 1);
            notices.written = Some(self.written);
        }
    }
}
