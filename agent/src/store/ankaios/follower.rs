//! The task that follows the server: the only owner of the connection and of the known state.

use std::time::Duration;

use fifogate::pb::ank_base as pb;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, interval_at, sleep, sleep_until, timeout_at},
};

use super::{
    Command, Options,
    connection::{Connection, Trouble},
    forwarded_id,
    requests::Requests,
    served_logs::ServedLogs,
    view::View,
};
use crate::{
    grpc_api::from_server,
    log_text::Quoted,
    model::{self, StateModel},
    store::Event,
    supervisor::DeleteConditions,
};

mod commands;
mod messages;

/// Pause before another attempt to connect.
const PAUSE: Duration = Duration::from_secs(1);
/// Time for the server's hello.
const HELLO: Duration = Duration::from_secs(10);
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
            let _ = connection.cancel_events(self.subscription.clone());
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
                    self.read_tags(connection)?;
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
        let end = Instant::now() + HELLO;
        let hello = loop {
            let next = timeout_at(end, connection.next());
            let silent = |_| Trouble::Away("it does not say hello".to_owned());
            match self.meanwhile(commands, next).await?.map_err(silent)?? {
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
        connection.read(self.subscription.clone(), &[], true)
    }

    fn read_tags(&mut self, connection: &Connection) -> Result<(), Trouble> {
        let id = self.own_id("tags");
        connection.read(id, &["agents.*.tags"], false)
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

    /// Reports a state to the server.
    fn send_state(&self, connection: &Connection, state: pb::WorkloadState) -> Result<(), Trouble> {
        let instance = model::instance(&state.instance_name.unwrap_or_default());
        let name = model::instance_name(&self.view.given().out(&instance));
        connection.send_state(name, state.execution_state.unwrap_or_default())
    }
}

fn tell_faults(faults: &[String]) {
    for fault in faults {
        log::error!("the server orders what cannot be run: {}", Quoted(fault));
    }
}
