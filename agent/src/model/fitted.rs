//! The state that the items of a store make. An item that does not fit is left out, and all others
//! count: a state that an older version kept, or that somebody else wrote, keeps no agent from starting.

use std::collections::BTreeMap;

use fifogate::state::Tree;

use super::StateModel;
use crate::{
    render::{RenderError, lacks},
    store::Change,
};

/// A state after changes that a store told.
#[derive(Debug)]
pub struct Fitted {
    /// The state.
    pub tree: Tree,
    /// The workloads that cannot be rendered in it.
    pub faults: Vec<RenderError>,
    /// The changes that are in it.
    pub taken: Vec<Change>,
    /// Those that are not, each with what is wrong.
    pub left_out: Vec<(Change, String)>,
}

impl StateModel {
    /// The state after those of the changes that make a state of it. All are applied together; smaller
    /// parts are tried only where that fails.
    #[must_use]
    pub fn apply_what_fits(&self, changes: Vec<Change>) -> Fitted {
        match self.apply(&changes) {
            Ok((tree, faults)) => Fitted { tree, faults, taken: changes, left_out: Vec::new() },
            Err(_) => Fitting::of(self.clone(), changes),
        }
    }
}

/// A state that takes changes one by one.
struct Fitting {
    current: StateModel,
    /// By workload. Each step finds those of the workloads that it looked at.
    faults: BTreeMap<String, RenderError>,
    taken: Vec<Change>,
    left_out: Vec<(Change, String)>,
}

impl Fitting {
    fn of(current: StateModel, mut changes: Vec<Change>) -> Fitted {
        changes.sort_by_key(rank);
        let (taken, left_out) = (Vec::new(), Vec::new());
        let mut fitting = Self { current, faults: BTreeMap::new(), taken, left_out };
        loop {
            let before = changes.len();
            fitting.take(changes);
            let left_out = std::mem::take(&mut fitting.left_out);
            // Of two workloads that exchange a dependency, the second may make room for the first.
            if left_out.is_empty() || left_out.len() == before {
                let Self { current, faults, taken, .. } = fitting;
                let tree = current.tree().clone();
                // A later change may have mended what an earlier one broke.
                let faults = faults.into_values().filter(|own| lacks(&tree, &own.workload));
                let faults = faults.collect();
                return Fitted { tree, faults, taken, left_out };
            }
            changes = left_out.into_iter().map(|(change, _)| change).collect();
        }
    }

    /// Halves what fails until single items are left: few wrong ones in many cost few attempts.
    fn take(&mut self, mut changes: Vec<Change>) {
        match self.current.apply(&changes) {
            Ok((tree, faults)) => {
                self.current.set(tree);
                self.faults.extend(faults.into_iter().map(|own| (own.workload.clone(), own)));
                self.taken.extend(changes);
            }
            Err(why) if changes.len() <= 1 => {
                self.left_out.extend(changes.pop().map(|change| (change, why)));
            }
            Err(_) => {
                let rest = changes.split_off(changes.len() / 2);
                self.take(changes);
                self.take(rest);
            }
        }
    }
}

/// The order in which each beginning of a valid list of changes is most likely valid: a config is there
/// before the workloads that refer to it, and goes after them.
fn rank(change: &Change) -> u8 {
    match change {
        Change::ApiVersion(_) | Change::Agent(..) => 0,
        Change::Config(_, Some(_)) => 1,
        Change::Workload(..) => 2,
        Change::Config(_, None) => 3,
        Change::WorkloadState(..) => 4,
    }
}
