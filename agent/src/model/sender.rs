//! The workload that asks for an update: what it may do by the state of now, and what it may be told.
//!
//! fifogate asks the rules too, but earlier: they may have been narrowed since, here or at another
//! node, and only here is it known to what the update leads.

use fifogate::{
    broker::Rules,
    state::{DESIRED_STATE, Map, Mask, Node, Tree},
};

use crate::render::{RenderError, configs_of};

const WORKLOADS: [&str; 2] = [DESIRED_STATE, "workloads"];

/// The sender of an update, by the state before it.
#[derive(Debug)]
pub(super) struct Sender {
    rules: Rules,
}

impl Sender {
    /// The workload of this name. One that is not there may do nothing; no name is the agent itself,
    /// which may do everything.
    pub(super) fn of(current: &Tree, name: &str) -> Self {
        let path = [DESIRED_STATE, "workloads", name, "controlInterfaceAccess"];
        let rules = match name {
            "" => Rules::everything(),
            _ => current.get(&path).map(Rules::compile).unwrap_or_default(),
        };
        Self { rules }
    }

    pub(super) fn may_write(&self, masks: &[Mask]) -> bool {
        self.rules.may_write(masks)
    }

    /// Whether it may make workloads refer to configs as in `proposed`, which is not checked yet: that
    /// a config is missing is told only to those who may read it.
    pub(super) fn may_refer(&self, current: &Tree, proposed: &Map<Node>) -> bool {
        let desired = proposed.get(DESIRED_STATE);
        let workloads = desired.and_then(|desired| desired.get("workloads"));
        workloads.is_none_or(|new| self.rules.may_refer(current.entries(&WORKLOADS), new.entries()))
    }

    /// Why a workload cannot be rendered. The reason quotes its fields, and may quote what its configs
    /// hold, so it is only for senders that may read both; others are told the path.
    pub(super) fn told(&self, old: &Tree, new: &Tree, fault: &RenderError) -> String {
        let path = [DESIRED_STATE, "workloads", &fault.workload];
        let workload = new.get(&path);
        let mut configs = workload.into_iter().flat_map(configs_of).peekable();
        // Without configs nothing is filled in, and a fault that is new stands in what was sent.
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
