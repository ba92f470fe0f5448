//! Replica of etcd: all items at one revision, and the state made of them. Pure.
//!
//! Entries of a revision go in; the new state, its changes, and the transactions of updates come out.
//! The state is a function of them alone, so agents at the same revision have the same state, whether they
//! followed etcd or read it anew. Agents write only items that fit together; of items written by another
//! program, those that do not fit are left out. A workload of an absent agent counts as
//! `AgentDisconnected`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use fifogate::{
    internal::state::{AGENTS, DESIRED_STATE},
    pb::ank_base::{self as pb, execution_state::ExecutionStateEnum as State},
    state::{Node, Tree},
};

use log::Level;

use super::{
    MOST_OPERATIONS,
    keys::{Keys, Meaning, Write},
    large::{Large, MOST_BYTES, Staged},
    step::Step,
};
use crate::{
    log_text::{self, Quoted},
    model::{Fitted, Item, StateModel, Update, UpdatePlan, UpdateTargets},
    render::{RenderError, configs_of, lacks},
    store::{Change, OtherVersion, log_left_out},
};

/// A key with its value at a revision.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// `None`: the key was deleted.
    pub(super) value: Option<Vec<u8>>,
    pub(super) revision: i64,
}

/// A key, and the state that this process had reported for it before.
pub(super) type Reported = (String, Option<(pb::WorkloadInstanceName, pb::ExecutionState)>);

/// The replica.
#[derive(Debug)]
pub(super) struct View {
    keys: Keys,
    /// All changes up to this revision are included.
    pub(super) revision: i64,
    pub(super) current: StateModel,
    /// Revision of the last write of each existing key.
    written: Arc<HashMap<String, i64>>,
    /// The last states reported by this process, by key. etcd may have been restored to a time before them.
    reported: BTreeMap<String, (pb::WorkloadInstanceName, pb::ExecutionState)>,
    /// States reported by agents, by agent and key.
    said: BTreeMap<String, BTreeMap<String, (pb::WorkloadInstanceName, pb::ExecutionState)>>,
    present: BTreeSet<String>,
    /// Last attributes of each agent, including absent ones.
    attributes: HashMap<String, pb::AgentAttributes>,
    /// Workloads with a failed rendering, with the reason.
    unrendered: BTreeSet<(String, String)>,
    /// Items rejected as invalid together with the others, by path, with the reason.
    left_out: BTreeMap<String, (Change, String)>,
    /// Unknown keys, so that each is logged once.
    foreign: HashSet<String>,
    /// The large update that is under way.
    pub(super) large: Large,
}

/// What the items of one revision change.
#[derive(Default)]
struct Taken {
    changes: Vec<Change>,
    /// Instances with another state, with the keys of their states.
    states: Vec<(String, pb::WorkloadInstanceName)>,
    /// Agents that came or went.
    turned: BTreeSet<String>,
}

/// The parts of one transaction.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Keys required to be unchanged, with the revision of their last write; 0: absent.
    pub(super) compares: BTreeMap<String, i64>,
    pub(super) writes: Vec<Write>,
}

impl Plan {
    /// True if no transaction is needed.
    pub(super) fn is_empty(&self) -> bool {
        self.compares.is_empty() && self.writes.is_empty()
    }

    /// True if one transaction does not take it.
    pub(super) fn is_large(&self) -> bool {
        let bytes = |own: &Write| own.key.len() + own.value.as_ref().map_or(0, Vec::len);
        // Beside its own conditions it has one that no large update is under way.
        self.writes.len() > MOST_OPERATIONS
            || self.compares.len() >= MOST_OPERATIONS
            || self.writes.len() > 1 && self.writes.iter().map(bytes).sum::<usize>() > MOST_BYTES
    }
}

impl View {
    /// Builds the replica from all items at a revision.
    pub(super) fn new(
        keys: Keys,
        revision: i64,
        entries: Vec<Entry>,
    ) -> Result<Self, OtherVersion> {
        let mut view = Self::empty(keys, revision, StateModel::default());
        let fitted = view.begin(revision, entries).fit();
        let (tree, _) = view.note(fitted);
        view.current.set(tree);
        match view.left_out.get(&Change::ApiVersion(String::new()).path()) {
            Some((_, why)) => Err(OtherVersion(why.clone())),
            None => Ok(view),
        }
    }

    fn empty(keys: Keys, revision: i64, current: StateModel) -> Self {
        Self {
            keys,
            revision,
            current,
            written: Arc::default(),
            reported: BTreeMap::new(),
            said: BTreeMap::new(),
            present: BTreeSet::new(),
            attributes: HashMap::new(),
            unrendered: BTreeSet::new(),
            left_out: BTreeMap::new(),
            foreign: HashSet::new(),
            large: Large::default(),
        }
    }

    /// A copy of the parts used for planning an update. It does not change when the view moves on.
    pub(super) fn snapshot(&self) -> Self {
        let own = Self::empty(self.keys.clone(), self.revision, self.current.clone());
        Self { written: self.written.clone(), large: self.large.clone(), ..own }
    }

    /// Records the items of one revision. The state is out of date until [`View::finish`] with the result of
    /// the step.
    pub(super) fn begin(&mut self, revision: i64, entries: Vec<Entry>) -> Step {
        self.revision = revision;
        let changes = self.take(entries);
        Step::new(self.current.clone(), changes, self.left_out.values().cloned().collect())
    }

    /// Moves to the state with the changes applied. Returns it with the applied changes if it differs.
    pub(super) fn finish(&mut self, fitted: Fitted) -> Option<(Tree, Vec<Change>)> {
        let (tree, taken) = self.note(fitted);
        if tree == *self.current.tree() {
            return None;
        }
        self.current.set(tree.clone());
        Some((tree, taken))
    }

    /// Applies one revision. Returns the new state and its changes if it differs.
    #[cfg(test)]
    pub(super) fn advance(
        &mut self,
        revision: i64,
        entries: Vec<Entry>,
    ) -> Option<(Tree, Vec<Change>)> {
        let step = self.begin(revision, entries);
        if step.is_empty() { None } else { self.finish(step.fit()) }
    }

    /// Records the result of applying changes, and returns the state and the applied changes. Agents
    /// check before they write. An invalid item of another program is logged once and left out until it
    /// fits.
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

    /// Logs each workload with a failed rendering once.
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
        // A later fault of the same workload is logged again.
        self.unrendered.retain(|(name, _)| lacks(tree, name));
    }

    fn take(&mut self, entries: Vec<Entry>) -> Vec<Change> {
        let mut taken = Taken::default();
        let mut has_head = false;
        for Entry { key, value, revision } in entries {
            let mut meaning = self.keys.read(&key, value.as_deref());
            if meaning == Meaning::Foreign {
                self.warn(&key);
                // An unreadable value counts as none.
                meaning = self.keys.read(&key, None);
            }
            match meaning {
                // What is copied there, or was written by another program before it.
                Meaning::Item(change) if self.large.covers(&key) => {
                    self.large.skip(key.clone(), change);
                }
                Meaning::Item(change) => self.take_item(&key, change, &mut taken),
                Meaning::Own => {
                    has_head |= self.large.take(&self.keys, &key, value.as_deref(), revision);
                }
                Meaning::Foreign => {}
            }
            match value {
                Some(_) => Arc::make_mut(&mut self.written).insert(key, revision),
                None => Arc::make_mut(&mut self.written).remove(&key),
            };
        }
        if has_head {
            // Last: they count instead of the items of their keys.
            for (Staged { write, known }, change) in self.large.begin(&self.keys) {
                if known.is_none_or(|known| known == self.written(&write.key)) {
                    self.take_item(&write.key, change, &mut taken);
                }
            }
        }
        // With an agent's coming or going, each of its reported states counts differently.
        for agent in taken.turned {
            let all = self.said.get(&agent).into_iter().flatten();
            taken.states.extend(all.map(|(key, (name, _))| (key.clone(), name.clone())));
        }
        taken.changes.extend(taken.states.into_iter().map(|(key, name)| {
            let state = self.state(&key, &name);
            Change::WorkloadState(name, state)
        }));
        taken.changes
    }

    fn take_item(&mut self, key: &str, change: Change, taken: &mut Taken) {
        match change {
            Change::WorkloadState(name, state) => {
                let of_agent = self.said.entry(name.agent_name.clone()).or_default();
                match state {
                    Some(state) => of_agent.insert(key.to_owned(), (name.clone(), state)),
                    None => of_agent.remove(key),
                };
                taken.states.push((key.to_owned(), name));
            }
            Change::Agent(name, attributes) => {
                let differs = match attributes {
                    Some(_) => self.present.insert(name.clone()),
                    None => self.present.remove(&name),
                };
                if differs {
                    taken.turned.insert(name.clone());
                }
                if let Some(attributes) = &attributes {
                    self.attributes.insert(name.clone(), attributes.clone());
                }
                taken.changes.push(Change::Agent(name, attributes));
            }
            change => taken.changes.push(change),
        }
    }

    fn warn(&mut self, key: &str) {
        // A bound on memory: other programs can write any number of keys.
        const MOST: usize = 1000;
        if self.foreign.len() < MOST && self.foreign.insert(key.to_owned()) {
            let key = Quoted(key);
            log::warn!("the key {key} in etcd is no item of the state: ignored");
        }
    }

    /// The state of an instance as far as it is known.
    fn state(&self, key: &str, name: &pb::WorkloadInstanceName) -> Option<pb::ExecutionState> {
        let (_, said) = self.said.get(&name.agent_name)?.get(key)?;
        // No agent can be absent for a workload without one.
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

    /// Revision of the last write of a key; 0 if it is absent.
    pub(super) fn written(&self, key: &str) -> i64 {
        self.written.get(key).copied().unwrap_or(0)
    }

    /// The keys last written after a revision, sorted, each with its revision.
    pub(super) fn written_after(&self, revision: i64) -> Vec<(String, i64)> {
        let all = self.written.iter().filter(|(_, written)| **written > revision);
        let mut all: Vec<_> = all.map(|(key, written)| (key.clone(), *written)).collect();
        all.sort();
        all
    }

    /// Notes states that this process reports. Returns those before them.
    pub(super) fn note_reports(&mut self, states: &[pb::WorkloadState]) -> Vec<Reported> {
        let mut before = Vec::new();
        for own in states {
            let state = own.execution_state.clone();
            let change =
                Change::WorkloadState(own.instance_name.clone().unwrap_or_default(), state);
            let key = self.keys.write(&change).key;
            let Change::WorkloadState(name, Some(state)) = change else { continue };
            let old = match state.execution_state_enum {
                Some(State::Removed(_)) => self.reported.remove(&key),
                _ => self.reported.insert(key.clone(), (name, state)),
            };
            before.push((key, old));
        }
        before
    }

    /// Takes back reports that etcd refused.
    pub(super) fn take_back(&mut self, before: Vec<Reported>) {
        for (key, old) in before {
            match old {
                Some(old) => self.reported.insert(key, old),
                None => self.reported.remove(&key),
            };
        }
    }

    /// Writes that bring back the states last reported by this process, where etcd has another one: it went
    /// back to a time before their reports. Each comes with the revision of the write that it replaces.
    pub(super) fn lost_states(&self, found: &[Entry]) -> Vec<(Write, i64)> {
        let lost = found.iter().filter_map(|Entry { key, value, revision }| {
            let (name, state) = self.reported.get(key)?;
            let own = Change::WorkloadState(name.clone(), Some(state.clone()));
            let differs = self.keys.read(key, value.as_deref()) != Meaning::Item(own.clone());
            differs.then(|| (self.keys.write(&own), *revision))
        });
        lost.collect()
    }

    /// The instances with a state reported by `agent`.
    pub(super) fn said_by(&self, agent: &str) -> Vec<pb::WorkloadInstanceName> {
        self.said.get(agent).into_iter().flatten().map(|(_, (name, _))| name.clone()).collect()
    }

    /// The transaction from the known state to `new`, beginning with one write per change, in order.
    ///
    /// It applies only if its preconditions hold: the items themselves and the configs of a written
    /// workload are unchanged, and so is the guard where validity depends on all workloads together.
    pub(super) fn plan(&self, new: &Tree, changes: &[Change]) -> Plan {
        let mut plan = Plan::default();
        let guard = self.keys.guard();
        let mut bumps = false;
        for change in changes {
            let write = self.keys.write(change);
            // Nobody else may have written it since: the change was computed from this value.
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
                    // The config must stay unreferenced until it is written.
                    plan.compares.insert(guard.clone(), self.written(&guard));
                    let mut users = self.current.users_of(name);
                    bumps |= users.any(|user| references(new, user).any(|own| own == name));
                }
                _ => {}
            }
        }
        // Two such updates then conflict, although they write different items (docs/etcd.md#writing).
        if bumps {
            plan.compares.insert(guard.clone(), self.written(&guard));
            plan.writes.push(Write { key: guard, value: Some(b"1".to_vec()) });
        }
        plan
    }

    /// The transaction of an update. It may compare without writing.
    ///
    /// It compares every item named by a mask whose value already matches the update: an acknowledged
    /// value really is in etcd. It does not compare items with the same result for every previous value:
    /// nodes setting the same config, as events do, do not conflict.
    pub(super) fn plan_update(&self, update: &Update, planned: &UpdatePlan) -> Plan {
        let mut plan = self.plan(&planned.tree, &planned.changes);
        let named = UpdateTargets::by(&update.masks);
        for (change, write) in planned.changes.iter().zip(&plan.writes) {
            if named.overwrites(change) {
                plan.compares.remove(&write.key);
            }
        }
        if !update.by.is_empty() {
            // The sender's rules are in its workload. Rules narrowed at another node count even before
            // this replica has them.
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

    /// True if a changed workload may invalidate other items, or be invalidated by them.
    fn reshapes(&self, new: &Tree, name: &str) -> bool {
        let path = [DESIRED_STATE, "workloads", name];
        let (Some(was), Some(is)) = (self.current.tree().get(&path), new.get(&path)) else {
            return true;
        };
        let differs = |part| was.get(part) != is.get(part);
        let renders = |own: &Node| own.get("configs").is_some_and(|all| !all.is_empty_collection());
        differs("dependencies") || differs("configs") || renders(was) || renders(is)
    }

    /// The last attributes of an agent, even if it is absent.
    pub(super) fn attributes(&self, agent: &str) -> pb::AgentAttributes {
        self.attributes.get(agent).cloned().unwrap_or_default()
    }

    /// Takes over what is in no key, or not any more: attributes of absent agents, which have their tags
    /// again when they are back, and the states reported by this process.
    pub(super) fn remember(&mut self, before: &Self) {
        self.reported.clone_from(&before.reported);
        for (agent, attributes) in &before.attributes {
            self.attributes.entry(agent.clone()).or_insert_with(|| attributes.clone());
        }
    }

    /// The entry of an agent; `None` if it is absent.
    pub(super) fn agent(&self, name: &str) -> Option<&Node> {
        self.current.tree().get(&[AGENTS, name])
    }
}

/// True if a state reports more than a pending start.
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
