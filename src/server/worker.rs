//! Worker: runs the broker on messages from the event loop.
//!
//! Port events and notices come in; frames and commands for the ports go out. The queue of messages is
//! fair between peers. [`SharedWorker`] chooses the thread that does the work.
//!
//! Invariants: no call on any FIFO is made here; messages of one peer are handled in order, and their
//! results leave in the order of the decisions.

mod fair_queue;
mod inline;
mod log_lines;

use std::{
    collections::HashMap,
    fs, mem,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

use crate::{
    broker::{Broker, Delivery, Input, Output, PeerId, Seq, Tick},
    limits::Limits,
    message::{FromAgent, FromWorkload, Owner, ResponseBody, ToWorkload},
    state::Instance,
    status,
};

use fair_queue::FairQueue;
pub(super) use inline::SharedWorker;

use super::{
    error::PairError,
    event_loop::InFlight,
    handle::Progress,
    log_limiter::LogLimiter,
    port::{FromPort, Misbehavior, OutFrame},
    status_socket::ClientId,
};

/// Most messages handled before their results are sent and the inbox is read again.
const BATCH: usize = 64;
/// Longest time until then.
const MOST_TIME: Duration = Duration::from_millis(1);
/// A batch of this size is sent even if more follows: the event loop begins to write the events of a
/// large update while the rest is being made.
const MOST_IN_BATCH: usize = 256;

/// Ports with something to report: duration of the current block, and misbehaviors.
pub(super) type PortStatuses = HashMap<PeerId, (Option<Duration>, Vec<Misbehavior>)>;

/// A client that waits for the status.
pub(super) enum StatusClient {
    /// A connection to the status socket.
    Socket(ClientId),
    /// The handle of the server.
    Handle(Sender<Vec<u8>>),
}

/// Message of the event loop to the worker.
pub(super) enum ToWorker {
    /// An event of a port.
    Port {
        peer: PeerId,
        event: FromPort,
        /// Last frame to this peer in the pipe.
        written: Seq,
        /// Charge to return to `in_flight` after handling.
        bytes: usize,
        in_flight: Arc<InFlight>,
    },
    /// For each peer, all frames up to this one are in its pipe.
    Written(Vec<(PeerId, Seq)>),
    /// The reader of this peer has drained all frames up to this one.
    Taken(PeerId, Seq),
    /// The pair is open, in this folder; or the reason of the failure.
    PairOpened(PeerId, Result<String, PairError>),
    /// The pair is closed.
    PairClosed(PeerId),
    /// The agent has closed the link.
    AgentLost,
    /// A client waits for the status.
    Status(StatusClient, PortStatuses),
    /// The stop begins: only notices follow.
    Stop,
}

/// Message of the worker to the event loop.
pub(super) enum FromWorker {
    Open(PeerId, Instance, Owner),
    Close(PeerId),
    Reset(PeerId),
    DropClosed(PeerId, Seq),
    Send(PeerId, OutFrame),
    Multicast(ResponseBody, Vec<Delivery>),
    SendToAgent(OutFrame),
    SetReadEnabled(PeerId, bool),
    Status(ClientId, Vec<u8>),
    /// The agent has said Hello.
    AgentIsThere,
    /// Stop, at the agent's request.
    Stop,
    /// Stop with this error.
    Fail(String),
    /// Enough messages of this peer were handled to read it again.
    Handled(PeerId),
    /// Report readiness after all messages before this one are done.
    Ready(Sender<Progress>),
    /// The worker has no more to hand out.
    Drained,
}

/// A queued event of a port.
struct Message {
    event: FromPort,
    written: Seq,
    bytes: usize,
    in_flight: Arc<InFlight>,
}

/// The broker with its queue, its channels and its clock.
pub(super) struct Worker {
    broker: Broker,
    limits: Limits,
    began: Instant,
    inbox: Receiver<Vec<ToWorker>>,
    /// Events of the workloads and of the agent, not handled yet.
    queue: FairQueue<Message>,
    event_loop: Sender<Vec<FromWorker>>,
    waker: Arc<Waker>,
    /// Messages for the event loop, not sent yet.
    batch: Vec<FromWorker>,
    /// Number of frames in the batch; a multicast counts each delivery.
    in_batch: usize,
    /// The batch is returned to the event loop, which runs the worker inline, instead of being sent.
    runs_inline: bool,
    /// Time at which the sleeping worker thread wakes by itself.
    sleeps_until: Option<Tick>,
    run_dir: PathBuf,
    /// As shown in the status: `none`, `connected` or `lost`.
    agent_link: &'static str,
    stopping: bool,
    log_limiter: LogLimiter,
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
            runs_inline: false,
            sleeps_until: None,
            run_dir,
            agent_link,
            stopping,
            log_limiter: LogLimiter::default(),
        }
    }

    /// Handles received messages or a due deadline, for at most one slice.
    fn work(&mut self) {
        self.log_limiter.tell_left_out(Instant::now());
        let mut idle = self.queue.is_idle();
        for batch in self.inbox.clone().try_iter().take(BATCH) {
            idle = false;
            self.sort_all(batch);
        }
        // Every other input runs the timers of the broker as well.
        if idle && self.broker.next_deadline().is_some_and(|due| due <= self.now()) {
            self.broker.handle(self.now(), Input::Tick);
        }
        self.serve();
        self.finish();
    }

    /// Handles messages for a caller that carries out the results. Returns them.
    fn work_for(&mut self, messages: Vec<ToWorker>) -> Vec<FromWorker> {
        self.runs_inline = true;
        self.sort_all(messages);
        self.serve();
        self.finish();
        self.runs_inline = false;
        self.in_batch = 0;
        mem::take(&mut self.batch)
    }

    /// True if nothing is left to do before the next message or deadline.
    fn is_idle(&self) -> bool {
        self.queue.is_idle() && self.inbox.is_empty() && !self.broker.has_work()
    }

    /// End of the thread's sleep without a message. Outer `None`: there is work, so no sleep.
    fn sleep(&mut self) -> Option<Option<Instant>> {
        self.sleeps_until = self.next_deadline();
        let until = self.sleeps_until.map(|Tick(due)| self.began + Duration::from_millis(due));
        self.is_idle().then_some(until)
    }

    /// True if the thread sleeps longer than the current work allows.
    fn oversleeps(&self) -> bool {
        let due = self.next_deadline();
        let earlier = |due| self.sleeps_until.is_none_or(|until| due < until);
        !self.is_idle() || due.is_some_and(earlier)
    }

    /// The next time at which there is work without a message.
    fn next_deadline(&self) -> Option<Tick> {
        // One more: the end of a window is between two ticks.
        let lines = self.log_limiter.due().map(|due| Tick(self.tick_at(due).0 + 1));
        self.broker.next_deadline().into_iter().chain(lines).min()
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

    /// Handles cheap messages at once, and queues the events of ports. So delivery progress of a peer
    /// reaches the broker even while its own messages wait.
    fn sort(&mut self, now: Tick, message: ToWorker) {
        let input = match message {
            ToWorker::Stop => {
                self.stopping = true;
                return;
            }
            ToWorker::Status(client, port_statuses) => {
                let status = self.status(port_statuses);
                match client {
                    StatusClient::Socket(client) => self.send(FromWorker::Status(client, status)),
                    // The handle may be gone.
                    StatusClient::Handle(client) => drop(client.send(status)),
                }
                return;
            }
            ToWorker::AgentLost => {
                self.agent_link = "lost";
                return;
            }
            ToWorker::PairOpened(peer, Ok(dir)) => Input::PairOpened(peer, dir),
            ToWorker::PairOpened(peer, Err(error)) => Input::PairFailed(peer, error.to_string()),
            ToWorker::PairClosed(peer) => {
                // Its messages have no session any more to be handled in.
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

    /// Handles queued events for at most one slice, and hands out the results.
    fn serve(&mut self) {
        let mut began = Instant::now();
        let end = began + MOST_TIME;
        for handled in 0..BATCH {
            let Some((peer, message)) = self.queue.pop() else {
                // Without an event there are the results of notices and timers, and of earlier events.
                if handled == 0 {
                    self.hand_out();
                }
                return;
            };
            // True once for each pause: a `Handled` for every message would wake the loop as often.
            if message.in_flight.handled(message.bytes) {
                self.send(FromWorker::Handled(peer));
            }
            if let Some(input) = self.input_of(peer, message.event, message.written) {
                self.broker.handle(self.tick_at(began), input);
                self.note_agent();
            }
            // One reading of the clock ends this message and begins the next one.
            let now = Instant::now();
            self.queue.charge(peer, now - began);
            // After each event: it may pause this peer in the queue, because of a full outbox.
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
            self.send(FromWorker::AgentIsThere);
        }
    }

    fn input_of(&mut self, peer: PeerId, event: FromPort, written: Seq) -> Option<Input> {
        Some(match event {
            FromPort::Frame(body) if peer == PeerId::AGENT => {
                match FromAgent::decode(&body, &self.limits) {
                    Ok(message) => {
                        self.trace_received(peer, &message);
                        Input::Agent(message)
                    }
                    Err(error) => {
                        let why = format!("a message of the agent does not decode: {error}");
                        self.send(FromWorker::Fail(why));
                        return None;
                    }
                }
            }
            FromPort::Frame(body) => {
                let message = FromWorkload::decode(&body, &self.limits);
                self.trace_received(peer, &message);
                Input::Message { peer, message, written }
            }
            FromPort::Broken(error) => Input::Broken { peer, reason: error.to_string() },
            FromPort::EndOfFile => Input::EndOfFile(peer),
            FromPort::Unused => Input::Unused(peer),
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

    /// Translates the outputs of the broker into messages for the event loop, until the end of a slice:
    /// other events have their turn before the next slice.
    fn hand_out(&mut self) {
        while let Some(output) = self.broker.poll_output() {
            let message = match output {
                Output::OpenPair(peer, instance, owner) => FromWorker::Open(peer, instance, owner),
                Output::ClosePair(peer) => FromWorker::Close(peer),
                Output::Reset(peer) => FromWorker::Reset(peer),
                Output::DropClosed(peer, up_to) => FromWorker::DropClosed(peer, up_to),
                Output::SetReadEnabled(peer, on) => {
                    // Its messages already here wait, too, not only those in its pipe.
                    self.queue.pause(peer, !on);
                    FromWorker::SetReadEnabled(peer, on)
                }
                Output::Send { peer, seq, message, ack } => {
                    self.trace_sent(peer, &message);
                    let closes = matches!(message, ToWorkload::Closed { .. });
                    let frame = message.into_frame();
                    FromWorker::Send(peer, OutFrame { seq, frame, ack, closes })
                }
                Output::Multicast { body, deliveries } => {
                    self.trace_multicast(&body, &deliveries);
                    self.in_batch += deliveries.len();
                    FromWorker::Multicast(body, deliveries)
                }
                Output::SendToAgent { seq, message, ack } => {
                    self.trace_sent(PeerId::AGENT, &message);
                    let frame = message.into_frame();
                    FromWorker::SendToAgent(OutFrame { seq, frame, ack, closes: false })
                }
                Output::Slow(instance, bytes) => {
                    self.log_slow(&instance, bytes);
                    continue;
                }
                Output::CaughtUp(instance, after) => {
                    self.log_caught_up(&instance, after);
                    continue;
                }
                Output::Denied(instance, denial) => {
                    self.log_denial(&instance, &denial);
                    continue;
                }
                Output::Stop => FromWorker::Stop,
                Output::EndLink(reason) => FromWorker::Fail(reason),
                Output::Yield => return,
            };
            self.send(message);
        }
    }

    /// Ends a batch by sending it.
    fn finish(&mut self) {
        if self.stopping && self.queue.is_idle() && self.broker.is_drained() {
            self.send(FromWorker::Drained);
        }
        // During a fan-out only large batches are sent, as each one wakes the event loop.
        if !self.batch.is_empty() && !self.broker.is_fanning_out() && !self.runs_inline {
            self.send_batch();
        }
    }

    fn send(&mut self, message: FromWorker) {
        self.batch.push(message);
        self.in_batch += 1;
        if self.in_batch >= MOST_IN_BATCH && !self.runs_inline {
            self.send_batch();
        }
    }

    fn send_batch(&mut self) {
        // The event loop ends first. Messages after its end have no receiver.
        let _ = self.event_loop.send(mem::take(&mut self.batch));
        self.in_batch = 0;
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the event loop: {error}");
        }
    }
}

fn port_status((held, misbehaviors): (Option<Duration>, Vec<Misbehavior>)) -> status::PortStatus {
    status::PortStatus {
        held_ms: held.map(|held| u64::try_from(held.as_millis()).unwrap_or(u64::MAX)),
        misbehaviors: misbehaviors.into_iter().map(Misbehavior::name).collect(),
    }
}

/// Resident memory of the process; 0 if the kernel does not report it.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    // The second field is the resident set, in pages.
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
