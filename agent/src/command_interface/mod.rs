//! The command interface: gRPC for operators and tools of the cluster's owner (docs/command-interface.md).
//!
//! Connections of a Unix socket, and of TCP with `--listen`, go in. Each stream is a commander of fifogate
//! (docs/agent-link.md#commanders), an instance of its own with all rights: its requests go to fifogate over
//! the agent link unopened, and answers and events come back in the same way. So reads and subscriptions share
//! the fan-out and the limits of workloads, however many commanders there are; updates and log requests come
//! to the [main loop](crate::main_loop) as forwarded requests, in the way of those of workloads. The alternative, a second core
//! inside of this program, would compute each event twice, and need limits and tests of its own.
//!
//! Invariants: at most a window of messages of a commander is in this process, and the next ones come when its
//! client has taken them; everything of a stream ends with it.

mod client;
mod commanders;
mod connection;
mod listen;
mod options;
mod outgoing;
mod service;
mod session;
mod tls;
pub(crate) mod wire;

pub(crate) use client::{Client, ClientError, state_request};
pub(crate) use commanders::{Commanders, is_commander};
pub(crate) use listen::{Interface, SOCKET, Settings};
pub(crate) use options::{CommandArgs, Listen, MOST_COMMANDERS, Pems};
pub(crate) use tls::Certificates;

/// The generated services, over the types of [`wire`].
#[allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::unwrap_used)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/grpc_api.CommandConnection.rs"));
    include!(concat!(env!("OUT_DIR"), "/server/grpc_api.CliConnection.rs"));
}
