//! Commanders: peers without a pair, for tools that connect to the agent (docs/agent-link.md#commanders).
//!
//! In go the agent's commands about them; their messages come and go inside of messages of the link. A
//! commander has rules, a budget and subscriptions like a workload, and shares the encoded events of its
//! group. Its session is open from the start.

use crate::{
    message::{FromWorkload, Phase, RejectCode, Rejected},
    state::{Instance, Node},
};

use super::{
    Broker, PeerId, Rules, Seq, Session, acks::unknown_instance, peer::Peer, peer_kind::PeerKind,
};

impl Broker {
    /// Adds a commander, or replaces its rules.
    pub(super) fn add_commander(
        &mut self,
        instance: Instance,
        access: Option<&Node>,
    ) -> Result<(), Rejected> {
        let rules = access.map(Rules::compile).unwrap_or_default();
        match self.peers.find(&instance) {
            Some(id) if id.kind() == PeerKind::Commander => self.replace_rules(id, rules),
            Some(_) => {
                let reason = format!("{instance} is a workload");
                return Err(Rejected::new(RejectCode::InstanceConflict, reason));
            }
            None => {
                let mut peer = Peer::new(instance, rules, self.memory.outbox_counter());
                peer.session = Session::Open;
                self.peers.add_commander(peer);
            }
        }
        Ok(())
    }

    /// Ends a commander. The agent hears of it like of the end of any session.
    pub(super) fn remove_commander(&mut self, instance: &Instance) -> Result<(), Rejected> {
        let id = self.commander(instance)?;
        self.end_subscriptions(id);
        self.tell_session(id, Phase::Closed("the commander was removed".to_owned()));
        self.tell_waiting_session(id);
        self.peers.remove(id);
        Ok(())
    }

    pub(super) fn on_commander_message(
        &mut self,
        instance: &Instance,
        message: FromWorkload,
    ) -> Result<(), Rejected> {
        let id = self.commander(instance)?;
        // A Hello would begin a session, and the reset for it concerns a pipe.
        if !matches!(message, FromWorkload::Hello { .. }) {
            self.on_message(id, message);
        }
        Ok(())
    }

    pub(super) fn commander_took(
        &mut self,
        instance: &Instance,
        number: Seq,
    ) -> Result<(), Rejected> {
        let id = self.commander(instance)?;
        self.on_taken(id, number);
        Ok(())
    }

    fn commander(&self, instance: &Instance) -> Result<PeerId, Rejected> {
        let found = self.peers.find(instance);
        let found = found.filter(|id| id.kind() == PeerKind::Commander);
        found.ok_or_else(|| unknown_instance(instance))
    }
}
