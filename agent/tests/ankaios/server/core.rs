//! What the model knows, and what it does with each message: a state, connections, subscriptions and campaigns.

use std::{collections::BTreeMap, sync::mpsc as blocking};

use fifogate::{
    internal::{
        agent_update::set_states,
        check_version,
        parts::{agent_from_pb, execution_state_from_pb, execution_state_to_pb},
        state::{AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, WORKLOAD_STATES},
    },
    pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    state::{Instance, Map, Mask, Node, Tree, convert::new_state_from_pb, update},
};
use tonic::Status;

use super::{
    events::{self, Changes},
    messages::{
        AgentHello, FromServer, FromServerContent, LogsCancelRequest, ToServer, ToServerContent,
    },
    sink::{BreakBy, Sink},
    tls::host_names,
    updates::added,
};

/// A connection of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) name: String,
    pub(super) number: usize,
}

pub(super) struct Core {
    pub(super) state: Tree,
    pub(super) agents: BTreeMap<String, (usize, Sink)>,
    operators: BTreeMap<String, blocking::Sender<FromServer>>,
    /// Masks by the full id of the request.
    pub(super) subscriptions: BTreeMap<String, Vec<String>>,
    /// The workloads whose logs have not ended, by the full id of the request.
    pub(super) campaigns: BTreeMap<String, Vec<pb::WorkloadInstanceName>>,
    /// What has to hold before a workload is deleted, by its name.
    pub(super) delete_conditions: BTreeMap<String, BTreeMap<String, i32>>,
    /// Agents whose streams broke while something else was done.
    broken: Vec<Connection>,
    last: usize,
}

impl Core {
    /// A server with this manifest. `last` numbers connections over restarts.
    pub(super) fn new(manifest: &pb::CompleteState, last: usize) -> Self {
        let empty = [(API_VERSION, Node::text("v1")), ("workloads", Node::Map(Map::new()))];
        let mut core = Self {
            state: Tree::initial().with(EFFECTIVE_STATE, Some(Node::map(empty))),
            agents: BTreeMap::new(),
            operators: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            campaigns: BTreeMap::new(),
            delete_conditions: BTreeMap::new(),
            broken: Vec::new(),
            last,
        };
        let manifest = new_state_from_pb(manifest).unwrap();
        if manifest.get(&[DESIRED_STATE]).is_some() {
            let masks = [Mask::parse(DESIRED_STATE)];
            let next = update::apply(&core.state, &manifest, &masks).expect("a good manifest");
            let (deleted, added) = core.put_desired(next.tree);
            core.follow(&deleted, &added);
        }
        core
    }

    pub(super) fn last(&self) -> usize {
        self.last
    }

    /// The agents that are connected.
    pub(super) fn names(&self) -> Vec<String> {
        self.agents.keys().cloned().collect()
    }

    /// Takes the first message of a stream.
    pub(super) fn hello(
        &mut self,
        first: Option<ToServer>,
        certificates: Option<&[Vec<u8>]>,
        sink: Sink,
    ) -> Result<Connection, Status> {
        let hello = match first.unwrap_or_default().content {
            Some(ToServerContent::AgentHello(hello)) => hello,
            Some(_) => return Err(Status::invalid_argument("No AgentHello received.")),
            None => return Err(Status::invalid_argument("Empty")),
        };
        if check_version(&hello.protocol_version).is_err() {
            let version = &hello.protocol_version;
            return Err(Status::failed_precondition(format!(
                "Unsupported protocol version '{version}'. Currently supported '1'"
            )));
        }
        check_certificates(&hello.agent_name, certificates)?;
        Ok(self.join(hello, sink))
    }

    fn join(&mut self, hello: AgentHello, sink: Sink) -> Connection {
        let name = hello.agent_name;
        self.last += 1;
        // An older stream of the name ends with OK, as its sink is dropped.
        self.agents.insert(name.clone(), (self.last, sink));
        let own = Connection { name: name.clone(), number: self.last };
        let attributes = pb::AgentAttributes { status: None, tags: hello.tags };
        self.set_agent(&name, Some(agent_from_pb(&attributes)));
        let others = self.states(|instance| instance.agent != name);
        if !others.is_empty() {
            self.send(&name, FromServer::states(others));
        }
        let workloads = self.state.entries(&[EFFECTIVE_STATE, "workloads"]);
        let own_workloads =
            workloads.iter().filter(|(_, node)| node.str_at("agent") == Some(&name));
        let added = own_workloads.map(|(key, node)| added(&Instance::of(key.as_str(), node), node));
        self.send(&name, FromServer::hello(added.collect()));
        self.drop_broken();
        own
    }

    /// Takes a further message; false if the real server ends the stream for it, as if it was broken.
    pub(super) fn message(&mut self, own: &Connection, message: ToServer) -> bool {
        if !self.is_current(own) {
            return true;
        }
        let name = &own.name;
        match message.content {
            None => return false,
            Some(ToServerContent::Request(request)) => {
                let is_broken = match &request.request_content {
                    None => true,
                    Some(RequestContent::UpdateStateRequest(update)) => update.new_state.is_none(),
                    Some(_) => false,
                };
                if is_broken {
                    return false;
                }
                // An empty id gets no prefix, and its answer finds nobody.
                let id = match request.request_id.as_str() {
                    "" => String::new(),
                    id => format!("{name}@{id}"),
                };
                self.request(&id, request.request_content.unwrap());
            }
            Some(ToServerContent::AgentLoadStatus(load)) => {
                let status =
                    pb::AgentStatus { cpu_usage: load.cpu_usage, free_memory: load.free_memory };
                let status = pb::AgentAttributes { status: Some(status), tags: None };
                let mut agent = self.state.entries(&[AGENTS, name.as_str()]).clone();
                if let Some(status) = agent_from_pb(&status).get("status") {
                    agent.insert("status", status.clone());
                }
                self.set_agent(name, Some(Node::Map(agent)));
            }
            Some(ToServerContent::UpdateWorkloadState(states)) => {
                self.take_states(Some(name), states.workload_states);
            }
            Some(ToServerContent::LogEntriesResponse(entries)) => {
                let content = entries.log_entries_response.unwrap_or_default();
                self.respond(&entries.request_id, ResponseContent::LogEntriesResponse(content));
            }
            Some(ToServerContent::LogsStopResponse(stop)) => {
                self.stop_logs(&stop.request_id, stop.logs_stop_response.unwrap_or_default());
            }
            // The agent stays; a second hello is ignored.
            Some(
                ToServerContent::Goodbye(_)
                | ToServerContent::AgentHello(_)
                | ToServerContent::CommanderHello(_),
            ) => {}
        }
        self.drop_broken();
        true
    }

    /// The stream of an agent is broken.
    pub(super) fn gone(&mut self, own: &Connection) {
        if !self.is_current(own) {
            return;
        }
        let name = own.name.clone();
        self.agents.remove(&name);
        let old = self.state.clone();
        let disconnected = pb::ExecutionState {
            additional_info: Some(String::new()),
            execution_state_enum: Some(pb::execution_state::ExecutionStateEnum::AgentDisconnected(
                0,
            )),
        };
        let node = execution_state_from_pb(&disconnected).unwrap();
        let own_states = self.states(|instance| instance.agent == name);
        let set: Vec<_> =
            own_states.iter().map(|state| (instance(state), Some(node.clone()))).collect();
        let mut agents = old.entries(&[AGENTS]).clone();
        agents.remove(&name);
        self.state = set_states(&old, &set).with(AGENTS, Some(Node::Map(agents)));
        self.publish(&old);
        let states = set.iter().map(|(instance, _)| pb::WorkloadState {
            instance_name: Some(name_of(instance)),
            execution_state: Some(disconnected.clone()),
        });
        self.tell_states(None, states.collect());
        self.end_logs_of(&name);
        self.forget_requests(&format!("{name}@"));
        self.drop_broken();
    }

    /// Breaks the stream of an agent on purpose.
    pub(super) fn break_by(&mut self, own: &Connection, how: BreakBy) {
        if self.is_current(own) {
            self.agents[&own.name].1.break_by(how);
            self.gone(own);
        }
    }

    /// A connection of an operator; one like that of `ank` is told states unasked.
    pub(super) fn operator(&mut self, kind: &str, sender: blocking::Sender<FromServer>) -> String {
        self.last += 1;
        let name = format!("{kind}-{:08}-0000-4000-8000-000000000000", self.last);
        self.operators.insert(name.clone(), sender);
        name
    }

    pub(super) fn goodbye(&mut self, operator: &str) {
        self.operators.remove(operator);
        self.forget_requests(&format!("{operator}@"));
        self.drop_broken();
    }

    /// A request by its full id.
    pub(super) fn request(&mut self, id: &str, content: RequestContent) {
        match content {
            RequestContent::UpdateStateRequest(update) => self.update(id, &update),
            RequestContent::CompleteStateRequest(request) => {
                let state = events::read(&self.state, &request.field_mask);
                if request.subscribe_for_events && state.is_some() {
                    self.subscriptions.insert(id.to_owned(), request.field_mask);
                }
                let answer = pb::CompleteStateResponse {
                    complete_state: Some(state.unwrap_or_default()),
                    altered_fields: None,
                };
                self.respond(id, ResponseContent::CompleteStateResponse(answer));
            }
            RequestContent::LogsRequest(request) => self.begin_logs(id, request),
            RequestContent::LogsCancelRequest(_) => {
                self.cancel_logs(id);
                let accepted = pb::LogsCancelAccepted::default();
                self.respond(id, ResponseContent::LogsCancelAccepted(accepted));
            }
            RequestContent::EventsCancelRequest(_) => {
                self.subscriptions.remove(id);
                let accepted = pb::EventsCancelAccepted::default();
                self.respond(id, ResponseContent::EventsCancelAccepted(accepted));
            }
        }
        self.drop_broken();
    }

    /// Takes reported states, and passes them on. One without all of its parts is dropped silently.
    fn take_states(&mut self, from: Option<&str>, states: Vec<pb::WorkloadState>) {
        let old = self.state.clone();
        let (mut set, mut valid) = (Vec::new(), Vec::new());
        for state in states {
            let Some(execution) = &state.execution_state else { continue };
            if state.instance_name.is_none()
                || execution.additional_info.is_none()
                || execution.execution_state_enum.is_none()
            {
                continue;
            }
            let Ok(node) = execution_state_from_pb(execution) else { continue };
            let own = instance(&state);
            let is_removed = node.str_at("state") == Some("Removed");
            if is_removed {
                self.delete_conditions.remove(&own.workload);
                let prefix = format!("{}@{}@", own.agent, own.workload);
                self.subscriptions.retain(|id, _| !id.starts_with(&prefix));
            }
            set.push((own, (!is_removed).then_some(node)));
            valid.push(state);
        }
        self.state = set_states(&old, &set);
        self.publish(&old);
        self.tell_states(from, valid);
    }

    /// Sends states to all agents but one, and to operators like `ank`.
    pub(super) fn tell_states(&mut self, from: Option<&str>, states: Vec<pb::WorkloadState>) {
        if states.is_empty() {
            return;
        }
        for agent in self.names() {
            if from != Some(&agent) {
                self.send(&agent, FromServer::states(states.clone()));
            }
        }
        for (_, sender) in self.operators.iter().filter(|(name, _)| name.starts_with("cli-conn")) {
            let _ = sender.send(FromServer::states(states.clone()));
        }
    }

    /// Sends the events of all that has changed since `old`.
    pub(super) fn publish(&mut self, old: &Tree) {
        let changes = Changes::between(old, &self.state);
        if changes.is_empty() {
            return;
        }
        let events = self.subscriptions.iter().filter_map(|(id, masks)| {
            changes.event(&self.state, masks).map(|event| (id.clone(), event))
        });
        for (id, event) in events.collect::<Vec<_>>() {
            self.respond(&id, ResponseContent::CompleteStateResponse(event));
        }
    }

    /// Sends a response to whom the full id names in front of its first `@`.
    pub(super) fn respond(&mut self, id: &str, content: ResponseContent) {
        let Some((receiver, id)) = id.split_once('@') else { return };
        let response = FromServer::response(id, content);
        match self.operators.get(receiver) {
            Some(operator) => drop(operator.send(response)),
            None => self.send(receiver, response),
        }
    }

    /// Sends a message to an agent, if it is connected.
    pub(super) fn send(&mut self, agent: &str, message: FromServer) {
        let Some((number, sink)) = self.agents.get(agent) else { return };
        if !sink.send(message) {
            self.broken.push(Connection { name: agent.to_owned(), number: *number });
        }
    }

    /// Tells all agents, and operators like `ank`, that a campaign is over.
    pub(super) fn tell_cancel(&mut self, id: &str) {
        let cancel = LogsCancelRequest { request_id: id.to_owned() };
        let cancel = FromServer::from(FromServerContent::LogsCancelRequest(cancel));
        for agent in self.names() {
            self.send(&agent, cancel.clone());
        }
        for (_, sender) in self.operators.iter().filter(|(name, _)| name.starts_with("cli-conn")) {
            let _ = sender.send(cancel.clone());
        }
    }

    /// Ends subscriptions and campaigns whose full ids begin so.
    fn forget_requests(&mut self, prefix: &str) {
        self.subscriptions.retain(|id, _| !id.starts_with(prefix));
        let own = self.campaigns.keys().filter(|id| id.starts_with(prefix)).cloned();
        for id in own.collect::<Vec<_>>() {
            self.cancel_logs(&id);
        }
    }

    fn set_agent(&mut self, name: &str, agent: Option<Node>) {
        let old = self.state.clone();
        let mut agents = old.entries(&[AGENTS]).clone();
        match agent {
            Some(agent) => agents.insert(name, agent),
            None => {
                agents.remove(name);
            }
        }
        self.state = old.with(AGENTS, Some(Node::Map(agents)));
        self.publish(&old);
    }

    fn is_current(&self, own: &Connection) -> bool {
        self.agents.get(&own.name).is_some_and(|(number, _)| *number == own.number)
    }

    fn drop_broken(&mut self) {
        while let Some(own) = self.broken.pop() {
            self.gone(&own);
        }
    }

    /// The states of the chosen instances.
    pub(super) fn states(&self, is_chosen: impl Fn(&Instance) -> bool) -> Vec<pb::WorkloadState> {
        let mut found = Vec::new();
        for (agent, workloads) in self.state.entries(&[WORKLOAD_STATES]) {
            for (workload, ids) in workloads.entries() {
                for (id, node) in ids.entries() {
                    let [agent, workload, id] =
                        [agent, workload, id].map(|key| key.as_str().to_owned());
                    let instance = Instance { workload, agent, id };
                    if is_chosen(&instance) {
                        found.push(pb::WorkloadState {
                            instance_name: Some(name_of(&instance)),
                            execution_state: Some(execution_state_to_pb(node)),
                        });
                    }
                }
            }
        }
        found
    }
}

fn check_certificates(agent: &str, certificates: Option<&[Vec<u8>]>) -> Result<(), Status> {
    let names = match certificates {
        None => return Ok(()),
        Some([own]) => host_names(own),
        Some(_) => return Err(Status::unauthenticated("ambiguous certificates")),
    };
    let names = names.ok_or_else(|| Status::unauthenticated("no alternative names"))?;
    if names.iter().any(|name| name == agent || name == "*") {
        return Ok(());
    }
    Err(Status::unauthenticated(format!(
        "Agent name '{agent}' does not match SAN [{}] in agent certificates!",
        names.join(", ")
    )))
}

pub(super) fn name_of(instance: &Instance) -> pb::WorkloadInstanceName {
    pb::WorkloadInstanceName {
        workload_name: instance.workload.clone(),
        agent_name: instance.agent.clone(),
        id: instance.id.clone(),
    }
}

pub(super) fn instance(state: &pb::WorkloadState) -> Instance {
    let name = state.instance_name.clone().unwrap_or_default();
    Instance { workload: name.workload_name, agent: name.agent_name, id: name.id }
}
