//! What this agent knows of etcd: all items as they were at one revision, and the state that they
//! make. Pure.
//!
//! The state is a function of the items alone, so all agents that know the same revision know the
//! same state: what an agent that is not there last said of a workload counts as `AgentDisconnected`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use fifogate::{
    pb::ank_base::{self as pb, execution_state::ExecutionStateEnum as State},
    state::{AGENTS, DESIRED_STATE, EFFECTIVE_STATE, Node, Tree},
};

use super::keys::{Keys, Meaning, Write};
use crate::{
    model::{Current, Item, Named, Planned, Update},
    render::{RenderError, configs_of, is_unrendered},
    store::Change,
};

/// A key as it became at a revision.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// `None`: it was deleted.
    pub(super) value: Option<Vec<u8>>,
    pub(super) revision: i64,
}

/// What is known.
#[derive(Debug)]
pub(super) struct View {
    keys: Keys,
    /// All that happened up to here is in it.
    pub(super) revision: i64,
    pub(super) current: Current,
    /// When each key that there is was last written.
    written: Arc<HashMap<String, i64>>,
    /// What agents said of their workloads, by agent and the rest of the key.
    said: BTreeMap<String, BTreeMap<String, (pb::WorkloadInstanceName, pb::ExecutionState)>>,
    present: BTreeSet<String>,
    /// What was last known of each agent, also of those that are not there.
    attributes: HashMap<String, pb::AgentAttributes>,
    /// Workloads that cannot be rendered, and why.
    unrendered: BTreeSet<(String, String)>,
    /// Keys that make no sense, so that each is told once.
    foreign: HashSet<String>,
}

/// The state after changes, and the workloads that cannot be rendered in it, or why there is none.
pub(super) type Applied = Result<(Tree, Vec<RenderError>), String>;

/// What makes one transaction of an update.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Keys that have to be as they were, with the revision of their last write; 0: not there.
    pub(super) compares: BTreeMap<String, i64>,
    pub(super) writes: Vec<Write>,
}

impl Plan {
    /// Whether there is nothing to ask etcd for.
    pub(super) fn is_empty(&self) -> bool {
        self.compares.is_empty() && self.writes.is_empty()
    }
}

impl View {
    /// All items at a revision.
    pub(super) fn new(keys: Keys, revision: i64, entries: Vec<Entry>) -> Result<Self, String> {
        let mut view = Self::empty(keys, revision, Current::default());
        let changes = view.take(entries);
        let applied = view.current.apply(&changes)?;
        let tree = view.note_faults(applied);
        view.current.set(tree);
        Ok(view)
    }

    fn empty(keys: Keys, revision: i64, current: Current) -> Self {
        Self {
            keys,
            revision,
            current,
            written: Arc::default(),
            said: BTreeMap::new(),
            present: BTreeSet::new(),
            attributes: HashMap::new(),
            unrendered: BTreeSet::new(),
            foreign: HashSet::new(),
        }
    }

    /// As much of it as an update is planned from. It stays as it is when the view goes on.
    pub(super) fn snapshot(&self) -> Self {
        let own = Self::empty(self.keys.clone(), self.revision, self.current.clone());
        Self { written: self.written.clone(), ..own }
    }

    /// Takes the items of one revision. The state does not belong to them before [`View::finish`].
    pub(super) fn begin(&mut self, revision: i64, entries: Vec<Entry>) -> Vec<Change> {
        self.revision = revision;
        self.take(entries)
    }

    /// Goes on to the state that changes made of the one before. Whether it is another one.
    pub(super) fn finish(&mut self, applied: Applied) -> Option<Tree> {
        let tree = match applied {
            Ok(applied) => self.note_faults(applied),
            Err(error) => {
                // Somebody else wrote it; agents check before they write.
                let revision = self.revision;
                log::error!("what etcd holds at revision {revision} makes no state: {error}");
                return None;
            }
        };
        if tree == *self.current.tree() {
            return None;
        }
        self.current.set(tree.clone());
        Some(tree)
    }

    /// Takes what happened at one revision. If that made another state, gives it, and what made it.
    #[cfg(test)]
    pub(super) fn advance(
        &mut self,
        revision: i64,
        entries: Vec<Entry>,
    ) -> Option<(Tree, Vec<Change>)> {
        let changes = self.begin(revision, entries);
        let applied = self.current.apply(&changes);
        self.finish(applied).map(|tree| (tree, changes))
    }

    /// Each workload that cannot be rendered is told once.
    fn note_faults(&mut self, (tree, faults): (Tree, Vec<RenderError>)) -> Tree {
        for own in faults {
            let both = (own.workload, own.reason);
            if !self.unrendered.contains(&both) {
                log::error!("workload {} is not started: {}", both.0, both.1);
                self.unrendered.insert(both);
            }
        }
        let wanted = tree.entries(&[DESIRED_STATE, "workloads"]);
        let made = tree.entries(&[EFFECTIVE_STATE, "workloads"]);
        self.unrendered.retain(|(name, _)| {
            wanted.get(name).is_some() && made.get(name).is_none_or(is_unrendered)
        });
        tree
    }

    fn take(&mut self, entries: Vec<Entry>) -> Vec<Change> {
        let (mut changes, mut states, mut turned) = (Vec::new(), Vec::new(), BTreeSet::new());
        for Entry { key, value, revision } in entries {
            let meaning = self.keys.read(&key, value.as_deref());
            match meaning {
                Meaning::Item(Change::WorkloadState(name, state)) => {
                    let of_agent = self.said.entry(name.agent_name.clone()).or_default();
                    match state {
                        Some(state) => of_agent.insert(key.clone(), (name.clone(), state)),
                        None => of_agent.remove(&key),
                    };
                    states.push((key.clone(), name));
                }
                Meaning::Item(Change::Agent(name, attributes)) => {
                    let differs = match attributes {
                        Some(_) => self.present.insert(name.clone()),
                        None => self.present.remove(&name),
                    };
                    if differs {
                        turned.insert(name.clone());
                    }
                    if let Some(attributes) = &attributes {
                        self.attributes.insert(name.clone(), attributes.clone());
                    }
                    changes.push(Change::Agent(name, attributes));
                }
                Meaning::Item(change) => changes.push(change),
                Meaning::Own => {}
                Meaning::Foreign => self.warn(&key),
            }
            match value {
                Some(_) => Arc::make_mut(&mut self.written).insert(key, revision),
                None => Arc::make_mut(&mut self.written).remove(&key),
            };
        }
        for agent in turned {
            let all = self.said.get(&agent).into_iter().flatten();
            states.extend(all.map(|(key, (name, _))| (key.clone(), name.clone())));
        }
        let told = states.into_iter().map(|(key, name)| {
            let state = self.state(&key, &name);
            Change::WorkloadState(name, state)
        });
        changes.extend(told);
        changes
    }

    fn warn(&mut self, key: &str) {
        const MOST: usize = 1000;
        if self.foreign.len() < MOST && self.foreign.insert(key.to_owned()) {
            log::warn!("etcd holds {key}, which is left alone: no item of the state looks so");
        }
    }

    /// How an instance is doing as far as it can be known.
    fn state(&self, key: &str, name: &pb::WorkloadInstanceName) -> Option<pb::ExecutionState> {
        let (_, said) = self.said.get(&name.agent_name)?.get(key)?;
        let there = name.agent_name.is_empty() || self.present.contains(&name.agent_name);
        if there || !began(said) {
            return Some(said.clone());
        }
        let state = State::AgentDisconnected(pb::AgentDisconnected::AgentDisconnected.into());
        Some(pb::ExecutionState {
            additional_info: Some(String::new()),
            execution_state_enum: Some(state),
        })
    }

    /// When a key was last written; 0 if it is not there.
    pub(super) fn written(&self, key: &str) -> i64 {
        self.written.get(key).copied().unwrap_or(0)
    }

    /// The keys that were written last after a revision, in order, each with its revision.
    pub(super) fn written_after(&self, revision: i64) -> Vec<(String, i64)> {
        let all = self.written.iter().filter(|(_, written)| **written > revision);
        let mut all: Vec<_> = all.map(|(key, written)| (key.clone(), *written)).collect();
        all.sort();
        all
    }

    /// The instances that `agent` said something of.
    pub(super) fn said_by(&self, agent: &str) -> Vec<pb::WorkloadInstanceName> {
        self.said.get(agent).into_iter().flatten().map(|(_, (name, _))| name.clone()).collect()
    }

    /// The transaction that makes `new` of what is known: first one write for each change, in order.
    ///
    /// It is applied only if what makes it valid is as it was: the items themselves, the configs that
    /// a written workload refers to, and, where validity depends on all workloads together, the guard.
    pub(super) fn plan(&self, new: &Tree, changes: &[Change]) -> Plan {
        let mut plan = Plan::default();
        let guard = self.keys.guard();
        let mut bumps = false;
        for change in changes {
            let write = self.keys.write(change);
            plan.compares.insert(write.key.clone(), self.written(&write.key));
            plan.writes.push(write);
            match change {
                Change::Workload(name, _) => {
                    bumps |= self.reshapes(new, name);
                    for config in references(new, name) {
                        let key = self.keys.config(config);
                        plan.compares.insert(key.clone(), self.written(&key));
                    }
                }
                Change::Config(name, _) => {
                    // That nobody refers to it is to stay so until it is written.
                    plan.compares.insert(guard.clone(), self.written(&guard));
                    let mut users = self.current.users_of(name);
                    bumps |= users.any(|user| references(new, user).any(|own| own == name));
                }
                _ => {}
            }
        }
        if bumps {
            plan.compares.insert(guard.clone(), self.written(&guard));
            plan.writes.push(Write { key: guard, value: Some(b"1".to_vec()) });
        }
        plan
    }

    /// The transaction that does an update. It may compare without writing.
    ///
    /// What the update names and finds as it wants it has to be so still, or what is acknowledged would
    /// not be there. What becomes the same whatever it was need not be as it was: so nodes that set one
    /// and the same config, as events do, are not in each other's way.
    pub(super) fn plan_update(&self, update: &Update, planned: &Planned) -> Plan {
        let mut plan = self.plan(&planned.tree, &planned.changes);
        let named = Named::by(&update.masks);
        for (change, write) in planned.changes.iter().zip(&plan.writes) {
            if named.determines(change) {
                plan.compares.remove(&write.key);
            }
        }
        let written: BTreeSet<_> = plan.writes.iter().map(|write| &write.key).collect();
        for item in named.items() {
            let key = match item {
                Item::Agent(name) => self.keys.agent(name),
                Item::Config(name) => self.keys.config(name),
                Item::Workload(name) => self.keys.workload(name),
            };
            if !written.contains(&key) {
                plan.compares.insert(key.clone(), self.written(&key));
            }
        }
        plan
    }

    /// Whether an altered workload may make other items invalid, or they it.
    fn reshapes(&self, new: &Tree, name: &str) -> bool {
        let path = [DESIRED_STATE, "workloads", name];
        let (Some(was), Some(is)) = (self.current.tree().get(&path), new.get(&path)) else {
            return true;
        };
        let differs = |part| was.get(part) != is.get(part);
        let renders = |own: &Node| own.get("configs").is_some_and(|all| !all.is_empty_collection());
        differs("dependencies") || differs("configs") || renders(was) || renders(is)
    }

    /// What was last known of an agent, also if it is not there.
    pub(super) fn attributes(&self, agent: &str) -> pb::AgentAttributes {
        self.attributes.get(agent).cloned().unwrap_or_default()
    }

    /// This was known before all was read again.
    pub(super) fn remember(&mut self, before: &Self) {
        for (agent, attributes) in &before.attributes {
            self.attributes.entry(agent.clone()).or_insert_with(|| attributes.clone());
        }
    }

    /// Whether an agent is there.
    pub(super) fn agent(&self, name: &str) -> Option<&Node> {
        self.current.tree().get(&[AGENTS, name])
    }
}

/// Whether a state says more than that somebody is to begin.
fn began(state: &pb::ExecutionState) -> bool {
    let initial = i32::from(pb::Pending::Initial);
    !matches!(state.execution_state_enum, Some(State::Pending(own)) if own == initial)
}

fn references<'a>(tree: &'a Tree, workload: &str) -> impl Iterator<Item = &'a str> {
    let workload = tree.get(&[DESIRED_STATE, "workloads", workload]);
    workload.into_iter().flat_map(configs_of)
}

#[cfg(test)]
mod tests;
