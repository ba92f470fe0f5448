//! The registry of commanders: what the main loop knows of their connections.
//!
//! Messages of fifogate and changes of the state go in; each connection gets its own. The registry never waits:
//! fifogate hands out fewer messages than a connection has room for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use fifogate::{
    pb::{agent_link as link, ank_base as pb},
    state::{Instance, Tree},
};
use prost::Message;
use tokio::sync::{broadcast, mpsc, watch};
use tonic::Status;

use super::wire::{FromFifogate, ResponseHead};

/// Id of the instances of commanders: no runtimeConfig has this hash.
const ID: &str = "commander";
/// Most messages of one commander here. fifogate has at most five of them under way.
const MOST_MESSAGES: usize = 8;
/// Most states kept for connections that look at changes. A slower one sees the newest state at once.
const MOST_STATES: usize = 64;

/// All open commanders. Handles are cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Commanders(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    next: u64,
    open: HashMap<String, Open>,
    tree: Tree,
    trees: broadcast::Sender<Tree>,
}

#[derive(Debug)]
struct Open {
    messages: mpsc::Sender<Numbered>,
    reading: watch::Sender<bool>,
    end: watch::Sender<Option<Status>>,
}

/// A response of fifogate for a client.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) wants_took: bool,
    pub(super) head: ResponseHead,
    pub(super) response: bytes::Bytes,
}

/// The ends of one commander's connection.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) name: pb::WorkloadInstanceName,
    /// Messages for the client.
    pub(super) messages: mpsc::Receiver<Numbered>,
    /// False while fifogate wants no further messages of the client.
    pub(super) reading: watch::Receiver<bool>,
    /// The status that ends the stream.
    pub(super) end: watch::Receiver<Option<Status>>,
}

/// True for the instance of a commander.
pub(crate) fn is_commander(instance: &Instance) -> bool {
    instance.agent.is_empty() && instance.id == ID
}

impl Default for Commanders {
    fn default() -> Self {
        let (trees, _) = broadcast::channel(MOST_STATES);
        let (next, open, tree) = (1, HashMap::new(), Tree::default());
        Self(Arc::new(Mutex::new(Known { next, open, tree, trees })))
    }
}

impl Commanders {
    /// Registers a commander with a name of its own.
    pub(super) fn open(&self, kind: &str) -> Ends {
        self.with(|known| {
            let name = format!("{kind}-{}", known.next);
            known.next += 1;
            let (messages, receiver) = mpsc::channel(MOST_MESSAGES);
            let (reading, is_reading) = watch::channel(true);
            let (end, ended) = watch::channel(None);
            known.open.insert(name.clone(), Open { messages, reading, end });
            let name = pb::WorkloadInstanceName {
                workload_name: name,
                agent_name: String::new(),
                id: ID.to_owned(),
            };
            Ends { name, messages: receiver, reading: is_reading, end: ended }
        })
    }

    /// Forgets a commander. Its stream ends behind its last message.
    pub(super) fn close(&self, name: &str) {
        self.with(|known| known.open.remove(name));
    }

    /// The current state, and the later ones.
    pub(super) fn states(&self) -> (Tree, broadcast::Receiver<Tree>) {
        self.with(|known| (known.tree.clone(), known.trees.subscribe()))
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.with(|known| known.open.len())
    }

    /// Notes a new state.
    pub(crate) fn follow(&self, tree: &Tree) {
        self.with(|known| {
            known.tree = tree.clone();
            // Without a receiver nobody looks at changes.
            let _ = known.trees.send(tree.clone());
        });
    }

    /// Passes on a message of fifogate.
    pub(crate) fn deliver(&self, to: link::ToCommander) {
        let name = to.instance_name.unwrap_or_default().workload_name;
        let message = FromFifogate::decode(to.message);
        self.with(|known| {
            // A commander that has just gone.
            let Some(open) = known.open.get(&name) else { return };
            match message {
                Ok(FromFifogate { response: Some(response), .. }) => {
                    let (number, wants_took) = (to.number, to.wants_took);
                    // What does not decode is the client's to judge.
                    let head = ResponseHead::decode(response.clone()).unwrap_or_default();
                    let message = Numbered { number, wants_took, head, response };
                    if open.messages.try_send(message).is_err() {
                        let status = Status::internal("messages came faster than they were taken");
                        open.end.send_replace(Some(status));
                    }
                }
                Ok(FromFifogate { closed: Some(closed), .. }) => {
                    open.end.send_replace(Some(Status::invalid_argument(closed.reason)));
                }
                Ok(_) => {}
                Err(error) => log::error!("a message for {name} does not decode: {error}"),
            }
        });
    }

    /// Passes on whether more messages of a commander are wanted.
    pub(crate) fn set_reading(&self, change: link::CommanderReading) {
        let name = change.instance_name.unwrap_or_default().workload_name;
        self.with(|known| {
            if let Some(open) = known.open.get(&name) {
                open.reading.send_replace(change.on);
            }
        });
    }

    /// Ends all streams, as the fifogate with their subscriptions is gone. Clients connect again.
    pub(crate) fn gate_ended(&self) {
        self.end_all("fifogate has ended and is started again: connect again");
    }

    pub(super) fn end_all(&self, reason: &str) {
        self.with(|known| {
            for open in known.open.values() {
                open.end.send_replace(Some(Status::unavailable(reason)));
            }
        });
    }

    /// Runs `f` under the lock. `f` cannot await, so the lock is never held for long.
    fn with<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
