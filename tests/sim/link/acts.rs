//! The commands and the answers of the agent at the other end of the link, chosen at random.

use fifogate::{
    broker::PeerId,
    pb::{
        agent_link::{self as link, from_agent},
        ank_base::{self as pb, response::ResponseContent},
    },
};
use rand::{Rng, seq::IndexedRandom};
use serde_json::{Value, json};

use super::{ForwardedKind, Outcome, Pending, name};
use crate::sim::{
    asks::{self, RequestKind},
    pbs,
    peer::{Expected, Place},
    tree, update,
    update::Instance,
    words,
    world::World,
};

impl World {
    /// The agent does something.
    pub(crate) fn agent_acts(&mut self) {
        let all = &self.agent.as_ref().unwrap().pending;
        let pending = all.len();
        let logs = all.iter().find(|own| own.wanted == ForwardedKind::Logs).map(|own| own.peer);
        if let Some(id) = logs.filter(|_| self.rng.random_bool(0.3)) {
            return self.add_workload(self.peers[&id].instance.clone());
        }
        match self.rng.random_range(0..100) {
            0..40 if pending > 0 => self.agent_answers(),
            0..20 => {
                let instance = self.some_instance();
                self.add_workload(instance);
            }
            20..24 => self.remove_workload(),
            24..30 => self.replace_state(),
            30..55 => self.update_any(),
            55..80 => self.set_states(),
            _ => self.agent_asks(),
        }
    }

    pub(crate) fn some_instance(&mut self) -> Instance {
        let known: Vec<_> = self.peers.values().map(|peer| peer.instance.clone()).collect();
        match known.choose(&mut self.rng) {
            Some(own) if self.rng.random_bool(0.7) => own.clone(),
            _ => Instance {
                workload: words::one_of(&mut self.rng, &words::WORKLOADS).to_owned(),
                agent: words::one_of(&mut self.rng, &["n1", "n1", "n2"]).to_owned(),
                id: words::one_of(&mut self.rng, &["1", "2"]).to_owned(),
            },
        }
    }

    pub(crate) fn add_workload(&mut self, instance: Instance) {
        let access = words::access(&mut self.rng);
        self.note(format!("the agent adds {instance:?} with {access}"));
        let add = link::AddWorkload {
            instance_name: Some(name(&instance)),
            access: Some(pbs::access(&access)),
            ..link::AddWorkload::default()
        };
        let workload = json!({"controlInterfaceAccess": access});
        let same_folder =
            |own: &Instance| own.workload == instance.workload && own.id == instance.id;
        let known = self.peer_of(&instance);
        let outcome = if !update::has_valid_rules(&workload) {
            Outcome::Done(false)
        } else if let Some(id) = known {
            self.change_rules(id, Some(access));
            if self.peers[&id].has_pair { Outcome::Done(true) } else { Outcome::Opening(known) }
        } else if self.peers.values().any(|peer| same_folder(&peer.instance)) {
            Outcome::Done(false)
        } else {
            self.round.open.insert(instance, Some(access));
            Outcome::Opening(None)
        };
        self.command(from_agent::Content::AddWorkload(add), outcome);
    }

    fn remove_workload(&mut self) {
        let instance = self.some_instance();
        self.note(format!("the agent removes {instance:?}"));
        let known = self.peer_of(&instance);
        if let Some(id) = known {
            self.close_pair(id);
            self.agent.as_mut().unwrap().removing.push((id, instance.clone()));
        }
        let remove = link::RemoveWorkload { instance_name: Some(name(&instance)) };
        let outcome = known.map_or(Outcome::Done(false), Outcome::Closing);
        self.command(from_agent::Content::RemoveWorkload(remove), outcome);
    }

    /// A whole state, near the one of now.
    fn replace_state(&mut self) {
        let mut new = words::change(&mut self.rng, &self.state).new;
        self.add_parts(&mut new);
        self.note(format!("the agent replaces the state by {new}"));
        let sent = update::as_sent(&new);
        let made = update::replace(&sent);
        let replace = link::ReplaceState { state: Some(pbs::complete_state(&new, false)) };
        let outcome = self.agent_made(made);
        self.command(from_agent::Content::ReplaceState(replace), outcome);
    }

    fn add_parts(&mut self, new: &mut Value) {
        for part in ["workloadStates", "agents", "effectiveState"] {
            if let Some(own) = self.state.get(part).filter(|_| self.rng.random_bool(0.9)) {
                new[part] = own.clone();
            }
        }
        if self.chance(0.3) {
            new["agents"] = words::agents(&mut self.rng);
        }
        if self.chance(0.3) {
            let mut rendered = self.state["desiredState"].clone();
            rendered.as_object_mut().unwrap().shift_remove("configs");
            new["effectiveState"] = rendered;
        }
    }

    fn update_any(&mut self) {
        let mut change = words::change(&mut self.rng, &self.state);
        self.add_parts(&mut change.new);
        if self.chance(0.5) {
            let part = words::one_of(&mut self.rng, &["agents", "agents.n1", "effectiveState"]);
            change.masks = vec![part.to_owned()];
        }
        // Half an execution state is nothing that the model could write down.
        change
            .masks
            .retain(|mask| !mask.starts_with("workloadStates") || mask.split('.').count() < 5);
        let words::Change { new, masks } = change;
        self.note(format!("the agent updates {masks:?} to {new}"));
        let made = update::update_any(&self.state, &update::as_sent(&new), &masks);
        let new_state = Some(pbs::complete_state(&new, false));
        let update = link::UpdateState { new_state, update_mask: masks };
        let outcome = self.agent_made(made);
        self.command(from_agent::Content::UpdateState(update), outcome);
    }

    fn agent_made(&mut self, made: Option<Value>) -> Outcome {
        let fine = made.is_some();
        if let Some(state) = made {
            self.counts.many("agent's changes", (state != *self.state).into());
            self.state = state.into();
        }
        Outcome::Done(fine)
    }

    fn set_states(&mut self) {
        let mut states = self.state["workloadStates"].clone();
        let mut told = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let mut instance = self.some_instance();
            if self.chance(0.5) {
                let all = tree::leaves(&states);
                if let Some((path, _)) = all.choose(&mut self.rng) {
                    let [agent, workload, id] = [0, 1, 2].map(|at| path[at].clone());
                    instance = Instance { workload, agent, id };
                }
            }
            let path = [&instance.agent, &instance.workload, &instance.id].map(Clone::clone);
            let removed = self.chance(0.2);
            let execution = words::execution(&mut self.rng);
            let execution_state = if removed {
                update::forget(&mut states, &path);
                let removed = pb::execution_state::ExecutionStateEnum::Removed(0);
                pb::ExecutionState { execution_state_enum: Some(removed), additional_info: None }
            } else {
                tree::put(&mut states, &path, execution.clone());
                pbs::execution_state(&execution)
            };
            let instance_name = Some(name(&instance));
            let execution_state = Some(execution_state);
            told.push(pb::WorkloadState { instance_name, execution_state });
        }
        self.note(format!("the agent tells {told:?}"));
        let mut state = (*self.state).clone();
        state["workloadStates"] = states;
        let outcome = self.agent_made(Some(state));
        let update = link::UpdateWorkloadStates { workload_states: told };
        self.command(from_agent::Content::UpdateWorkloadStates(update), outcome);
    }

    /// The agent asks as workloads do, with all rights.
    fn agent_asks(&mut self) {
        let ask = match self.rng.random_range(0..4) {
            0 => {
                let masks = asks::masks(&mut self.rng, None);
                RequestKind::State { masks, subscribe: false }
            }
            1 => RequestKind::CancelEvents,
            2 => RequestKind::Nothing,
            _ => asks::update(&mut self.rng, &self.state),
        };
        self.note(format!("the agent asks {ask:?}"));
        self.request(PeerId::AGENT, "agent's", &ask);
        let request = from_agent::Content::Request(ask.request("agent's"));
        self.command(request, Outcome::Done(true));
    }

    /// The agent answers something that was forwarded; now and then something else.
    fn agent_answers(&mut self) {
        let error = |text: &str| ResponseContent::Error(pb::Error { message: text.to_owned() });
        let contents = [
            error("the agent does not want to"),
            error("the agent cannot do that"),
            ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess::default()),
            ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess::default()),
            ResponseContent::LogsRequestAccepted(pb::LogsRequestAccepted::default()),
            ResponseContent::LogsCancelAccepted(pb::LogsCancelAccepted {}),
        ];
        let content = contents.choose(&mut self.rng).unwrap().clone();
        let agent = self.agent.as_mut().unwrap();
        let some = agent.pending.choose(&mut self.rng).unwrap();
        let (id, request_id) = (some.peer, some.request_id.clone());
        let fits = |own: &Pending| {
            let wanted = match &content {
                ResponseContent::UpdateStateSuccess(_) => own.wanted == ForwardedKind::Update,
                ResponseContent::LogsRequestAccepted(_) => own.wanted == ForwardedKind::Logs,
                ResponseContent::LogsCancelAccepted(_) => own.wanted == ForwardedKind::CancelLogs,
                _ => true,
            };
            own.peer == id && own.request_id == request_id && wanted
        };
        let cancelled = matches!(content, ResponseContent::LogsCancelAccepted(_));
        let to_nobody = cancelled && agent.revoked.remove(&(id, request_id.clone()));
        let found = agent.pending.iter().position(fits).filter(|_| !to_nobody);
        if let Some(at) = found {
            agent.pending.remove(at);
            self.due(id, Place::Answer, Expected::response(&request_id, content.clone()));
        }
        self.note(format!("the agent answers {request_id} of {id:?}: {content:?}"));
        let response =
            pb::Response { request_id: request_id.clone(), response_content: Some(content) };
        let instance_name = Some(name(&self.peers[&id].instance));
        let response = link::ForwardedResponse { instance_name, response: Some(response) };
        let outcome = Outcome::Done(found.is_some() || to_nobody);
        self.command(from_agent::Content::Response(response), outcome);
    }
}
