//! Supervisor: one task for each workload name of this agent.
//!
//! The state goes in through a watch channel. Each task starts and stops the process of its name, and
//! reports its execution states.

mod conditions;
mod reports;
mod states;
mod workload;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use fifogate::{
    internal::state::{EFFECTIVE_STATE, WORKLOAD_STATES},
    state::{Node, Tree},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::{logs::Logs, pairs::Pairs, runtime::Launcher};

pub use reports::Reports;
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
    /// Starts the processes.
    pub launcher: Arc<Launcher>,
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
}

/// All tasks, by workload name.
#[derive(Debug)]
pub struct Supervisor {
    shared: Shared,
    tasks: BTreeMap<String, JoinHandle<()>>,
}

impl Supervisor {
    /// Creates a supervisor without tasks.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self { shared, tasks: BTreeMap::new() }
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
        let left = tree.entries(&states);
        // An execution state left from an earlier agent needs a task, too: it reports the removal.
        for (name, _) in wanted.chain(left) {
            if !self.tasks.contains_key(name.as_str()) {
                let task = Task::new(name.to_string(), self.shared.clone());
                self.tasks.insert(name.to_string(), tokio::spawn(task.run()));
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

/// The workload of this name in `tree`, if it belongs to the agent.
fn wanted(tree: &Tree, agent: &str, name: &str) -> Option<Node> {
    let workload = tree.get(&[EFFECTIVE_STATE, "workloads", name])?;
    (workload.str_at("agent") == Some(agent)).then(|| workload.clone())
}
