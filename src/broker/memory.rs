//! The memory budget of all workloads together.
//!
//! It counts the bytes waiting in all outboxes, and the large bodies still held by a queue or by the
//! server. In goes each large body; it comes back charged, or is refused with its length. Merged events
//! without room wait here, and the smallest one is retried first.

use std::collections::BTreeSet;

use crate::message::ResponseBody;

use super::{
    PeerId,
    large::{LARGE, LargeBodies},
    outbox::QueuedBytes,
    peer_kind::PeerKind,
};

#[derive(Debug)]
pub(super) struct MemoryBudget {
    /// Most bytes in outboxes, and most bytes of large bodies.
    most: usize,
    queued: QueuedBytes,
    large: LargeBodies,
    /// Peers with a merged event too large for now, by its length.
    waiting: BTreeSet<(usize, PeerId)>,
}

impl MemoryBudget {
    pub(super) fn new(most: usize) -> Self {
        let (queued, large) = (QueuedBytes::default(), LargeBodies::default());
        Self { most, queued, large, waiting: BTreeSet::new() }
    }

    /// The counter for the outbox of one more workload.
    pub(super) fn outbox_counter(&self) -> QueuedBytes {
        self.queued.clone()
    }

    /// Bytes left for an outbox with `own` bytes. All outboxes are counted together, so its own bytes are
    /// taken off: only those of the others reduce its share.
    pub(super) fn left_for_outbox(&self, own: usize) -> usize {
        self.most.saturating_sub(self.queued.bytes().saturating_sub(own))
    }

    /// True if a body of this length may be made now for a peer of this kind.
    pub(super) fn has_room(&self, kind: PeerKind, len: usize) -> bool {
        self.large.fits(len, kind.most_large(self.most))
    }

    /// Counts a new body for a peer of this kind, if it is large.
    ///
    /// # Errors
    /// There is no room. The error is the length of the body.
    pub(super) fn charge(&self, kind: PeerKind, body: ResponseBody) -> Result<ResponseBody, usize> {
        self.large.charge(body, kind.most_large(self.most))
    }

    /// True if a merged event of this length may be made now. One above the whole budget is made when
    /// nothing else is held: otherwise its reader would never see the newest state.
    pub(super) fn has_room_for_event(&self, kind: PeerKind, len: usize) -> bool {
        self.has_room(kind, len) || self.large.bytes() == 0
    }

    /// Counts a new merged event, if it is large.
    ///
    /// # Errors
    /// There is no room. The error is the length of the body.
    pub(super) fn charge_event(
        &self,
        kind: PeerKind,
        body: ResponseBody,
    ) -> Result<ResponseBody, usize> {
        let len = body.len();
        let has_room = self.has_room_for_event(kind, len);
        self.large.charge(body, if has_room { usize::MAX } else { 0 })
    }

    /// True if an answer of this length may be cached. Not a large one while an event waits: no reader
    /// would wait for the memory that the event needs.
    pub(super) fn may_cache(&self, len: usize) -> bool {
        len < LARGE || self.waiting.is_empty()
    }

    /// Notes a merged event without room.
    pub(super) fn wait(&mut self, len: usize, id: PeerId) {
        self.waiting.insert((len, id));
    }

    /// Removes the note of an event that is not wanted any more.
    pub(super) fn forget(&mut self, len: usize, id: PeerId) {
        self.waiting.remove(&(len, id));
    }

    /// True if an event waits. No input reports the last reader of a large body, so the driver has to
    /// come back at a deadline.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// True if there is room for the smallest waiting event now.
    pub(super) fn is_ready(&self) -> bool {
        // Without room for the smallest there is none for the others. The agent never waits here.
        self.waiting
            .first()
            .is_some_and(|(len, _)| self.has_room_for_event(PeerKind::Workload, *len))
    }

    /// Removes the peer of the smallest waiting event, if there is room for it now.
    pub(super) fn pop_ready(&mut self) -> Option<PeerId> {
        let ready = self.is_ready().then(|| self.waiting.pop_first());
        ready.flatten().map(|(_, id)| id)
    }

    #[cfg(test)]
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued.bytes()
    }

    #[cfg(test)]
    pub(super) fn large_bytes(&self) -> usize {
        self.large.bytes()
    }
}
