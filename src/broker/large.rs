//! Byte accounting of large bodies of answers and events.
//!
//! A message handed out has left its outbox, and thousands of receivers may share one body. So a large
//! body is counted itself, from its encoding to the drop of its last reference. Small bodies are
//! bounded by the outboxes alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

use crate::message::ResponseBody;

/// Least length of a large body, in bytes.
// A read up to about this length is answered at any load (docs/protocol.md#reads).
pub(super) const LARGE: usize = 64 << 10;

/// The total of all live large bodies.
#[derive(Clone, Debug, Default)]
pub(super) struct LargeBodies {
    bytes: Arc<AtomicUsize>,
}

/// One large body; its bytes are subtracted from the total when it is dropped.
struct Charged {
    body: Bytes,
    all: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.all.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

impl LargeBodies {
    /// True if a body of this length may be made now, with `most` bytes for all large ones together.
    pub(super) fn fits(&self, len: usize, most: usize) -> bool {
        len < LARGE || self.bytes().saturating_add(len) <= most
    }

    /// Counts a new body, if it is large.
    ///
    /// # Errors
    /// The total would exceed `most` bytes. The error is the length of the body.
    pub(super) fn charge(&self, body: ResponseBody, most: usize) -> Result<ResponseBody, usize> {
        let len = body.len();
        if !self.fits(len, most) {
            return Err(len);
        }
        if len < LARGE {
            return Ok(body);
        }
        // Relaxed: only the sum matters, no other memory depends on it.
        self.bytes.fetch_add(len, Ordering::Relaxed);
        let all = Arc::clone(&self.bytes);
        Ok(body.map_bytes(|body| Bytes::from_owner(Charged { body, all })))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_body_counts_once_until_nobody_holds_it_and_a_small_one_never() {
        let all = LargeBodies::default();
        let body = |len| ResponseBody::error("x".repeat(len));
        let small = all.charge(body(100), 0).unwrap();
        let large = all.charge(body(LARGE), 2 * LARGE).unwrap();
        let len = large.len();
        assert_eq!(all.bytes(), len);
        assert_eq!(all.charge(body(LARGE), 2 * LARGE).unwrap_err(), len, "one byte too many");
        let (again, other) = (large.clone(), all.charge(body(LARGE), 2 * len).unwrap());
        assert_eq!(all.bytes(), 2 * len);
        drop((large, other, small));
        assert_eq!(all.bytes(), len);
        drop(again);
        assert_eq!(all.bytes(), 0);
    }
}
