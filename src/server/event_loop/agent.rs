//! Turns of the agent's port, and answers on the status socket.
//!
//! Frames of the agent go to the worker with the same in-flight limits as those of workloads. The agent
//! is trusted not to block its port, so the loop itself does the turns, without a job.

use std::{sync::Arc, time::Instant};

use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{broker::PeerId, limits::Limits};

use super::{
    super::{
        FLUSH,
        agent_transport::{LinkPort, LinkTurn},
        error::{ServerError, StartError},
        port::{FromPort, Notices, OutFrame},
        status_socket::{ClientId, StatusSocket},
        worker::{PortStatuses, StatusClient, ToWorker},
    },
    FROM_AGENT, InFlight, Link, Loop, STATUS_CLIENTS, TO_AGENT,
    port_table::PortEntry,
};

pub(super) fn register(
    registry: &Registry,
    port: LinkPort,
    limits: &Limits,
) -> Result<Link, StartError> {
    let (from_agent, to_agent) = port.descriptors();
    registry
        .register(&mut SourceFd(&from_agent), FROM_AGENT, Interest::READABLE)
        .map_err(StartError::AgentNotPollable)?;
    registry
        .register(&mut SourceFd(&to_agent), TO_AGENT, Interest::WRITABLE)
        .map_err(StartError::AgentNotPollable)?;
    Ok(Link { port, due: true, in_flight: Arc::new(InFlight::new(limits)) })
}

impl Loop {
    /// Does a turn of the agent's port, if one is due.
    pub(super) fn link_turn(&mut self) {
        let Some(link) = self.link.as_mut().filter(|link| link.due) else { return };
        link.due = false;
        let (mut events, mut notices) = (Vec::new(), Notices::default());
        let turn = link.port.turn(&mut self.buffer, &mut events, &mut notices);
        let in_flight = Arc::clone(&link.in_flight);
        self.worker.send_notices(PeerId::AGENT, notices);
        for event in events {
            let bytes = if let FromPort::Frame(body) = &event { body.len() } else { 0 };
            in_flight.add(bytes);
            let in_flight = Arc::clone(&in_flight);
            let (peer, written) = (PeerId::AGENT, 0);
            self.worker.tell(ToWorker::Port { peer, event, written, bytes, in_flight });
        }
        match turn {
            // The limit counts also for an agent whose small writes end each turn here. A later write, or
            // the worker at half of the limit, is the cause of the next turn.
            LinkTurn::Dry => link.port.reading &= !link.in_flight.park(),
            LinkTurn::More => self.read_agent(None),
            LinkTurn::Ended => {
                log::info!("the agent closed the link");
                self.worker.tell(ToWorker::AgentLost);
                self.begin_stop(Instant::now() + FLUSH);
            }
            LinkTurn::Broken(why) => {
                self.worker.tell(ToWorker::AgentLost);
                let why = format!("the stream of the agent cannot be trusted any more: {why}");
                self.fail(ServerError::AgentProtocol(why));
            }
        }
    }

    pub(super) fn send_to_agent(&mut self, frame: OutFrame) {
        if let Some(link) = &mut self.link {
            link.port.push(frame);
            link.due = true;
        }
    }

    /// Reads the agent's port on, unless its in-flight limit is reached. `on` sets whether the broker
    /// allows reading at all.
    pub(super) fn read_agent(&mut self, on: Option<bool>) {
        let stopping = self.stopping.is_some();
        let Some(link) = &mut self.link else { return };
        link.port.wanted = on.unwrap_or(link.port.wanted) && !stopping;
        link.port.reading = link.port.wanted && !link.in_flight.park();
        // Due without an event: the kernel has announced the bytes left in the stream already.
        link.due |= link.port.reading;
    }

    pub(super) fn take_status_clients(&mut self) {
        for client in self.status.iter_mut().flat_map(StatusSocket::accept).collect::<Vec<_>>() {
            let client = StatusClient::Socket(client);
            self.worker.tell(ToWorker::Status(client, self.port_statuses()));
        }
    }

    /// Status of the ports with a block or a misbehavior, known to the event loop only.
    pub(super) fn port_statuses(&self) -> PortStatuses {
        let now = Instant::now();
        let port_status = |entry: &PortEntry| {
            let (held, misbehaviors) = entry.port_status(now);
            let any = held.is_some() || !misbehaviors.is_empty();
            any.then(|| (entry.peer(), (held, misbehaviors)))
        };
        self.ports.all().filter_map(port_status).collect()
    }

    pub(super) fn answer_status(&mut self, client: ClientId, answer: Vec<u8>) {
        let Some(status) = &mut self.status else { return };
        if !status.answer(client, answer) {
            // This answer is complete, so its place is free for a waiting connection.
            self.take_status_clients();
            return;
        }
        let token = Token(STATUS_CLIENTS + client);
        let Some(fd) = status.client_descriptor(client) else { return };
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut SourceFd(&fd), token, Interest::WRITABLE) {
            log::error!("cannot answer on the status socket: {error}");
        }
    }
}
