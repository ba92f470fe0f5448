//! Cache of encoded leaves of large maps: leaves without a change since an earlier answer are copied,
//! not encoded.
//!
//! The key of an entry is the address of the leaf. The cache holds the leaf, so no other leaf gets this
//! address.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::{Key, Node},
    Fill,
};

/// Most bytes in the cache.
const MOST_BYTES: usize = 16 << 20;

/// An unused leaf leaves the cache after this many answers.
const PATIENCE: u64 = 8;

/// Encoding of a map's entries: address of their kind in the table of fields, and filling.
type Kind = (usize, Fill);

/// See the module.
#[derive(Debug, Default)]
pub struct LeafCache {
    kept: HashMap<(usize, Kind), Piece>,
    bytes: usize,
    /// Answers so far.
    answers: u64,
    #[cfg(test)]
    encoded: u64,
    /// Length of the last answer with everything.
    everything: usize,
}

type Leaf = Arc<[(Key, Node)]>;

struct Piece {
    leaf: Leaf,
    bytes: Box<[u8]>,
    /// The last answer with it.
    used: u64,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of {} entries", self.bytes.len(), self.leaf.len())
    }
}

impl LeafCache {
    pub(super) fn get(&mut self, leaf: &Leaf, kind: Kind) -> Option<&[u8]> {
        let piece = self.kept.get_mut(&(leaf.as_ptr() as usize, kind))?;
        piece.used = self.answers;
        Some(&piece.bytes)
    }

    pub(super) fn keep(&mut self, leaf: &Leaf, kind: Kind, bytes: &[u8]) {
        #[cfg(test)]
        (self.encoded += 1);
        // A full cache keeps its entries: they were used lately, or they will expire soon.
        if self.bytes + bytes.len() > MOST_BYTES {
            return;
        }
        self.bytes += bytes.len();
        let piece = Piece { leaf: Arc::clone(leaf), bytes: bytes.into(), used: self.answers };
        self.kept.insert((leaf.as_ptr() as usize, kind), piece);
    }

    /// How many leaves were encoded so far.
    #[cfg(test)]
    pub(super) fn encoded(&self) -> u64 {
        self.encoded
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.kept.values().map(|piece| piece.bytes.len()).sum()
    }

    /// About how long the answer will be.
    pub(super) fn expected(&self, fill: Fill) -> usize {
        // A little more than the last time: a buffer too short would be copied as a whole.
        if fill == Fill::Full { self.everything + self.everything / 64 } else { 0 }
    }

    /// An answer of so many bytes was made.
    pub(super) fn end_answer(&mut self, fill: Fill, len: usize) {
        if fill == Fill::Full {
            self.everything = len;
        }
        self.answers += 1;
        // Expired leaves are freed here, because the cache alone may keep them alive.
        let (answers, bytes) = (self.answers, &mut self.bytes);
        self.kept.retain(|_, piece| {
            let keep = piece.used + PATIENCE >= answers;
            *bytes -= if keep { 0 } else { piece.bytes.len() };
            keep
        });
    }
}
