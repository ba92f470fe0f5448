//! The state model: computes the effect of updates and reports on the state, as a tree and item by item.
//!
//! Input is a state and an update, a report or a list of changes; output is a new tree, its changes, or
//! the reason for a rejection. All functions are pure and shared by every store. The state is a tree of
//! the component's kind with all four parts; its effective state always belongs to its desired state.

mod bounds;
mod fitted;
mod rights;
mod sender;
mod state_model;
pub(crate) mod states;
mod targets;

use fifogate::{
    internal::{
        agent_update, parts,
        state::{
            AGENTS, API_VERSION, ChangeSet, DESIRED_STATE, EFFECTIVE_STATE, MaskSet,
            WORKLOAD_STATES, WorkloadChange, follow_workloads, is_addressable,
        },
    },
    pb::ank_base as pb,
    state::{
        Instance, Map, Node, Tree,
        convert::{self, Fill},
    },
};

use crate::{
    render::{self, ConfigIndex},
    store::Change,
};

pub use fitted::Fitted;
pub use rights::{common_rights, rights_of, without_unknown_masks};
pub use state_model::{InvalidChange, StateModel};
pub use targets::{Item, UpdateTargets};

/// An update as requested.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// The requesting workload; empty for the agent itself.
    pub by: String,
    /// The new values.
    pub new_state: pb::CompleteState,
    /// The parts of `new_state` to apply.
    pub masks: Vec<String>,
}

/// The effect of an update on the state.
#[derive(Debug)]
pub struct UpdatePlan {
    /// The state after the update.
    pub tree: Tree,
    /// The differences, item by item; empty if there are none.
    pub changes: Vec<Change>,
    /// The answer to an update.
    pub success: pb::UpdateStateSuccess,
}

/// The state with an empty desired state.
#[must_use]
pub fn empty() -> Tree {
    let initial = Tree::initial();
    // An empty state cannot fail to render.
    let (effective, _) = render::effective(&initial, &ConfigIndex::default(), &initial);
    initial.with(EFFECTIVE_STATE, Some(effective))
}

/// True if a workload sets its own rights (docs/differences.md#16-no-rights-for-oneself). Removing
/// itself grants it nothing.
fn grants_itself(change: &WorkloadChange, by: &str) -> bool {
    let access = |workload: &Option<Node>| {
        workload.as_ref().and_then(|workload| workload.get("controlInterfaceAccess").cloned())
    };
    change.name.as_str() == by && change.new.is_some() && access(&change.old) != access(&change.new)
}

/// The ended and the started instances between two states.
#[must_use]
pub fn instances(old: &Tree, new: &Tree) -> (Vec<Instance>, Vec<Instance>) {
    let pairs = workload_changes(old, new).into_iter().map(|change| change.instances());
    let (ended, started): (Vec<_>, Vec<_>) = pairs.unzip();
    (ended.into_iter().flatten().collect(), started.into_iter().flatten().collect())
}

/// The differing workloads of the effective state.
#[must_use]
pub fn workload_changes(old: &Tree, new: &Tree) -> Vec<WorkloadChange> {
    let path = [EFFECTIVE_STATE, "workloads"];
    let mut changes = Vec::new();
    old.entries(&path).diff(new.entries(&path), |name, old, new| {
        // The walk also shows equal values in different memory.
        if old != new {
            changes.push(WorkloadChange {
                name: name.clone(),
                old: old.cloned(),
                new: new.cloned(),
            });
        }
    });
    changes
}

/// True if the effective workloads or the workload states differ between two states.
#[must_use]
pub fn concerns_workloads(old: &Tree, new: &Tree) -> bool {
    let mut differs = !workload_changes(old, new).is_empty();
    each_change(old, new, &[WORKLOAD_STATES], |_, _| differs = true);
    differs
}

/// True if no agent will report the end of an instance: it has no agent, or its agent is absent and
/// never began with it (docs/protocol.md#workload-states).
fn nobody_ends(current: &Tree, instance: &Instance) -> bool {
    let state = current.get(&[WORKLOAD_STATES, &instance.agent, &instance.workload, &instance.id]);
    let initial = state.is_none_or(|state| {
        state.str_at("state") == Some("Pending") && state.str_at("subState") == Some("Initial")
    });
    instance.agent.is_empty() || (initial && current.get(&[AGENTS, &instance.agent]).is_none())
}

/// `current` with these execution states; a state `removed` deletes its entry. `None` if a state cannot
/// be converted.
#[must_use]
pub fn report(current: &Tree, states: &[pb::WorkloadState]) -> Option<Tree> {
    let mut entries = Vec::new();
    for state in states {
        let name = state.instance_name.clone().unwrap_or_default();
        let instance =
            Instance { workload: name.workload_name, agent: name.agent_name, id: name.id };
        let state = parts::execution_state_from_pb(state.execution_state.as_ref()?).ok()?;
        let removed = state.str_at("state") == Some("Removed");
        entries.push((instance, (!removed).then_some(state)));
    }
    Some(agent_update::set_states(current, &entries))
}

/// `current` with the new status of an agent, its tags kept; a status of `None` removes the agent.
#[must_use]
pub fn set_agent(current: &Tree, name: &str, status: Option<pb::AgentStatus>) -> Tree {
    let mut agents = current.entries(&[AGENTS]).clone();
    match status {
        None => {
            agents.remove(name);
        }
        Some(status) => {
            let mut own = agents.get(name).map(Node::entries).cloned().unwrap_or_default();
            if let Some(status) = status_node(name, status) {
                own.insert("status", status);
            }
            agents.insert(name, Node::Map(own));
        }
    }
    current.with(AGENTS, Some(Node::Map(agents)))
}

fn status_node(name: &str, status: pb::AgentStatus) -> Option<Node> {
    let own = pb::AgentAttributes { status: Some(status), tags: None };
    let agents = pb::AgentMap { agents: [(name.to_owned(), own)].into() };
    let state = pb::CompleteState { agents: Some(agents), ..Default::default() };
    convert::from_pb(&state).ok()?.get(&[AGENTS, name, "status"]).cloned()
}

/// The state with all workload states reset to their initial value.
#[must_use]
pub fn begun(tree: &Tree) -> Tree {
    let (_, started) = instances(&Tree::initial(), tree);
    // No process of an earlier agent runs any more, so the old states are not kept.
    let states = follow_workloads(&Map::new(), &[], &started);
    tree.with(WORKLOAD_STATES, Some(Node::Map(states)))
}

/// The differences between two states, item by item. The effective state is no item: it follows from
/// them.
#[must_use]
pub fn changes_between(old: &Tree, new: &Tree) -> Vec<Change> {
    let mut changes = Vec::new();
    let version = [DESIRED_STATE, API_VERSION];
    if old.get(&version) != new.get(&version) {
        let text = new.get(&version).and_then(Node::as_str).unwrap_or_default();
        changes.push(Change::ApiVersion(text.to_owned()));
    }
    each_change(old, new, &[DESIRED_STATE, "configs"], |name, now| {
        changes.push(Change::Config(name.to_owned(), now.map(parts::config_to_pb)));
    });
    each_change(old, new, &[DESIRED_STATE, "workloads"], |name, now| {
        let workload = now.map(workload).map(Box::new);
        changes.push(Change::Workload(name.to_owned(), workload));
    });
    each_change(old, new, &[AGENTS], |name, now| {
        let agent = now.map(|node| parts::agent_to_pb(node, Fill::Sparse));
        changes.push(Change::Agent(name.to_owned(), agent));
    });
    state_changes(old, new, &mut changes);
    changes
}

/// Calls `each` for every instance whose execution state differs, with its new value.
pub(crate) fn each_changed_state(
    old: &Tree,
    new: &Tree,
    mut each: impl FnMut(Instance, Option<&Node>),
) {
    each_change(old, new, &[WORKLOAD_STATES], |agent, _| {
        each_change(old, new, &[WORKLOAD_STATES, agent], |workload, _| {
            each_change(old, new, &[WORKLOAD_STATES, agent, workload], |id, now| {
                let instance = Instance {
                    workload: workload.to_owned(),
                    agent: agent.to_owned(),
                    id: id.to_owned(),
                };
                each(instance, now);
            });
        });
    });
}

fn state_changes(old: &Tree, new: &Tree, changes: &mut Vec<Change>) {
    each_changed_state(old, new, |instance, now| {
        let state = now.map(parts::execution_state_to_pb);
        changes.push(Change::WorkloadState(instance_name(&instance), state));
    });
}

/// The execution states that differ between two states, for a client that knows the old one. One that is
/// gone is `removed`.
#[must_use]
pub fn workload_states_between(old: &Tree, new: &Tree) -> Vec<pb::WorkloadState> {
    let mut changes = Vec::new();
    state_changes(old, new, &mut changes);
    let state = |change| {
        let Change::WorkloadState(name, state) = change else { return None };
        let removed = pb::execution_state::ExecutionStateEnum::Removed(0);
        let removed =
            pb::ExecutionState { execution_state_enum: Some(removed), additional_info: None };
        let mut state = state.unwrap_or(removed);
        // Clients of Ankaios drop a state without this field.
        state.additional_info.get_or_insert_default();
        Some(pb::WorkloadState { instance_name: Some(name), execution_state: Some(state) })
    };
    changes.into_iter().filter_map(state).collect()
}

/// Calls `each` for every differing entry below `path`, with its new value.
fn each_change(old: &Tree, new: &Tree, path: &[&str], mut each: impl FnMut(&str, Option<&Node>)) {
    old.entries(path).diff(new.entries(path), |name, was, is| {
        if was != is {
            each(name.as_str(), is);
        }
    });
}

/// Converts a workload to a message.
#[must_use]
pub fn workload(node: &Node) -> pb::Workload {
    parts::workload_to_pb(node, Fill::Sparse)
}

/// The update from `old` to `new`, for a receiver of the old state; `None` if they are equal.
#[must_use]
pub fn difference(old: &Tree, new: &Tree) -> Option<(pb::CompleteState, Vec<String>)> {
    let altered = ChangeSet::between(old, new).altered(&MaskSet::parse([""; 0]))?;
    let message = convert::to_pb(&new.select(altered.selection()), Fill::Sparse);
    let masks = [altered.removed, altered.added, altered.updated].concat();
    Some((message, masks))
}

/// The update from `old` to `new`, built from `changes` alone. `None` if only a [`difference`] covers
/// it: other items of the effective state changed, or a collection became empty.
#[must_use]
pub fn update_of(
    old: &Tree,
    new: &Tree,
    changes: Vec<Change>,
) -> Option<(pb::CompleteState, Vec<String>)> {
    let effective = [EFFECTIVE_STATE];
    // By pointer: rendering reuses an unchanged effective state, so this costs nothing.
    if !old.entries(&effective).ptr_eq(new.entries(&effective)) {
        return None;
    }
    let (mut state, mut masks) = (pb::CompleteState::default(), Vec::new());
    for change in changes {
        match change {
            Change::Config(name, config) => {
                masks.push(mask(&[DESIRED_STATE, "configs", &name])?);
                let desired = state.desired_state.get_or_insert_default();
                let configs = desired.configs.get_or_insert_default();
                configs.configs.extend(config.map(|config| (name, config)));
            }
            Change::Agent(name, Some(attributes)) => {
                masks.push(mask(&[AGENTS, &name])?);
                state.agents.get_or_insert_default().agents.insert(name, attributes);
            }
            Change::WorkloadState(name, Some(execution_state)) => {
                let pb::WorkloadInstanceName { workload_name, agent_name, id } = name;
                masks.push(mask(&[WORKLOAD_STATES, &agent_name, &workload_name, &id])?);
                let states = state.workload_states.get_or_insert_default();
                let of_agent = states.agent_state_map.entry(agent_name).or_default();
                let of_workload = of_agent.wl_name_state_map.entry(workload_name).or_default();
                of_workload.id_state_map.insert(id, execution_state);
            }
            _ => return None,
        }
    }
    Some((state, masks))
}

/// A mask for one path; `None` if no mask can name it.
fn mask(path: &[&str]) -> Option<String> {
    let is_named = |name: &&str| !name.is_empty() && is_addressable(name);
    path.iter().all(is_named).then(|| path.join("."))
}

/// Converts an instance to its name in messages.
#[must_use]
pub fn instance_name(instance: &Instance) -> pb::WorkloadInstanceName {
    pb::WorkloadInstanceName {
        workload_name: instance.workload.clone(),
        agent_name: instance.agent.clone(),
        id: instance.id.clone(),
    }
}

/// The name of the folders of an instance: of its pair, its log, and what the agent keeps of it.
#[must_use]
pub fn folder_name(instance: &Instance) -> String {
    format!("{}.{}", instance.workload, instance.id)
}

/// Converts a name in a message to the instance.
#[must_use]
pub fn instance(name: &pb::WorkloadInstanceName) -> Instance {
    Instance {
        workload: name.workload_name.clone(),
        agent: name.agent_name.clone(),
        id: name.id.clone(),
    }
}

#[cfg(test)]
mod tests;
