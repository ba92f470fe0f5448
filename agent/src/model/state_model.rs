//! The current state with its derived indexes: size and config references.
//!
//! Updates and changes go in; a new state or an error comes out. The indexes always belong to the tree,
//! and each step costs no more than its change.

use std::sync::Arc;

use fifogate::{
    internal::{
        agent_update::{self, AgentUpdateError},
        parts,
        state::{
            AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, WORKLOAD_STATES, follow_workloads,
            propose, weight_after,
        },
    },
    limits::MAX_STATE_BYTES,
    pb::ank_base as pb,
    state::{
        Instance, Mask, Node, Tree, convert,
        update::{self, UpdateError},
    },
};

use prost::Message;

use super::{
    Update, UpdatePlan, bounds, changes_between, empty, grants_itself, instance, instances,
    nobody_ends, sender::Sender,
};
use crate::{
    apart,
    render::{self, Budget, ConfigIndex, RenderError},
    store::{Change, Refused},
};

/// Changes do not result in a valid state.
#[derive(Debug, thiserror::Error)]
pub enum InvalidChange {
    /// An item has an unknown value.
    #[error(transparent)]
    Item(convert::ConvertError),
    /// The state would break a rule.
    #[error(transparent)]
    State(AgentUpdateError),
    /// The state would be too large.
    #[error(transparent)]
    TooLarge(TooLarge),
}

/// A state with what templates make of it would not reach a restarted fifogate in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The state would take more than {MAX_STATE_BYTES} bytes")]
pub struct TooLarge;

/// A state with its size and its index of config references.
#[derive(Clone, Debug)]
pub struct StateModel {
    tree: Tree,
    bytes: usize,
    /// Shared: a clone of the model is cheap.
    uses: Arc<ConfigIndex>,
}

impl Default for StateModel {
    /// The state with an empty desired state.
    fn default() -> Self {
        Self::new(empty())
    }
}

impl StateModel {
    /// Builds the indexes of a state.
    #[must_use]
    pub fn new(tree: Tree) -> Self {
        let bytes = weight_after(&Tree::default(), 0, &tree);
        let mut uses = ConfigIndex::default();
        uses.follow(&tree);
        Self { tree, bytes, uses: Arc::new(uses) }
    }

    /// The state.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Size of the state in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Size of another state in bytes, computed from the difference.
    #[must_use]
    pub fn bytes_with(&self, tree: &Tree) -> usize {
        weight_after(&self.tree, self.bytes, tree)
    }

    /// Whether a state follows that is within the bound. One over it can still shrink.
    fn check_size(&self, tree: &Tree) -> Result<(), TooLarge> {
        match self.bytes_with(tree) {
            bytes if bytes > self.bytes && bytes > MAX_STATE_BYTES => Err(TooLarge),
            _ => Ok(()),
        }
    }

    /// The workloads referring to a config, by name.
    pub fn users_of(&self, config: &str) -> impl Iterator<Item = &str> {
        self.uses.of(config).map(|name| name.as_str())
    }

    /// Bytes processed by an update: its own size, or `apart::LARGE` if it may need rendering.
    #[must_use]
    pub fn work_of(&self, update: &Update) -> usize {
        let is_plain = |mask: &String| {
            let mut names = mask.split('.');
            match (names.next(), names.next(), names.next()) {
                (Some(DESIRED_STATE), Some("configs"), Some(name)) => {
                    self.users_of(name).next().is_none()
                }
                (Some(AGENTS), Some(_), _) => true,
                _ => false,
            }
        };
        if update.masks.is_empty() || !update.masks.iter().all(is_plain) {
            return apart::LARGE;
        }
        update.new_state.encoded_len()
    }

    /// Bytes processed by changes, as in [`StateModel::work_of`].
    #[must_use]
    pub fn work_of_changes(&self, changes: &[Change]) -> usize {
        let of = |change: &Change| match change {
            Change::Config(name, _) if self.users_of(name).next().is_some() => apart::LARGE,
            Change::Config(_, config) => config.as_ref().map_or(0, Message::encoded_len),
            Change::Workload(_, Some(own)) => match &own.configs {
                Some(configs) if !configs.configs.is_empty() => apart::LARGE,
                _ => own.encoded_len(),
            },
            Change::Workload(_, None)
            | Change::ApiVersion(_)
            | Change::Agent(..)
            | Change::WorkloadState(..) => 0,
        };
        changes.iter().map(of).fold(0, usize::saturating_add)
    }

    /// Replaces the state and updates its indexes.
    pub fn set(&mut self, tree: Tree) {
        self.bytes = self.bytes_with(&tree);
        Arc::make_mut(&mut self.uses).follow(&tree);
        self.tree = tree;
    }

    /// Computes the state after an update.
    ///
    /// # Errors
    /// The update is invalid; the text is for its sender (docs/protocol.md#error-texts).
    pub fn update(&self, update: &Update) -> Result<UpdatePlan, Refused> {
        let current = &self.tree;
        let invalid = |error: UpdateError| Refused::Invalid(error.to_string());
        let check = |denied: Option<String>| denied.map_or(Ok(()), |why| Err(Refused::Denied(why)));
        let masks: Vec<_> = update.masks.iter().map(|mask| Mask::parse(mask)).collect();
        // Rights are asked before any work (docs/differences.md#25-rights-before-work).
        let sender = Sender::of(current, &update.by);
        check(sender.deny_update(&masks))?;
        let new_state = convert::new_state_from_pb(&update.new_state).map_err(|number| {
            invalid(UpdateError::Invalid(format!("Failed to parse new state, '{number}'")))
        })?;
        let proposed = propose(current, &new_state, &masks).map_err(invalid)?;
        // Before `apply`: its validation would reveal missing configs to senders without the right to
        // read them.
        check(sender.deny_references(current, &proposed))?;
        let updated = update::apply(current, &new_state, &masks).map_err(invalid)?;
        // fifogate does not ask this with `--updates forward` (docs/agent-link.md#forwarded-requests).
        let own = updated.changes.iter().find(|change| grants_itself(change, &update.by));
        check(own.and_then(|own| sender.deny_change_of_rules(own.name.as_str())))?;
        // The agent's own updates, such as its manifest, are not bounded.
        let by_workload = !update.by.is_empty();
        if by_workload {
            let over =
                |error: bounds::TooManyEntries| invalid(UpdateError::Invalid(error.to_string()));
            bounds::check_entries(&updated.changes).map_err(over)?;
        }
        let told = |fault: &RenderError| {
            invalid(UpdateError::Invalid(sender.told(current, &updated.tree, fault)))
        };
        // One budget for rendering and for the check below: an update has one limit.
        let mut budget = if by_workload { Budget::of_update() } else { Budget::unbounded() };
        let (effective, faults) =
            render::effective_within(current, &self.uses, &updated.tree, &mut budget);
        // A workload with an old fault must not block unrelated updates.
        if let Some(fault) = faults.iter().find(|fault| !fault.is_old) {
            return Err(told(fault));
        }
        let tree = updated.tree.with(EFFECTIVE_STATE, Some(effective));
        if by_workload {
            bounds::check_rendered(current, &tree, &mut budget).map_err(|own| told(&own))?;
        }
        // Of the effective state: the id of an instance is that of the rendered text.
        let (ended, started) = instances(current, &tree);
        // The others are removed by the reports of their agents, after their processes have ended.
        let gone: Vec<_> = ended.iter().filter(|own| nobody_ends(current, own)).cloned().collect();
        let states = follow_workloads(tree.entries(&[WORKLOAD_STATES]), &gone, &started);
        let tree = tree.with(WORKLOAD_STATES, Some(Node::Map(states)));
        self.check_size(&tree).map_err(|error| Refused::Invalid(error.to_string()))?;
        let names = |instances: &[Instance]| instances.iter().map(ToString::to_string).collect();
        let success = pb::UpdateStateSuccess {
            added_workloads: names(&started),
            deleted_workloads: names(&ended),
        };
        Ok(UpdatePlan { changes: changes_between(current, &tree), tree, success })
    }

    /// Computes the state after changes of a store, and the workloads with a failed rendering.
    ///
    /// # Errors
    /// The changes do not result in a valid state.
    pub fn apply(&self, changes: &[Change]) -> Result<(Tree, Vec<RenderError>), InvalidChange> {
        let (mut items, mut states) = (Vec::new(), Vec::new());
        let unknown = InvalidChange::Item;
        for change in changes {
            items.push(match change {
                Change::ApiVersion(version) => {
                    (vec![DESIRED_STATE, API_VERSION], Some(Node::text(version)))
                }
                Change::Workload(name, workload) => {
                    let node = workload.as_deref().map(parts::workload_from_pb);
                    (vec![DESIRED_STATE, "workloads", name], node.transpose().map_err(unknown)?)
                }
                Change::Config(name, config) => {
                    let node = config.as_ref().map(|own| parts::config_from_pb(name, own));
                    (vec![DESIRED_STATE, "configs", name], node.transpose().map_err(unknown)?)
                }
                Change::Agent(name, attributes) => {
                    (vec![AGENTS, name], attributes.as_ref().map(parts::agent_from_pb))
                }
                Change::WorkloadState(name, state) => {
                    let state = state.as_ref().map(parts::execution_state_from_pb);
                    states.push((instance(name), state.transpose().map_err(unknown)?));
                    continue;
                }
            });
        }
        let mut tree = agent_update::set_items(&self.tree, items).map_err(InvalidChange::State)?;
        tree = agent_update::set_states(&tree, &states);
        let (effective, faults) = render::effective(&self.tree, &self.uses, &tree);
        let tree = tree.with(EFFECTIVE_STATE, Some(effective));
        // What agents and workloads say of themselves is kept in any case.
        if changes.iter().any(|own| matches!(own, Change::Config(..) | Change::Workload(..))) {
            self.check_size(&tree).map_err(InvalidChange::TooLarge)?;
        }
        Ok((tree, faults))
    }
}
