//! Limits on workloads created or changed by the update of a workload.
//!
//! Input is the change; output is an error naming the field and its limit. The manifest and the
//! persisted state are not checked here: an oversized workload there harms itself only.

use fifogate::{
    internal::state::WorkloadChange,
    state::{Node, Tree},
};

use super::workload_changes;
use crate::{
    limits::MOST_ENTRIES,
    render::{Budget, RenderError, is_unrendered},
    runtime::{PROCESS, config},
};

/// Bytes of a `runtimeConfig` read in one step.
const BYTES_A_STEP: usize = 2;

/// A field of a workload has more than [`MOST_ENTRIES`] entries.
#[derive(Debug, thiserror::Error)]
#[error("desiredState.workloads.{workload}.{field} has more than {MOST_ENTRIES} entries")]
pub(super) struct TooManyEntries {
    workload: String,
    field: &'static str,
}

/// Checks the numbers of files, dependencies and config aliases of all changed workloads.
///
/// # Errors
/// The field and its limit.
pub(super) fn check_entries(changes: &[WorkloadChange]) -> Result<(), TooManyEntries> {
    for change in changes {
        for field in ["files", "dependencies", "configs"] {
            let all = change.new.as_ref().and_then(|workload| workload.get(field));
            let count = match all {
                Some(Node::Map(map)) => map.len(),
                Some(Node::Seq(values)) => values.len(),
                _ => 0,
            };
            if count > MOST_ENTRIES {
                return Err(TooManyEntries { workload: change.name.to_string(), field });
            }
        }
    }
    Ok(())
}

/// Checks the rendered `runtimeConfig` of changed workloads of the runtime `process`.
///
/// # Errors
/// The workload, and the field with its limit. The position in the text is left out, since it depends on
/// the values of configs.
pub(super) fn check_rendered(
    old: &Tree,
    new: &Tree,
    budget: &mut Budget,
) -> Result<(), RenderError> {
    for change in workload_changes(old, new) {
        let Some(workload) = &change.new else { continue };
        if workload.str_at("runtime") != Some(PROCESS) || is_unrendered(workload) {
            continue;
        }
        let was = change.old.as_ref().and_then(|workload| workload.str_at("runtimeConfig"));
        let text = workload.str_at("runtimeConfig").unwrap_or_default();
        // Unchanged, so it is no cost of this update.
        if was == Some(text) {
            continue;
        }
        let field = format!("desiredState.workloads.{}.runtimeConfig", change.name);
        let steps = u64::try_from(text.len() / BYTES_A_STEP).unwrap_or(u64::MAX);
        // Bounds only: any other fault costs nobody but this workload, at its start.
        let checked = config::check_bounds(text).map_err(|fault| fault.to_string());
        let mut charged = || budget.charge_update(steps).map_err(|error| error.to_string());
        checked.and_then(|()| charged()).map_err(|what| {
            let (workload, reason) = (change.name.to_string(), format!("{field}: {what}"));
            RenderError { workload, reason, is_old: false }
        })?;
    }
    Ok(())
}
