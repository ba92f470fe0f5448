//! Large answers and events: their bytes are counted for as long as anybody holds them.
//!
//! A message that is handed out is not in its outbox any more, and one body may be shared by thousands:
//! so what is counted is the body itself, from when it was made until its last reader has it. Small
//! bodies are bounded by the outboxes alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

use crate::message::ResponseBody;

/// Bytes from which a body is large.
pub(super) const LARGE: usize = 64 << 10;

/// All large bodies that are alive.
#[derive(Clone, Debug, Default)]
pub(super) struct LargeBodies {
    bytes: Arc<AtomicUsize>,
}

/// The bytes of one body, given back when nobody holds them.
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
    /// Whether a body of so many bytes may be made now, where all together may have `most`.
    pub(super) fn fits(&self, len: usize, most: usize) -> bool {
        len < LARGE || self.bytes().saturating_add(len) <= most
    }

    /// Counts a body that was just made, if it is large.
    ///
    /// # Errors
    /// All together would have more than `most` bytes then; gives how many it has.
    pub(super) fn charge(&self, body: ResponseBody, most: usize) -> Result<ResponseBody, usize> {
        let len = body.len();
        if !self.fits(len, most) {
            return Err(len);
        }
        if len < LARGE {
            return Ok(body);
        }
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
