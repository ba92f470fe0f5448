//! The served instances and their rules.
//!
//! In go changes of the desired state, or the agent's commands; out come [`Output::OpenPair`] and
//! [`Output::ClosePair`]. Without an agent link the pairs follow the desired state: a workload of this
//! agent has a pair as long as it has allow rules (docs/operations.md#run). A change of rules applies
//! to the open session at once.

use std::sync::Arc;

use crate::{
    message::{Owner, ResponseBody},
    state::{Instance, Node, WorkloadChange, update::Updated},
};

use super::{Broker, Output, PeerId, Rules, peer::Peer};

impl Broker {
    /// Begins with the state made by `updated` from the initial one, and serves its workloads.
    pub fn start(&mut self, updated: &Updated) {
        self.commit_update(updated, None);
        if self.link.is_none() {
            self.follow_desired(&updated.changes);
        }
    }

    /// Opens and closes pairs, and replaces rules, after changes of workloads.
    pub(super) fn follow_desired(&mut self, changes: &[WorkloadChange]) {
        for change in changes {
            let name = change.name.as_str();
            let old = change.old.as_ref().map(|workload| Instance::of(name, workload));
            let served = old.and_then(|instance| self.peers.find(&instance));
            let wanted = change.new.as_ref().filter(|workload| self.serves(workload));
            let wanted = wanted.map(|workload| (Instance::of(name, workload), rules_of(workload)));
            match (served, wanted) {
                (Some(id), Some((instance, rules))) if self.is_instance(id, &instance) => {
                    self.replace_rules(id, rules);
                }
                (served, wanted) => {
                    // Close first: an instance moved to another agent keeps its name and id, so its
                    // folder.
                    if let Some(id) = served {
                        self.close_pair(id);
                    }
                    if let Some((instance, rules)) = wanted {
                        self.open_pair(instance, rules, Owner::default());
                    }
                }
            }
        }
    }

    fn serves(&self, workload: &Node) -> bool {
        let agent = workload.str_at("agent").unwrap_or_default();
        let ours = self.config.agent_name.as_ref().is_none_or(|own| own == agent);
        let access = workload.get("controlInterfaceAccess");
        let allowed = access.and_then(|access| access.get("allowRules"));
        // Deny rules alone make no pair (docs/protocol.md#served-workloads).
        ours && allowed.and_then(Node::as_seq).is_some_and(|rules| !rules.is_empty())
    }

    fn is_instance(&self, id: PeerId, instance: &Instance) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.instance == *instance)
    }

    pub(super) fn open_pair(&mut self, instance: Instance, rules: Rules, owner: Owner) -> PeerId {
        let peer = Peer::new(instance.clone(), rules, self.memory.outbox_counter());
        let id = self.peers.add(peer);
        self.outputs.push_back(Output::OpenPair(id, instance, owner));
        id
    }

    pub(super) fn close_pair(&mut self, id: PeerId) {
        self.end_subscriptions(id);
        // What it may still read goes out first, such as the answer to its own update that removes it.
        if let Some(peer) = self.peers.get_mut(id) {
            peer.held = false;
        }
        self.flush_outbox(id);
        if self.peers.remove(id).is_some() {
            self.outputs.push_back(Output::ClosePair(id));
        }
    }

    /// Replaces the rules of a peer, effective at once: a subscription or log request no longer allowed
    /// ends with an error under its own id, and its waiting events are dropped
    /// (docs/differences.md#15-rules-change-in-a-session).
    pub(super) fn replace_rules(&mut self, id: PeerId, rules: Rules) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.rules == rules {
            return;
        }
        let lost = peer.subscriptions.iter().filter_map(|(request_id, subscription)| {
            let denial = rules.deny_read(self.subscriptions.masks_of(*subscription)?, true)?;
            Some((Arc::clone(request_id), *subscription, denial))
        });
        let lost: Vec<_> = lost.collect();
        let lost_logs = self.revoke_logs(id, &rules);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.rules = rules;
        for (request_id, subscription, _) in &lost {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.outbox.take_back_events(*subscription);
            }
            self.end_subscription(id, request_id);
        }
        // All lost subscriptions end before the first answer is queued: queueing delivers pending
        // events, and none of a lost one may be among them.
        let lost = lost.into_iter().map(|(request_id, _, denial)| (request_id, denial));
        for (request_id, denial) in lost.chain(lost_logs) {
            // Not counted: the request was allowed when it came.
            self.report_denial(id, denial);
            self.answer(id, &request_id, ResponseBody::denied());
        }
    }
}

fn rules_of(workload: &Node) -> Rules {
    workload.get("controlInterfaceAccess").map(Rules::compile).unwrap_or_default()
}
