//! Campaigns of the model: requests for logs on their way to agents, and lines on their way back.

use std::collections::BTreeMap;

use fifogate::{
    internal::state::WORKLOAD_STATES,
    pb::ank_base::{self as pb, response::ResponseContent},
};

use super::{
    core::Core,
    messages::{FromServerContent, LogsRequest},
};

impl Core {
    /// Begins a campaign for those of the workloads that exist. One without a reachable agent never ends.
    pub(super) fn begin_logs(&mut self, id: &str, request: pb::LogsRequest) {
        let is_known = |name: &pb::WorkloadInstanceName| {
            let path = [WORKLOAD_STATES, &name.agent_name, &name.workload_name, &name.id];
            self.state.get(&path).is_some()
        };
        let names: Vec<_> = request.workload_names.iter().filter(|name| is_known(name)).collect();
        let names: Vec<_> = names.into_iter().cloned().collect();
        self.campaigns.insert(id.to_owned(), names.clone());
        let mut agents: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for name in &names {
            agents.entry(name.agent_name.clone()).or_default().push(name.clone());
        }
        for (agent, workload_names) in agents {
            let own = pb::LogsRequest { workload_names, ..request.clone() };
            let message = LogsRequest { request_id: id.to_owned(), logs_request: Some(own) };
            self.send(&agent, FromServerContent::LogsRequest(message).into());
        }
        let accepted = pb::LogsRequestAccepted { workload_names: names };
        self.respond(id, ResponseContent::LogsRequestAccepted(accepted));
    }

    /// One workload's part of a campaign is over.
    pub(super) fn stop_logs(&mut self, id: &str, stop: pb::LogsStopResponse) {
        if let Some(left) = self.campaigns.get_mut(id) {
            left.retain(|name| Some(name) != stop.workload_name.as_ref());
            if left.is_empty() {
                self.campaigns.remove(id);
            }
        }
        self.respond(id, ResponseContent::LogsStopResponse(stop));
    }

    pub(super) fn cancel_logs(&mut self, id: &str) {
        self.campaigns.remove(id);
        self.tell_cancel(id);
    }

    /// The workloads of an agent that is gone write nothing any more.
    pub(super) fn end_logs_of(&mut self, agent: &str) {
        let mut ended = Vec::new();
        for (id, names) in &self.campaigns {
            let own = names.iter().filter(|name| name.agent_name == agent);
            ended.extend(own.map(|name| (id.clone(), name.clone())));
        }
        for (id, name) in ended {
            self.stop_logs(&id, pb::LogsStopResponse { workload_name: Some(name) });
        }
    }
}
