//! Updates of the state: masked parts of a new state put into the current one
//! (docs/protocol.md#updates, docs/differences.md#11-updates).
//!
//! Pure and atomic. The result is a whole new state and the changes of its workloads, or an error with
//! a text for the client. The caller checks the rights of the sender before.

use std::fmt;

use super::{Instance, Mask, Tree, WorkloadChange};

pub(crate) mod draft;

pub(crate) use draft::{accept, propose};
pub(super) use draft::{find, set, unset};

/// Reason why an update changes nothing, with the text for the client (docs/protocol.md#error-texts).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateError {
    /// A mask through a value that is no mapping, or missing, or empty.
    FieldNotFound(String),
    /// A mask with `*`: its fields would depend on the time of the update.
    Wildcard(String),
    /// The resulting state breaks a rule.
    Invalid(String),
    /// The resulting state does not have the shape of a state.
    Shape(String),
    /// A version, key or name of the new state is refused before anything else of it is looked at.
    Refused(String),
    /// A workload would wait for itself.
    Cycle(String),
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The quotes nest and close as in the reference (docs/protocol.md#error-texts).
        let invalid = "Update rejected: 'Resulting State is invalid, reason: '";
        match self {
            Self::FieldNotFound(path) => {
                write!(f, "Update rejected: 'Could not find field {path}'")
            }
            Self::Wildcard(mask) => {
                write!(f, "Update rejected: 'Wildcards are not allowed in update mask {mask}'")
            }
            Self::Invalid(reason) => write!(f, "{invalid}{reason}''"),
            Self::Shape(what) => {
                write!(f, "{invalid}Could not parse into CompleteState: '{what}'''")
            }
            Self::Refused(reason) => f.write_str(reason),
            Self::Cycle(name) => {
                write!(f, "Update rejected: 'workload dependency '{name}' is part of a cycle.'")
            }
        }
    }
}

impl std::error::Error for UpdateError {}

/// Result of an update.
#[derive(Debug)]
#[non_exhaustive]
pub struct Updated {
    /// The new state. Its `workloadStates` are the old ones.
    pub tree: Tree,
    /// The changed workloads, by name. [`Updated::instances`] has the instances among them.
    #[doc(hidden)] // its items are internal
    pub changes: Vec<WorkloadChange>,
}

impl Updated {
    /// The stopped and the started instances.
    #[must_use]
    pub fn instances(&self) -> (Vec<Instance>, Vec<Instance>) {
        let pairs = self.changes.iter().map(WorkloadChange::instances);
        let (ended, started): (Vec<_>, Vec<_>) = pairs.unzip();
        (ended.into_iter().flatten().collect(), started.into_iter().flatten().collect())
    }
}

/// `current` after an update by `masks` from `new_state`.
///
/// # Errors
/// The first fault; `current` stays valid.
pub fn apply(current: &Tree, new_state: &Tree, masks: &[Mask]) -> Result<Updated, UpdateError> {
    accept(current, &propose(current, new_state, masks)?)
}

#[cfg(test)]
mod tests;
