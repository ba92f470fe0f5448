//! Which workloads have a pair of pipes. A fifogate that was started anew is told of all of them, so
//! a pair lives as long as its workload, whatever becomes of fifogate.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use fifogate::{
    pb::{
        agent_link::{AddWorkload, RemoveWorkload, from_agent::Content},
        ank_base as pb,
    },
    state::Instance,
};
use tokio::sync::watch;

use crate::{
    link::{Gate, NotDone},
    model,
};

/// All open pairs. Handles are cheap.
#[derive(Clone, Debug)]
pub struct Pairs {
    run_dir: PathBuf,
    gate: watch::Receiver<Option<Gate>>,
    open: Arc<Mutex<BTreeMap<Instance, AddWorkload>>>,
}

impl Pairs {
    /// None are open; `gate` is the fifogate of the moment.
    #[must_use]
    pub fn new(run_dir: &Path, gate: watch::Receiver<Option<Gate>>) -> Self {
        Self { run_dir: run_dir.to_owned(), gate, open: Arc::default() }
    }

    /// Opens a pair, or replaces the rules of one that is open; gives its folder. Waits while there
    /// is no fifogate.
    ///
    /// # Errors
    /// fifogate cannot make it.
    pub async fn open(
        &self,
        instance: &Instance,
        access: pb::ControlInterfaceAccess,
        owner: Option<(u32, u32)>,
    ) -> Result<PathBuf, String> {
        let add = AddWorkload {
            instance_name: Some(model::instance_name(instance)),
            access: Some(access),
            uid: owner.map(|(uid, _)| uid),
            gid: owner.map(|(_, gid)| gid),
        };
        self.with(|open| open.insert(instance.clone(), add.clone()));
        let mut gate = self.gate.clone();
        loop {
            // The sender lives as long as the agent does.
            let current = gate.wait_for(Option::is_some).await.ok().and_then(|gate| gate.clone());
            let Some(current) = current else { return Err(NotDone::Gone.to_string()) };
            match current.call(Content::AddWorkload(add.clone())).await {
                Ok(()) => return Ok(self.folder(instance)),
                Err(NotDone::Gone) => {
                    // The next one is told by whoever starts it; here its answer is waited for.
                    let _ = gate.changed().await;
                }
                Err(rejected @ NotDone::Rejected(_)) => {
                    self.with(|open| open.remove(instance));
                    return Err(rejected.to_string());
                }
            }
        }
    }

    /// Removes a pair, if it is open.
    pub async fn close(&self, instance: &Instance) {
        if self.with(|open| open.remove(instance)).is_none() {
            return;
        }
        let gate = self.gate.borrow().clone();
        if let Some(gate) = gate {
            let instance_name = Some(model::instance_name(instance));
            let removed =
                gate.call(Content::RemoveWorkload(RemoveWorkload { instance_name })).await;
            if let Err(NotDone::Rejected(reason)) = removed {
                log::warn!("the pair of {instance} was not removed: {reason}");
            }
        }
    }

    /// What a new fifogate has to be told.
    #[must_use]
    pub fn all(&self) -> Vec<AddWorkload> {
        self.with(|open| open.values().cloned().collect())
    }

    fn folder(&self, instance: &Instance) -> PathBuf {
        self.run_dir
            .join(format!("{}.{}", instance.workload, instance.id))
            .join("control_interface")
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<Instance, AddWorkload>) -> T) -> T {
        f(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
