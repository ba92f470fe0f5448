//! The store: the only owner of the state, in memory, on this node's disk, in etcd, or at a server of Ankaios.
//!
//! Updates and reports go in; [`Event`]s with the resulting states come out. All stores deliver events
//! in one order, and answer an update after it is persisted and its event is queued. [`crate::model`]
//! computes the effect of an update.

use fifogate::{internal::too_deep, pb::ank_base as pb, state::Tree};
use tokio::sync::{mpsc, watch};

use crate::{fence::Lease, logs::Logs, model::Update, supervisor::DeleteConditions};

pub mod ankaios;
mod disk;
pub mod etcd;
mod fuzz;
mod local;

pub use ankaios::{Ankaios, RefusedByServer};
pub use disk::DiskError;
pub use etcd::{Etcd, EtcdError};
#[doc(hidden)]
pub use fuzz::fuzz_stored;
pub use local::{Local, OpenError, StorageError};

/// An event of the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A new state: at the start, and after each atomic change, in order. If the single steps are
    /// unknown (etcd was compacted past this agent's revision), one event covers many changes. Trees
    /// share their equal parts.
    State {
        /// The state.
        tree: Tree,
        /// The changes from the state before, if known item by item. They may include items with an
        /// equal value; the effective state follows from them and is not included.
        changes: Option<Vec<Change>>,
    },
    /// Whether the store can be read and changed. The known state stays valid until the next event.
    Reachable(bool),
    /// The store answers, but holds no state until an operator acts, for this reason. Ends with one of
    /// `Reachable`.
    Unusable(String),
}

/// One item of the state with its new value; `None` if it was removed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// `desiredState.apiVersion`
    ApiVersion(String),
    /// `desiredState.workloads.<name>`
    Workload(String, Option<Box<pb::Workload>>),
    /// `desiredState.configs.<name>`
    Config(String, Option<pb::ConfigItem>),
    /// `workloadStates.<agent>.<workload>.<id>`
    WorkloadState(pb::WorkloadInstanceName, Option<pb::ExecutionState>),
    /// `agents.<name>`
    Agent(String, Option<pb::AgentAttributes>),
}

impl Change {
    /// The path of the item.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::ApiVersion(_) => "desiredState.apiVersion".to_owned(),
            Self::Workload(name, _) => format!("desiredState.workloads.{name}"),
            Self::Config(name, _) => format!("desiredState.configs.{name}"),
            Self::WorkloadState(name, _) => {
                let pb::WorkloadInstanceName { agent_name, workload_name, id } = name;
                format!("workloadStates.{agent_name}.{workload_name}.{id}")
            }
            Self::Agent(name, _) => format!("agents.{name}"),
        }
    }
}

/// Logs an item ignored by the agent, and how an operator repairs it.
fn log_left_out(place: &str, item: &Change, why: &str) {
    let path = item.path();
    log::error!("{path}, as stored {place}, is ignored: {why}; set {path} again to replace it");
}

/// The reason for bytes of the store being no message.
fn undecodable(error: &prost::DecodeError) -> String {
    let text = error.to_string();
    if text.ends_with("recursion limit reached") { too_deep("its value") } else { text }
}

/// The reason for a rejected change. The text is for the requesting workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The update itself is invalid: a retry cannot succeed.
    #[error("{0}")]
    Invalid(String),
    /// The requesting workload has no right to it. The reason is for the log: it names rules, and the
    /// workload is not told.
    #[error("Access denied")]
    Denied(String),
    /// A retry may succeed: the store is unreachable or full, or other agents kept changing the same
    /// keys.
    #[error("{0}")]
    Unavailable(String),
}

/// The stored state is of a version unknown to this agent, for this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OtherVersion(String);

/// The receiver of [`Event`]s. The first one is always [`Event::State`].
pub type Events = mpsc::Receiver<Event>;

/// Capacity of the event queue. A full queue blocks every change of the state, so the receiver of events
/// must not wait for a change.
pub const EVENTS_THAT_WAIT: usize = 256;

/// A handle to the state. Handles are cheap to clone, and clones refer to the same state.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process, optionally with a copy on disk.
    Local(Local),
    /// In etcd, for many nodes.
    Etcd(Etcd),
    /// At a server of Ankaios.
    Ankaios(Ankaios),
}

impl Store {
    /// Applies an update as a whole or not at all. On return it is persisted and its event is queued.
    ///
    /// # Errors
    /// The reason for rejecting the update.
    pub async fn update(&self, update: Update) -> Result<pb::UpdateStateSuccess, Refused> {
        self.update_as(update, "").await
    }

    /// As [`Store::update`], with the id that its requester has given to it.
    ///
    /// # Errors
    /// The reason for rejecting the update.
    pub async fn update_as(
        &self,
        update: Update,
        request_id: &str,
    ) -> Result<pb::UpdateStateSuccess, Refused> {
        match self {
            Self::Local(local) => local.update(update).await,
            Self::Etcd(etcd) => etcd.update(update).await,
            Self::Ankaios(ankaios) => ankaios.update(update, request_id).await,
        }
    }

    /// Sets execution states; a state `removed` deletes its entry.
    ///
    /// # Errors
    /// The store is unreachable; the caller has to report again.
    pub async fn report(&self, states: Vec<pb::WorkloadState>) -> Result<(), Refused> {
        match self {
            Self::Local(local) => local.report(states).await,
            Self::Etcd(etcd) => etcd.report(states).await,
            Self::Ankaios(ankaios) => {
                ankaios.report(states).await;
                Ok(())
            }
        }
    }

    /// Sets the status of an agent. Its tags stay.
    ///
    /// # Errors
    /// The store is unreachable.
    pub async fn set_agent(&self, name: &str, status: pb::AgentStatus) -> Result<(), Refused> {
        match self {
            Self::Local(local) => local.set_agent(name, status).await,
            Self::Etcd(etcd) => etcd.set_agent(name, status).await,
            Self::Ankaios(ankaios) => {
                ankaios.set_status(status).await;
                Ok(())
            }
        }
    }

    /// Whether nothing was kept: the first state is the seed, or empty.
    #[must_use]
    pub fn is_new(&self) -> bool {
        match self {
            Self::Local(local) => local.is_new,
            Self::Etcd(etcd) => etcd.is_new,
            Self::Ankaios(_) => false,
        }
    }

    /// The state after all updates that were answered. `None` if a server has it.
    pub(crate) async fn state(&self) -> Option<Tree> {
        match self {
            Self::Local(local) => Some(local.state().await),
            Self::Etcd(etcd) => Some(etcd.state().await),
            Self::Ankaios(_) => None,
        }
    }

    /// The lease of the agent's name, if another process can take the name.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        match self {
            Self::Local(_) | Self::Ankaios(_) => None,
            Self::Etcd(etcd) => Some(etcd.lease()),
        }
    }

    /// The URL at which another agent of the cluster serves its command interface, if it does.
    #[must_use]
    pub fn address_of(&self, agent: &str) -> Option<String> {
        match self {
            Self::Local(_) | Self::Ankaios(_) => None,
            Self::Etcd(etcd) => etcd.address_of(agent),
        }
    }

    /// What the ends of deleted workloads wait for, if a server tells it.
    pub(crate) fn delete_conditions(&self) -> Option<watch::Receiver<DeleteConditions>> {
        match self {
            Self::Local(_) | Self::Etcd(_) => None,
            Self::Ankaios(ankaios) => Some(ankaios.delete_conditions()),
        }
    }

    /// A server gets the logs that it asks for.
    pub(crate) async fn serve_logs(&self, logs: &Logs) {
        if let Self::Ankaios(ankaios) = self {
            ankaios.serve_logs(logs.clone()).await;
        }
    }

    /// Waits until a server refuses this agent for good, and returns the reason.
    pub(crate) async fn refused(&self) -> String {
        match self {
            Self::Local(_) | Self::Etcd(_) => std::future::pending().await,
            Self::Ankaios(ankaios) => ankaios.refused().await,
        }
    }

    /// Leaves the store at the end of the agent: the other agents of the cluster see it leave.
    pub async fn close(&self, all_ended: bool) {
        match self {
            Self::Local(local) => local.close().await,
            Self::Etcd(etcd) => etcd.close(all_ended).await,
            Self::Ankaios(ankaios) => ankaios.close().await,
        }
    }
}
