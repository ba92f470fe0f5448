//! Large updates: more items than one transaction takes, done by the write of one key
//! (docs/etcd.md#large-updates). Pure.
//!
//! The agent puts the items into parts first. From the write of the head on, the items of the parts count
//! instead of those below their own keys, until somebody has copied all of them there.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    sync::Arc,
};

use prost::Message;
use serde::{Deserialize, Serialize};

use super::keys::{Keys, Meaning, Write};
use crate::store::Change;

/// Most bytes of a part, unless one item is longer: etcd takes requests of 1.5 MiB.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// The value of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state", deny_unknown_fields)]
pub(super) enum Head {
    /// An agent is about to write parts. Nobody else updates desired state meanwhile.
    Preparing,
    /// The items of so many parts count.
    Done { parts: usize },
}

impl Head {
    pub(super) fn encode(self) -> String {
        // A struct of numbers always encodes.
        serde_json::to_string(&self).unwrap_or_default()
    }
}

/// What is known of the large update that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Large {
    /// The head, `None` if it cannot be read, with the revision of its write.
    head: Option<(Option<Head>, i64)>,
    parts: Arc<BTreeMap<String, Vec<u8>>>,
    /// The keys of the items in the parts, once they count.
    covered: Arc<HashSet<String>>,
    /// What was written to these keys meanwhile.
    skipped: BTreeMap<String, Change>,
}

/// One part.
#[derive(Clone, PartialEq, Message)]
struct Part {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PartItem>,
}

/// An item of a part.
#[derive(Clone, PartialEq, Message)]
struct PartItem {
    #[prost(string, tag = "1")]
    key: String,
    /// Absent: the item is removed.
    #[prost(bytes = "vec", optional, tag = "2")]
    value: Option<Vec<u8>>,
    /// Of a workload state alone.
    #[prost(int64, optional, tag = "3")]
    known: Option<i64>,
}

/// A write of a large update.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Staged {
    pub(super) write: Write,
    /// Of a workload state: the revision of the write that this one replaces, 0 for none. It counts for
    /// nothing once the agent of the workload has reported another one.
    pub(super) known: Option<i64>,
}

/// Divides writes into parts.
pub(super) fn parts(keys: &Keys, all: Vec<Staged>) -> Vec<Write> {
    let mut parts: Vec<Part> = Vec::new();
    let mut bytes = 0;
    for Staged { write, known } in all {
        let key = write.key.strip_prefix(keys.prefix()).unwrap_or(&write.key).to_owned();
        let item = PartItem { key, value: write.value, known };
        bytes += item.encoded_len();
        match parts.last_mut() {
            Some(last) if bytes <= MOST_BYTES => last.items.push(item),
            _ => {
                bytes = item.encoded_len();
                parts.push(Part { items: vec![item] });
            }
        }
    }
    let write = |(number, part): (usize, Part)| Write {
        key: keys.part(number),
        value: Some(part.encode_to_vec()),
    };
    parts.into_iter().enumerate().map(write).collect()
}

impl Large {
    /// Whether a large update is under way: no other update of desired state is possible.
    pub(super) fn is_under_way(&self) -> bool {
        self.head.is_some()
    }

    /// The revision of the write of the head, while there is one.
    pub(super) fn revision(&self) -> Option<i64> {
        self.head.map(|(_, revision)| revision)
    }

    /// Notes a write of the head or of a part; true for the head.
    pub(super) fn take(
        &mut self,
        keys: &Keys,
        key: &str,
        value: Option<&[u8]>,
        revision: i64,
    ) -> bool {
        if key == keys.large() {
            self.head = value.map(|value| (serde_json::from_slice(value).ok(), revision));
            return true;
        }
        if key.starts_with(&keys.parts()) {
            let parts = Arc::make_mut(&mut self.parts);
            match value {
                Some(value) => _ = parts.insert(key.to_owned(), value.to_vec()),
                None => _ = parts.remove(key),
            }
        }
        false
    }

    /// Whether the item of this key counts as the parts have it.
    pub(super) fn covers(&self, key: &str) -> bool {
        self.covered.contains(key)
    }

    /// Notes a write of an item that does not count now.
    pub(super) fn skip(&mut self, key: String, change: Change) {
        self.skipped.insert(key, change);
    }

    /// What counts from a new head on, or from its removal: the items of the parts, or those of their keys
    /// again. The latter are the same, unless another program has written there.
    pub(super) fn begin(&mut self, keys: &Keys) -> Vec<(Staged, Change)> {
        let skipped = mem::take(&mut self.skipped);
        if self.head.is_none() {
            self.covered = Arc::default();
            let staged = |change: &Change| Staged { write: keys.write(change), known: None };
            return skipped.into_values().map(|change| (staged(&change), change)).collect();
        }
        let items = self.items(keys).unwrap_or_default();
        let covered = items.iter().filter(|(own, _)| own.known.is_none());
        self.covered = Arc::new(covered.map(|(own, _)| own.write.key.clone()).collect());
        items
    }

    /// The writes that bring the items to their own keys; `None` if there is nothing to copy, or no part of
    /// it can be.
    pub(super) fn writes(&self, keys: &Keys) -> Option<Vec<Staged>> {
        Some(self.items(keys)?.into_iter().map(|(own, _)| own).collect())
    }

    /// All items of the parts, or `None` if not all of them can be read: they count all together or not at
    /// all.
    fn items(&self, keys: &Keys) -> Option<Vec<(Staged, Change)>> {
        let (Some(Head::Done { parts }), _) = self.head? else { return None };
        let mut all = Vec::new();
        for number in 0..parts {
            let part = Part::decode(&self.parts.get(&keys.part(number))?[..]).ok()?;
            for PartItem { key, value, known } in part.items {
                let key = format!("{}{key}", keys.prefix());
                let Meaning::Item(change) = keys.read(&key, value.as_deref()) else { return None };
                let is_known = match change {
                    Change::ApiVersion(_) | Change::Workload(..) | Change::Config(..) => {
                        known.is_none()
                    }
                    Change::WorkloadState(..) => known.is_some(),
                    Change::Agent(..) => false,
                };
                if !is_known {
                    return None;
                }
                all.push((Staged { write: Write { key, value }, known }, change));
            }
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use fifogate::pb::ank_base as pb;

    use super::*;

    fn config(name: &str, bytes: usize) -> Change {
        let text = pb::config_item::ConfigItemEnum::String("x".repeat(bytes));
        Change::Config(name.to_owned(), Some(pb::ConfigItem { config_item_enum: Some(text) }))
    }

    #[test]
    fn items_come_back_from_their_parts_as_soon_as_all_are_there() {
        let keys = Keys::new("fleet");
        let mut changes: Vec<_> = (0..300).map(|n| config(&format!("c{n}"), 10_000)).collect();
        changes.push(config("long", 3 << 20));
        changes.push(Change::Workload("w".to_owned(), None));
        let staged = |change: &Change| Staged { write: keys.write(change), known: None };
        let writes: Vec<_> = changes.iter().map(staged).collect();
        let parts = parts(&keys, writes.clone());
        let len = |part: &Write| part.value.as_ref().unwrap().len();
        assert!(parts.iter().filter(|part| len(part) > MOST_BYTES + 1000).count() == 1);
        assert!((4..=6).contains(&parts.len()), "{}", parts.len());
        let mut large = Large::default();
        let head = |state: Head| state.encode().into_bytes();
        assert!(large.take(&keys, &keys.large(), Some(&head(Head::Preparing)), 1));
        assert!(large.begin(&keys).is_empty() && large.is_under_way());
        for part in &parts[1..] {
            assert!(!large.take(&keys, &part.key, part.value.as_deref(), 2));
        }
        let done = head(Head::Done { parts: parts.len() });
        assert!(large.take(&keys, &keys.large(), Some(&done), 3));
        assert!(large.begin(&keys).is_empty(), "one is missing");
        assert!(large.is_under_way() && !large.covers(&keys.config("c0")));
        large.take(&keys, &parts[0].key, parts[0].value.as_deref(), 4);
        let begun = large.begin(&keys).into_iter();
        assert_eq!(begun.map(|(_, change)| change).collect::<Vec<_>>(), changes);
        assert_eq!(large.writes(&keys), Some(writes));
        assert!(large.covers(&keys.config("c0")) && large.covers(&keys.workload("w")));
        assert!(large.take(&keys, &keys.large(), None, 5));
        assert!(large.begin(&keys).is_empty() && !large.is_under_way());
        assert!(!large.covers(&keys.config("c0")));
    }

    #[test]
    fn part_of_anything_but_desired_state_makes_the_whole_unreadable() {
        let keys = Keys::new("p");
        let state = Write { key: "p/agents/agent_A".to_owned(), value: Some(Vec::new()) };
        for write in [state, Write { key: "p/layout".to_owned(), value: None }] {
            let good = keys.write(&config("c", 1));
            let staged = [good, write].map(|write| Staged { write, known: None });
            let parts = parts(&keys, staged.to_vec());
            let mut large = Large::default();
            large.take(&keys, &parts[0].key, parts[0].value.as_deref(), 1);
            let done = Head::Done { parts: 1 }.encode();
            large.take(&keys, &keys.large(), Some(done.as_bytes()), 2);
            assert!(large.begin(&keys).is_empty());
            assert_eq!((large.writes(&keys), large.is_under_way()), (None, true));
        }
    }
}
