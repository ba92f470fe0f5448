//! Fitting of persisted items: applies all valid items of a store and leaves out the others.
//!
//! Input is a list of changes; output is the state, the applied changes, and the rejected ones with
//! their reasons. An invalid item, written by an older version or by another program, must not keep the
//! agent from starting.

use std::collections::BTreeMap;

use fifogate::state::Tree;

use super::StateModel;
use crate::{
    render::{RenderError, lacks},
    store::Change,
};

/// The result of applying changes of a store.
#[derive(Debug)]
pub struct Fitted {
    /// The state.
    pub tree: Tree,
    /// The workloads with a failed rendering.
    pub faults: Vec<RenderError>,
    /// The applied changes.
    pub taken: Vec<Change>,
    /// The rejected changes with their reasons.
    pub left_out: Vec<(Change, String)>,
}

impl StateModel {
    /// Applies all changes together. If that fails, tries smaller parts and leaves out the invalid
    /// changes.
    #[must_use]
    pub fn apply_what_fits(&self, changes: Vec<Change>) -> Fitted {
        match self.apply(&changes) {
            Ok((tree, faults)) => Fitted { tree, faults, taken: changes, left_out: Vec::new() },
            Err(_) => Fitting::of(self.clone(), changes),
        }
    }
}

/// The progress of applying parts of a list of changes.
struct Fitting {
    current: StateModel,
    /// By workload. Each step reports the faults of the workloads rendered in it.
    faults: BTreeMap<String, RenderError>,
    taken: Vec<Change>,
    left_out: Vec<(Change, String)>,
}

impl Fitting {
    fn of(current: StateModel, mut changes: Vec<Change>) -> Fitted {
        // By path as well: the result depends on the items, and not on the order in which they came.
        changes.sort_by_cached_key(|change| (rank(change), change.path()));
        let (taken, left_out) = (Vec::new(), Vec::new());
        let mut fitting = Self { current, faults: BTreeMap::new(), taken, left_out };
        loop {
            let before = changes.len();
            fitting.take(changes);
            let left_out = std::mem::take(&mut fitting.left_out);
            // Another pass may help: of two workloads exchanging a dependency, the second may make way
            // for the first.
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

    /// Applies the changes, or halves them until single items fail: few invalid items among many need
    /// few attempts.
    fn take(&mut self, mut changes: Vec<Change>) {
        match self.current.apply(&changes) {
            Ok((tree, faults)) => {
                self.current.set(tree);
                self.faults.extend(faults.into_iter().map(|own| (own.workload.clone(), own)));
                self.taken.extend(changes);
            }
            // Ends the halving; its error is about this item alone.
            Err(why) if changes.len() <= 1 => {
                self.left_out.extend(changes.pop().map(|change| (change, why.to_string())));
            }
            Err(_) => {
                let rest = changes.split_off(changes.len() / 2);
                self.take(changes);
                self.take(rest);
            }
        }
    }
}

/// Sort key for changes. Each prefix of a valid list is most likely valid in this order: configs are
/// added before the workloads referring to them and removed after.
fn rank(change: &Change) -> u8 {
    match change {
        Change::ApiVersion(_) | Change::Agent(..) => 0,
        Change::Config(_, Some(_)) => 1,
        Change::Workload(..) => 2,
        Change::Config(_, None) => 3,
        Change::WorkloadState(..) => 4,
    }
}
