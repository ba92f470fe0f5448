//! The step of the replica from one revision to the next. Pure.
//!
//! The state, the changed items and the items left out so far go in; the new state comes out. It is the same
//! state as that of all items fitted together anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    apart,
    model::{self, Fitted, StateModel},
    store::Change,
};

/// The work for one revision, which may take long.
pub(super) struct Step {
    current: StateModel,
    changes: Vec<Change>,
    /// With the reasons.
    left_out: Vec<(Change, String)>,
}

impl Step {
    pub(super) fn new(
        current: StateModel,
        changes: Vec<Change>,
        left_out: Vec<(Change, String)>,
    ) -> Self {
        Self { current, changes, left_out }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes processed by the step, as for [`apart::plan`].
    pub(super) fn work(&self) -> usize {
        let is_small = self.left_out.is_empty();
        if is_small { self.current.work_of_changes(&self.changes) } else { apart::LARGE }
    }

    /// The state after the step, with all items that are left out then.
    pub(super) fn fit(self) -> Fitted {
        if self.concerns_nothing_left_out()
            && let Ok((tree, faults)) = self.current.apply(&self.changes)
        {
            return Fitted { tree, faults, taken: self.changes, left_out: self.left_out };
        }
        let before = self.current.tree().clone();
        let fitted = StateModel::default().apply_what_fits(self.all_items());
        let taken = model::changes_between(&before, &fitted.tree);
        Fitted { taken, ..fitted }
    }

    /// True if no change has an influence on what fits: then the items left out so far stay so.
    fn concerns_nothing_left_out(&self) -> bool {
        if self.left_out.is_empty() {
            return true;
        }
        let mut paths = BTreeSet::new();
        let mut configs = BTreeSet::new();
        for (item, _) in &self.left_out {
            paths.insert(item.path());
            if let Change::Workload(_, Some(own)) = item
                && let Some(mappings) = &own.configs
            {
                configs.extend(mappings.configs.values().map(String::as_str));
            }
        }
        self.changes.iter().all(|change| match change {
            Change::Config(name, _) => {
                !configs.contains(name.as_str())
                    && !paths.contains(&change.path())
                    && self.current.users_of(name).next().is_none()
            }
            Change::Agent(..) | Change::WorkloadState(..) => !paths.contains(&change.path()),
            Change::ApiVersion(_) | Change::Workload(..) => false,
        })
    }

    /// The items of the state, those left out, and over them the changed ones.
    fn all_items(self) -> Vec<Change> {
        let mut items: BTreeMap<_, _> =
            model::changes_between(&model::empty(), self.current.tree())
                .into_iter()
                .chain(self.left_out.into_iter().map(|(item, _)| item))
                .map(|item| (item.path(), item))
                .collect();
        for change in self.changes {
            if is_removal(&change) {
                items.remove(&change.path());
            } else {
                items.insert(change.path(), change);
            }
        }
        items.into_values().collect()
    }
}

fn is_removal(change: &Change) -> bool {
    match change {
        Change::ApiVersion(version) => version.is_empty(),
        Change::Workload(_, own) => own.is_none(),
        Change::Config(_, own) => own.is_none(),
        Change::WorkloadState(_, own) => own.is_none(),
        Change::Agent(_, own) => own.is_none(),
    }
}
