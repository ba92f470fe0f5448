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
        Self { rules }
    }

    pub(super) fn may_write(&self, masks: &[Mask]) -> bool {
        self.rules.may_write(masks)
    }

    /// True if the sender may make workloads refer to configs as in `proposed`, before validation: an
    /// error about a missing config is only for senders with the right to read it.
    pub(super) fn may_refer(&self, current: &Tree, proposed: &Map<Node>) -> bool {
        let desired = proposed.get(DESIRED_STATE);
        let workloads = desired.and_then(|desired| desired.get("workloads"));
        workloads.is_none_or(|new| self.rules.may_refer(current.entries(&WORKLOADS), new.entries()))
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
