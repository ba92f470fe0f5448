//! What is in a pipe of what was written to it.

use crate::small_deque::SmallDeque;

use super::{OutFrame, SLOT};

/// What we wrote and nobody has read.
#[derive(Debug, Default)]
pub(super) struct WrittenFrames {
    /// Frames, oldest first, each with its bytes that were not read and the call that wrote it.
    pub(super) frames: SmallDeque<(OutFrame, usize, u64)>,
    pub(super) bytes: usize,
    /// Calls that wrote something, ever.
    pub(super) calls: u64,
}

impl WrittenFrames {
    pub(super) fn push(&mut self, frame: OutFrame, bytes: usize) {
        self.bytes += bytes;
        match self.frames.back_mut() {
            // The next part of a frame that is there in part.
            Some((last, left, _)) if last.seq == frame.seq => *left += bytes,
            _ => self.frames.push_back((frame, bytes, self.calls)),
        }
    }

    /// All of it was read.
    pub(super) fn forget(&mut self) {
        *self = Self { calls: self.calls, ..Self::default() };
    }

    /// The most ports that this may take: each call may have left its last entry half empty, and the
    /// reader has emptied the first one in part.
    pub(super) fn ports(&self) -> usize {
        let first = self.frames.front().map_or(self.calls, |(.., call)| *call);
        self.bytes / SLOT + usize::try_from(self.calls - first).unwrap_or(usize::MAX) + 2
    }
}
