//! Written frames: the frames in a pipe, with their unread bytes.
//!
//! The writer adds each write, and subtracts the bytes read by the workload. Invariant: `bytes` is the
//! sum over `frames`.

use crate::small_deque::SmallDeque;

use super::{OutFrame, SLOT};

/// Written and unread frames of one pipe.
#[derive(Debug, Default)]
pub(super) struct WrittenFrames {
    /// Frames, oldest first, each with its unread bytes and the number of the call that wrote it.
    pub(super) frames: SmallDeque<(OutFrame, usize, u64)>,
    pub(super) bytes: usize,
    /// Number of writing calls so far.
    pub(super) calls: u64,
}

impl WrittenFrames {
    pub(super) fn push(&mut self, frame: OutFrame, bytes: usize) {
        self.bytes += bytes;
        match self.frames.back_mut() {
            // The next part of a partial frame.
            Some((last, left, _)) if last.seq == frame.seq => *left += bytes,
            _ => self.frames.push_back((frame, bytes, self.calls)),
        }
    }

    /// Drops all frames: the pipe is drained.
    pub(super) fn forget(&mut self) {
        *self = Self { calls: self.calls, ..Self::default() };
    }

    /// Most slots taken by these frames. Each call may have left its last slot half empty, and the
    /// reader may have read a part of the first one.
    pub(super) fn slots(&self) -> usize {
        let first = self.frames.front().map_or(self.calls, |(.., call)| *call);
        self.bytes / SLOT + usize::try_from(self.calls - first).unwrap_or(usize::MAX) + 2
    }
}
