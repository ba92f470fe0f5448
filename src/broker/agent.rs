//! The broker's side of the agent link (docs/agent-link.md).
//!
//! In go the agent's commands, applied in order. Out come their acknowledgements and rejections, in the
//! same order, and messages about sessions and pairs. The agent is a peer with all rights, a session
//! from the start and a larger budget; its own requests and subscriptions are served like those of a
//! workload.

use crate::{
    message::{Command, FromAgent, Owner, Phase, RejectCode, Rejected, ToAgent},
    state::{Instance, Mask, Node, Tree, agent_update},
};

use super::{
    Broker, Output, PeerId, Rules, Session,
    acks::{Ack, Done, unknown_instance},
    agent_link::AgentLink,
    check_version,
    outbox::{Kind, Outgoing, QueuedBytes},
    peer::Peer,
    peer_kind::{LINK_WINDOW, PeerKind},
};

/// Version of the link protocol.
// The minor number counts new fields: 1.1 brought the codes of rejections, 1.2 commanders.
const VERSION: &str = "1.2.0";

impl Broker {
    pub(super) fn begin_link(&mut self, run_dir: String) {
        let nobody = Instance { workload: String::new(), agent: String::new(), id: String::new() };
        // A counter of its own: messages to the agent take nothing of the workloads' memory budget.
        let mut agent = Peer::new(nobody, Rules::everything(), QueuedBytes::default());
        agent.session = Session::Open;
        self.peers.set_agent(agent);
        self.link = Some(AgentLink::default());
        self.tell_agent(ToAgent::Hello { version: VERSION.to_owned(), run_dir });
    }

    /// The agent's name, once its Hello has come.
    #[must_use]
    pub fn agent_name(&self) -> Option<&str> {
        self.link.as_ref()?.agent_name()
    }

    /// The problem keeping the agent from its work, as reported by it.
    #[must_use]
    pub fn agent_trouble(&self) -> Option<&str> {
        self.link.as_ref()?.trouble()
    }

    pub(super) fn agent_is_there(&self) -> bool {
        self.agent_name().is_some()
    }

    /// Queues a message to the agent, if there is a link.
    pub(super) fn tell_agent(&mut self, message: ToAgent) {
        self.push(PeerId::AGENT, Outgoing::Agent(message), Kind::Answer);
    }

    /// Queues a change of a peer's session for the agent. While the agent does not read, only the last
    /// change of each peer is kept: a workload may begin any number of sessions.
    pub(super) fn tell_session(&mut self, id: PeerId, phase: Phase) {
        let Some(peer) = self.peers.get(id) else { return };
        let instance = peer.instance.clone();
        // An empty outbox means the agent keeps up: each change is then queued at once.
        let keeps_up = self.peers.agent().is_none_or(|agent| agent.outbox.is_empty());
        match &mut self.link {
            Some(link) if !keeps_up => {
                link.keep_session(id, instance, phase);
            }
            _ => self.tell_agent(ToAgent::Session(instance, phase)),
        }
    }

    /// Queues the kept change of a peer's session, before any other message about this peer.
    pub(super) fn tell_waiting_session(&mut self, id: PeerId) {
        let waiting = self.link.as_mut().and_then(|link| link.take_session(id));
        if let Some((instance, phase)) = waiting {
            self.tell_agent(ToAgent::Session(instance, phase));
        }
    }

    /// Queues some of the kept changes of sessions, once no other message waits. Returns true if there
    /// were any.
    pub(super) fn tell_waiting_sessions(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        let waiting = link.changed_sessions(LINK_WINDOW);
        waiting.iter().for_each(|id| self.tell_waiting_session(*id));
        !waiting.is_empty()
    }

    pub(super) fn on_agent(&mut self, message: FromAgent) {
        if let Some(agent) = self.peers.get_mut(PeerId::AGENT) {
            agent.counters.frames_in += 1;
        }
        let FromAgent { id, rejections_only, command } = message;
        let done = if self.agent_is_there() {
            self.obey(command)
        } else {
            match command {
                Command::Hello { version, agent_name } => self.on_agent_hello(&version, agent_name),
                _ => rejected(
                    RejectCode::OutOfStep,
                    "AgentHello is missing: it comes before all else",
                ),
            }
        };
        if let Some(link) = &mut self.link {
            // Behind the effects of the command: an `Ack` means that its events are queued.
            link.note_command(Ack { id, rejections_only, done });
        }
        self.acknowledge();
    }

    fn on_agent_hello(&mut self, version: &str, agent_name: String) -> Done {
        if let Err(refusal) = check_version(version) {
            let reason = refusal.to_string();
            self.outputs.push_back(Output::EndLink(reason.clone()));
            return rejected(RejectCode::UnsupportedVersion, reason);
        }
        if let Some(link) = &mut self.link {
            link.set_agent_name(agent_name);
        }
        Done::Now(Ok(()))
    }

    fn obey(&mut self, command: Command) -> Done {
        Done::Now(match command {
            Command::Hello { .. } => {
                return rejected(RejectCode::OutOfStep, "AgentHello was said before");
            }
            Command::AddWorkload { instance, access, owner } => {
                return self.add_workload(instance, access.as_ref(), owner);
            }
            Command::RemoveWorkload(instance) => return self.remove_workload(&instance),
            Command::ReplaceState(given) => self.replace_all(&given),
            Command::UpdateState { new_state, masks } => self.update_any(&new_state, &masks),
            Command::UpdateWorkloadStates(states) => {
                let tree = agent_update::set_states(&self.state, &states);
                self.commit(tree, Some(PeerId::AGENT));
                Ok(())
            }
            Command::Request(request) => {
                self.serve_request(PeerId::AGENT, request);
                Ok(())
            }
            Command::Response { instance, request_id, kind, bodies } => {
                self.on_forwarded_response(&instance, &request_id, kind, bodies)
            }
            Command::AddCommander { instance, access } => {
                self.add_commander(instance, access.as_ref())
            }
            Command::RemoveCommander(instance) => self.remove_commander(&instance),
            Command::FromCommander(instance, message) => {
                self.on_commander_message(&instance, message)
            }
            Command::CommanderTook(instance, number) => self.commander_took(&instance, number),
            Command::Trouble(trouble) => {
                if let Some(link) = &mut self.link {
                    link.set_trouble(trouble);
                }
                Ok(())
            }
            Command::Shutdown => {
                self.outputs.push_back(Output::Stop);
                Ok(())
            }
            Command::Refused(rejected) => Err(rejected),
        })
    }

    fn replace_all(&mut self, given: &Tree) -> Result<(), Rejected> {
        let tree = agent_update::replace(&self.state, given).map_err(invalid)?;
        // The agent is the author of its commits: so the `Ack` is held until their events are out.
        self.commit(tree, Some(PeerId::AGENT));
        Ok(())
    }

    fn update_any(&mut self, new_state: &Tree, masks: &[Mask]) -> Result<(), Rejected> {
        let tree = agent_update::update(&self.state, new_state, masks).map_err(invalid)?;
        self.commit(tree, Some(PeerId::AGENT));
        Ok(())
    }

    fn add_workload(&mut self, instance: Instance, access: Option<&Node>, owner: Owner) -> Done {
        let rules = access.map(Rules::compile).unwrap_or_default();
        if let Some(id) = self.peers.find(&instance) {
            if id.kind() == PeerKind::Commander {
                let reason = format!("{instance} is a commander");
                return rejected(RejectCode::InstanceConflict, reason);
            }
            self.replace_rules(id, rules);
            return match self.peers.get(id) {
                // The pair is still being made, and this may fail: the acknowledgement waits for it.
                Some(peer) if !peer.has_pair => Done::Opening(id),
                _ => Done::Now(Ok(())),
            };
        }
        if let Some(other) = self.peers.with_folder_of(&instance) {
            let reason = format!("{other} has this workload name and id already");
            return rejected(RejectCode::InstanceConflict, reason);
        }
        Done::Opening(self.open_pair(instance, rules, owner))
    }

    fn remove_workload(&mut self, instance: &Instance) -> Done {
        match self.peers.find(instance) {
            None => Done::Now(Err(unknown_instance(instance))),
            Some(id) if id.kind() == PeerKind::Commander => {
                Done::Now(Err(unknown_instance(instance)))
            }
            Some(id) => {
                self.close_pair(id);
                if let Some(link) = &mut self.link {
                    link.note_removing(id, instance.clone());
                }
                Done::Closing(id)
            }
        }
    }

    pub(super) fn on_pair_opened(&mut self, id: PeerId, dir: String) {
        // Removed again meanwhile: its pair is opened all the same, and closed next.
        if let Some(peer) = self.peers.get_mut(id) {
            peer.has_pair = true;
            let instance = peer.instance.clone();
            self.tell_agent(ToAgent::WorkloadReady(instance, dir));
        }
        self.resolve_acks(id, |done| matches!(done, Done::Opening(_)), &Ok(()));
    }

    pub(super) fn on_pair_failed(&mut self, id: PeerId, reason: String) {
        let failed = Rejected::new(RejectCode::PairFailed, reason);
        self.end_subscriptions(id);
        if let Some(peer) = self.peers.remove(id)
            && peer.has_pair
        {
            // Acknowledged before: the failure of a deferred opening reaches the agent only so.
            self.tell_agent(ToAgent::WorkloadRemoved(peer.instance));
        }
        self.resolve_acks(id, |done| matches!(done, Done::Opening(_)), &Err(failed));
    }

    pub(super) fn on_pair_closed(&mut self, id: PeerId) {
        let removed = self.link.as_mut().and_then(|link| link.removed(id));
        self.tell_waiting_session(id);
        if let Some(instance) = removed {
            self.tell_agent(ToAgent::WorkloadRemoved(instance));
        }
        self.resolve_acks(id, |done| matches!(done, Done::Closing(_)), &Ok(()));
    }

    /// Notes the result of all commands waiting for this peer's pair.
    fn resolve_acks(
        &mut self,
        id: PeerId,
        waits: impl Fn(&Done) -> bool,
        result: &Result<(), Rejected>,
    ) {
        if let Some(link) = &mut self.link {
            link.resolve(id, waits, result);
        }
        self.acknowledge();
    }

    /// Queues the known results of commands for the agent, in the order of the commands.
    fn acknowledge(&mut self) {
        while let Some((ack, result)) = self.link.as_mut().and_then(|link| link.pop_ack()) {
            let Ack { id, rejections_only, .. } = ack;
            match result {
                // Not asked for: docs/agent-link.md#order-and-acknowledgements.
                _ if id == 0 => {}
                Ok(()) if rejections_only => {}
                Ok(()) => self.tell_agent(ToAgent::Ack(id)),
                Err(rejected) => self.tell_agent(ToAgent::Rejected(id, rejected)),
            }
        }
    }
}

fn rejected(code: RejectCode, reason: impl Into<String>) -> Done {
    Done::Now(Err(Rejected::new(code, reason)))
}

fn invalid(reason: agent_update::AgentUpdateError) -> Rejected {
    Rejected::new(RejectCode::Invalid, reason.to_string())
}
