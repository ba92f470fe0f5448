//! The synchronous core: it decides who may do what, who hears what, and what waits.
//!
//! [`Broker::handle`] takes one [`Input`] and the time; [`Broker::poll_output`] gives what is to be
//! done about it, until there is no more; [`Broker::next_deadline`] tells when to come back even if
//! nothing comes in. There are no files, threads, clocks, bytes or protobuf here, so all of it is
//! tested without a pipe.

mod access;
mod acks;
mod agent;
mod fanout;
mod flow_control;
mod forward;
mod fuzz;
mod large;
mod outbox;
mod peer;
mod read_cache;
mod references;
mod report;
mod requests;
mod session;
mod snapshots;
mod subscriptions;
mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    id_map::IdMap,
    limits::Limits,
    message::{FromAgent, FromWorkload, Owner, ResponseBody, ToAgent, ToWorkload},
    state::{Instance, Tree, convert::LeafCache, weight_after},
};

pub use access::Rules;
#[doc(hidden)]
pub use fuzz::fuzz_requests;
pub use outbox::Seq;
pub use peer::Counters;
pub use report::{SubscriptionReport, WorkloadReport};
pub use session::{Session, check_version};
pub use subscriptions::SubscriptionId;

use agent::Link;
use fanout::FanOut;
use large::LargeBodies;
use outbox::MemoryBudget;
use peer::{DirtyOutboxes, Peer};
use read_cache::ReadCache;
use snapshots::Version;
use subscriptions::Subscriptions;

/// A point in time: milliseconds since whenever the caller began to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

/// One instance that is served. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl PeerId {
    /// The agent, at the other end of the link.
    pub const AGENT: Self = Self(u64::MAX);
}

/// Who decides what a workload's update makes of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Updates {
    /// fifogate itself.
    #[default]
    Apply,
    /// The agent, which every update that the rules allow is forwarded to.
    Forward,
}

/// How a broker is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// What bounds a workload.
    pub limits: Limits,
    /// Milliseconds that a subscriber hears nothing after its first answer was taken
    /// (docs/differences.md#19-grace-time-for-subscribers).
    pub subscribe_grace_ms: u64,
    /// Most messages in a workload's pipe (docs/differences.md#17-one-frame-at-a-time).
    pub window: usize,
    /// Most work on events before others are served, counted in subscribers that are told something that
    /// is made already.
    pub slice: usize,
    /// Most work, counted likewise, on events of a change when the next one comes: who is not told by then
    /// is told of both by one event.
    pub most_at_once: usize,
    /// The agent whose workloads are served; all if `None`.
    pub agent_name: Option<String>,
    /// Where the pairs are, if an agent says by a link what is served; without one, the pairs follow
    /// the desired state.
    pub link: Option<String>,
    /// Who decides updates.
    pub updates: Updates,
    /// Milliseconds that the agent has to answer a forwarded request.
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

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A workload said something.
    Message {
        /// Who.
        peer: PeerId,
        /// What.
        message: FromWorkload,
        /// The last message to it that is in its pipe.
        written: Seq,
    },
    /// What a workload says can be understood no more; its next Hello will be found.
    Broken {
        /// Who.
        peer: PeerId,
        /// What is wrong.
        reason: String,
    },
    /// All writers of a workload have gone.
    EndOfFile(PeerId),
    /// All messages up to this one are in the workload's pipe, or were forgotten by its reset.
    Written(PeerId, Seq),
    /// The workload has taken all messages up to this one.
    Taken(PeerId, Seq),
    /// The pair of a peer is there, in this folder.
    PairOpened(PeerId, String),
    /// The pair of a peer cannot be made.
    PairFailed(PeerId, String),
    /// The pair of a peer is gone.
    PairClosed(PeerId),
    /// The agent said something.
    Agent(FromAgent),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Make the pair of an instance, and serve it.
    OpenPair(PeerId, Instance, Owner),
    /// Remove the pair; nothing will be said to it any more.
    ClosePair(PeerId),
    /// Forget what was not begun to be written, and finish or undo what was: a new session begins.
    Reset(PeerId),
    /// Send a message, behind all before it.
    Send {
        /// To whom.
        peer: PeerId,
        /// Its number.
        seq: Seq,
        /// What.
        message: ToWorkload,
        /// What is to be told of it.
        ack: AckMode,
    },
    /// Send the same to many, to each under the id of its own request and behind all before it.
    Multicast {
        /// What.
        body: ResponseBody,
        /// To whom.
        deliveries: Vec<Delivery>,
    },
    /// Read what the peer says, or leave it in its pipe.
    SetReadEnabled(PeerId, bool),
    /// Send a message to the agent, behind all before it.
    SendToAgent {
        /// Its number.
        seq: Seq,
        /// What.
        message: ToAgent,
        /// What is to be told of it.
        ack: AckMode,
    },
    /// This workload reads so slowly that events are merged for it, or that it is not read: so many
    /// bytes wait for it. Said once, until it has caught up.
    Slow(Instance, usize),
    /// It has caught up, after so many milliseconds.
    CaughtUp(Instance, u64),
    /// The agent wants the end.
    Stop,
    /// Nothing can be done together with this agent.
    EndLink(String),
}

/// One of many that are sent the same.
#[derive(Debug)]
pub struct Delivery {
    /// Who.
    pub peer: PeerId,
    /// The number of the message.
    pub seq: Seq,
    /// The id of the request that it belongs to.
    pub request_id: Arc<str>,
    /// What is to be told of it.
    pub ack: AckMode,
}

impl Delivery {
    /// What it is sent.
    #[must_use]
    pub fn message(&self, body: &ResponseBody) -> ToWorkload {
        ToWorkload::Response { request_id: Arc::clone(&self.request_id), body: body.clone() }
    }
}

/// What the broker wants to hear of a message that it hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// Nothing.
    None,
    /// [`Input::Written`], when it is in the pipe.
    Written,
    /// [`Input::Taken`], when the reader has taken it out.
    Taken,
}

/// The core. See the module.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    now: Tick,
    state: Tree,
    /// What the state weighs.
    state_bytes: usize,
    /// The version of the state.
    version: Version,
    /// The last version with something that a subscription looks below, and was told nothing of.
    unseen: Version,
    /// Answers to reads of this state.
    read_cache: ReadCache,
    /// Parts of answers to earlier ones.
    leaf_cache: LeafCache,
    /// Bytes that wait for all workloads together.
    queued: MemoryBudget,
    /// Answers and events of any size that somebody still holds.
    large: LargeBodies,
    /// Peers that are behind, by the bytes of the event for which there was no room.
    starved: BTreeSet<(usize, PeerId)>,
    peers: IdMap<PeerId, Box<Peer>>,
    by_instance: BTreeMap<Instance, PeerId>,
    next_peer: u64,
    subscriptions: Subscriptions,
    /// Whose input is being handled.
    asking: Option<PeerId>,
    fanout: Option<FanOut>,
    timers: BTreeSet<(Tick, Timer)>,
    dirty: DirtyOutboxes,
    /// All work on events so far.
    #[cfg(test)]
    work_done: usize,
    /// What is left of a slice of work; less than nothing if the last piece was larger.
    work_left: isize,
    outputs: VecDeque<Output>,
    link: Option<Link>,
    next_forward: u64,
}

/// Milliseconds after which it is looked whether there is room again for large events.
const RETRY_MS: u64 = 50;

/// Something that becomes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A subscription had its time to get ready.
    GraceOver(SubscriptionId),
    /// The agent had its time to answer this forwarded request of a peer.
    Forward(PeerId, u64),
}

impl Broker {
    /// A broker of the initial state, without workloads.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let link = config.link.clone();
        let mut broker = Self {
            config,
            now: Tick::default(),
            state_bytes: weight_after(&Tree::default(), 0, &Tree::initial()),
            state: Tree::initial(),
            version: 0,
            unseen: 0,
            read_cache: ReadCache::default(),
            leaf_cache: LeafCache::default(),
            queued: MemoryBudget::default(),
            large: LargeBodies::default(),
            starved: BTreeSet::new(),
            peers: IdMap::default(),
            by_instance: BTreeMap::new(),
            next_peer: 0,
            subscriptions: Subscriptions::default(),
            asking: None,
            fanout: None,
            timers: BTreeSet::new(),
            dirty: DirtyOutboxes::default(),
            #[cfg(test)]
            work_done: 0,
            work_left: 0,
            outputs: VecDeque::new(),
            link: None,
            next_forward: 0,
        };
        if let Some(run_dir) = link {
            broker.begin_link(run_dir);
        }
        broker
    }

    /// Takes in what happened at `now`, which never goes backwards.
    pub fn handle(&mut self, now: Tick, input: Input) {
        self.now = self.now.max(now);
        self.asking = match &input {
            Input::Message { peer, .. } => Some(*peer),
            Input::Agent(_) => Some(PeerId::AGENT),
            _ => None,
        };
        let goes_on = self.asking.is_some() || matches!(input, Input::Tick);
        match input {
            Input::Message { peer, message, written } => {
                self.note_written(peer, written);
                self.deliver_pending(peer);
                self.on_message(peer, message);
            }
            Input::Broken { peer, reason } => self.on_broken(peer, reason),
            Input::EndOfFile(peer) => self.on_end_of_file(peer),
            Input::Written(peer, seq) => self.note_written(peer, seq),
            Input::Taken(peer, seq) => self.on_taken(peer, seq),
            Input::PairOpened(peer, dir) => self.on_pair_opened(peer, dir),
            Input::PairFailed(peer, reason) => self.on_pair_failed(peer, reason),
            Input::PairClosed(peer) => self.on_pair_closed(peer),
            Input::Agent(message) => self.on_agent(message),
            Input::Tick => {}
        }
        self.run_timers();
        // What costs next to nothing comes in great numbers: that is not to bring some of this each.
        if goes_on {
            self.work_left = self.work_left.saturating_add(self.slice()).min(self.slice());
            if let Ok(work @ 1..) = usize::try_from(self.work_left) {
                let done = self.deliver_some(work);
                self.spend(done);
            }
        }
        self.feed_starved();
        self.flush_outboxes();
    }

    /// Has those looked at again for whose event there is room now.
    fn feed_starved(&mut self) {
        while let Some(&(len, id)) = self.starved.first()
            && self.large.fits(len, self.config.limits.total_bytes)
        {
            self.starved.pop_first();
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.needs = 0;
                self.dirty.note(id, peer);
                return; // the next one when it is known what this one took
            }
        }
    }

    fn slice(&self) -> isize {
        isize::try_from(self.config.slice.max(1)).unwrap_or(isize::MAX)
    }

    /// Counts work that nobody who is served now has asked for. What goes beyond a slice is paid back by
    /// the inputs that follow.
    fn spend(&mut self, work: usize) {
        self.work_left = self.work_left.saturating_sub_unsigned(work);
    }

    /// What is to be done next; call it until there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Broker::handle`] with [`Input::Tick`] if nothing else comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        if self.is_busy() {
            return Some(self.now);
        }
        // Nobody says when the last reader of a large event has it.
        let retry = (!self.starved.is_empty()).then_some(Tick(self.now.0 + RETRY_MS));
        let due = self.timers.first().map(|(due, _)| *due);
        [due, retry].into_iter().flatten().min()
    }

    /// The state of now.
    #[must_use]
    pub fn state(&self) -> &Tree {
        &self.state
    }

    /// What the state weighs, as its limit counts it.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.state_bytes
    }

    /// Whether nothing waits here to be handed out.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        !self.is_busy() && self.peers.values().all(|peer| peer.outbox.bytes() == 0)
    }

    /// The instances that are served, oldest first.
    pub fn peers(&self) -> impl Iterator<Item = (PeerId, &Instance, &Counters)> {
        let workloads = self.workloads().into_iter();
        workloads.map(|(id, peer)| (id, &peer.instance, &peer.counters))
    }

    fn workloads(&self) -> Vec<(PeerId, &Peer)> {
        let workloads = self.peers.iter().filter(|(id, _)| **id != PeerId::AGENT);
        let mut workloads: Vec<_> = workloads.map(|(id, peer)| (*id, &**peer)).collect();
        workloads.sort_unstable_by_key(|(id, _)| *id);
        workloads
    }

    fn note_written(&mut self, peer: PeerId, seq: Seq) {
        if let Some(found) = self.peers.get_mut(&peer) {
            found.outbox.note_written(seq, self.now);
            if !found.is_clean() {
                self.dirty.note(peer, found);
            }
        }
    }
}

#[cfg(test)]
mod tests;
