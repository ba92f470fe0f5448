//! Runs the workloads of this agent: one task for each name, which follows what the state wants of
//! it and reports how it is doing.

mod conditions;
mod states;
mod workload;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use fifogate::{
    pb::ank_base as pb,
    state::{EFFECTIVE_STATE, Node, Tree, WORKLOAD_STATES},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{
    logs::Logs,
    pairs::Pairs,
    runtime::Launcher,
    store::{Refused, Store},
};

use workload::Task;

/// How long an unreachable store is left alone.
const RETRY_REPORT: Duration = Duration::from_millis(500);

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
    pub reports: mpsc::UnboundedSender<pb::WorkloadState>,
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
        let wanted = tree.entries(&[EFFECTIVE_STATE, "workloads"]);
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

/// Takes reports to the store in their order, several at a time if they come quickly, and again if
/// the store was not there.
pub async fn report(store: Store, mut reports: mpsc::UnboundedReceiver<pb::WorkloadState>) {
    const MOST: usize = 100;
    let mut waiting = Vec::new();
    while reports.recv_many(&mut waiting, MOST).await > 0 {
        // One event tells one state of an instance: of two, both are to be seen.
        while !waiting.is_empty() {
            let count = distinct(&waiting);
            let batch: Vec<_> = waiting.drain(..count).collect();
            while let Err(refused) = store.report(batch.clone()).await {
                match refused {
                    Refused::Unavailable(_) => tokio::time::sleep(RETRY_REPORT).await,
                    Refused::Invalid(text) => {
                        log::error!("execution states are not kept: {text}");
                        break;
                    }
                }
            }
        }
    }
}

/// How many reports from the first on are of different instances.
fn distinct(reports: &[pb::WorkloadState]) -> usize {
    let is_new = |(at, own): (usize, &pb::WorkloadState)| {
        reports[..at].iter().all(|other| other.instance_name != own.instance_name)
    };
    reports.iter().enumerate().take_while(|(at, own)| is_new((*at, own))).count()
}

/// The workload that `tree` wants under a name at an agent.
fn wanted(tree: &Tree, agent: &str, name: &str) -> Option<Node> {
    let workload = tree.get(&[EFFECTIVE_STATE, "workloads", name])?;
    (workload.str_at("agent") == Some(agent)).then(|| workload.clone())
}
