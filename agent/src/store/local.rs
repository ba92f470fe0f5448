//! Store of one node: the state in memory, optionally with its desired state on disk.
//!
//! Updates and reports go in; events come out in the order of the changes. With a folder, an update is
//! on disk before it is answered.

use std::{io, path::Path, sync::Arc};

use fifogate::{
    pb::ank_base as pb,
    state::{
        Tree,
        convert::{self, Fill},
    },
};
use tokio::{
    sync::{Mutex, mpsc},
    task,
};

use super::{
    Change, EVENTS_THAT_WAIT, Event, Events, OtherVersion, Refused, Store,
    disk::{Disk, DiskError},
    etcd::EtcdError,
    log_left_out,
};
use crate::{
    apart,
    log_text::Quoted,
    model::{self, Fitted, StateModel, Update},
};

/// The reason for a store not opening.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The initial desired state is invalid.
    #[error("{0}")]
    Seed(String),
    /// Nothing is kept there, and no state is to begin with.
    #[error("there is no state yet")]
    NoState,
    /// The storage cannot be used.
    #[error(transparent)]
    Storage(StorageError),
}

impl<E: Into<StorageError>> From<E> for OpenError {
    fn from(error: E) -> Self {
        Self::Storage(error.into())
    }
}

/// The reason for a storage being unusable.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file on disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The cluster.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The stored state is of another version.
    #[error(transparent)]
    Version(#[from] OtherVersion),
    /// This process cannot make an id of its own.
    #[error(transparent)]
    Id(io::Error),
}

/// A handle to the state of one node.
#[derive(Clone, Debug)]
pub struct Local {
    /// Held until a change is persisted and its event queued: so all changes have one order.
    inner: Arc<Mutex<Inner>>,
    /// Nothing was kept.
    pub(super) is_new: bool,
}

#[derive(Debug)]
struct Inner {
    current: StateModel,
    disk: Option<Arc<Disk>>,
    /// The last write to the disk failed.
    disk_fails: bool,
    events: mpsc::Sender<Event>,
}

impl Local {
    /// Opens the state in `state_dir`, or a new one in memory. `seed` is the initial desired state;
    /// persisted state takes precedence over it.
    ///
    /// # Errors
    /// The folder cannot be used, or the desired state breaks a rule.
    pub fn open(
        seed: Option<&Tree>,
        state_dir: Option<&Path>,
    ) -> Result<(Store, Events), OpenError> {
        let disk = state_dir.map(Disk::open).transpose()?;
        let kept = disk.as_ref().map(Disk::load).transpose()?;
        let kept = kept.flatten();
        let is_new = kept.is_none();
        let tree = match (kept, seed) {
            (Some(kept), _) => restored(kept)?,
            (None, None) => model::empty(),
            (None, Some(seed)) => {
                // A manifest goes the way of an update, so the rules of the state hold for it.
                let new_state = convert::to_pb(seed, Fill::Full);
                let update = Update { new_state, ..Update::default() };
                let planned = StateModel::default()
                    .update(&update)
                    .map_err(|refused| OpenError::Seed(refused.to_string()))?;
                if let Some(disk) = &disk {
                    // Before the first event, as with any later update.
                    disk.keep(&planned.changes, Vec::new)?;
                }
                planned.tree
            }
        };
        let (events, receiver) = mpsc::channel(EVENTS_THAT_WAIT);
        // A new queue has space for the first event.
        let _ = events.try_send(Event::State { tree: tree.clone(), changes: None });
        let current = StateModel::new(tree);
        let inner = Inner { current, disk: disk.map(Arc::new), disk_fails: false, events };
        let inner = Arc::new(Mutex::new(inner));
        Ok((Store::Local(Self { inner, is_new }), receiver))
    }

    /// Closes the file, behind a write under way whose requester is gone.
    pub(super) async fn close(&self) {
        let disk = self.inner.lock().await.disk.clone();
        if let Some(disk) = disk {
            // A panic of the file is caught in there.
            let _ = task::spawn_blocking(move || disk.close()).await;
        }
    }

    pub(super) async fn state(&self) -> Tree {
        self.inner.lock().await.current.tree().clone()
    }

    pub(super) async fn update(&self, update: Update) -> Result<pb::UpdateStateSuccess, Refused> {
        let mut inner = self.inner.lock().await;
        // The lock stays held meanwhile, so all other changes wait; the agent's thread does not.
        let current = inner.current.clone();
        let planned = apart::plan(current.work_of(&update), move || {
            let planned = current.update(&update)?;
            Ok(planned)
        });
        let planned = planned.await?;
        // On disk before the event: no subscriber sees a change that a crash would undo.
        if let Some(disk) = inner.disk.clone() {
            let (changes, tree) = (planned.changes.clone(), planned.tree.clone());
            let before = inner.current.tree().clone();
            let undo = move || model::changes_between(&tree, &before);
            let kept = task::spawn_blocking(move || disk.keep(&changes, undo)).await;
            let kept = kept.map_err(DiskError::Task).and_then(|kept| kept);
            inner.log_disk(kept.as_ref().err());
            kept.map_err(|error| {
                Refused::Unavailable(format!("The update could not be kept: {error}"))
            })?;
        }
        inner.tell(planned.tree, Some(planned.changes)).await;
        Ok(planned.success)
    }

    pub(super) async fn report(&self, states: Vec<pb::WorkloadState>) -> Result<(), Refused> {
        let mut inner = self.inner.lock().await;
        let unreadable = || Refused::Invalid("an execution state that is none".to_owned());
        // Only in memory: a report means nothing after a restart.
        let tree = model::report(inner.current.tree(), &states).ok_or_else(unreadable)?;
        inner.tell(tree, None).await;
        Ok(())
    }

    pub(super) async fn set_agent(
        &self,
        name: &str,
        status: pb::AgentStatus,
    ) -> Result<(), Refused> {
        let mut inner = self.inner.lock().await;
        let tree = model::set_agent(inner.current.tree(), name, Some(status));
        inner.tell(tree, None).await;
        Ok(())
    }
}

impl Inner {
    /// Logs the first of several failures, and their end: workloads decide how many updates there are.
    fn log_disk(&mut self, error: Option<&DiskError>) {
        match error {
            Some(error) if !self.disk_fails => {
                log::error!("updates cannot be kept on disk, and are refused: {error}");
            }
            None if self.disk_fails => log::info!("updates are kept on disk again"),
            _ => {}
        }
        self.disk_fails = error.is_some();
    }

    async fn tell(&mut self, tree: Tree, changes: Option<Vec<Change>>) {
        if tree != *self.current.tree() {
            self.current.set(tree.clone());
            // The receiver is gone when the agent ends.
            let _ = self.events.send(Event::State { tree, changes }).await;
        }
    }
}

/// Restores the persisted state, with all workload states reset to their initial value.
pub(super) fn restored(kept: Vec<Change>) -> Result<Tree, OtherVersion> {
    let Fitted { tree, faults, left_out, .. } = StateModel::default().apply_what_fits(kept);
    for (item, why) in left_out {
        if let Change::ApiVersion(_) = item {
            return Err(OtherVersion(why)); // it is not to be taken for one of ours
        }
        log_left_out("on disk", &item, &why);
    }
    for fault in faults {
        log::error!("workload {}: {}", Quoted(&fault.workload), Quoted(&fault.reason));
    }
    Ok(model::begun(&tree))
}

#[cfg(test)]
mod tests;
