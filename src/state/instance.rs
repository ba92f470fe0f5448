//! Instances requested by a desired state, and their entries in `workloadStates`
//! (docs/protocol.md#instances-and-ids, docs/protocol.md#workload-states).

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
};

use sha2::{Digest, Sha256};

use super::{Key, Map, Node};

/// A workload at one agent with one configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The workload's name.
    pub workload: String,
    /// The agent it belongs to; empty if it is not scheduled.
    pub agent: String,
    /// Lower-case hex SHA-256 of the configuration.
    pub id: String,
}

impl Instance {
    /// The instance for the workload `name` of a desired state.
    #[must_use]
    pub fn of(name: &str, workload: &Node) -> Self {
        Self {
            workload: name.to_owned(),
            agent: workload.str_at("agent").unwrap_or_default().to_owned(),
            id: id_of(workload.str_at("runtimeConfig").unwrap_or_default()),
        }
    }
}

impl fmt::Display for Instance {
    /// `<workload>.<id>.<agent>`, as in `UpdateStateSuccess`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.workload, self.id, self.agent)
    }
}

/// The id of a configuration, without the white space around it (docs/differences.md#11-updates).
fn id_of(runtime_config: &str) -> String {
    let mut id = String::with_capacity(64);
    for byte in Sha256::digest(runtime_config.trim().as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// One workload of the desired state before and after an update.
#[derive(Clone, Debug)]
pub struct WorkloadChange {
    /// Its name.
    pub name: Key,
    /// The old workload; `None` if it is new.
    pub old: Option<Node>,
    /// The new workload; `None` if it was removed.
    pub new: Option<Node>,
}

impl WorkloadChange {
    /// The instances stopped and started by the change. A change of the configs available to templates
    /// alone makes no new instance.
    #[must_use]
    pub fn instances(&self) -> (Option<Instance>, Option<Instance>) {
        let running = |node: &Option<Node>| -> Option<Map<Node>> {
            let mut map = node.as_ref()?.as_map()?.clone();
            map.remove("configs");
            Some(map)
        };
        if running(&self.old) == running(&self.new) {
            return (None, None);
        }
        let instance = |node: &Option<Node>| Some(Instance::of(self.name.as_str(), node.as_ref()?));
        (instance(&self.old), instance(&self.new))
    }
}

/// `states` after instances ended and started: new ones are pending, or not scheduled without an agent;
/// ended ones are removed with their empty parents. Entries of other instances stay.
#[must_use]
pub fn follow_workloads(states: &Map<Node>, ended: &[Instance], started: &[Instance]) -> Map<Node> {
    let mut states = states.clone();
    if ended.is_empty() && started.is_empty() {
        return states;
    }
    // A change of a tag ends and starts one and the same instance: its entry has to stay.
    let begun: BTreeSet<_> = started.iter().collect();
    for instance in ended.iter().filter(|instance| !begun.contains(instance)) {
        remove(&mut states, &[&instance.agent, &instance.workload, &instance.id]);
    }
    let state = |state, sub_state| {
        let fields = [("state", state), ("subState", sub_state), ("additionalInfo", "")];
        Node::map(fields.map(|(name, value)| (name, Node::text(value))))
    };
    // In memory once, for all that begin.
    let (pending, not_scheduled) =
        (state("Pending", "Initial"), state("NotScheduled", "NotScheduled"));
    for instance in started {
        let agent = states.get(&instance.agent);
        let workload = agent.and_then(|agent| agent.get(&instance.workload));
        // An existing entry stays (docs/protocol.md#workload-states).
        if workload.and_then(|workload| workload.get(&instance.id)).is_some() {
            continue;
        }
        let state = if instance.agent.is_empty() { &not_scheduled } else { &pending };
        let with = |parent: Option<&Node>, key: &str, value| {
            let mut map = parent.map(Node::entries).cloned().unwrap_or_default();
            map.insert(key, value);
            Node::Map(map)
        };
        let workload = with(workload, &instance.id, state.clone());
        let agent = with(agent, &instance.workload, workload);
        states.insert(instance.agent.as_str(), agent);
    }
    states
}

/// Removes the value at `path`, and every parent left empty.
pub(super) fn remove(map: &mut Map<Node>, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        map.remove(first);
        return;
    }
    let Some(mut below) = map.get(first).and_then(Node::as_map).cloned() else { return };
    remove(&mut below, rest);
    if below.is_empty() {
        map.remove(first);
    } else {
        map.insert(*first, Node::Map(below));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_the_hash_of_the_trimmed_configuration_alone() {
        let config = "image: docker.io/library/nginx:1.27\ncommandOptions: [\"-p\", \"8081:80\"]";
        let workload = |config: &str| {
            Node::map([("agent", Node::text("agent_A")), ("runtimeConfig", Node::text(config))])
        };
        let expected =
            "web.05ddcb51ba8e644efcbcf44857f0e551edc1fc3eab1293dfa36fc54aabb43587.agent_A";
        assert_eq!(Instance::of("web", &workload(config)).to_string(), expected);
        let padded = format!("  {config}\n\n");
        assert_eq!(Instance::of("web", &workload(&padded)).to_string(), expected);
    }

    #[test]
    fn entries_come_and_go_with_their_instances_and_leave_no_empty_parents() {
        let instance = |agent: &str, id: &str| Instance {
            workload: "w".into(),
            agent: agent.into(),
            id: id.into(),
        };
        let none = Map::new();
        let one = follow_workloads(&none, &[], &[instance("", "1"), instance("A", "1")]);
        let state = |states: &Map<Node>, agent: &str, id: &str| {
            let id = states.get(agent)?.get("w")?.get(id)?;
            id.str_at("state").map(str::to_owned)
        };
        assert_eq!(state(&one, "", "1").as_deref(), Some("NotScheduled"));
        assert_eq!(state(&one, "A", "1").as_deref(), Some("Pending"));
        let two = follow_workloads(&one, &[instance("A", "1")], &[instance("A", "2")]);
        assert_eq!(state(&two, "A", "1"), None);
        assert_eq!(state(&two, "A", "2").as_deref(), Some("Pending"));
        let gone = follow_workloads(&two, &[instance("A", "2"), instance("", "1")], &[]);
        assert_eq!(gone, none);
    }

    #[test]
    fn entry_of_an_instance_that_stays_is_left_alone() {
        let instance = Instance { workload: "w".into(), agent: "A".into(), id: "1".into() };
        let running = Node::map([("state", Node::text("Running"))]);
        let states = Node::map([("A", Node::map([("w", Node::map([("1", running)]))]))]);
        let states = states.entries();
        let same = std::slice::from_ref(&instance);
        assert_eq!(follow_workloads(states, same, same), *states);
    }
}
