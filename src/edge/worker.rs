//! The thread of the broker: takes what the ports bring, lets the broker decide, and hands frames
//! back, encoded. It makes no call on any FIFO.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use mio::Waker;

use crate::{
    broker::{Broker, Input, Notice, Output, PeerId, Seq, Tick},
    frame::{put_varint, varint_len},
    limits::Limits,
    message::{FromAgent, FromWorkload, Owner},
    state::Instance,
    stats,
};

use super::{
    port::{FromPort, OutFrame},
    reactor::InFlight,
    status::ClientId,
};

/// Messages handled before what came of them is handed on.
const BATCH: usize = 128;

/// What the reactor tells the worker.
pub(super) enum FromReactor {
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
    /// The pair is there, in this folder; or it cannot be made.
    PairOpened(PeerId, Result<String, String>),
    /// The pair is gone.
    PairClosed(PeerId),
    /// The agent has hung up.
    AgentLost,
    /// Somebody wants to know the status.
    Status(ClientId),
    /// Nothing more will come but notices.
    Stop,
}

/// What the worker tells the reactor.
pub(super) enum ToReactor {
    Open(PeerId, Instance, Owner),
    Close(PeerId),
    Reset(PeerId),
    Send(PeerId, OutFrame),
    Tell(OutFrame),
    Reading(PeerId, bool),
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

/// The worker's half of the channels.
pub(super) struct Worker {
    broker: Broker,
    limits: Limits,
    began: Instant,
    inbox: Receiver<FromReactor>,
    reactor: Sender<ToReactor>,
    waker: Arc<Waker>,
    run_dir: PathBuf,
    /// As the status calls it: `none`, `connected` or `lost`.
    agent_link: &'static str,
    stopping: bool,
}

impl Worker {
    pub(super) fn new(
        broker: Broker,
        limits: Limits,
        run_dir: PathBuf,
        inbox: Receiver<FromReactor>,
        reactor: Sender<ToReactor>,
        waker: Arc<Waker>,
    ) -> Self {
        let (began, agent_link) = (Instant::now(), "none");
        Self { broker, limits, began, inbox, reactor, waker, run_dir, agent_link, stopping: false }
    }

    /// Works until the reactor is gone. `begun` is called when the state to begin with was handed
    /// on.
    pub(super) fn run(mut self, begun: impl FnOnce()) {
        self.hand_out();
        begun();
        while let Some(first) = self.next() {
            let mut parked = Vec::new();
            for message in first.into_iter().chain(self.inbox.clone().try_iter().take(BATCH)) {
                self.take(message, &mut parked);
            }
            for peer in parked {
                self.tell(ToReactor::Handled(peer));
            }
            self.hand_out();
        }
    }

    /// Waits for a message, or until something is due; `None` when there will be no more.
    fn next(&mut self) -> Option<Option<FromReactor>> {
        let Some(Tick(due)) = self.broker.next_deadline() else {
            return self.inbox.recv().ok().map(Some);
        };
        match self.inbox.recv_deadline(self.began + Duration::from_millis(due)) {
            Ok(message) => Some(Some(message)),
            Err(RecvTimeoutError::Timeout) => {
                self.broker.handle(self.now(), Input::Tick);
                Some(None)
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn take(&mut self, message: FromReactor, parked: &mut Vec<PeerId>) {
        let input = match message {
            FromReactor::Stop => {
                self.stopping = true;
                return;
            }
            FromReactor::Status(client) => {
                let status = self.status();
                return self.tell(ToReactor::Status(client, status));
            }
            FromReactor::AgentLost => {
                self.agent_link = "lost";
                return;
            }
            FromReactor::PairOpened(peer, Ok(dir)) => Input::PairOpened(peer, dir),
            FromReactor::PairOpened(peer, Err(reason)) => Input::PairFailed(peer, reason),
            FromReactor::PairClosed(peer) => Input::PairClosed(peer),
            FromReactor::Port { peer, event, written, bytes, in_flight } => {
                if in_flight.handled(bytes) {
                    parked.push(peer);
                }
                let Some(input) = self.input_of(peer, event, written) else { return };
                input
            }
        };
        self.broker.handle(self.now(), input);
        if self.agent_link == "none" && self.broker.agent_name().is_some() {
            self.agent_link = "connected";
        }
    }

    fn input_of(&self, peer: PeerId, event: FromPort, written: Seq) -> Option<Input> {
        Some(match event {
            FromPort::Frame(body) if peer == PeerId::AGENT => {
                match FromAgent::decode(&body, &self.limits) {
                    Ok(message) => Input::Agent(message),
                    Err(error) => {
                        let why = format!("a message of the agent does not decode: {error}");
                        self.tell(ToReactor::Fail(why));
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
            FromPort::Written(seq) => Input::Written(peer, seq),
            FromPort::Taken(seq) => Input::Taken(peer, seq),
        })
    }

    fn status(&self) -> Vec<u8> {
        let around = stats::Circumstances {
            uptime_s: self.began.elapsed().as_secs(),
            run_dir: &self.run_dir,
            agent_link: self.agent_link,
            rss_bytes: resident_bytes(),
            state_leaves: self.broker.state().leaves(),
        };
        let mut text = stats::status(&around, &self.broker.report()).to_string().into_bytes();
        text.push(b'\n');
        text
    }

    fn hand_out(&mut self) {
        let mut any = false;
        while let Some(output) = self.broker.poll_output() {
            any = true;
            self.send(match output {
                Output::OpenPair(peer, instance, owner) => ToReactor::Open(peer, instance, owner),
                Output::ClosePair(peer) => ToReactor::Close(peer),
                Output::Reset(peer) => ToReactor::Reset(peer),
                Output::Reading(peer, on) => ToReactor::Reading(peer, on),
                Output::Send { peer, seq, message, notice } => {
                    ToReactor::Send(peer, frame(seq, message.encode(), notice))
                }
                Output::Tell { seq, message, notice } => {
                    ToReactor::Tell(frame(seq, message.encode(), notice))
                }
                Output::Stop => ToReactor::Stop,
                Output::EndLink(reason) => ToReactor::Fail(reason),
            });
        }
        if self.stopping && self.broker.is_drained() {
            self.send(ToReactor::Drained);
            any = true;
        }
        if any {
            self.wake();
        }
    }

    fn tell(&self, message: ToReactor) {
        self.send(message);
        self.wake();
    }

    fn send(&self, message: ToReactor) {
        // The reactor ends before we do, and then nobody is left to be told anything.
        let _ = self.reactor.send(message);
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the reactor: {error}");
        }
    }
}

/// A message with its length in front; its body stays shared.
fn frame(seq: Seq, (head, body): (Bytes, Bytes), notice: Notice) -> OutFrame {
    let len = (head.len() + body.len()) as u64;
    let mut framed = BytesMut::with_capacity(varint_len(len) + head.len());
    put_varint(&mut framed, len);
    framed.extend_from_slice(&head);
    OutFrame { seq, head: Bytes::from(framed), body, notice }
}

/// Our resident memory; 0 where the kernel does not tell.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
