//! The broker: the synchronous core of sessions, access rules, subscriptions and queues.
//!
//! [`Broker::handle`] takes one [`Input`] and the time, [`Broker::poll_output`] returns the resulting
//! [`Output`]s one by one, and [`Broker::next_deadline`] is the time of the next call without an input.
//! Polling also flushes the outboxes and continues the fan-out, in slices; [`Output::Yield`] marks the end
//! of a slice. So work never waits for a time, and a deadline is the time of a timer.
//! The same inputs at the same times give the same outputs: there are no files, threads, clocks, bytes
//! or protobuf here, so tests need no pipe. Each peer receives its messages in the order of their
//! queueing.

pub(crate) mod access;
mod acks;
mod agent;
mod agent_link;
mod commander;
mod commit;
pub(crate) mod denial;
mod fanout;
mod flow_control;
mod forward;
pub(crate) mod fuzz;
mod lag;
mod large;
mod memory;
mod outbox;
mod peer;
mod peer_kind;
mod peers;
mod read_cache;
mod references;
mod refusal;
pub(crate) mod report;
mod requests;
pub(crate) mod session;
mod sessions;
mod snapshots;
mod subscriptions;
mod timers;
mod workloads;

use std::{collections::VecDeque, sync::Arc};

use crate::{
    limits::Limits,
    message::{FromAgent, FromWorkload, Owner, ResponseBody, ToAgent, ToWorkload},
    state::{Instance, Tree, convert::LeafCache, weight_after},
};

pub use outbox::Seq;

pub(crate) use access::Rules;
pub(crate) use peer::Counters;
pub(crate) use report::{SubscriptionReport, WorkloadReport};
pub(crate) use session::{Session, check_version};
use subscriptions::SubscriptionId;

use agent_link::AgentLink;
use fanout::FanOut;
use flow_control::DirtyOutboxes;
use memory::MemoryBudget;
use peers::Peers;
use read_cache::ReadCache;
use snapshots::Version;
use subscriptions::Subscriptions;
use timers::{Timer, Timers};

/// A point in time: milliseconds since an origin of the caller's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

/// The number of a peer: one served instance, a commander, or the agent. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl PeerId {
    /// The agent, at the other end of the agent link.
    // Out of the reach of `Peers`: it counts from 0.
    pub const AGENT: Self = Self(u64::MAX);
}

/// The place where updates of workloads are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Updates {
    /// fifogate applies them.
    #[default]
    Apply,
    /// The agent applies them: fifogate forwards every update allowed by the rules.
    Forward,
}

/// Settings of a broker.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits of one workload and of all together.
    pub limits: Limits,
    /// Milliseconds without events after a subscriber has read its first answer
    /// (docs/differences.md#19-grace-time-for-subscribers).
    pub subscribe_grace_ms: u64,
    /// Most messages in a workload's pipe (docs/differences.md#17-one-frame-at-a-time).
    pub window: usize,
    /// Most work on events before other inputs are handled. The unit is one delivery of an encoded
    /// event.
    pub slice: usize,
    /// Most work, in the same unit, on the events of one change when the next change comes. The
    /// remaining subscribers get one event for both.
    pub most_at_once: usize,
    /// The agent of the served workloads; all workloads are served if `None`.
    pub agent_name: Option<String>,
    /// The run directory, if an agent names the served instances over its link. Without a link, the
    /// pairs follow the desired state.
    pub link: Option<String>,
    /// The place where updates are applied.
    pub updates: Updates,
    /// Milliseconds for the agent's answer to a forwarded request.
    pub forward_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            subscribe_grace_ms: 20,
            window: 1,
            slice: 512,
            most_at_once: 128 << 10,
            agent_name: None,
            link: None,
            updates: Updates::Apply,
            forward_timeout_ms: 30_000,
        }
    }
}

/// An occurrence reported by the server.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// A workload sent a message.
    Message {
        /// The sender.
        peer: PeerId,
        /// The decoded message.
        message: FromWorkload,
        /// The last message to the sender already in its pipe.
        written: Seq,
    },
    /// A workload's stream cannot be decoded any further. The server searches it for the next Hello.
    Broken {
        /// The sender.
        peer: PeerId,
        /// The reason, as sent to the workload.
        reason: String,
    },
    /// All writers of a workload have closed its pipe.
    EndOfFile(PeerId),
    /// Neither a reader nor a writer has had the pair of a workload open for a while.
    Unused(PeerId),
    /// All messages up to this one are in the workload's pipe, or were dropped.
    Written(PeerId, Seq),
    /// The workload has read all messages up to this one.
    Taken(PeerId, Seq),
    /// The pair of a peer was made, in this folder.
    PairOpened(PeerId, String),
    /// The pair of a peer could not be made, for this reason.
    PairFailed(PeerId, String),
    /// The pair of a peer was removed.
    PairClosed(PeerId),
    /// The agent sent a command.
    Agent(FromAgent),
    /// Time has passed.
    Tick,
}

/// An action for the server.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Make the pair of an instance, and serve it.
    OpenPair(PeerId, Instance, Owner),
    /// Remove the pair. No message to this peer follows.
    ClosePair(PeerId),
    /// A new session begins: drop the messages not yet begun, and finish or undo the one begun.
    Reset(PeerId),
    /// Drop each [`ToWorkload::Closed`] up to this message that no reader has begun.
    DropClosed(PeerId, Seq),
    /// Send a message to a workload, after all before it.
    Send {
        /// The receiver.
        peer: PeerId,
        /// The number of the message.
        seq: Seq,
        /// The message.
        message: ToWorkload,
        /// The notice requested for it.
        ack: AckMode,
    },
    /// Send one body to many workloads, to each under its own request id and after all before it.
    Multicast {
        /// The encoded body, shared by all.
        body: ResponseBody,
        /// The receivers.
        deliveries: Vec<Delivery>,
    },
    /// Read the requests of this peer, or leave them in its pipe.
    SetReadEnabled(PeerId, bool),
    /// Send a message to the agent, after all before it.
    SendToAgent {
        /// The number of the message.
        seq: Seq,
        /// The message.
        message: ToAgent,
        /// The notice requested for it.
        ack: AckMode,
    },
    /// This workload reads too slowly: its events are merged, or its requests are not read. So many
    /// bytes are queued for it. Sent once, until it has caught up.
    Slow(Instance, usize),
    /// The workload has caught up, after so many milliseconds.
    CaughtUp(Instance, u64),
    /// A request of the workload was denied: its kind, the denied part of it, and the reason.
    Denied(Instance, String),
    /// The agent requests the shutdown.
    Stop,
    /// End the agent link, for this reason.
    EndLink(String),
    /// A slice of work on events is done, and more is left. Nothing is to be sent for it. A server may
    /// handle other inputs now, and poll again after them; a server without other inputs goes on polling.
    Yield,
}

/// One receiver of an [`Output::Multicast`].
#[derive(Debug)]
pub struct Delivery {
    /// The receiver.
    pub peer: PeerId,
    /// The number of the message.
    pub seq: Seq,
    /// The id of the receiver's own request.
    pub request_id: Arc<str>,
    /// The notice requested for it.
    pub ack: AckMode,
}

impl Delivery {
    /// The message to this receiver.
    #[must_use]
    pub fn message(&self, body: &ResponseBody) -> ToWorkload {
        ToWorkload::Response { request_id: Arc::clone(&self.request_id), body: body.clone() }
    }
}

/// The notice requested for a message handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// No notice.
    None,
    /// [`Input::Written`], once the message is in the pipe.
    Written,
    /// [`Input::Taken`], once the reader has read it.
    Taken,
}

/// The core. See the module.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    now: Tick,
    state: Tree,
    /// Size of the state, in the unit of its limit.
    state_bytes: usize,
    /// The version of the state.
    version: Version,
    /// The last version with an unreported change: of a scalar at a proper prefix of a mask.
    unseen: Version,
    /// Encoded answers to reads of this version.
    read_cache: ReadCache,
    /// Encoded values of earlier answers, for reuse.
    leaf_cache: LeafCache,
    memory: MemoryBudget,
    peers: Peers,
    subscriptions: Subscriptions,
    fanout: Option<FanOut>,
    timers: Timers,
    dirty: DirtyOutboxes,
    /// All work on events so far.
    #[cfg(test)]
    work_done: usize,
    /// The rest of a slice of work; negative if the last event cost more than the rest.
    work_left: isize,
    outputs: VecDeque<Output>,
    link: Option<AgentLink>,
}

/// Milliseconds between two checks for free memory for large events.
const RETRY_MS: u64 = 50;

impl Broker {
    /// A broker of the initial state, without workloads.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let link = config.link.clone();
        let memory = MemoryBudget::new(config.limits.total_bytes);
        let mut broker = Self {
            config,
            now: Tick::default(),
            // The initial state has a weight too: later differences add up to that of the whole.
            state_bytes: weight_after(&Tree::default(), 0, &Tree::initial()),
            state: Tree::initial(),
            version: 0,
            unseen: 0,
            read_cache: ReadCache::default(),
            leaf_cache: LeafCache::default(),
            memory,
            peers: Peers::default(),
            subscriptions: Subscriptions::default(),
            fanout: None,
            timers: Timers::default(),
            dirty: DirtyOutboxes::default(),
            #[cfg(test)]
            work_done: 0,
            work_left: 0,
            outputs: VecDeque::new(),
            link: None,
        };
        if let Some(run_dir) = link {
            broker.begin_link(run_dir);
        }
        broker
    }

    /// Handles one input at the time `now`. A time before the last one counts as the last one.
    ///
    /// The caller polls the outputs after each input, or after a few. With every input the timers due by
    /// `now` run. A caller without an input until [`Broker::next_deadline`] hands in [`Input::Tick`] at
    /// that time: otherwise a subscriber's grace time and the agent's time for an answer never end, and
    /// a large event never gets the memory freed by others. The deadline may change with each input and
    /// each output, so the caller asks for it again before each wait.
    pub fn handle(&mut self, now: Tick, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Message { peer, message, written } => {
                // Free the window first: the pending event and the answer may then be handed out at
                // once.
                self.note_written(peer, written);
                self.on_message(peer, message);
            }
            Input::Broken { peer, reason } => self.on_broken(peer, reason),
            Input::EndOfFile(peer) => self.on_end_of_file(peer),
            Input::Unused(peer) => self.on_unused(peer),
            Input::Written(peer, seq) => self.note_written(peer, seq),
            Input::Taken(peer, seq) => self.on_taken(peer, seq),
            Input::PairOpened(peer, dir) => self.on_pair_opened(peer, dir),
            Input::PairFailed(peer, reason) => self.on_pair_failed(peer, reason),
            Input::PairClosed(peer) => self.on_pair_closed(peer),
            Input::Agent(message) => self.on_agent(message),
            Input::Tick => {}
        }
        // After the input: an answer of the agent at its very deadline is still in time.
        self.run_timers();
    }

    /// The next output, in order; call it until it returns `None`.
    ///
    /// If no output is ready, this flushes the outboxes and continues the fan-out by one slice. So a
    /// caller that stops before `None` delays events until its next call: no deadline reports them. The
    /// place to stop is [`Output::Yield`], as long as the caller polls again before it waits.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && self.has_work() {
            self.work_a_slice();
            // At the end of the outputs of a slice: a driver has them all before it looks elsewhere.
            if self.has_work() {
                self.outputs.push_back(Output::Yield);
            }
        }
        self.outputs.pop_front()
    }

    /// True if work on events and outboxes is left that waits for nothing but the next
    /// [`Broker::poll_output`].
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.is_fanning_out() || !self.dirty.is_empty() || self.memory.is_ready()
    }

    fn work_a_slice(&mut self) {
        // The rest of earlier slices does not add up: no slice is longer than the configured one.
        self.work_left = self.work_left.saturating_add(self.slice()).min(self.slice());
        // Taken before the flush: prompt readers get their share of each slice, however many merged
        // events the flush makes.
        let work = usize::try_from(self.work_left).unwrap_or(0);
        // Flushed before the fan-out: an outbox with a free window must take its event at once.
        self.flush_outboxes();
        if work > 0 && self.is_fanning_out() {
            let done = self.deliver_some(work);
            self.spend(done);
        }
        // After the fan-out: events of the running change get memory before merged ones.
        self.feed_starved();
        if !self.dirty.is_empty() {
            self.flush_outboxes();
        }
    }

    /// Handles all timers due by now.
    fn run_timers(&mut self) {
        while let Some(timer) = self.timers.pop_due(self.now) {
            match timer {
                Timer::GraceOver(id) => self.go_live(id),
                Timer::Forwards(peer) => self.forwards_timed_out(peer),
            }
        }
    }

    /// Retries the smallest event that waits for memory, if there is room for it now.
    fn feed_starved(&mut self) {
        // The loop skips peers removed meanwhile: their removal leaves the entry here.
        while let Some(id) = self.memory.pop_ready() {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.needs = 0;
                self.dirty.note(id, peer);
                return; // the next one when it is known what this one took
            }
        }
    }

    fn slice(&self) -> isize {
        isize::try_from(self.config.slice.max(1)).unwrap_or(isize::MAX)
    }

    /// Counts work on events. Work beyond a slice is taken off the next slices.
    fn spend(&mut self, work: usize) {
        self.work_left = self.work_left.saturating_sub_unsigned(work);
    }

    /// The time for [`Broker::handle`] with [`Input::Tick`] if no other input comes before; `None` if no
    /// timer runs.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        // No input reports the last reader of a large event, so its memory is polled for.
        let retry = self.memory.is_awaited().then_some(Tick(self.now.0 + RETRY_MS));
        [self.timers.next_due(), retry].into_iter().flatten().min()
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> &Tree {
        &self.state
    }

    /// Size of the state, as counted by its limit.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.state_bytes
    }

    /// True if no message waits to be handed out.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        !self.has_work() && self.peers.all().all(|peer| peer.outbox.bytes() == 0)
    }

    /// The served instances, oldest first.
    #[doc(hidden)] // its counters are internal
    pub fn peers(&self) -> impl Iterator<Item = (PeerId, &Instance, &Counters)> {
        let workloads = self.peers.workloads().into_iter();
        workloads.map(|(id, peer)| (id, &peer.instance, &peer.counters))
    }

    /// The instance of a peer; that of the agent has no name.
    #[doc(hidden)] // for the log of the server
    #[must_use]
    pub fn instance(&self, peer: PeerId) -> Option<&Instance> {
        self.peers.get(peer).map(|peer| &peer.instance)
    }

    fn note_written(&mut self, peer: PeerId, seq: Seq) {
        if let Some(found) = self.peers.get_mut(peer) {
            found.outbox.note_written(seq, self.now);
            // Without messages, lag or a pause a flush would find nothing to do.
            if !found.is_clean() {
                self.dirty.note(peer, found);
            }
        }
    }
}

#[cfg(test)]
mod tests;
