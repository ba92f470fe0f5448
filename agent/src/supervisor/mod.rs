//! Runs the workloads of this agent: one task for each name, which follows what the state wants of
//! it and reports how it is doing.

mod conditions;
mod reports;
mod states;
mod workload;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use fifogate::state::{EFFECTIVE_STATE, Node, Tree, WORKLOAD_STATES};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::{logs::Logs, pairs::Pairs, runtime::Launcher};

pub use reports::Reports;
use workload::Task;

/// What all workloads share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Our name.
    pub agent: String,
    /// The state of now.
    pub tree: watch::Receiver<Tree>,
    /// Their pairs.
    pub pairs: Pairs,
    /// How they are started.
    pub launcher: Arc<Launcher>,
    /// Where what they say goes.
    pub logs: Logs,
    /// Where this agent keeps what belongs to one workload.
    pub folder: PathBuf,
    /// How long a workload may take to end before it is killed.
    pub grace: Duration,
    /// Whether all is to end.
    pub stop: watch::Receiver<bool>,
    /// Where execution states go.
    pub reports: Reports,
}

/// All tasks.
#[derive(Debug)]
pub struct Supervisor {
    shared: Shared,
    tasks: BTreeMap<String, JoinHandle<()>>,
}

impl Supervisor {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self { shared, tasks: BTreeMap::new() }
    }

    /// Sees to it that every workload that concerns this agent has a task. The tasks follow the state
    /// by themselves.
    pub fn follow(&mut self, tree: &Tree) {
        self.tasks.retain(|_, task| !task.is_finished());
        let agent = self.shared.agent.as_str();
        let wanted = tree.entries(&[EFFECTIVE_STATE, "workloads"]).iter();
        let wanted = wanted.filter(|(_, workload)| workload.str_at("agent") == Some(agent));
        let states = [WORKLOAD_STATES, agent];
        let left = tree.entries(&states);
        for (name, _) in wanted.chain(left) {
            if !self.tasks.contains_key(name.as_str()) {
                let task = Task::new(name.to_string(), self.shared.clone());
                self.tasks.insert(name.to_string(), tokio::spawn(task.run()));
            }
        }
    }

    /// Waits until all workloads have ended; they were told to by the sign to stop.
    pub async fn finish(self) {
        let mut all = JoinSet::new();
        for task in self.tasks.into_values() {
            all.spawn(task);
        }
        while all.join_next().await.is_some() {}
    }
}

/// The workload that `tree` wants under a name at an agent.
fn wanted(tree: &Tree, agent: &str, name: &str) -> Option<Node> {
    let workload = tree.get(&[EFFECTIVE_STATE, "workloads", name])?;
    (workload.str_at("agent") == Some(agent)).then(|| workload.clone())
}
