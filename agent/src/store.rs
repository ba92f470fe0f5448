//! Where the state lives: in memory, on this node's disk, or in etcd. One owner of the state that the
//! rest of the agent asks for changes, and hears of changes from, whatever stands behind it.
//!
//! All of them tell what happened in one order, and an update is answered after it is kept and after
//! its change stands in the queue of changes.

use fifogate::pb::ank_base as pb;
use tokio::sync::mpsc;

/// What differs, in the order in which it came to be. One `Event` is one atomic change.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Everything, and what is not in it is gone: at the start, and whenever what happened meanwhile
    /// cannot be told step by step (etcd was compacted past what this agent knew).
    Replace(pb::CompleteState),
    /// Some items have other values now.
    Changes(Vec<Change>),
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

/// Why something was not done. The text is for the workload that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It would never be done: the update itself is wrong.
    Invalid(String),
    /// It was not done now: the store cannot be reached, is full, or others were always faster.
    Unavailable(String),
}

/// The far end of [`Event`]s.
pub type Events = mpsc::Receiver<Event>;
