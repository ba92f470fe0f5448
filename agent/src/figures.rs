//! Figures of the running agent: written by its parts, read by `crate::http`.
//!
//! Writers never wait for readers: a figure costs an atomic addition, or a lock held for a moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use fifogate::state::Tree;
use tokio::sync::watch;

/// A handle to the figures. Handles are cheap to clone, and clones refer to the same figures.
#[derive(Clone, Debug, Default)]
pub struct Figures(Arc<Known>);

#[derive(Debug)]
struct Known {
    since: SystemTime,
    tree: watch::Sender<Tree>,
    trouble: Mutex<String>,
    accepted: AtomicU64,
    refused: AtomicU64,
    gate_restarts: AtomicU64,
    starts: Mutex<BTreeMap<String, Starts>>,
}

/// The starts of one workload since this agent began to run it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Starts {
    pub(crate) all: u64,
    /// Those after an end, by the restart policy.
    pub(crate) again: u64,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            since: SystemTime::now(),
            tree: watch::Sender::default(),
            trouble: Mutex::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            gate_restarts: AtomicU64::new(0),
            starts: Mutex::default(),
        }
    }
}

impl Figures {
    /// Notes a new state.
    pub(crate) fn follow(&self, tree: &Tree) {
        self.0.tree.send_replace(tree.clone());
    }

    /// Notes the trouble of the store; empty if there is none.
    pub(crate) fn note_store(&self, trouble: &str) {
        trouble.clone_into(&mut lock(&self.0.trouble));
    }

    /// Counts an update as accepted or refused.
    pub(crate) fn count_update(&self, is_accepted: bool) {
        let count = if is_accepted { &self.0.accepted } else { &self.0.refused };
        count.fetch_add(1, Relaxed);
    }

    /// Counts a restart of fifogate.
    pub(crate) fn count_gate_restart(&self) {
        self.0.gate_restarts.fetch_add(1, Relaxed);
    }

    /// Counts a start of a workload; `again`: after an end, by its restart policy.
    pub(crate) fn count_start(&self, workload: &str, again: bool) {
        let mut starts = lock(&self.0.starts);
        let own = starts.entry(workload.to_owned()).or_default();
        own.all += 1;
        own.again += u64::from(again);
    }

    /// Forgets a removed workload: names come and go, and are to take no memory.
    pub(crate) fn forget(&self, workload: &str) {
        lock(&self.0.starts).remove(workload);
    }

    /// The time since which the agent runs.
    pub(crate) fn since(&self) -> SystemTime {
        self.0.since
    }

    /// The newest state, and the ones after it.
    pub(crate) fn states(&self) -> watch::Receiver<Tree> {
        self.0.tree.subscribe()
    }

    /// The trouble of the store; empty if there is none.
    pub(crate) fn trouble(&self) -> String {
        lock(&self.0.trouble).clone()
    }

    /// The numbers of accepted and of refused updates.
    pub(crate) fn updates(&self) -> (u64, u64) {
        (self.0.accepted.load(Relaxed), self.0.refused.load(Relaxed))
    }

    pub(crate) fn gate_restarts(&self) -> u64 {
        self.0.gate_restarts.load(Relaxed)
    }

    /// The starts of each workload.
    pub(crate) fn starts(&self) -> BTreeMap<String, Starts> {
        lock(&self.0.starts).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
