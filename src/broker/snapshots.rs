//! The old snapshots of the state that are kept for one workload, each for the subscriptions that were
//! told of it last.
//!
//! A version is kept once, and one that is kept already serves others too: a subscription that was
//! told nothing since then sees no difference between that version and the one that it knows. So a
//! reader that stops costs one version, whatever the number of its subscriptions. Only where
//! something came, went or changed that a mask looks below, nothing told is not nothing different: no
//! version from before that serves.

use crate::state::Tree;

/// Number of a version of the state: the commits before it.
pub(super) type Version = u64;

#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// In the order of their numbers.
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    version: Version,
    tree: Tree,
    users: usize,
}

impl Snapshots {
    /// Keeps `tree` for a subscription, unless a version that is kept already will do: to it, all are
    /// alike from version `alike` on. Gives the version to come back with; `None` if `most` are kept.
    pub(super) fn keep(
        &mut self,
        alike: Version,
        (version, tree): (Version, &Tree),
        most: usize,
    ) -> Option<Version> {
        if let Some(last) = self.kept.last_mut()
            && last.version >= alike
        {
            last.users += 1;
            return Some(last.version);
        }
        if self.kept.len() >= most {
            return None;
        }
        self.kept.push(Kept { version, tree: tree.clone(), users: 1 });
        Some(version)
    }

    pub(super) fn get(&self, version: Version) -> Option<&Tree> {
        Some(&self.kept[self.find(version)?].tree)
    }

    /// A subscription needs its version no more.
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
