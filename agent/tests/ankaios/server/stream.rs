//! One call of an agent, in the hands of a test.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use fifogate::pb::ank_base as pb;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::{
    PATIENCE,
    messages::{AddedWorkload, AgentHello, FromServer, ToServer, ToServerContent},
    port::Peer,
};

/// What comes from an agent.
#[derive(Debug)]
pub(crate) enum Incoming {
    Message(ToServer),
    /// The agent has ended its half of the stream, or has cancelled the call.
    HalfClosed,
    /// The stream is broken: by the network, by a message that does not decode, or by one above 4 MiB.
    Broken(Status),
}

/// Messages of one stream to its agent; an error ends it.
pub(super) type Outgoing = mpsc::UnboundedSender<Result<FromServer, Status>>;

/// A stream that was opened by an agent. Dropped, it ends with OK.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its number since the port was opened first, from 0.
    pub(crate) number: usize,
    pub(crate) opened: Instant,
    pub(super) peer: Peer,
    pub(super) incoming: Receiver<Incoming>,
    pub(super) headers: Option<oneshot::Sender<Result<(), Status>>>,
    pub(super) outgoing: Option<Outgoing>,
}

impl Stream {
    /// Whatever comes next, within this time.
    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<Incoming> {
        match self.incoming.recv_timeout(patience) {
            Ok(incoming) => Some(incoming),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Incoming::HalfClosed),
        }
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> ToServer {
        match self.next_within(PATIENCE) {
            Some(Incoming::Message(message)) => message,
            other => panic!("no message, but {other:?}"),
        }
    }

    /// The next message that is no load status.
    pub(crate) fn next_but_load(&mut self) -> ToServerContent {
        loop {
            match self.next().content {
                Some(ToServerContent::AgentLoadStatus(_)) => {}
                Some(content) => return content,
                None => panic!("an empty message"),
            }
        }
    }

    /// The states of the next message that is no load status.
    pub(crate) fn next_states(&mut self) -> Vec<pb::WorkloadState> {
        match self.next_but_load() {
            ToServerContent::UpdateWorkloadState(states) => states.workload_states,
            other => panic!("no states, but {other:?}"),
        }
    }

    /// The next message that is no load status, which is a request.
    pub(crate) fn next_request(&mut self) -> pb::Request {
        match self.next_but_load() {
            ToServerContent::Request(request) => request,
            other => panic!("no request, but {other:?}"),
        }
    }

    /// The first message, which is a hello.
    pub(crate) fn read_hello(&mut self) -> AgentHello {
        match self.next().content {
            Some(ToServerContent::AgentHello(hello)) => hello,
            other => panic!("no hello, but {other:?}"),
        }
    }

    /// Waits for the end of the stream on the agent's side, and returns it.
    pub(crate) fn until_end(&mut self) -> Incoming {
        loop {
            match self.next_within(PATIENCE) {
                Some(Incoming::Message(_)) => {}
                Some(end) => return end,
                None => panic!("the agent keeps the stream"),
            }
        }
    }

    /// Sends the headers of the answer. Without them an agent gets no message.
    pub(crate) fn send_headers(&mut self) {
        let headers = self.headers.take().expect("the headers are sent once");
        // An agent that is gone needs none.
        let _ = headers.send(Ok(()));
    }

    /// Reads the hello, and sends headers and a `ServerHello`.
    pub(crate) fn greet(&mut self, workloads: Vec<AddedWorkload>) -> AgentHello {
        let hello = self.read_hello();
        self.send_headers();
        self.send(FromServer::hello(workloads));
        hello
    }

    /// Sends a message; before the headers it waits for them.
    pub(crate) fn send(&self, message: impl Into<FromServer>) {
        let outgoing = self.outgoing.as_ref().expect("the stream is open");
        let _ = outgoing.send(Ok(message.into()));
    }

    /// Ends the stream with OK, after all that was sent before.
    pub(crate) fn end(mut self) {
        if let Some(headers) = self.headers.take() {
            let _ = headers.send(Ok(()));
        }
    }

    /// Ends the stream with this status, after all that was sent before.
    pub(crate) fn fail(mut self, status: Status) {
        if let Some(headers) = self.headers.take() {
            let _ = headers.send(Err(status));
        } else if let Some(outgoing) = self.outgoing.take() {
            let _ = outgoing.send(Err(status));
        }
    }

    /// Cuts the connection below HTTP/2 by a TCP reset. What was sent before may be lost, too.
    pub(crate) fn reset(self) {
        self.peer.reset();
    }
}
