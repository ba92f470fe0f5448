//! The task that follows the server: the only owner of the connection and of the known state.

use std::time::Duration;

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, interval_at, sleep, sleep_until},
};

use super::{
    Asked, Command, Fetch, Options, check,
    connection::{Connection, Trouble},
    forwarded_id,
    requests::Requests,
    served_logs::ServedLogs,
    update_request,
    view::View,
};
use crate::{
    grpc_api::{AgentLoadStatus, UpdateWorkloadState, from_server, to_server},
    log_text::Quoted,
    model::{self, StateModel, states},
    store::{Event, Refused},
    supervisor::DeleteConditions,
};

/// Pause before another attempt to connect.
const PAUSE: Duration = Duration::from_secs(1);
/// Time for the whole state. A server that does not tell it is followed by its orders alone.
const WHOLE_STATE: Duration = Duration::from_secs(5);
/// How often the tags of agents are read: the server tells no event about them.
const TAGS: Duration = Duration::from_secs(30);
/// Most reasons logged for one outage.
const MOST_REASONS: usize = 20;

/// Requests of the agent itself. No workload has such a name, so none of them gets the response.
const OWN: &str = ".fifogate";

/// The task.
#[derive(Debug)]
pub(super) struct Follower {
    options: Options,
    events: mpsc::Sender<Event>,
    conditions: watch::Sender<DeleteConditions>,
    /// Until the first state is known.
    ready: Option<oneshot::Sender<()>>,
    /// The state with its indexes, as the receiver of events has it.
    current: StateModel,
    view: View,
    requests: Requests,
    logs: ServedLogs,
    /// Number of the last own request.
    last: u64,
    /// The id of the subscription.
    subscription: String,
    /// Whether its first answer has come.
    is_subscribed: bool,
    is_away: bool,
    /// What was logged about the present outage.
    reasons: Vec<String>,
}

/// Why a connection is not used any more.
enum End {
    Trouble(Trouble),
    /// The agent ends.
    Closed(Option<oneshot::Sender<()>>),
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl Follower {
    pub(super) fn new(
        options: Options,
        events: mpsc::Sender<Event>,
        conditions: watch::Sender<DeleteConditions>,
        ready: oneshot::Sender<()>,
    ) -> Self {
        let view = View::new(&options.agent);
        Self {
            options,
            events,
            conditions,
            ready: Some(ready),
            current: StateModel::new(model::empty()),
            view,
            requests: Requests::default(),
            logs: ServedLogs::default(),
            last: 0,
            subscription: String::new(),
            is_subscribed: false,
            is_away: false,
            reasons: Vec::new(),
        }
    }

    /// Follows the server until the agent ends. Returns the reason if the server refuses this agent for good.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Option<String> {
        loop {
            let options = self.options.clone();
            let opened = self.meanwhile(&mut commands, Connection::open(&options)).await;
            let end = match opened {
                Ok(Ok(connection)) => self.serve(connection, &mut commands).await,
                Ok(Err(trouble)) => trouble.into(),
                Err(end) => end,
            };
            self.lose().await;
            match end {
                End::Closed(closed) => {
                    drop(closed);
                    return None;
                }
                End::Trouble(Trouble::Refused(reason)) => return Some(reason),
                End::Trouble(trouble) => self.tell_trouble(&trouble),
            }
            if let Err(End::Closed(_)) = self.meanwhile(&mut commands, sleep(PAUSE)).await {
                return None;
            }
        }
    }

    /// Waits for `done`, and answers the agent meanwhile.
    async fn meanwhile<T>(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        done: impl Future<Output = T>,
    ) -> Result<T, End> {
        tokio::pin!(done);
        loop {
            tokio::select! {
                biased;
                done = &mut done => return Ok(done),
                command = commands.recv() => self.on_command(None, command).await?,
            }
        }
    }

    fn tell_trouble(&mut self, trouble: &Trouble) {
        let text = format!("the server at {}: {trouble}", self.options.target.address);
        // Each reason once: an outage takes an attempt each second, and fails in a few ways.
        if self.reasons.len() < MOST_REASONS && !self.reasons.contains(&text) {
            log::warn!("{text}");
            self.reasons.push(text);
        }
    }

    /// Nothing is under way any more.
    async fn lose(&mut self) {
        self.requests.lose();
        self.logs.clear();
        self.view.lose();
        self.is_subscribed = false;
        if self.ready.is_none() && !self.is_away {
            self.is_away = true;
            let _ = self.events.send(Event::Reachable(false)).await;
        }
    }

    /// Talks to the server until the connection or the agent ends.
    async fn serve(
        &mut self,
        mut connection: Connection,
        commands: &mut mpsc::Receiver<Command>,
    ) -> End {
        let end = match self.talk(&mut connection, commands).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if let End::Closed(_) = end {
            let cancel = RequestContent::EventsCancelRequest(pb::EventsCancelRequest {});
            let _ = request(&connection, self.subscription.clone(), cancel);
            connection.leave().await;
        }
        end
    }

    async fn talk(
        &mut self,
        connection: &mut Connection,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<std::convert::Infallible, End> {
        self.greet(connection, commands).await?;
        let whole_state = sleep_until(Instant::now() + WHOLE_STATE);
        tokio::pin!(whole_state);
        let mut is_due = true;
        let mut tags = interval_at(Instant::now() + TAGS, TAGS);
        loop {
            tokio::select! {
                // What the server has told comes before what the agent wants of it.
                biased;
                content = connection.next() => self.on_message(connection, content?).await?,
                command = commands.recv() => self.on_command(Some(connection), command).await?,
                () = &mut whole_state, if is_due => {
                    is_due = false;
                    if !self.is_subscribed {
                        log::warn!("the server does not tell its state: workloads see no more than its orders");
                        self.become_ready().await;
                    }
                }
                _ = tags.tick() => {
                    let id = self.own_id("tags");
                    read(connection, id, &["agents.*.tags"], false)?;
                }
            }
        }
    }

    /// Waits for the server's hello, reports everything again, and subscribes to the whole state.
    async fn greet(
        &mut self,
        connection: &mut Connection,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), End> {
        let hello = loop {
            let next = self.meanwhile(commands, connection.next()).await?;
            match next? {
                from_server::Content::ServerHello(hello) => break hello,
                content => self.on_message(connection, content).await?,
            }
        };
        let faults = self.view.greet(hello.added_workloads);
        tell_faults(&faults);
        for state in self.view.reports() {
            self.send_state(connection, state)?;
        }
        self.subscribe(connection)?;
        Ok(())
    }

    fn subscribe(&mut self, connection: &Connection) -> Result<(), Trouble> {
        self.subscription = self.own_id("state");
        self.is_subscribed = false;
        read(connection, self.subscription.clone(), &[], true)
    }

    fn own_id(&mut self, what: &str) -> String {
        self.last += 1;
        forwarded_id(OWN, &format!("{what}{}", self.last))
    }

    /// The state is known as well as it will be.
    async fn become_ready(&mut self) {
        self.reasons.clear();
        let is_first = self.ready.is_some();
        if is_first {
            let tree = self.view.tree().clone();
            self.current.set(tree.clone());
            let _ = self.events.send(Event::State { tree, changes: None }).await;
        } else {
            self.tell().await;
        }
        if std::mem::take(&mut self.is_away) {
            let _ = self.events.send(Event::Reachable(true)).await;
        }
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(());
        }
    }

    /// Sends the known state, if it is another one.
    async fn tell(&mut self) {
        if self.conditions.borrow().ne(self.view.delete_conditions()) {
            self.conditions.send_replace(self.view.delete_conditions().clone());
        }
        if self.ready.is_none() && self.view.tree() != self.current.tree() {
            let tree = self.view.tree().clone();
            self.current.set(tree.clone());
            let _ = self.events.send(Event::State { tree, changes: None }).await;
        }
    }

    async fn on_message(
        &mut self,
        connection: &Connection,
        content: from_server::Content,
    ) -> Result<(), Trouble> {
        match content {
            from_server::Content::UpdateWorkload(update) => {
                let done = self.view.order(update.added_workloads, update.deleted_workloads);
                tell_faults(&done.faults);
                for name in done.unknown {
                    send_state(connection, name, states::removed())?;
                }
            }
            from_server::Content::ServerHello(hello) => {
                tell_faults(&self.view.greet(hello.added_workloads));
            }
            from_server::Content::UpdateWorkloadState(update) => {
                self.view.hear(&update.workload_states);
            }
            from_server::Content::Response(response) => {
                return self.on_response(connection, response).await;
            }
            from_server::Content::LogsRequest(request) => {
                let wanted = |own: &_| self.view.is_ordered(own);
                let known = (self.view.given(), wanted);
                let asked = request.logs_request.unwrap_or_default();
                self.logs.begin(&connection.logs, &request.request_id, &asked, known);
            }
            from_server::Content::LogsCancelRequest(cancel) => {
                self.logs.cancel(&cancel.request_id);
            }
        }
        self.tell().await;
        Ok(())
    }

    async fn on_response(
        &mut self,
        connection: &Connection,
        response: pb::Response,
    ) -> Result<(), Trouble> {
        let pb::Response { request_id: id, response_content } = response;
        let Some(content) = response_content else { return Ok(()) };
        let own = id.strip_prefix(OWN).is_some();
        match content {
            ResponseContent::CompleteStateResponse(answer) if id == self.subscription => {
                self.on_state(connection, answer).await?;
            }
            // Of a subscription before, perhaps of another connection.
            ResponseContent::CompleteStateResponse(answer)
                if own && answer.altered_fields.is_some() =>
            {
                let cancel = RequestContent::EventsCancelRequest(pb::EventsCancelRequest {});
                request(connection, id, cancel)?;
            }
            ResponseContent::CompleteStateResponse(answer) if id.contains("@tags") && own => {
                let state = answer.complete_state.unwrap_or_default();
                if let Err(error) = self.view.refresh_agents(&state) {
                    log::debug!("the tags of agents cannot be read: {error}");
                }
                self.tell().await;
            }
            content => {
                // The events of an update are queued before its answer.
                self.tell().await;
                if let Some(id) = self.requests.respond(&id, content) {
                    let cancel = RequestContent::LogsCancelRequest(pb::LogsCancelRequest {});
                    request(connection, id, cancel)?;
                }
            }
        }
        Ok(())
    }

    /// The first answer to the subscription, or an event.
    async fn on_state(
        &mut self,
        connection: &Connection,
        answer: pb::CompleteStateResponse,
    ) -> Result<(), Trouble> {
        let state = answer.complete_state.unwrap_or_default();
        let Some(altered) = answer.altered_fields else {
            if let Err(error) = self.view.replace(&state) {
                log::error!("the server's state cannot be read: {error}");
            }
            for own in self.view.left_over() {
                let state = pb::WorkloadState {
                    instance_name: Some(model::instance_name(&own)),
                    execution_state: Some(states::removed()),
                };
                self.view.report(&state);
                self.send_state(connection, state)?;
            }
            self.is_subscribed = true;
            self.become_ready().await;
            return Ok(());
        };
        // Events of a subscription that is not answered yet are part of the answer.
        if self.is_subscribed {
            match self.view.change(&state, &altered) {
                Ok(()) => self.tell().await,
                Err(unclear) => {
                    log::debug!("the state is read again: {unclear}");
                    let cancel = RequestContent::EventsCancelRequest(pb::EventsCancelRequest {});
                    request(connection, self.subscription.clone(), cancel)?;
                    self.subscribe(connection)?;
                }
            }
        }
        Ok(())
    }

    /// Does what the agent wants; without a connection only as far as that is possible.
    async fn on_command(
        &mut self,
        connection: Option<&Connection>,
        command: Option<Command>,
    ) -> Result<(), End> {
        match command {
            // All handles are gone: so is the agent.
            None => return Err(End::Closed(None)),
            Some(Command::Close(closed)) => return Err(End::Closed(Some(closed))),
            Some(Command::Report(mut states)) => {
                states.retain(|state| self.view.report(state));
                // Known here before anywhere else.
                self.tell().await;
                for state in states {
                    if let Some(connection) = connection {
                        self.send_state(connection, state)?;
                    }
                }
            }
            Some(Command::Status(status)) => {
                if let Some(connection) = connection {
                    let pb::AgentStatus { cpu_usage, free_memory } = status;
                    let agent_name = self.options.agent.clone();
                    let status = AgentLoadStatus { agent_name, cpu_usage, free_memory };
                    connection.send(to_server::Content::AgentLoadStatus(status))?;
                }
            }
            Some(Command::Update(asked)) => self.update(connection, *asked)?,
            Some(Command::ServeLogs(logs)) => self.logs.logs = Some(logs),
            Some(Command::FetchLogs(fetch)) => {
                let Fetch { id, request: asked, pieces } = *fetch;
                match connection {
                    None => pieces.end("the server cannot be reached"),
                    Some(connection) => {
                        request(connection, id.clone(), RequestContent::LogsRequest(asked))?;
                        self.requests.add_logs(id, pieces);
                    }
                }
            }
            Some(Command::CancelLogs(id)) => {
                if self.requests.cancel_logs(&id)
                    && let Some(connection) = connection
                {
                    let cancel = RequestContent::LogsCancelRequest(pb::LogsCancelRequest {});
                    request(connection, id, cancel)?;
                }
            }
        }
        Ok(())
    }

    fn update(&mut self, connection: Option<&Connection>, asked: Asked) -> Result<(), Trouble> {
        let Asked { by, update, request_id, answer } = asked;
        let Some(connection) = connection else {
            let text = "The server cannot be reached".to_owned();
            let _ = answer.send(Err(Refused::Unavailable(text)));
            return Ok(());
        };
        if let Err(refused) = check(&self.current, &update) {
            let _ = answer.send(Err(refused));
            return Ok(());
        }
        let by = if by.is_empty() { OWN } else { &by };
        let (id, barrier) = (forwarded_id(by, &request_id), self.own_id("after"));
        request(connection, id.clone(), update_request(update))?;
        // Its answer comes behind all events of the update; those of configs come after the update's own.
        read(connection, barrier.clone(), &["desiredState.apiVersion"], false)?;
        self.requests.add_update(&id, &barrier, answer);
        Ok(())
    }

    /// Reports a state to the server.
    fn send_state(&self, connection: &Connection, state: pb::WorkloadState) -> Result<(), Trouble> {
        let instance = model::instance(&state.instance_name.unwrap_or_default());
        let name = model::instance_name(&self.view.given().out(&instance));
        send_state(connection, name, state.execution_state.unwrap_or_default())
    }
}

/// Sends a state to the server, which drops one without `additionalInfo`.
fn send_state(
    connection: &Connection,
    name: pb::WorkloadInstanceName,
    mut state: pb::ExecutionState,
) -> Result<(), Trouble> {
    state.additional_info.get_or_insert_default();
    let state = pb::WorkloadState { instance_name: Some(name), execution_state: Some(state) };
    let update = UpdateWorkloadState { workload_states: vec![state] };
    connection.send(to_server::Content::UpdateWorkloadState(update))
}

fn tell_faults(faults: &[String]) {
    for fault in faults {
        log::error!("the server orders what cannot be run: {}", Quoted(fault));
    }
}

fn request(connection: &Connection, id: String, content: RequestContent) -> Result<(), Trouble> {
    let request = pb::Request { request_id: id, request_content: Some(content) };
    connection.send(to_server::Content::Request(request))
}

fn read(
    connection: &Connection,
    id: String,
    masks: &[&str],
    subscribe_for_events: bool,
) -> Result<(), Trouble> {
    let field_mask = masks.iter().map(|&mask| mask.to_owned()).collect();
    let asked = pb::CompleteStateRequest { field_mask, subscribe_for_events };
    request(connection, id, RequestContent::CompleteStateRequest(asked))
}
