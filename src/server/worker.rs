//! What the broker works with: takes what the ports bring, lets the broker decide, and hands frames
//! back. It makes no call on any FIFO. Who does the work, and when, is the [`SharedWorker`]'s business.

mod fair_queue;
mod inline;

use std::{
    collections::HashMap,
    fs, mem,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use log::Level;
use mio::Waker;

use crate::{
    broker::{Broker, Delivery, Input, Output, PeerId, Seq, Tick},
    limits::Limits,
    message::{FromAgent, FromWorkload, Owner, ResponseBody},
    state::Instance,
    status,
};

use fair_queue::FairQueue;
pub(super) use inline::SharedWorker;

use super::{
    event_loop::InFlight,
    log_limiter::{Kind, LogLimiter},
    port::{FromPort, Misbehavior, OutFrame},
    status_socket::ClientId,
};

/// Messages handled before what came of them is handed on, and what came in is looked at.
const BATCH: usize = 64;
/// Time after which that is done in any case.
const SLICE: Duration = Duration::from_millis(1);
/// Messages to the event loop that are handed on even if there are more to come: it begins to write what
/// a large update causes while the rest is being made.
const MOST_IN_BATCH: usize = 256;

/// Which workloads are held or odd: for how long a thread has been in one of their pipes, and what was
/// reported of them.
pub(super) type PortStatuses = HashMap<PeerId, (Option<Duration>, Vec<Misbehavior>)>;

/// What the event loop tells the worker.
pub(super) enum ToWorker {
    /// Something from a port.
    Port {
        peer: PeerId,
        event: FromPort,
        /// The last frame to it that is in the pipe.
        written: Seq,
        /// What to give back when it was handled, and where.
        bytes: usize,
        in_flight: Arc<InFlight>,
    },
    /// All frames to each of these peers up to this one are in its pipe.
    Written(Vec<(PeerId, Seq)>),
    /// The reader of this peer has taken all frames up to this one.
    Taken(PeerId, Seq),
    /// The pair is there, in this folder; or it cannot be made.
    PairOpened(PeerId, Result<String, String>),
    /// The pair is gone.
    PairClosed(PeerId),
    /// The agent has hung up.
    AgentLost,
    /// Somebody wants to know the status.
    Status(ClientId, PortStatuses),
    /// Nothing more will come but notices.
    Stop,
}

/// What the worker tells the event loop.
pub(super) enum FromWorker {
    Open(PeerId, Instance, Owner),
    Close(PeerId),
    Reset(PeerId),
    Send(PeerId, OutFrame),
    Multicast(ResponseBody, Vec<Delivery>),
    SendToAgent(OutFrame),
    SetReadEnabled(PeerId, bool),
    Status(ClientId, Vec<u8>),
    /// Stop: the agent wants it.
    Stop,
    /// Stop: this is wrong.
    Fail(String),
    /// What was on its way from this peer was handled.
    Handled(PeerId),
    /// Answer when everything before was done.
    Sync(Sender<()>),
    /// Nothing is left to be handed out.
    Drained,
}

/// Something that a port brought.
struct Message {
    event: FromPort,
    written: Seq,
    bytes: usize,
    in_flight: Arc<InFlight>,
}

/// The worker's half of the channels.
pub(super) struct Worker {
    broker: Broker,
    limits: Limits,
    began: Instant,
    inbox: Receiver<Vec<ToWorker>>,
    /// What the workloads and the agent said and was not handled yet.
    queue: FairQueue<Message>,
    event_loop: Sender<Vec<FromWorker>>,
    waker: Arc<Waker>,
    /// What the event loop is to be sent.
    batch: Vec<FromWorker>,
    /// For so many.
    in_batch: usize,
    /// It is not sent but given to the event loop, which waits for it.
    gives: bool,
    /// When the thread wakes by itself.
    sleeps_until: Option<Tick>,
    run_dir: PathBuf,
    /// As the status calls it: `none`, `connected` or `lost`.
    agent_link: &'static str,
    stopping: bool,
    pace: LogLimiter,
}

impl Worker {
    pub(super) fn new(
        broker: Broker,
        limits: Limits,
        run_dir: PathBuf,
        inbox: Receiver<Vec<ToWorker>>,
        event_loop: Sender<Vec<FromWorker>>,
        waker: Arc<Waker>,
    ) -> Self {
        let (began, agent_link) = (Instant::now(), "none");
        let queue = FairQueue::default();
        let stopping = false;
        Self {
            broker,
            limits,
            began,
            inbox,
            queue,
            event_loop,
            waker,
            batch: Vec::new(),
            in_batch: 0,
            gives: false,
            sleeps_until: None,
            run_dir,
            agent_link,
            stopping,
            pace: LogLimiter::default(),
        }
    }

    /// Handles what came in, or what is due, for a while.
    fn work(&mut self) {
        let mut idle = self.queue.is_idle();
        for batch in self.inbox.clone().try_iter().take(BATCH) {
            idle = false;
            self.sort_all(batch);
        }
        if idle && self.broker.next_deadline().is_some_and(|due| due <= self.now()) {
            self.broker.handle(self.now(), Input::Tick);
        }
        self.serve();
        self.hand_out(); // also what timers brought
        self.finish();
    }

    /// Handles messages for whoever is to be told what came of it; gives that.
    fn work_for(&mut self, messages: Vec<ToWorker>) -> Vec<FromWorker> {
        self.gives = true;
        self.sort_all(messages);
        self.serve();
        self.hand_out();
        self.finish();
        self.gives = false;
        self.in_batch = 0;
        mem::take(&mut self.batch)
    }

    /// Whether there is nothing to do before something comes in or is due.
    fn is_idle(&self) -> bool {
        self.queue.is_idle() && self.inbox.is_empty() && !self.broker.is_busy()
    }

    /// Until when its thread sleeps if nothing comes in; `None`: not at all.
    fn sleep(&mut self) -> Option<Option<Instant>> {
        self.sleeps_until = self.broker.next_deadline();
        let until = self.sleeps_until.map(|Tick(due)| self.began + Duration::from_millis(due));
        self.is_idle().then_some(until)
    }

    /// Whether its thread sleeps too long for what there is to do now.
    fn oversleeps(&self) -> bool {
        let due = self.broker.next_deadline();
        let earlier = |due| self.sleeps_until.is_none_or(|until| due < until);
        !self.is_idle() || due.is_some_and(earlier)
    }

    fn now(&self) -> Tick {
        self.tick_at(Instant::now())
    }

    fn tick_at(&self, time: Instant) -> Tick {
        let since = time.saturating_duration_since(self.began);
        Tick(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sort_all(&mut self, messages: Vec<ToWorker>) {
        let now = self.now();
        messages.into_iter().for_each(|message| self.sort(now, message));
    }

    /// Takes what costs next to nothing at once, and puts the rest into the queue. So what a workload
    /// has read is known, whatever it still waits for.
    fn sort(&mut self, now: Tick, message: ToWorker) {
        let input = match message {
            ToWorker::Stop => {
                self.stopping = true;
                return;
            }
            ToWorker::Status(client, port_statuses) => {
                let status = self.status(port_statuses);
                return self.send(FromWorker::Status(client, status));
            }
            ToWorker::AgentLost => {
                self.agent_link = "lost";
                return;
            }
            ToWorker::PairOpened(peer, Ok(dir)) => Input::PairOpened(peer, dir),
            ToWorker::PairOpened(peer, Err(reason)) => Input::PairFailed(peer, reason),
            ToWorker::PairClosed(peer) => {
                self.queue.remove(peer);
                Input::PairClosed(peer)
            }
            ToWorker::Written(all) => {
                let inputs = all.into_iter().map(|(peer, seq)| Input::Written(peer, seq));
                return inputs.for_each(|input| self.broker.handle(now, input));
            }
            ToWorker::Taken(peer, seq) => Input::Taken(peer, seq),
            ToWorker::Port { peer, event, written, bytes, in_flight } => {
                let message = Message { event, written, bytes, in_flight };
                return self.queue.push(peer, message);
            }
        };
        self.broker.handle(now, input);
    }

    /// Handles what is in the queue, for a while.
    fn serve(&mut self) {
        let mut began = Instant::now();
        let end = began + SLICE;
        for _ in 0..BATCH {
            let Some((peer, message)) = self.queue.pop() else { return };
            if message.in_flight.handled(message.bytes) {
                self.send(FromWorker::Handled(peer));
            }
            if let Some(input) = self.input_of(peer, message.event, message.written) {
                self.broker.handle(self.tick_at(began), input);
                self.note_agent();
            }
            let now = Instant::now();
            self.queue.charge(peer, now - began);
            // At once: whose answers wait is not to be served further.
            self.hand_out();
            if now >= end {
                return;
            }
            began = now;
        }
    }

    fn note_agent(&mut self) {
        if self.agent_link == "none" && self.broker.agent_name().is_some() {
            self.agent_link = "connected";
        }
    }

    fn input_of(&mut self, peer: PeerId, event: FromPort, written: Seq) -> Option<Input> {
        Some(match event {
            FromPort::Frame(body) if peer == PeerId::AGENT => {
                match FromAgent::decode(&body, &self.limits) {
                    Ok(message) => Input::Agent(message),
                    Err(error) => {
                        let why = format!("a message of the agent does not decode: {error}");
                        self.send(FromWorker::Fail(why));
                        return None;
                    }
                }
            }
            FromPort::Frame(body) => {
                let message = FromWorkload::decode(&body, &self.limits);
                Input::Message { peer, message, written }
            }
            FromPort::Broken(error) => Input::Broken { peer, reason: error.to_string() },
            FromPort::EndOfFile => Input::EndOfFile(peer),
        })
    }

    fn status(&self, port_statuses: PortStatuses) -> Vec<u8> {
        let around = status::ServerStatus {
            uptime_s: self.began.elapsed().as_secs(),
            run_dir: &self.run_dir,
            agent_link: self.agent_link,
            agent_trouble: self.broker.agent_trouble(),
            rss_bytes: resident_bytes(),
            state_leaves: self.broker.state().leaves(),
            state_bytes: self.broker.state_bytes(),
            port_statuses: port_statuses
                .into_iter()
                .map(|(peer, own)| (peer, port_status(own)))
                .collect(),
        };
        let mut text = status::status(&around, &self.broker.report()).to_string().into_bytes();
        text.push(b'\n');
        text
    }

    /// PortState for the event loop what the broker decided.
    fn hand_out(&mut self) {
        while let Some(output) = self.broker.poll_output() {
            let message = match output {
                Output::OpenPair(peer, instance, owner) => FromWorker::Open(peer, instance, owner),
                Output::ClosePair(peer) => FromWorker::Close(peer),
                Output::Reset(peer) => FromWorker::Reset(peer),
                Output::SetReadEnabled(peer, on) => {
                    self.queue.pause(peer, !on);
                    FromWorker::SetReadEnabled(peer, on)
                }
                Output::Send { peer, seq, message, ack } => {
                    let frame = message.into_frame();
                    FromWorker::Send(peer, OutFrame { seq, frame, ack })
                }
                Output::Multicast { body, deliveries } => {
                    self.in_batch += deliveries.len();
                    FromWorker::Multicast(body, deliveries)
                }
                Output::SendToAgent { seq, message, ack } => {
                    FromWorker::SendToAgent(OutFrame { seq, frame: message.into_frame(), ack })
                }
                Output::Slow(instance, bytes) => {
                    let name = instance.to_string();
                    let text = format_args!("{name} reads too slowly: {bytes} bytes wait for it");
                    self.pace.say(Level::Warn, Kind::Slow, &name, text);
                    continue;
                }
                Output::CaughtUp(instance, after) => {
                    let name = instance.to_string();
                    let text = format_args!("{name} has read what waited for it, after {after} ms");
                    self.pace.say(Level::Info, Kind::CaughtUp, &name, text);
                    continue;
                }
                Output::Stop => FromWorker::Stop,
                Output::EndLink(reason) => FromWorker::Fail(reason),
            };
            self.send(message);
        }
    }

    /// Ends a batch: the event loop is to look at what it was sent.
    fn finish(&mut self) {
        if self.stopping && self.queue.is_idle() && self.broker.is_drained() {
            self.send(FromWorker::Drained);
        }
        // What many are told is handed on in large batches: each wakes the event loop.
        if !self.batch.is_empty() && !self.broker.is_fanning_out() && !self.gives {
            self.send_batch();
        }
    }

    fn send(&mut self, message: FromWorker) {
        self.batch.push(message);
        self.in_batch += 1;
        if self.in_batch >= MOST_IN_BATCH && !self.gives {
            self.send_batch();
        }
    }

    fn send_batch(&mut self) {
        // The event loop ends before we do, and then nobody is left to be told anything.
        let _ = self.event_loop.send(mem::take(&mut self.batch));
        self.in_batch = 0;
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the event_loop: {error}");
        }
    }
}

fn port_status((held, misbehaviors): (Option<Duration>, Vec<Misbehavior>)) -> status::PortStatus {
    status::PortStatus {
        held_ms: held.map(|held| u64::try_from(held.as_millis()).unwrap_or(u64::MAX)),
        misbehaviors: misbehaviors.into_iter().map(Misbehavior::name).collect(),
    }
}

/// Our resident memory; 0 where the kernel does not tell.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
