//! The thread of the broker: takes what the ports bring, lets the broker decide, and hands frames
//! back, encoded. It makes no call on any FIFO.

use std::{
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
    message::{FromWorkload, ToWorkload},
    state::Instance,
};

use super::{
    port::{FromPort, OutFrame},
    reactor::InFlight,
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
    /// Nothing more will come but notices.
    Stop,
}

/// What the worker tells the reactor.
pub(super) enum ToReactor {
    Open(PeerId, Instance),
    Close(PeerId),
    Reset(PeerId),
    Send(PeerId, OutFrame),
    Reading(PeerId, bool),
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
    stopping: bool,
}

impl Worker {
    pub(super) fn new(
        broker: Broker,
        limits: Limits,
        inbox: Receiver<FromReactor>,
        reactor: Sender<ToReactor>,
        waker: Arc<Waker>,
    ) -> Self {
        Self { broker, limits, began: Instant::now(), inbox, reactor, waker, stopping: false }
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
        match message {
            FromReactor::Stop => self.stopping = true,
            FromReactor::Port { peer, event, written, bytes, in_flight } => {
                let input = match event {
                    FromPort::Frame(body) => {
                        let message = FromWorkload::decode(&body, &self.limits);
                        Input::Message { peer, message, written }
                    }
                    FromPort::Broken(error) => Input::Broken { peer, reason: error.to_string() },
                    FromPort::EndOfFile => Input::EndOfFile(peer),
                    FromPort::Written(seq) => Input::Written(peer, seq),
                    FromPort::Taken(seq) => Input::Taken(peer, seq),
                };
                self.broker.handle(self.now(), input);
                if in_flight.handled(bytes) {
                    parked.push(peer);
                }
            }
        }
    }

    fn hand_out(&mut self) {
        let mut any = false;
        while let Some(output) = self.broker.poll_output() {
            any = true;
            let message = match output {
                Output::OpenPair(peer, instance) => ToReactor::Open(peer, instance),
                Output::ClosePair(peer) => ToReactor::Close(peer),
                Output::Reset(peer) => ToReactor::Reset(peer),
                Output::Reading(peer, on) => ToReactor::Reading(peer, on),
                Output::Send { peer, seq, message, notice } => {
                    ToReactor::Send(peer, frame(seq, &message, notice))
                }
            };
            self.send(message);
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
fn frame(seq: Seq, message: &ToWorkload, notice: Notice) -> OutFrame {
    let (head, body) = message.encode();
    let len = (head.len() + body.len()) as u64;
    let mut framed = BytesMut::with_capacity(varint_len(len) + head.len());
    put_varint(&mut framed, len);
    framed.extend_from_slice(&head);
    OutFrame { seq, head: Bytes::from(framed), body, notice }
}
