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
    state::{AGENTS, DESIRED_STATE, Node, Tree},
};

use log::Level;

use super::keys::{Keys, Meaning, Write};
use crate::{
    log_text::{self, Quoted},
    model::{Fitted, Item, StateModel, Update, UpdatePlan, UpdateTargets},
    render::{RenderError, configs_of, lacks},
    store::{Change, log_left_out},
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
    pub(super) current: StateModel,
    /// When each key that there is was last written.
    written: Arc<HashMap<String, i64>>,
    /// What agents said of their workloads, by agent and the rest of the key.
    said: BTreeMap<String, BTreeMap<String, (pb::WorkloadInstanceName, pb::ExecutionState)>>,
    present: BTreeSet<String>,
    /// What was last known of each agent, also of those that are not there.
    attributes: HashMap<String, pb::AgentAttributes>,
    /// Workloads that cannot be rendered, and why.
    unrendered: BTreeSet<(String, String)>,
    /// Items that make no state with the others, by their path, and why.
    left_out: BTreeMap<String, (Change, String)>,
    /// Keys that make no sense, so that each is told once.
    foreign: HashSet<String>,
}

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
        let mut view = Self::empty(keys, revision, StateModel::default());
        let changes = view.take(entries);
        let fitted = view.current.apply_what_fits(changes);
        let (tree, _) = view.note(fitted);
        view.current.set(tree);
        match view.left_out.get(&Change::ApiVersion(String::new()).path()) {
            Some((_, why)) => Err(why.clone()),
            None => Ok(view),
        }
    }

    fn empty(keys: Keys, revision: i64, current: StateModel) -> Self {
        Self {
            keys,
            revision,
            current,
            written: Arc::default(),
            said: BTreeMap::new(),
            present: BTreeSet::new(),
            attributes: HashMap::new(),
            unrendered: BTreeSet::new(),
            left_out: BTreeMap::new(),
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
        let mut changes = self.take(entries);
        if !changes.is_empty() && !self.left_out.is_empty() {
            let written: HashSet<_> = changes.iter().map(Change::path).collect();
            let before = self.left_out.iter().filter(|(path, _)| !written.contains(*path));
            changes.extend(before.map(|(_, (item, _))| item.clone()));
        }
        changes
    }

    /// Whether changes may be many attempts to apply: some items made no state before.
    pub(super) fn has_left_out(&self) -> bool {
        !self.left_out.is_empty()
    }

    /// Goes on to the state that changes made of the one before. If it is another one, gives it, and
    /// those of the changes that are in it.
    pub(super) fn finish(&mut self, fitted: Fitted) -> Option<(Tree, Vec<Change>)> {
        let (tree, taken) = self.note(fitted);
        if tree == *self.current.tree() {
            return None;
        }
        self.current.set(tree.clone());
        Some((tree, taken))
    }

    /// Takes what happened at one revision. If that made another state, gives it, and what made it.
    #[cfg(test)]
    pub(super) fn advance(
        &mut self,
        revision: i64,
        entries: Vec<Entry>,
    ) -> Option<(Tree, Vec<Change>)> {
        let changes = self.begin(revision, entries);
        if changes.is_empty() {
            return None;
        }
        let fitted = self.current.apply_what_fits(changes);
        self.finish(fitted)
    }

    /// The state after changes, and those of them that are in it. Agents check before they write; an item
    /// that somebody else wrote and that makes no state is left out until it does, and logged once.
    fn note(&mut self, fitted: Fitted) -> (Tree, Vec<Change>) {
        let Fitted { tree, faults, taken, left_out } = fitted;
        let before = std::mem::take(&mut self.left_out);
        for (item, why) in left_out {
            if before.get(&item.path()).is_none_or(|(_, told)| *told != why) {
                log_left_out("in etcd", &item, &why);
            }
            self.left_out.insert(item.path(), (item, why));
        }
        self.note_faults(&tree, faults);
        (tree, taken)
    }

    /// Each workload that cannot be rendered is logged once.
    fn note_faults(&mut self, tree: &Tree, faults: Vec<RenderError>) {
        for own in faults {
            let both = (own.workload, own.reason);
            if !self.unrendered.contains(&both) {
                let (name, reason) = (Quoted(&both.0), Quoted(&both.1));
                let text = format_args!("workload {name} is not started: {reason}");
                log_text::about(&both.0, Level::Error, text);
                self.unrendered.insert(both);
            }
        }
        self.unrendered.retain(|(name, _)| lacks(tree, name));
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
            let key = Quoted(key);
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
    pub(super) fn plan_update(&self, update: &Update, planned: &UpdatePlan) -> Plan {
        let mut plan = self.plan(&planned.tree, &planned.changes);
        let named = UpdateTargets::by(&update.masks);
        for (change, write) in planned.changes.iter().zip(&plan.writes) {
            if named.overwrites(change) {
                plan.compares.remove(&write.key);
            }
        }
        if !update.by.is_empty() {
            // Its rules are there. Narrowed at another node, they count although this one does not know.
            let key = self.keys.workload(&update.by);
            plan.compares.insert(key.clone(), self.written(&key));
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
