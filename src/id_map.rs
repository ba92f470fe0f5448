//! Maps by sequential ids: ids that fifogate gives out itself, one after the other.
//!
//! Neighbouring ids stand side by side. A walk through many of them in order, as for an event to a
//! thousand subscribers, goes through memory in order. Ids chosen by others would make such a map slow.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map by the numbers `K`.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<InOrder>>;

/// The id itself, except for the bits used to tell keys of one bucket apart.
#[derive(Debug, Default)]
pub(crate) struct InOrder(u64);

/// The map takes a key's place from the low bits of its hash, and compares these at once for many
/// places before it compares keys: they are to differ.
// The highest seven bits are the tag in the hash map of the standard library.
const TAG: u64 = !(u64::MAX >> 7);

impl Hasher for InOrder {
    fn finish(&self) -> u64 {
        // 2^64 divided by the golden ratio: neighbouring ids differ in the high bits of the product.
        let mixed = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (self.0 & !TAG) | (mixed & TAG)
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    /// For keys of more than a single number; there are none.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_neighbouring_places_and_tags_of_their_own() {
        let hash = |number| {
            let mut hasher = InOrder::default();
            hasher.write_u64(number);
            hasher.finish()
        };
        let places = (0..1_000).map(|number| hash(number) & 0xffff);
        assert!(places.eq(0..1_000));
        let tags: std::collections::BTreeSet<_> =
            (0..16).map(|number| hash(number) & TAG).collect();
        assert_eq!(tags.len(), 16);
    }

    #[test]
    fn map_holds_what_was_put_into_it() {
        let mut map = IdMap::default();
        (0..10_000_u64).for_each(|number| assert!(map.insert(number * 3, number).is_none()));
        map.insert(u64::MAX, 7);
        (0..10_000).filter(|number| number % 2 == 0).for_each(|number| {
            map.remove(&(number * 3));
        });
        assert_eq!((map.len(), map.get(&u64::MAX)), (5_001, Some(&7)));
        assert!((0..10_000).all(|number| map.contains_key(&(number * 3)) == (number % 2 == 1)));
    }
}
