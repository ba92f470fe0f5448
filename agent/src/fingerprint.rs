//! Fingerprints: two contents are the same if theirs are, and nothing of them is kept.

use sha2::{Digest, Sha256};

/// Stands for byte strings in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut all = Fingerprinting::default();
        parts.iter().for_each(|part| all.add(part));
        all.finish()
    }
}

/// A fingerprint under way.
#[derive(Default)]
pub(crate) struct Fingerprinting(Sha256);

impl Fingerprinting {
    /// Adds a byte string. Its length is part of it: the same bytes divided in another way are others.
    pub(crate) fn add(&mut self, part: &[u8]) {
        self.0.update(part.len().to_le_bytes());
        self.0.update(part);
    }

    pub(crate) fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_and_other_divisions_have_other_fingerprints() {
        let one = Fingerprint::of(&[b"ab", b"c"]);
        assert_eq!(one, Fingerprint::of(&[b"ab", b"c"]));
        for other in [[b"a".as_slice(), b"bc"], [b"ab", b"d"], [b"c", b"ab"]] {
            assert_ne!(one, Fingerprint::of(&other));
        }
    }
}
