//! The state of the agent link: the agent's name, acknowledgements due, and session changes kept back.
//!
//! In go notes of commands, pairs and sessions; out come the messages now due. The broker queues them.

use std::collections::BTreeMap;

use crate::{
    message::{Phase, Rejected},
    state::Instance,
};

use super::{
    PeerId,
    acks::{Ack, Acks, Done},
};

#[derive(Debug, Default)]
pub(super) struct AgentLink {
    agent_name: Option<String>,
    trouble: Option<String>,
    acks: Acks,
    /// Instances with a pair being removed. Their peers are gone, and the agent knows no peer numbers.
    removing: BTreeMap<PeerId, Instance>,
    /// Sessions changed while other messages waited for the agent: the last change of each.
    sessions: BTreeMap<PeerId, (Instance, Phase)>,
}

impl AgentLink {
    /// The agent's name, from its Hello.
    pub(super) fn agent_name(&self) -> Option<&str> {
        self.agent_name.as_deref()
    }

    pub(super) fn set_agent_name(&mut self, name: String) {
        self.agent_name = Some(name);
    }

    /// The problem keeping the agent from its work, as reported by it.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub(super) fn set_trouble(&mut self, trouble: Option<String>) {
        self.trouble = trouble;
    }

    /// Notes a command, done or not.
    pub(super) fn note_command(&mut self, ack: Ack) {
        self.acks.push(ack);
    }

    /// Notes the result of all commands waiting in this way for the pair of a peer.
    pub(super) fn resolve(
        &mut self,
        id: PeerId,
        waits: impl Fn(&Done) -> bool,
        result: &Result<(), Rejected>,
    ) {
        self.acks.resolve(id, waits, result);
    }

    /// The next acknowledgement in the order of the commands, if its result is known.
    pub(super) fn pop_ack(&mut self) -> Option<(Ack, Result<(), Rejected>)> {
        self.acks.pop()
    }

    /// Notes that the pair of an instance is being removed: the agent hears of it at the end.
    pub(super) fn note_removing(&mut self, id: PeerId, instance: Instance) {
        self.removing.insert(id, instance);
    }

    /// The instance of a removed pair, if a command has removed it.
    pub(super) fn removed(&mut self, id: PeerId) -> Option<Instance> {
        self.removing.remove(&id)
    }

    /// Keeps back a change of a peer's session, in place of an earlier one: a workload may begin sessions
    /// without end while the agent does not read.
    pub(super) fn keep_session(&mut self, id: PeerId, instance: Instance, phase: Phase) {
        self.sessions.insert(id, (instance, phase));
    }

    /// Takes out the kept change of a peer's session.
    pub(super) fn take_session(&mut self, id: PeerId) -> Option<(Instance, Phase)> {
        self.sessions.remove(&id)
    }

    /// Some of the peers with a kept change of their session. More would leave the window anyway, and
    /// kept changes still merge.
    pub(super) fn changed_sessions(&self, most: usize) -> Vec<PeerId> {
        self.sessions.keys().copied().take(most).collect()
    }
}
