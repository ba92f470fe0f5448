//! Where the state lives: in memory, on this node's disk, or in etcd. One owner of the state that the
//! rest of the agent asks for changes, and hears of changes from, whatever stands behind it.
//!
//! All of them tell what happened in one order, and an update is answered after it is kept and after
//! its change stands in the queue of changes. What an update makes of the state is decided by
//! [`crate::model`], not here.

use std::fmt;

use fifogate::{limits::too_deep, pb::ank_base as pb, state::Tree};
use tokio::sync::mpsc;

use crate::{
    fence::Lease,
    model::{StateModel, Update},
};

mod disk;
pub mod etcd;
mod local;

pub use etcd::Etcd;
pub use local::{Local, OpenError};

/// What a store tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The state is this now: at the start, and after each atomic change, in the order in which they came
    /// to be. Where what happened meanwhile cannot be told step by step (etcd was compacted past what
    /// this agent knew), one tells the outcome of many. Trees share what is the same in them.
    State {
        /// The state.
        tree: Tree,
        /// What made it of the state before, where that is known item by item. It may hold more than
        /// what differs; the effective state follows and is not in it.
        changes: Option<Vec<Change>>,
    },
    /// Whether the store can be asked and changed. What is known stays true until the next event.
    Reachable(bool),
}

/// One item of the state, as it is now; `None` where it is gone.
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

/// Says that an item counts as not there, and how it is mended.
fn log_left_out(place: &str, item: &Change, why: &str) {
    let path = item.path();
    log::error!("{path} as it is kept {place} is left out: {why}; set {path} again to replace it");
}

/// Why bytes of a store are no message.
fn undecodable(error: &prost::DecodeError) -> String {
    let text = error.to_string();
    if text.ends_with("recursion limit reached") { too_deep("its value") } else { text }
}

/// Why something was not done. The text is for the workload that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It would never be done: the update itself is wrong.
    Invalid(String),
    /// It was not done now: the store cannot be reached, is full, or others were always faster.
    Unavailable(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Invalid(text) | Self::Unavailable(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Refused {}

/// Most bytes of state that workloads may make, as in fifogate itself.
const MOST_STATE: usize = 64 << 20;

/// Whether `by` may make `new` of the state. Nobody is nobody's workload.
fn check_size(current: &StateModel, new: &Tree, by: &str) -> Result<(), Refused> {
    let more = current.bytes_with(new);
    if more > current.bytes() && more > MOST_STATE && !by.is_empty() {
        let text = format!("The state would take more than {MOST_STATE} bytes");
        return Err(Refused::Invalid(text));
    }
    Ok(())
}

/// The far end of [`Event`]s. The first one is always [`Event::State`].
pub type Events = mpsc::Receiver<Event>;

/// Events that may wait; then whoever changes the state waits too. So nobody who takes events may
/// wait for a change.
pub const EVENTS_THAT_WAIT: usize = 256;

/// A handle to the state. Handles are cheap, and all of one opening are the same.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process, with or without a copy on disk.
    Local(Local),
    /// In etcd, for many nodes.
    Etcd(Etcd),
}

impl Store {
    /// Does an update, or nothing of it. Afterwards it is kept, and its change is in the queue of
    /// events.
    ///
    /// # Errors
    /// Why nothing was done.
    pub async fn update(&self, update: Update) -> Result<pb::UpdateStateSuccess, Refused> {
        match self {
            Self::Local(local) => local.update(update).await,
            Self::Etcd(etcd) => etcd.update(update).await,
        }
    }

    /// Sets execution states; one that says `removed` is deleted.
    ///
    /// # Errors
    /// The store is not there; then it is to be reported again.
    pub async fn report(&self, states: Vec<pb::WorkloadState>) -> Result<(), Refused> {
        match self {
            Self::Local(local) => local.report(states).await,
            Self::Etcd(etcd) => etcd.report(states).await,
        }
    }

    /// Sets what an agent says of itself. Its tags stay.
    ///
    /// # Errors
    /// The store is not there.
    pub async fn set_agent(&self, name: &str, status: pb::AgentStatus) -> Result<(), Refused> {
        match self {
            Self::Local(local) => local.set_agent(name, status).await,
            Self::Etcd(etcd) => etcd.set_agent(name, status).await,
        }
    }

    /// How long the agent's name is its own, if another process can take it.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        match self {
            Self::Local(_) => None,
            Self::Etcd(etcd) => Some(etcd.lease()),
        }
    }

    /// The agent ends: whoever shares the state learns that it is not there any more.
    pub async fn close(&self) {
        match self {
            Self::Local(_) => {}
            Self::Etcd(etcd) => etcd.close().await,
        }
    }
}
