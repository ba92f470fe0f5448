//! A server of Ankaios, as far as an agent can see one.
//!
//! There are two layers. [`Port`] is a script: a test accepts each stream itself, reads message by message
//! and answers what it likes, or breaks the connection in a way of its choice. [`Ankaios`] is a model: a small
//! server with a state in memory, with the order of messages, the refusals and the oddities of the real one.
//! Both run on threads of their own; their handles are for tests without a runtime, too.
//!
//! Nothing here uses the agent's code: only the schema, trees and rules of updates of fifogate.

// Each test of an agent needs another part of it.
#![allow(dead_code, unused_imports)]
// Messages are few here.
#![allow(clippy::large_enum_variant)]

use std::time::Duration;

mod core;
mod events;
mod logs;
mod messages;
mod model;
mod peers;
mod port;
mod record;
mod sink;
mod stream;
mod tls;
mod updates;

pub(crate) use self::{
    messages::{
        AddedWorkload, AgentHello, AgentLoadStatus, CommanderHello, DeleteCondition,
        DeletedWorkload, FromServer, FromServerContent, LogEntriesResponse, LogsCancelRequest,
        LogsRequest, LogsStopResponse, Nothing, ServerHello, ToServer, ToServerContent,
        UpdateWorkload, UpdateWorkloadState, instance_name, state_text, workload_state,
    },
    model::{Ankaios, with_workloads, workload},
    peers::{Campaign, Operator, ScriptedAgent},
    port::Port,
    record::{Record, Recorded},
    sink::BreakBy,
    stream::{Incoming, Stream},
    tls::server_config,
};

/// Time for any one message.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
