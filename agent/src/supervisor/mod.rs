//! Supervisor: one task for each workload name of this agent.
//!
//! The state goes in through a watch channel. Each task starts and stops the process of its name, and
//! reports its execution states.

mod conditions;
mod reports;
mod workload;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use fifogate::{
    internal::state::{EFFECTIVE_STATE, WORKLOAD_STATES},
    state::{Node, Tree},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::{
    figures::Figures,
    logs::Logs,
    model,
    pairs::Pairs,
    runtime::{Left, Runtimes},
};

pub(crate) use conditions::{DeleteCondition, DeleteConditions};
pub use reports::Reports;

use conditions::StopCondition;
use workload::Task;

/// Context shared by all tasks.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Name of this agent.
    pub agent: String,
    /// The current state.
    pub tree: watch::Receiver<Tree>,
    /// All open pairs.
    pub pairs: Pairs,
    /// Start the workloads.
    pub runtimes: Runtimes,
    /// Whether workloads end with this agent even if their runtime could keep them.
    pub ends_all: watch::Receiver<bool>,
    /// Logs of their output.
    pub logs: Logs,
    /// Parent of the agent's folder for each workload.
    pub folder: PathBuf,
    /// Time for a workload to end before it is killed.
    pub grace: Duration,
    /// True when all workloads are to end.
    pub stop: watch::Receiver<bool>,
    /// Queue of execution states.
    pub reports: Reports,
    /// Counts starts.
    pub figures: Figures,
    /// What the ends of deleted workloads wait for, if a server tells it. Dependencies are by name then.
    pub(crate) delete_conditions: Option<watch::Receiver<DeleteConditions>>,
}

impl Shared {
    fn may_start(&self, tree: &Tree, workload: &Node) -> bool {
        match self.delete_conditions {
            None => conditions::may_start(tree, workload),
            Some(_) => conditions::may_start_by_name(tree, workload),
        }
    }

    /// What the end of this workload waits for; `last` is the last state with it.
    fn stop_condition(&self, last: &Tree, name: &str) -> StopCondition {
        match &self.delete_conditions {
            None => StopCondition::Dependents(conditions::dependents(last, name)),
            Some(told) => {
                StopCondition::Names(told.borrow().get(name).cloned().unwrap_or_default())
            }
        }
    }
}

/// All tasks, by workload name.
#[derive(Debug)]
pub struct Supervisor {
    shared: Shared,
    tasks: BTreeMap<String, JoinHandle<()>>,
    /// What an earlier agent has left, by the names of workloads, until their tasks begin.
    left: BTreeMap<String, Vec<Left>>,
}

impl Supervisor {
    /// Creates a supervisor without tasks.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        let mut left: BTreeMap<String, Vec<Left>> = BTreeMap::new();
        for own in shared.runtimes.left() {
            left.entry(own.instance.workload.clone()).or_default().push(own);
        }
        remove_stale(&shared.folder, left.values().flatten());
        Self { shared, tasks: BTreeMap::new(), left }
    }

    /// Starts the missing tasks for workloads of this agent. Running tasks follow the state themselves.
    pub fn follow(&mut self, tree: &Tree) {
        // A finished task does not count: a new workload of its name needs a new one.
        self.tasks.retain(|_, task| !task.is_finished());
        let agent = self.shared.agent.as_str();
        let wanted = tree.entries(&[EFFECTIVE_STATE, "workloads"]).iter();
        // Workloads of other agents are in the state, too, but run elsewhere.
        let wanted = wanted.filter(|(_, workload)| workload.str_at("agent") == Some(agent));
        let states = [WORKLOAD_STATES, agent];
        let ended = tree.entries(&states);
        let wanted = wanted.chain(ended).map(|(name, _)| name.to_string());
        // What is left from an earlier agent, a container or only a state, needs a task, too: it reports
        // the removal.
        for name in wanted.chain(self.left.keys().cloned().collect::<Vec<_>>()) {
            if !self.tasks.contains_key(&name) {
                let left = self.left.remove(&name).unwrap_or_default();
                let task = Task::new(name.clone(), self.shared.clone(), left);
                self.tasks.insert(name, tokio::spawn(task.run()));
            }
        }
    }

    /// Waits until all workloads have ended, after [`Shared::stop`] was set.
    pub async fn finish(self) {
        let mut all = JoinSet::new();
        for task in self.tasks.into_values() {
            all.spawn(task);
        }
        while all.join_next().await.is_some() {}
    }
}

/// Removes the folders of instances that an earlier agent has not removed, all but those that are left:
/// files of configs may be in them.
fn remove_stale<'a>(folder: &Path, left: impl Iterator<Item = &'a Left>) {
    let left: BTreeSet<_> = left.map(|left| model::folder_name(&left.instance)).collect();
    // Without the folder there is nothing to remove.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // No other name here has a dot, and none of a workload.
        if name.contains('.')
            && !left.contains(&name)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            log::warn!("cannot remove {}: {error}", entry.path().display());
        }
    }
}

/// The workload of this name in `tree`, if it belongs to the agent.
fn wanted(tree: &Tree, agent: &str, name: &str) -> Option<Node> {
    let workload = tree.get(&[EFFECTIVE_STATE, "workloads", name])?;
    (workload.str_at("agent") == Some(agent)).then(|| workload.clone())
}
