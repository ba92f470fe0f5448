//! Updates of the model: what becomes of the desired state, of states and of agents, in which order.

use std::collections::{BTreeMap, BTreeSet};

use fifogate::{
    internal::{
        agent_update::set_states,
        parts::{execution_state_from_pb, workload_to_pb},
        state::{AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, WORKLOAD_STATES},
    },
    pb::ank_base::{self as pb, response::ResponseContent},
    state::{
        Instance, Mask, Node, Tree,
        convert::{Fill, new_state_from_pb},
        update,
    },
};

use super::{
    core::{Core, name_of},
    messages::{
        AddedWorkload, DeleteCondition, DeletedWorkload, FromServerContent, UpdateWorkload,
    },
};

impl Core {
    pub(super) fn update(&mut self, id: &str, request: &pb::UpdateStateRequest) {
        let next = match self.next(request) {
            Ok(next) => next,
            Err(message) => {
                return self.respond(id, ResponseContent::Error(pb::Error { message }));
            }
        };
        let old = self.state.clone();
        let (deleted, added_workloads) = self.put_desired(next);
        let success = ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess {
            added_workloads: added_workloads.iter().map(|(own, _)| own.to_string()).collect(),
            deleted_workloads: deleted.iter().map(Instance::to_string).collect(),
        });
        // A change of tags of agents alone gives no event.
        let told = old.with(AGENTS, self.state.get(&[AGENTS]).cloned());
        if deleted.is_empty() && added_workloads.is_empty() {
            self.respond(id, success);
            return self.publish(&told);
        }
        let removed = self.follow(&deleted, &added_workloads);
        self.publish(&told);
        self.tell_states(None, removed);
        self.tell_workloads(&deleted, &added_workloads);
        self.respond(id, success);
    }

    /// The state after an update.
    fn next(&self, request: &pb::UpdateStateRequest) -> Result<Tree, String> {
        let new_state = request.new_state.as_ref().ok_or("no new state")?;
        let new_state = new_state_from_pb(new_state).map_err(|error| error.to_string())?;
        if request.update_mask.is_empty() {
            let next = update::apply(&self.state, &new_state, &[]);
            return next.map(|next| next.tree).map_err(|error| error.to_string());
        }
        // A mask with a wildcard finds nothing in the real server, and that is no error.
        let masks = request.update_mask.iter().map(|mask| Mask::parse(mask));
        let masks: Vec<_> = masks.filter(|mask| !mask.has_wildcard()).collect();
        if masks.is_empty() {
            return Ok(self.state.clone());
        }
        let next = update::apply(&self.state, &new_state, &masks);
        next.map(|next| trimmed(&next.tree)).map_err(|error| error.to_string())
    }

    /// Puts a desired state and all that follows from it in place, but for states of workloads. Returns the
    /// instances that end, and those that begin, with their workloads.
    pub(super) fn put_desired(&mut self, next: Tree) -> (Vec<Instance>, Vec<(Instance, Node)>) {
        let old = self.state.entries(&[EFFECTIVE_STATE, "workloads"]).clone();
        let mut workloads = old.clone();
        let desired = self.state.entries(&[DESIRED_STATE, "workloads"]);
        desired.diff(next.entries(&[DESIRED_STATE, "workloads"]), |name, _, new| match new {
            Some(new) => workloads.insert(name.clone(), rendered(new)),
            None => {
                workloads.remove(name.as_str());
            }
        });
        let (mut deleted, mut added) = (Vec::new(), Vec::new());
        old.diff(&workloads, |name, old, new| {
            // Equal ones may be reported, too, if they are not one in memory.
            if old == new {
                return;
            }
            deleted.extend(old.map(|node| Instance::of(name.as_str(), node)));
            added.extend(new.map(|node| (Instance::of(name.as_str(), node), node.clone())));
        });
        let version = next.get(&[DESIRED_STATE, API_VERSION]).cloned();
        let version = version.unwrap_or_else(|| Node::text("v1"));
        let effective = [(API_VERSION, version), ("workloads", Node::Map(workloads))];
        self.state = next.with(EFFECTIVE_STATE, Some(Node::map(effective)));
        for (instance, node) in &added {
            for (dependency, condition) in
                node.get("dependencies").map(Node::entries).into_iter().flatten()
            {
                if condition.as_str() == Some("ADD_COND_RUNNING") {
                    let conditions =
                        self.delete_conditions.entry(dependency.as_str().to_owned()).or_default();
                    let condition = DeleteCondition::NotPendingNorRunning as i32;
                    conditions.insert(instance.workload.clone(), condition);
                }
            }
        }
        (deleted, added)
    }

    /// States of workloads after an update. Returns those that are removed at once, as nobody would report
    /// their end.
    pub(super) fn follow(
        &mut self,
        deleted: &[Instance],
        added: &[(Instance, Node)],
    ) -> Vec<pb::WorkloadState> {
        let state = |name: &str| {
            use pb::execution_state::ExecutionStateEnum as State;
            let kind = match name {
                "Pending" => State::Pending(0),
                "NotScheduled" => State::NotScheduled(0),
                _ => State::Removed(0),
            };
            pb::ExecutionState {
                additional_info: Some(String::new()),
                execution_state_enum: Some(kind),
            }
        };
        let begun: BTreeSet<_> = added.iter().map(|(instance, _)| instance).collect();
        let is_unseen = |own: &&Instance| {
            let path = [WORKLOAD_STATES, &own.agent, &own.workload, &own.id, "subState"];
            let is_initial = self.state.get(&path).and_then(Node::as_str) == Some("Initial");
            !begun.contains(own)
                && (own.agent.is_empty() || is_initial && !self.agents.contains_key(&own.agent))
        };
        let removed: Vec<_> = deleted.iter().filter(is_unseen).cloned().collect();
        let mut set: Vec<_> = removed.iter().map(|own| (own.clone(), None)).collect();
        for (own, _) in added {
            let path = [WORKLOAD_STATES, &own.agent, &own.workload, &own.id];
            if self.state.get(&path).is_none() {
                let name = if own.agent.is_empty() { "NotScheduled" } else { "Pending" };
                set.push((own.clone(), Some(execution_state_from_pb(&state(name)).unwrap())));
            }
        }
        self.state = set_states(&self.state, &set);
        let removed = removed.iter().map(|own| pb::WorkloadState {
            instance_name: Some(name_of(own)),
            execution_state: Some(state("Removed")),
        });
        removed.collect()
    }

    /// Sends each connected agent what ends and begins there, in one message.
    fn tell_workloads(&mut self, deleted: &[Instance], begun: &[(Instance, Node)]) {
        let mut updates: BTreeMap<String, UpdateWorkload> = BTreeMap::new();
        for own in deleted {
            let dependencies = self.delete_conditions.get(&own.workload).cloned();
            let deleted = DeletedWorkload {
                instance_name: Some(name_of(own)),
                dependencies: dependencies.unwrap_or_default(),
            };
            updates.entry(own.agent.clone()).or_default().deleted_workloads.push(deleted);
        }
        for (own, node) in begun {
            let update = updates.entry(own.agent.clone()).or_default();
            update.added_workloads.push(added(own, node));
        }
        for (agent, update) in updates {
            self.send(&agent, FromServerContent::UpdateWorkload(update).into());
        }
    }
}

pub(super) fn added(instance: &Instance, node: &Node) -> AddedWorkload {
    AddedWorkload {
        instance_name: Some(name_of(instance)),
        workload: Some(workload_to_pb(node, Fill::Full)),
    }
}

/// A workload of the effective state.
fn rendered(workload: &Node) -> Node {
    let mut fields = workload.entries().clone();
    fields.remove("configs");
    Node::Map(fields)
}

/// An update with masks takes the white space around all configurations.
fn trimmed(tree: &Tree) -> Tree {
    let mut desired = tree.entries(&[DESIRED_STATE]).clone();
    let mut workloads = tree.entries(&[DESIRED_STATE, "workloads"]).clone();
    let mut changed = Vec::new();
    for (name, node) in &workloads {
        let config = node.str_at("runtimeConfig").unwrap_or_default();
        if config.trim() != config {
            let mut fields = node.entries().clone();
            fields.insert("runtimeConfig", Node::text(config.trim()));
            changed.push((name.clone(), Node::Map(fields)));
        }
    }
    if changed.is_empty() {
        return tree.clone();
    }
    for (name, node) in changed {
        workloads.insert(name, node);
    }
    desired.insert("workloads", Node::Map(workloads));
    tree.with(DESIRED_STATE, Some(Node::Map(desired)))
}
