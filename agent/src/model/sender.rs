//! The sender of an update: its rights by the current state, and the error text it may read.
//!
//! fifogate checks the rules too, but earlier. The rules may have been narrowed since, here or at
//! another node, and only the agent knows the state resulting from the update.

use fifogate::{
    internal::{Rules, state::DESIRED_STATE},
    state::{Map, Mask, Node, Tree},
};

use crate::render::{RenderError, configs_of};

const WORKLOADS: [&str; 2] = [DESIRED_STATE, "workloads"];

/// The sender of an update, with its rules in the state before the update.
#[derive(Debug)]
pub(super) struct Sender {
    name: String,
    rules: Rules,
}

impl Sender {
    /// The workload of this name. An absent workload has no rights; the empty name is the agent itself,
    /// with all rights.
    pub(super) fn of(current: &Tree, name: &str) -> Self {
        let path = [DESIRED_STATE, "workloads", name, "controlInterfaceAccess"];
        let rules = match name {
            // No workload has this name (docs/protocol.md#names-and-versions).
            "" => Rules::everything(),
            _ => current.get(&path).map(Rules::compile).unwrap_or_default(),
        };
        Self { name: name.to_owned(), rules }
    }

    /// The reason why the sender may not write `masks`; `None` if it may. It is for the log.
    pub(super) fn deny_update(&self, masks: &[Mask]) -> Option<String> {
        self.rules.deny_update(masks).map(|denial| denial.to_string())
    }

    /// The reason why the sender may not make workloads refer to configs as in `proposed`, before
    /// validation: an error about a missing config is only for senders with the right to read it.
    pub(super) fn deny_references(&self, current: &Tree, proposed: &Map<Node>) -> Option<String> {
        let new = proposed.get(DESIRED_STATE)?.get("workloads")?.entries();
        let denial = self.rules.deny_references(current.entries(&WORKLOADS), new)?;
        Some(denial.to_string())
    }

    /// The reason why the sender may not change the access rules of this workload.
    pub(super) fn deny_change_of_rules(&self, changed: &str) -> Option<String> {
        self.rules
            .deny_change_of_rules(changed, changed == self.name)
            .map(|denial| denial.to_string())
    }

    /// The error text for a failed rendering. The reason quotes fields of the workload, and possibly
    /// values of its configs. A sender without the right to read both gets the path alone.
    pub(super) fn told(&self, old: &Tree, new: &Tree, fault: &RenderError) -> String {
        let path = [DESIRED_STATE, "workloads", &fault.workload];
        let workload = new.get(&path);
        let mut configs = workload.into_iter().flat_map(configs_of).peekable();
        // Without configs nothing is filled in, so a new fault quotes only text sent by this sender.
        let has_sent_it = configs.peek().is_none() && old.get(&path) != workload;
        let may_read = |config| self.rules.may_read_path(&[DESIRED_STATE, "configs", config]);
        if (has_sent_it || self.rules.may_read_path(&path)) && configs.all(may_read) {
            return fault.reason.clone();
        }
        format!(
            "Failed to render {}; why is not told, as this workload may not read all that is filled \
             in there",
            path.join(".")
        )
    }
}
