//! Fuzz entry of the replica: records become revisions.

use fifogate::state::Tree;

use super::{
    keys::{Keys, Meaning},
    replica::{Entry, View},
};
use crate::store::fuzz::Record;

/// The states of a replica that follows `records`, one a revision.
///
/// # Panics
/// A key and its value are not the ones written for their item.
pub(in crate::store) fn follow(records: &[Record]) -> Vec<Tree> {
    let keys = Keys::new("fuzz");
    let mut states = Vec::new();
    let Ok(mut view) = View::new(keys.clone(), 0, Vec::new()) else { return states };
    for (revision, (path, value)) in (1..).zip(records) {
        let key = format!("{}{path}", keys.prefix());
        assert_is_its_own_inverse(&keys, &key, value.as_deref());
        let step = view.begin(revision, vec![Entry { key, value: value.clone(), revision }]);
        view.finish(step.fit());
        states.push(view.current.tree().clone());
    }
    states
}

fn assert_is_its_own_inverse(keys: &Keys, key: &str, value: Option<&[u8]>) {
    if let Meaning::Item(change) = keys.read(key, value) {
        let write = keys.write(&change);
        assert_eq!(write.key, key);
        let again = keys.read(&write.key, write.value.as_deref());
        assert_eq!(again, Meaning::Item(change));
    }
}
