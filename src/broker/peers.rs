//! The table of peers: the served instances, and the agent.
//!
//! In goes a peer, out comes its number. Numbers are never reused, and each instance has one peer at
//! most.

use std::collections::BTreeMap;

use crate::{id_map::IdMap, state::Instance};

use super::{PeerId, peer::Peer};

#[derive(Debug, Default)]
pub(super) struct Peers {
    all: IdMap<PeerId, Box<Peer>>,
    by_instance: BTreeMap<Instance, PeerId>,
    next: u64,
    next_commander: u64,
}

impl Peers {
    pub(super) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.all.get(&id).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.all.get_mut(&id).map(Box::as_mut)
    }

    /// The agent, if there is a link.
    pub(super) fn agent(&self) -> Option<&Peer> {
        self.get(PeerId::AGENT)
    }

    pub(super) fn set_agent(&mut self, agent: Peer) {
        // Not in `by_instance`: no command may name the agent as an instance.
        self.all.insert(PeerId::AGENT, Box::new(agent));
    }

    /// Adds the peer of an instance.
    pub(super) fn add(&mut self, peer: Peer) -> PeerId {
        let id = PeerId(self.next);
        self.next += 1;
        self.insert(id, peer)
    }

    /// Adds a commander.
    pub(super) fn add_commander(&mut self, peer: Peer) -> PeerId {
        let id = PeerId(PeerId::FIRST_COMMANDER + self.next_commander);
        self.next_commander += 1;
        self.insert(id, peer)
    }

    fn insert(&mut self, id: PeerId, peer: Peer) -> PeerId {
        self.by_instance.insert(peer.instance.clone(), id);
        self.all.insert(id, Box::new(peer));
        id
    }

    /// Removes the peer of an instance, and returns it if it existed.
    pub(super) fn remove(&mut self, id: PeerId) -> Option<Box<Peer>> {
        let peer = self.all.remove(&id)?;
        self.by_instance.remove(&peer.instance);
        Some(peer)
    }

    /// The peer of an instance.
    pub(super) fn find(&self, instance: &Instance) -> Option<PeerId> {
        self.by_instance.get(instance).copied()
    }

    /// A served instance with the same folder as `instance`: its workload name and id are the same.
    pub(super) fn with_folder_of(&self, instance: &Instance) -> Option<&Instance> {
        // The map is ordered by workload, so the range is short.
        let workload = instance.workload.clone();
        let first = Instance { workload, agent: String::new(), id: String::new() };
        let own = self.by_instance.range(first..).map(|(own, _)| own);
        let mut own = own.take_while(|own| own.workload == instance.workload);
        own.find(|own| own.id == instance.id)
    }

    /// The peers of all instances, commanders behind workloads, oldest first.
    pub(super) fn workloads(&self) -> Vec<(PeerId, &Peer)> {
        let workloads = self.all.iter().filter(|(id, _)| !id.is_agent());
        let mut workloads: Vec<_> = workloads.map(|(id, peer)| (*id, &**peer)).collect();
        // `IdMap` iterates in no order, and callers are given the oldest first.
        workloads.sort_unstable_by_key(|(id, _)| *id);
        workloads
    }

    /// All peers with the agent, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Peer> {
        self.all.values().map(Box::as_ref)
    }
}
