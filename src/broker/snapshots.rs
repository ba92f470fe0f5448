//! Snapshots: old versions of the state, kept for the lagging subscriptions of one peer.
//!
//! In goes the state before an undelivered change; out comes the version to compare with later. A
//! snapshot also serves subscriptions with no event since its version: they see no difference between
//! it and their own. So a stopped reader costs one snapshot, for any number of subscriptions. The
//! exception is an unreported change of a scalar at a proper prefix of a mask: no snapshot from before
//! it is reused.
//!
//! A snapshot for each lagging subscription would need no version to look up. It would reach the limit
//! sooner, though, and the full resync beyond it tells a subscriber of changes that did not happen.

use crate::state::Tree;

/// Number of a version of the state: the commits before it.
pub(super) type Version = u64;

#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// In ascending order of versions.
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    version: Version,
    tree: Tree,
    users: usize,
}

impl Snapshots {
    /// Keeps `tree` for a subscription, or reuses the last snapshot if its version is at least `alike`:
    /// all versions from there on look equal to the subscription. Returns the version to release later,
    /// or `None` if `most` are kept.
    pub(super) fn keep(
        &mut self,
        alike: Version,
        (version, tree): (Version, &Tree),
        most: usize,
    ) -> Option<Version> {
        // The last one is the newest: if it is too old, all are.
        if let Some(last) = self.kept.last_mut()
            && last.version >= alike
        {
            last.users += 1;
            return Some(last.version);
        }
        if self.kept.len() >= most {
            return None;
        }
        // Newer than all kept ones, as `alike` is at most `version`: `find` needs this order.
        self.kept.push(Kept { version, tree: tree.clone(), users: 1 });
        Some(version)
    }

    pub(super) fn get(&self, version: Version) -> Option<&Tree> {
        Some(&self.kept[self.find(version)?].tree)
    }

    /// Releases the snapshot of one subscription; the last release drops the tree.
    pub(super) fn release(&mut self, version: Version) {
        if let Some(at) = self.find(version) {
            self.kept[at].users -= 1;
            if self.kept[at].users == 0 {
                self.kept.remove(at);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    fn find(&self, version: Version) -> Option<usize> {
        self.kept.binary_search_by_key(&version, |kept| kept.version).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_serves_all_who_were_told_nothing_since_and_goes_with_the_last() {
        let tree = Tree::initial();
        let mut snapshots = Snapshots::default();
        assert_eq!(snapshots.keep(3, (7, &tree), 2), Some(7));
        assert_eq!(snapshots.keep(7, (9, &tree), 2), Some(7), "last_seen of 7, and nothing since");
        assert_eq!(snapshots.keep(8, (9, &tree), 2), Some(9), "knows more than 7");
        assert_eq!(snapshots.keep(10, (12, &tree), 2), None);
        snapshots.release(7);
        assert!(snapshots.get(7).is_some());
        snapshots.release(7);
        assert!(snapshots.get(7).is_none() && snapshots.get(9).is_some());
        assert_eq!(snapshots.keep(10, (12, &tree), 2), Some(12));
    }
}
