//! The bounds of what a workload may make of another one, or of itself, by an update. The manifest and
//! what was kept are not asked: there, it costs the workload alone.

use fifogate::state::{Node, Tree, WorkloadChange};

use super::workload_changes;
use crate::{
    limits::MOST_ENTRIES,
    render::{Budget, RenderError, is_unrendered},
    runtime::{PROCESS, config},
};

/// Bytes of a `runtimeConfig` that are read in a step.
const BYTES_A_STEP: usize = 2;

/// Whether the workloads that an update makes have no more of anything than is taken.
///
/// # Errors
/// The field, and its bound.
pub(super) fn check_entries(changes: &[WorkloadChange]) -> Result<(), String> {
    for change in changes {
        for field in ["files", "dependencies", "configs"] {
            let all = change.new.as_ref().and_then(|workload| workload.get(field));
            let count = match all {
                Some(Node::Map(map)) => map.len(),
                Some(Node::Seq(values)) => values.len(),
                _ => 0,
            };
            if count > MOST_ENTRIES {
                let name = &change.name;
                return Err(format!(
                    "desiredState.workloads.{name}.{field} has more than {MOST_ENTRIES} entries"
                ));
            }
        }
    }
    Ok(())
}

/// Whether what is to be run of it can be read.
///
/// # Errors
/// The workload, and the field with its bound. Where in the text it is over the bound depends on what
/// configs filled in.
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
        if was == Some(text) {
            continue;
        }
        let field = format!("desiredState.workloads.{}.runtimeConfig", change.name);
        let steps = u64::try_from(text.len() / BYTES_A_STEP).unwrap_or(u64::MAX);
        config::check_bounds(text).and_then(|()| budget.charge_update(steps)).map_err(|what| {
            let (workload, reason) = (change.name.to_string(), format!("{field}: {what}"));
            RenderError { workload, reason, is_old: false }
        })?;
    }
    Ok(())
}
