//! Main loop of the agent: routes changes of the store to fifogate and to the workload tasks, and
//! requests of workloads to the store.
//!
//! The loop never waits for slow work; a task does it, and returns the result through a channel. This
//! keeps the order in one place: fifogate gets every change before the response to its update.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use fifogate::{
    internal::state::EFFECTIVE_STATE,
    link::{AsyncLink, CallError, Incoming, LinkError, Messages},
    pb::{
        agent_link::{
            AgentTrouble, ForwardedRequest, ForwardedResponse, Phase, ReplaceState, Shutdown,
            UpdateState, from_agent::Content, to_agent,
        },
        ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    },
    state::{
        Instance, Tree,
        convert::{self, Fill},
    },
};
use log::Level;
use tokio::{
    process::Child,
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    command_interface::{Commanders, is_commander},
    figures::Figures,
    link::{GateConfig, GateProcess},
    log_text::{self, Quoted},
    logs::{Campaigns, Logs, OtherAgents, Requested},
    model::{self, Update},
    pairs::Pairs,
    placement::FirstState,
    service::{self, Life},
    store::{Change, Event, Events, Refused, Store},
    supervisor::Supervisor,
    updates::{Answer, Asked, decide},
};

/// Pause before an ended fifogate is started again; doubled each time.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Time for fifogate to end before it is killed.
const GATE_GRACE: Duration = Duration::from_secs(3);

/// State of the main loop.
#[derive(Debug)]
pub struct Agent {
    agent: String,
    config: GateConfig,
    events: Events,
    tree: Tree,
    /// The last state with a difference for running or waiting workloads.
    follow: watch::Sender<Tree>,
    gate: watch::Sender<Option<AsyncLink>>,
    running: Option<Running>,
    delay: Duration,
    respawn_at: Instant,
    pairs: Pairs,
    campaigns: Campaigns,
    commanders: Commanders,
    supervisor: Supervisor,
    figures: Figures,
    updates: mpsc::UnboundedSender<Asked>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// Trouble shown by `fifogate status`; empty if there is none.
    trouble: String,
    /// Owner of the first state; taken when that state has been checked.
    first_state: Option<FirstState>,
    life: Life,
}

/// A running fifogate.
#[derive(Debug)]
struct Running {
    messages: Messages,
    child: Child,
    since: Instant,
}

/// Parts of an agent, for [`Agent::start`].
#[derive(Debug)]
pub struct Parts {
    /// Start parameters of fifogate.
    pub config: GateConfig,
    /// The store, for updates.
    pub store: Store,
    /// Events of the store.
    pub events: Events,
    /// Publishes states to followers of workloads and execution states, without other changes.
    pub follow: watch::Sender<Tree>,
    /// Publishes the current fifogate.
    pub gate: watch::Sender<Option<AsyncLink>>,
    /// The open pairs.
    pub pairs: Pairs,
    /// The logs.
    pub logs: Logs,
    /// The other agents, for their logs.
    pub other_agents: OtherAgents,
    /// The connections of the command interface.
    pub(crate) commanders: Commanders,
    /// The workloads.
    pub supervisor: Supervisor,
    /// Figures for those who look at the agent.
    pub figures: Figures,
    /// The source of the first state.
    pub(crate) first_state: FirstState,
}

impl Agent {
    /// Assembles an agent, and starts its fifogate.
    ///
    /// # Errors
    /// fifogate cannot be started.
    pub async fn start(parts: Parts) -> Result<Self, CallError> {
        // Unbounded, as this loop never waits; `decide` bounds the waiting updates of each workload.
        let (updates, asked) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        tokio::spawn(decide(parts.store, asked, answered));
        let tree = parts.follow.borrow().clone();
        let mut node = Self {
            agent: parts.config.agent_name.clone(),
            config: parts.config,
            events: parts.events,
            tree,
            follow: parts.follow,
            gate: parts.gate,
            running: None,
            delay: FIRST_DELAY,
            respawn_at: Instant::now(),
            pairs: parts.pairs,
            campaigns: Campaigns::new(parts.logs, parts.other_agents),
            commanders: parts.commanders,
            supervisor: parts.supervisor,
            figures: parts.figures,
            updates,
            answers,
            trouble: String::new(),
            first_state: Some(parts.first_state),
            life: Life::new(),
        };
        let started = GateProcess::start(&node.config, true).await?;
        node.begin_gate(started).await;
        Ok(node)
    }

    /// Runs until `stop` completes, even if fifogate does not read its commands.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            // Biased: a stop counts even beside an endless stream of messages.
            () = stop => {}
            never = self.turn_for_ever() => match never {},
        }
    }

    async fn turn_for_ever(&mut self) -> Infallible {
        loop {
            // Biased in this order: no response overtakes the change of its update.
            tokio::select! {
                biased;
                // First: a sign of life is due however much there is to do.
                () = self.life.tick() => {}
                Some(event) = self.events.recv() => self.on_event(event).await,
                Some(answer) = self.answers.recv() => {
                    // The change was queued before its answer, so it is sent first.
                    while let Ok(event) = self.events.try_recv() {
                        self.on_event(event).await;
                    }
                    self.on_answer(answer).await;
                }
                Some(message) = next(&mut self.running) => self.on_gate(message).await,
                () = sleep_until(self.respawn_at), if self.running.is_none() => {
                    self.restart_gate().await;
                }
            }
        }
    }

    /// Ends the workloads, then fifogate, so messages about their end still reach the workloads.
    pub async fn finish(mut self) {
        let supervisor = self.supervisor;
        let finished = tokio::spawn(supervisor.finish());
        tokio::pin!(finished);
        let gate = self.gate.borrow().clone();
        loop {
            tokio::select! {
                biased;
                _ = &mut finished => break,
                Some(event) = self.events.recv() => {
                    if let (Event::State { tree, changes }, Some(gate)) = (event, &gate) {
                        tell_change(Some(gate), &self.pairs, &self.tree, &tree, changes).await;
                        self.follow.send_replace(tree.clone());
                        self.figures.follow(&tree);
                        self.tree = tree;
                    }
                }
                // Read and dropped, so fifogate is not blocked in writing to us.
                Some(Ok(Some(_))) = next(&mut self.running) => {}
            }
        }
        let Some(mut running) = self.running else { return };
        if let Some(gate) = gate {
            gate.send(Content::Shutdown(Shutdown {})).await;
        }
        if timeout(GATE_GRACE, running.child.wait()).await.is_err() {
            log::warn!("fifogate did not end in time: killing it");
            let _ = running.child.kill().await;
        }
    }

    async fn on_event(&mut self, event: Event) {
        let (mut tree, mut changes) = match event {
            Event::State { tree, changes } => (tree, changes),
            Event::Reachable(true) => return self.note_store(None).await,
            Event::Reachable(false) => return self.note_store(Some(None)).await,
            Event::Unusable(reason) => return self.note_store(Some(Some(reason))).await,
        };
        let first_state = self.first_state.take();
        let is_first = first_state.is_some();
        let mut next = None;
        if let Some(first_state) = first_state {
            // With `run --apply` another state is there already: no workload begins by the kept one.
            next = self.take_newest(&mut tree, &mut changes);
            first_state.log_if_idle(&tree, &self.agent);
        }
        let gate = self.gate.borrow().clone();
        tell_change(gate.as_ref(), &self.pairs, &self.tree, &tree, changes).await;
        self.commanders.follow(&tree);
        self.figures.follow(&tree);
        let old = std::mem::replace(&mut self.tree, tree);
        // Other changes wake no task: an event costs the same however many workloads run. The first state has
        // no workload at all, perhaps, and what an earlier agent has left is to end.
        if is_first || model::concerns_workloads(&old, &self.tree) {
            self.follow.send_replace(self.tree.clone());
            self.supervisor.follow(&self.tree);
        }
        if let Some(next) = next {
            Box::pin(self.on_event(next)).await;
        }
    }

    /// Replaces a state by the newest of those that wait. Returns the event behind them.
    fn take_newest(&mut self, tree: &mut Tree, changes: &mut Option<Vec<Change>>) -> Option<Event> {
        loop {
            match self.events.try_recv().ok()? {
                Event::State { tree: newer, .. } => (*tree, *changes) = (newer, None),
                other => return Some(other),
            }
        }
    }

    /// Notes a trouble of the store, perhaps with a reason other than that it cannot be reached.
    async fn note_store(&mut self, trouble: Option<Option<String>>) {
        let now = jiff::Timestamp::now().strftime("%FT%TZ");
        self.trouble = match trouble {
            None => {
                log::warn!("the store is reachable again");
                String::new()
            }
            Some(None) => {
                log::warn!("the store is unreachable");
                format!("the store cannot be reached since {now}: updates are refused until it is")
            }
            Some(Some(reason)) => {
                log::error!("the store holds no state: {reason}");
                format!("the store holds no state since {now}, so updates are refused: {reason}")
            }
        };
        self.figures.note_store(&self.trouble);
        service::status(if self.trouble.is_empty() { "running" } else { &self.trouble });
        let gate = self.gate.borrow().clone();
        if let Some(gate) = gate {
            self.tell_trouble(&gate).await;
        }
    }

    async fn tell_trouble(&self, gate: &AsyncLink) {
        gate.send(Content::Trouble(AgentTrouble { reason: self.trouble.clone() })).await;
    }

    async fn on_answer(&mut self, answer: Answer) {
        self.figures.count_update(answer.result.is_ok());
        if let Err(Refused::Denied(why)) = &answer.result {
            log_text::denied(&answer.by, why);
        }
        let content = match answer.result {
            Ok(success) => ResponseContent::UpdateStateSuccess(success),
            Err(refused) => ResponseContent::Error(pb::Error { message: refused.to_string() }),
        };
        self.respond(&answer.by, answer.request_id, content).await;
    }

    async fn respond(&self, to: &Instance, request_id: String, content: ResponseContent) {
        let gate = self.gate.borrow().clone();
        if let Some(gate) = gate {
            let response = pb::Response { request_id, response_content: Some(content) };
            // The requester may be gone; nothing waits for the response then.
            gate.send(Content::Response(ForwardedResponse {
                instance_name: Some(model::instance_name(to)),
                response: Some(response),
            }))
            .await;
        }
    }

    async fn on_gate(&mut self, message: Result<Option<Incoming>, LinkError>) {
        match message {
            Ok(Some(Incoming::Message(said))) => self.on_said(*said).await,
            Ok(Some(Incoming::StepRejected(rejected))) => {
                log::error!(
                    "fifogate rejected a step of the state: sending the whole state: {rejected}"
                );
                let gate = self.gate.borrow().clone();
                if let Some(gate) = gate {
                    self.tell_all(&gate).await;
                }
            }
            Ok(None) => self.on_gate_end().await,
            Err(error) => {
                log::error!("the link to fifogate is broken: {error}");
                self.on_gate_end().await;
            }
        }
    }

    async fn on_gate_end(&mut self) {
        // First: from here on tasks wait for the next fifogate instead of calling this one.
        self.gate.send_replace(None);
        self.campaigns.clear();
        self.commanders.gate_ended();
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill().await;
            // It ran well for a while, so its next start is not delayed further.
            if running.since.elapsed() > LONGEST_DELAY {
                self.delay = FIRST_DELAY;
            }
            let status = running.child.wait().await.map(|status| status.to_string());
            let how = status.unwrap_or_else(|error| error.to_string());
            log::error!("fifogate ended ({how}); restarting it in {:?}", self.delay);
        }
        self.plan_restart();
    }

    async fn on_said(&mut self, said: to_agent::Content) {
        match said {
            to_agent::Content::Request(request) => self.on_request(request).await,
            to_agent::Content::Session(change) => {
                // Campaigns end with their session, also if another session begins.
                let own = model::instance(&change.instance_name.clone().unwrap_or_default());
                self.campaigns.cancel_all_of(&own);
                if change.phase() == Phase::Closed && !is_commander(&own) {
                    let (name, reason) = (Quoted(&own.workload), Quoted(&change.reason));
                    let text = format_args!("the session of {name} ended: {reason}");
                    log_text::about(&own.workload, Level::Info, text);
                }
            }
            to_agent::Content::ToCommander(message) => self.commanders.deliver(message),
            to_agent::Content::CommanderReading(change) => self.commanders.set_reading(change),
            _ => {}
        }
    }

    async fn on_request(&mut self, forwarded: ForwardedRequest) {
        let by = model::instance(&forwarded.instance_name.unwrap_or_default());
        let request = forwarded.request.unwrap_or_default();
        let request_id = request.request_id;
        match request.request_content {
            Some(RequestContent::UpdateStateRequest(update)) => match update.new_state {
                None => {
                    let message = "The UpdateStateRequest does not contain a new state".to_owned();
                    self.respond(&by, request_id, ResponseContent::Error(pb::Error { message }))
                        .await;
                }
                Some(new_state) => {
                    // An operator has the rights of the agent itself.
                    let sender = if is_commander(&by) { "" } else { by.workload.as_str() };
                    let update =
                        Update { by: sender.to_owned(), new_state, masks: update.update_mask };
                    // The receiver lives as long as this loop.
                    let _ = self.updates.send(Asked { by, request_id, update });
                }
            },
            Some(RequestContent::LogsRequest(request)) => {
                let requested = self.requested_logs(&request);
                let gate = self.gate.borrow().clone();
                if let Some(gate) = gate {
                    self.campaigns.begin(&gate, &by, &request_id, &request, requested);
                }
            }
            Some(RequestContent::LogsCancelRequest(_)) => {
                self.campaigns.cancel(&by, &request_id);
                let accepted = ResponseContent::LogsCancelAccepted(pb::LogsCancelAccepted {});
                self.respond(&by, request_id, accepted).await;
            }
            // This includes requests without readable content.
            _ => {
                let message = "The agent cannot read this request".to_owned();
                self.respond(&by, request_id, ResponseContent::Error(pb::Error { message })).await;
            }
        }
    }

    /// Instances named by a log request: those of this agent that are wanted, and those of others. The
    /// other agents know which of these are wanted.
    fn requested_logs(&self, request: &pb::LogsRequest) -> Requested {
        let is_wanted = |own: &Instance| {
            let workload = self.tree.get(&[EFFECTIVE_STATE, "workloads", &own.workload]);
            workload.is_some_and(|workload| Instance::of(&own.workload, workload) == *own)
        };
        let mut requested = Requested::default();
        // A set: an instance named twice is one log, with one end.
        let named: BTreeSet<_> = request.workload_names.iter().map(model::instance).collect();
        for own in named {
            if own.agent == self.agent {
                requested.own.extend(Some(own).filter(is_wanted));
            } else if !own.agent.is_empty() {
                // Without an agent there is no log anywhere.
                requested.elsewhere.entry(own.agent.clone()).or_default().insert(own);
            }
        }
        requested
    }

    async fn restart_gate(&mut self) {
        match GateProcess::start(&self.config, false).await {
            Ok(started) => {
                self.begin_gate(started).await;
                self.figures.count_gate_restart();
                log::info!("fifogate runs again");
            }
            Err(error) => {
                log::error!("{} cannot be started: {error}", self.config.program.display());
                self.plan_restart();
            }
        }
    }

    fn plan_restart(&mut self) {
        self.respawn_at = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }

    /// Sends everything to a new fifogate: the state first, so no workload sees an empty one.
    async fn begin_gate(&mut self, started: GateProcess) {
        let GateProcess { link: gate, messages, child } = started;
        self.running = Some(Running { messages, child, since: Instant::now() });
        self.tell_all(&gate).await;
        if !self.trouble.is_empty() {
            self.tell_trouble(&gate).await;
        }
        for add in self.pairs.all() {
            gate.send(Content::AddWorkload(add)).await;
        }
        // Published last: no task can send a command ahead of the state.
        self.gate.send_replace(Some(gate));
    }

    async fn tell_all(&self, gate: &AsyncLink) {
        let state = convert::to_pb(&self.tree, Fill::Full);
        gate.send_step(Content::ReplaceState(ReplaceState { state: Some(state) })).await;
    }
}

async fn next(running: &mut Option<Running>) -> Option<Result<Option<Incoming>, LinkError>> {
    Some(running.as_mut()?.messages.recv().await)
}

/// Sends the change from `old` to `new` with its access rules. Lost rights end before anything of the
/// new state can be read; new rights come with it.
async fn tell_change(
    gate: Option<&AsyncLink>,
    pairs: &Pairs,
    old: &Tree,
    new: &Tree,
    changes: Option<Vec<Change>>,
) {
    let differ = pairs.narrow(gate, new).await;
    if let Some(gate) = gate {
        tell_step(gate, old, new, changes).await;
    }
    pairs.widen(gate, differ).await;
}

/// Sends the change from `old`, known to fifogate, to `new`.
async fn tell_step(gate: &AsyncLink, old: &Tree, new: &Tree, changes: Option<Vec<Change>>) {
    let known = changes.and_then(|changes| model::update_of(old, new, changes));
    if let Some((new_state, update_mask)) = known.or_else(|| model::difference(old, new)) {
        let update = UpdateState { new_state: Some(new_state), update_mask };
        gate.send_step(Content::UpdateState(update)).await;
    }
}
