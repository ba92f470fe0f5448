//! The state of a server as this agent knows it: messages of the server, and this agent's own reports.
//!
//! Messages of the server and reports of this agent go in; a tree comes out. The server is right about
//! everything but two things. Which workloads run here follows its orders, not its state: the order comes after
//! the change. And the states of these workloads are this agent's own reports: the server sends them back later,
//! and forgets them while the agent is away. All functions are pure.

use std::collections::{BTreeMap, BTreeSet};

use fifogate::{
    internal::{
        agent_update::{replace, set_states},
        parts,
        state::{AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, WORKLOAD_STATES, is_name},
    },
    pb::ank_base as pb,
    state::{
        Instance, Map, Node, Tree,
        convert::{self, ConvertError},
    },
};

use super::given::GivenIds;
use crate::{
    grpc_api::{self as wire, AddedWorkload, DeletedWorkload},
    model::{self, states},
    supervisor::{DeleteCondition, DeleteConditions},
};

/// An event does not fit to the known state, so the state has to be read again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unclear(String);

/// The parts of an order without an effect.
#[derive(Debug)]
pub(super) struct Ordered {
    /// A line for each unusable workload.
    pub(super) faults: Vec<String>,
    /// Deleted instances without a process here: they have ended as far as anybody can know.
    pub(super) unknown: Vec<pb::WorkloadInstanceName>,
}

/// The known state.
#[derive(Debug)]
pub(super) struct View {
    agent: String,
    /// As the server has told it.
    told: Tree,
    /// Whether this is the whole state.
    is_whole: bool,
    /// The ordered workloads of this agent.
    ordered: BTreeMap<String, Node>,
    given: GivenIds,
    /// This agent's reports; `None` for removed, until the server has forgotten the instance, too.
    reported: BTreeMap<Instance, Option<Node>>,
    delete_conditions: DeleteConditions,
    tree: Tree,
}

impl View {
    pub(super) fn new(agent: &str) -> Self {
        Self {
            agent: agent.to_owned(),
            told: model::empty(),
            is_whole: false,
            ordered: BTreeMap::new(),
            given: GivenIds::default(),
            reported: BTreeMap::new(),
            delete_conditions: DeleteConditions::new(),
            tree: model::empty(),
        }
    }

    /// The state for readers.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Workloads awaited by a deleted one, by its name.
    pub(super) fn delete_conditions(&self) -> &DeleteConditions {
        &self.delete_conditions
    }

    pub(super) fn given(&self) -> &GivenIds {
        &self.given
    }

    /// The server's first message: all workloads of this agent. Returns a line for each unusable one.
    pub(super) fn greet(&mut self, all: Vec<AddedWorkload>) -> Vec<String> {
        // A deletion without conditions: nobody has told them.
        self.delete_conditions.clear();
        let mut names: BTreeSet<_> = std::mem::take(&mut self.ordered).into_keys().collect();
        let faults = self.take(all);
        names.extend(self.ordered.keys().cloned());
        self.refresh(names);
        faults
    }

    /// An order of the server. A name in both lists is replaced.
    pub(super) fn order(
        &mut self,
        added: Vec<AddedWorkload>,
        deleted: Vec<DeletedWorkload>,
    ) -> Ordered {
        let mut names: BTreeSet<_> = added.iter().map(name_of).collect();
        let mut unknown = Vec::new();
        for own in deleted {
            let told = own.instance_name.unwrap_or_default();
            let instance = self.given.back(&model::instance(&told));
            if !self.is_ordered(&instance) && !self.reported.contains_key(&instance) {
                unknown.push(told);
                continue;
            }
            self.ordered.remove(&instance.workload);
            let conditions = conditions(own.dependencies);
            self.delete_conditions.insert(instance.workload.clone(), conditions);
            names.insert(instance.workload);
        }
        let faults = self.take(added);
        self.refresh(names);
        Ordered { faults, unknown }
    }

    fn take(&mut self, added: Vec<AddedWorkload>) -> Vec<String> {
        let mut faults = Vec::new();
        for own in added {
            let name = own.instance_name.unwrap_or_default();
            match workload(&name, own.workload.unwrap_or_default(), &self.agent) {
                Ok(node) => {
                    self.given.note(Instance::of(&name.workload_name, &node), name.id);
                    self.ordered.insert(name.workload_name, node);
                }
                Err(fault) => faults.push(format!("workload {:?}: {fault}", name.workload_name)),
            }
        }
        faults
    }

    /// States of other agents' workloads.
    pub(super) fn hear(&mut self, states: &[pb::WorkloadState]) {
        // What cannot be read is left out, as the server has it in its state in the same way.
        let readable = |one: &&pb::WorkloadState| {
            model::report(&Tree::default(), std::slice::from_ref(one)).is_some()
        };
        let states: Vec<_> = states.iter().filter(readable).cloned().collect();
        if let Some(told) = model::report(&self.told, &states) {
            self.follow(told);
        }
    }

    /// The whole state. Returns the instances of this agent that nobody wants any more.
    ///
    /// # Errors
    /// The state cannot be read.
    pub(super) fn replace(&mut self, state: &pb::CompleteState) -> Result<(), ConvertError> {
        let given = convert::from_pb(state)?;
        // What is equal keeps its place in memory, so only the difference costs.
        let told = replace(&self.told, &given).unwrap_or(given);
        self.is_whole = true;
        self.follow(told);
        // The server may have forgotten meanwhile what was removed here.
        let told = &self.told;
        let given = &self.given;
        self.reported.retain(|own, state| state.is_some() || is_told(told, &given.out(own)));
        Ok(())
    }

    /// Parts of the state without events of the server.
    pub(super) fn refresh_agents(&mut self, state: &pb::CompleteState) -> Result<(), ConvertError> {
        let given = convert::from_pb(state)?;
        let agents = given.entries(&[AGENTS]);
        let mut known = self.told.entries(&[AGENTS]).clone();
        for (name, agent) in agents {
            let Some(before) = known.get(name.as_str()).map(Node::entries) else { continue };
            let (mut own, tags) = (before.clone(), agent.get("tags").cloned());
            match tags {
                Some(tags) => own.insert("tags", tags),
                None => drop(own.remove("tags")),
            }
            if own != *before {
                known.insert(name.as_str(), Node::Map(own));
            }
        }
        let told = self.told.with(AGENTS, Some(Node::Map(known)));
        self.follow(told);
        Ok(())
    }

    /// A change of the state.
    ///
    /// # Errors
    /// It does not fit to the known state, and nothing of it is applied.
    pub(super) fn change(
        &mut self,
        state: &pb::CompleteState,
        altered: &pb::AlteredFields,
    ) -> Result<(), Unclear> {
        let new = convert::from_pb(state).map_err(|error| Unclear(error.to_string()))?;
        let mut root = self.told.root().clone();
        let pb::AlteredFields { added_fields, updated_fields, removed_fields } = altered;
        for path in removed_fields {
            let names: Vec<_> = path.split('.').collect();
            // The server says so, too, when the last workload without an agent is removed.
            let is_clear = names.len() > 1 && unset(&mut root, &names);
            if !is_clear {
                return Err(Unclear(format!("'{path}' is removed, and was not known")));
            }
        }
        for path in added_fields.iter().chain(updated_fields) {
            let names: Vec<_> = path.split('.').collect();
            let value = new.get(&names);
            let value = value.ok_or_else(|| Unclear(format!("'{path}' has no value")))?;
            if !set(&mut root, &names, value.clone()) {
                return Err(Unclear(format!("'{path}' is below no mapping")));
            }
        }
        self.follow(Tree::from_root(root));
        Ok(())
    }

    /// Instances of this agent with a state at the server, and without an order: they have ended while
    /// nobody was there to tell it.
    pub(super) fn left_over(&self) -> Vec<Instance> {
        let own = self.told.entries(&[WORKLOAD_STATES, &self.agent]);
        let all = own.iter().flat_map(|(name, ids)| {
            let of = |(id, _): (&_, &_)| self.told_instance(name.as_str(), ToString::to_string(id));
            ids.entries().iter().map(of).collect::<Vec<_>>()
        });
        all.filter(|own| !self.is_ordered(own) && !self.reported.contains_key(own)).collect()
    }

    /// Takes a report of this agent; false if it says nothing new.
    pub(super) fn report(&mut self, report: &pb::WorkloadState) -> bool {
        let instance = model::instance(&report.instance_name.clone().unwrap_or_default());
        let state = report.execution_state.as_ref().map(parts::execution_state_from_pb);
        let Some(Ok(state)) = state else { return false };
        let is_told = is_told(&self.told, &self.given.out(&instance));
        if state.str_at("state") == Some("Removed") {
            self.delete_conditions.remove(&instance.workload);
            let is_known = match self.reported.get(&instance) {
                Some(reported) => reported.is_some(),
                None => is_told,
            };
            if self.is_whole && is_told {
                self.reported.insert(instance.clone(), None);
            } else {
                // Nothing of it is to come back.
                self.reported.remove(&instance);
            }
            self.refresh_states([instance]);
            return is_known;
        }
        self.reported.insert(instance.clone(), Some(state));
        self.refresh_states([instance]);
        true
    }

    /// The reports to be sent again.
    pub(super) fn reports(&self) -> Vec<pb::WorkloadState> {
        let all = self.reported.iter().map(|(instance, state)| pb::WorkloadState {
            instance_name: Some(model::instance_name(instance)),
            execution_state: Some(
                state.as_ref().map_or_else(states::removed, parts::execution_state_to_pb),
            ),
        });
        all.collect()
    }

    /// The connection has ended. The last messages are still the best knowledge.
    pub(super) fn lose(&mut self) {
        self.is_whole = false;
    }

    /// Whether this agent is to run it.
    pub(super) fn is_ordered(&self, instance: &Instance) -> bool {
        let ordered = self.ordered.get(&instance.workload);
        ordered.is_some_and(|own| Instance::of(&instance.workload, own) == *instance)
    }

    /// The instance of this agent by its name at the server.
    fn told_instance(&self, name: &str, id: String) -> Instance {
        let told = Instance { workload: name.to_owned(), agent: self.agent.clone(), id };
        self.given.back(&told)
    }

    /// Moves on to another told state, at the cost of the difference.
    fn follow(&mut self, told: Tree) {
        let before = std::mem::replace(&mut self.told, told);
        let now = &self.told;
        let initial = model::empty();
        let part = |name: &str| now.get(&[name]).or_else(|| initial.get(&[name])).cloned();
        let tree = self.tree.with(DESIRED_STATE, part(DESIRED_STATE));
        let tree = tree.with(AGENTS, part(AGENTS));
        let mut effective = part(EFFECTIVE_STATE).map(|own| own.entries().clone());
        let effective = effective.get_or_insert_default();
        if effective.get(API_VERSION).is_none() {
            effective.insert(API_VERSION, Node::text("v1"));
        }
        let workloads = tree.entries(&[EFFECTIVE_STATE, "workloads"]).clone();
        effective.insert("workloads", Node::Map(workloads));
        self.tree = tree.with(EFFECTIVE_STATE, Some(Node::Map(effective.clone())));
        let mut names = BTreeSet::new();
        before.entries(&[EFFECTIVE_STATE, "workloads"]).diff(
            now.entries(&[EFFECTIVE_STATE, "workloads"]),
            |name, _, _| {
                names.insert(name.to_string());
            },
        );
        let mut instances = BTreeSet::new();
        model::each_changed_state(&before, now, |instance, _| {
            instances.insert(instance);
        });
        let known = &self.told;
        // Now it is gone at the server, too.
        self.reported.retain(|own, state| {
            let out = self.given.out(own);
            state.is_some() || !instances.contains(&out) || is_told(known, &out)
        });
        let instances: Vec<_> = instances.into_iter().map(|own| self.known(own)).collect();
        self.refresh_workloads(&names);
        self.refresh_states(instances);
    }

    /// An instance as this agent names it.
    fn known(&self, told: Instance) -> Instance {
        if told.agent == self.agent { self.given.back(&told) } else { told }
    }

    /// Makes the entries of these workloads anew, and those of their states.
    fn refresh(&mut self, names: BTreeSet<String>) {
        self.refresh_workloads(&names);
        let mut instances = Vec::new();
        for name in names {
            let told = self.told.entries(&[WORKLOAD_STATES, &self.agent, &name]);
            let all = told.keys().map(|id| self.told_instance(&name, id.to_string()));
            instances.extend(all.collect::<Vec<_>>());
        }
        self.refresh_states(instances);
    }

    fn refresh_workloads(&mut self, names: &BTreeSet<String>) {
        let effective = [EFFECTIVE_STATE, "workloads"];
        let mut workloads = self.tree.entries(&effective).clone();
        for name in names {
            let told = self.told.get(&[EFFECTIVE_STATE, "workloads", name]);
            // Those of this agent come and go by its orders.
            let elsewhere = told.filter(|own| own.str_at("agent") != Some(&self.agent));
            match self.ordered.get(name).or(elsewhere) {
                Some(node) if workloads.get(name) != Some(node) => {
                    workloads.insert(name.as_str(), node.clone());
                }
                Some(_) => {}
                None => drop(workloads.remove(name)),
            }
        }
        if !workloads.ptr_eq(self.tree.entries(&effective)) {
            let mut own = self.tree.entries(&[EFFECTIVE_STATE]).clone();
            own.insert("workloads", Node::Map(workloads));
            self.tree = self.tree.with(EFFECTIVE_STATE, Some(Node::Map(own)));
        }
    }

    fn refresh_states(&mut self, instances: impl IntoIterator<Item = Instance>) {
        let now = |instance: Instance| {
            let state = if instance.agent == self.agent {
                match self.reported.get(&instance) {
                    Some(reported) => reported.clone(),
                    None if self.is_ordered(&instance) => {
                        told(&self.told, &self.given.out(&instance))
                    }
                    // The order for it is about to come, or it is over.
                    None => None,
                }
            } else {
                told(&self.told, &instance)
            };
            (instance, state)
        };
        let changes: Vec<_> = instances.into_iter().map(now).collect();
        self.tree = set_states(&self.tree, &changes);
    }
}

/// The conditions of a deletion. One of an unknown number is left out: it could never be fulfilled.
fn conditions(told: BTreeMap<String, i32>) -> BTreeMap<String, DeleteCondition> {
    let known = |number| match wire::DeleteCondition::try_from(number).ok()? {
        wire::DeleteCondition::DelCondRunning => Some(DeleteCondition::Running),
        wire::DeleteCondition::DelCondNotPendingNorRunning => {
            Some(DeleteCondition::NotPendingNorRunning)
        }
    };
    told.into_iter().filter_map(|(name, number)| Some((name, known(number)?))).collect()
}

fn told(tree: &Tree, own: &Instance) -> Option<Node> {
    tree.get(&[WORKLOAD_STATES, &own.agent, &own.workload, &own.id]).cloned()
}

fn is_told(tree: &Tree, own: &Instance) -> bool {
    told(tree, own).is_some()
}

/// The node of an ordered workload of this agent.
fn workload(
    name: &pb::WorkloadInstanceName,
    mut own: pb::Workload,
    agent: &str,
) -> Result<Node, String> {
    if !is_name(&name.workload_name) {
        return Err("its name is none".to_owned());
    }
    if own.runtime.is_none() || own.runtime_config.is_none() {
        return Err("it has no runtime or no runtimeConfig".to_owned());
    }
    // Its name says so, and the order came here.
    own.agent = Some(agent.to_owned());
    parts::workload_from_pb(&own).map_err(|error| error.to_string())
}

fn name_of(added: &AddedWorkload) -> String {
    added.instance_name.as_ref().map(|own| own.workload_name.clone()).unwrap_or_default()
}

/// Sets the value at a path; false if the path leads through something else than mappings.
fn set(map: &mut Map<Node>, path: &[&str], value: Node) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if rest.is_empty() {
        map.insert(*first, value);
        return true;
    }
    let mut below = match map.get(first) {
        Some(Node::Map(below)) => below.clone(),
        Some(_) => return false,
        None => Map::new(),
    };
    let is_set = set(&mut below, rest, value);
    map.insert(*first, Node::Map(below));
    is_set
}

/// Removes the value at a path; false if there is none.
fn unset(map: &mut Map<Node>, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if rest.is_empty() {
        return map.remove(first);
    }
    let Some(Node::Map(below)) = map.get(first) else { return false };
    let mut below = below.clone();
    let is_unset = unset(&mut below, rest);
    map.insert(*first, Node::Map(below));
    is_unset
}

#[cfg(test)]
mod tests;
