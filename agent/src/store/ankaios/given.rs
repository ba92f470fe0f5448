//! Ids that a server has given to instances. They are those of their runtimeConfig, as everywhere in this
//! agent; a server that gives others has them back in every message.

use std::collections::BTreeMap;

use fifogate::state::Instance;

/// The given ids, by the instances as this agent names them.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenIds(BTreeMap<Instance, String>);

/// Most instances of which another id is known. The oldest names go first.
const MOST: usize = 10_000;

impl GivenIds {
    /// Notes the id of an instance.
    pub(super) fn note(&mut self, own: Instance, id: String) {
        if own.id == id || id.is_empty() {
            self.0.remove(&own);
            return;
        }
        if self.0.len() >= MOST {
            self.0.pop_first();
        }
        self.0.insert(own, id);
    }

    /// An instance as the server names it.
    pub(super) fn out(&self, own: &Instance) -> Instance {
        let id = self.0.get(own).unwrap_or(&own.id).clone();
        Instance { id, ..own.clone() }
    }

    /// An instance of this agent, as the agent names it.
    pub(super) fn back(&self, told: &Instance) -> Instance {
        let is_it = |(own, id): &(&Instance, &String)| {
            **id == told.id && own.workload == told.workload && own.agent == told.agent
        };
        self.0.iter().find(is_it).map_or_else(|| told.clone(), |(own, _)| own.clone())
    }
}
