//! fifogate serves the control interface of a node's workloads.
//!
//! An agent runs workloads: containers and processes without its trust. A workload reads parts of the
//! cluster's state, subscribes to changes and updates the state through a pair of named pipes, as far as its
//! access rules allow. One process of fifogate serves all pairs of a node. The messages are those of Eclipse
//! Ankaios (docs/protocol.md); docs/differences.md lists the deliberate differences.
//!
//! ```text
//!   workload ── output FIFO ──▶ ┌────────────── server ──────────────┐
//!                               │ event loop ──▶ worker ──▶ broker   │ ◀── agent link ──▶ agent
//!   workload ◀── input FIFO ─── │  ports   ◀── frames ◀── outputs    │
//!                               └────────────────────────────────────┘
//! ```
//!
//! # Layers
//!
//! * [`frame`] cuts a stream of bytes into frames; [`pb`] has the generated protobuf types.
//! * [`state`] is pure: a persistent tree, masks, differences, updates and their validation.
//! * [`message`] holds checked, typed messages. Protobuf ends there.
//! * [`broker`] is the synchronous core: sessions, access rules, subscriptions, outboxes, flow control. It knows
//!   no file, thread or clock.
//! * [`server`] owns descriptors, threads and clocks, and drives the broker.
//! * [`link`] is the client of the agent link for agents written in Rust; [`manifest`] reads YAML; [`cli`] is the
//!   command line.
//!
//! Only items with a page here are promised to users; `tests/layering/public.txt` lists them.
//!
//! # Life of an update
//!
//! An `UpdateStateRequest` of one workload becomes events of its subscribers in twelve steps. ARCHITECTURE.md
//! explains the threads between them.
//!
//! 1. `server/port/reader.rs` `fill`: called by `Port::turn`, a job of the event loop, reads the workload's output
//!    FIFO and cuts frames.
//! 2. `server/event_loop/port_table.rs` `after_turn`: makes the frames messages, and `Loop::after_turn` tells them to
//!    the worker handle.
//! 3. `server/event_loop/worker_handle.rs` `try_run_inline`: runs the worker on this thread if it is idle and the
//!    messages are few; otherwise they are sent to its thread.
//! 4. `server/worker.rs` `serve`: takes the next frame from the fair queue of all workloads.
//! 5. `message/request.rs` `decode`: checks the frame and counts its fields; the new state stays sealed.
//! 6. `broker/requests.rs` `serve_sealed`: reached by `Broker::handle` and `on_message` (`broker/sessions.rs`) in an
//!    open session, asks the rules before the new state is converted.
//! 7. `broker/requests.rs` `serve_update`: applies the masks (`update::propose`) and validates (`update::accept`), or
//!    forwards the update to the agent.
//! 8. `broker/commit.rs` `commit`: compares the states, begins the fan-out and holds the author's outbox.
//! 9. `broker/commit.rs` `deliver_some`: called by `Broker::poll_output` until the fan-out is over, makes one event per
//!    set of masks. It hands the event out, or queues it; a subscriber without room gets a merged one later.
//! 10. `broker/flow_control.rs` `flush_outbox`: hands out what is queued, at last the answer, within the window.
//! 11. `server/worker.rs` `hand_out`: polls the broker's outputs, and sends them to the event loop. There `obey` and
//!     `share_next` give each frame to its port.
//! 12. `server/port/writer.rs` `write_all`: writes the frame into the subscriber's input FIFO, by one call if it fits.
//!     A small frame for an empty pipe takes the shorter way of `write_at_once`.
//!
//! # A server of one's own
//!
//! [`server::Server`] runs inside of another program, without signals, standard streams or a logger. The agent
//! is at the other end of a [channel](server::AgentTransport::channel), or of a socket.
//!
//! ```
//! use std::time::Duration;
//!
//! use fifogate::server::{AgentTransport, Server};
//!
//! # let dir = tempfile::tempdir()?;
//! # let run_dir = dir.path().join("run");
//! let (transport, agent_end) = AgentTransport::channel()?;
//! let server = Server::builder(run_dir).agent(transport).spawn()?;
//! let agent = fifogate::link::AgentLink::open(agent_end.try_clone()?, agent_end, "node_a")?;
//! // agent.replace_state(...), agent.add_workload(...), agent.recv() ...
//! assert!(server.status().is_some_and(|json| json.contains(r#""agent_link":"connected""#)));
//! server.shutdown(Duration::from_secs(1))?;
//! # drop(agent);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/embed_server.rs` goes on from there. `examples/embed_core.rs` has the broker alone, with a
//! transport of its own: [`broker::Broker`] takes inputs and the time, and gives outputs.

#[cfg(feature = "manifest")]
mod advice;
pub mod broker;
#[cfg(feature = "cli")]
pub mod cli;
mod foreign;
pub mod frame;
mod id_map;
#[doc(hidden)]
pub mod internal;
mod journal;
pub mod limits;
pub mod link;
#[cfg(feature = "man")]
mod man;
#[cfg(feature = "manifest")]
pub mod manifest;
pub mod message;
mod metrics;
mod nearest;
mod owner;
pub mod pb;
#[cfg(feature = "printed")]
mod printed;
pub mod server;
mod small_deque;
#[cfg(feature = "manifest")]
mod source;
pub mod state;
mod status;
mod systemd;

/// The old path of [`link`].
#[deprecated(note = "use `fifogate::link`")]
pub mod agent {
    pub use crate::link::*;
}
