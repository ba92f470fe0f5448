//! A workload that a test driver remote-controls, through the unmodified Ankaios Rust SDK.
//!
//! Commands come in on standard input and answers go out on standard output, one JSON object a
//! line; `tests/sdk/README.md` describes them. `tests/sdk/python/workload.py` is the same program
//! for the Python SDK.

mod log_watcher;

use std::collections::HashMap;

use ankaios_sdk::{
    Ankaios, AnkaiosError, CompleteState, EventEntry, EventsCampaignResponse, Workload,
};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[tokio::main]
async fn main() {
    // Before the SDK connects, so that no change of state goes unseen.
    log_watcher::install();
    let ankaios = match Ankaios::builder().control_interface().connect().await {
        Ok(ankaios) => ankaios,
        Err(error) => {
            say(failure("connect", &Failure::Sdk(error)));
            std::process::exit(1);
        }
    };
    say(json!({ "step": "ready" }));

    let mut control = RemoteControl { ankaios, subscriptions: HashMap::new() };
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = commands.next_line().await {
        say(control.obey(&line).await);
    }
}

/// Tells the driver one thing.
fn say(step: Value) {
    // One call of `println!` holds the lock of standard output for the whole line.
    println!("{step}");
}

/// The commands: one method each, which returns its answer.
struct RemoteControl {
    ankaios: Ankaios,
    subscriptions: HashMap<String, Subscription>,
}

impl RemoteControl {
    /// Carries out one command; whatever the SDK complains of is the answer to it.
    async fn obey(&mut self, line: &str) -> Value {
        let command = match serde_json::from_str(line) {
            Ok(command) => Command(command),
            Err(error) => return failure(line, &Failure::Command(error.to_string())),
        };
        let action = command.text("do").unwrap_or_default();
        let answer = match action.as_str() {
            "read" => self.read(&command).await,
            "subscribe" => self.subscribe(&command).await,
            "cancel" => self.cancel(&command).await,
            "update" => self.update(&command).await,
            "count" => self.count(&command).await,
            "add_workload" => self.add_workload(&command).await,
            unknown => Err(Failure::Command(format!("no such command: {unknown:?}"))),
        };
        answer.unwrap_or_else(|error| failure(&action, &error))
    }

    /// Reads a part of the state.
    async fn read(&mut self, command: &Command) -> Result<Value, Failure> {
        let state = self.ankaios.get_state(command.masks()?).await?;
        Ok(json!({ "step": "read", "state": plain(&state) }))
    }

    /// Subscribes to events, which are told under the given name.
    async fn subscribe(&mut self, command: &Command) -> Result<Value, Failure> {
        let name = command.text("name")?;
        let mut campaign = self.ankaios.register_event(command.masks()?).await?;
        // The SDK puts the state at the time of the subscription in front of the events.
        let first = campaign.events_receiver.recv().await;
        let initial_state = first.map(|entry| plain(&entry.complete_state));
        let answer = json!({ "step": "subscribed", "name": name, "state": initial_state });
        self.subscriptions.insert(name.clone(), Subscription::start(name, campaign));
        Ok(answer)
    }

    /// Ends a subscription.
    async fn cancel(&mut self, command: &Command) -> Result<Value, Failure> {
        let name = command.text("name")?;
        let subscription = self.subscriptions.remove(&name);
        let subscription =
            subscription.ok_or_else(|| Failure::Command(format!("not subscribed: {name}")))?;
        self.ankaios.unregister_event(subscription.finish().await?).await?;
        Ok(json!({ "step": "cancelled", "name": name }))
    }

    /// Sets one config item.
    async fn update(&mut self, command: &Command) -> Result<Value, Failure> {
        let config = command.text("config")?;
        let value = command.text("value")?;
        self.ankaios.add_config(config.clone(), value.into()).await?;
        Ok(json!({ "step": "updated", "config": config }))
    }

    /// Sets one config item to 1, 2, 3, ..., each after the answer to the one before.
    async fn count(&mut self, command: &Command) -> Result<Value, Failure> {
        let config = command.text("config")?;
        let upto = command.number("upto")?;
        for number in 1..=upto {
            self.ankaios.add_config(config.clone(), number.to_string().into()).await?;
        }
        Ok(json!({ "step": "counted", "config": config, "upto": upto }))
    }

    /// Adds a workload to the desired state.
    async fn add_workload(&mut self, command: &Command) -> Result<Value, Failure> {
        let workload = Workload::builder()
            .workload_name(command.text("name")?)
            .agent_name(command.text("agent")?)
            .runtime("podman")
            .runtime_config("image: example.org/nothing:1")
            .build()?;
        let success = self.ankaios.apply_workload(workload).await?;
        let added = success.added_workloads.iter().map(|added| &added.workload_name);
        Ok(json!({ "step": "added", "workloads": added.collect::<Vec<_>>() }))
    }
}

/// One event campaign, and the task that passes its events on as they come.
struct Subscription {
    forwarder: JoinHandle<EventsCampaignResponse>,
    stop: oneshot::Sender<()>,
}

impl Subscription {
    /// Begins to pass events on, under the name of the subscription.
    ///
    /// A task of its own, because the SDK stops reading the pipe, answers included, when 100
    /// events of a campaign wait to be taken.
    fn start(name: String, campaign: EventsCampaignResponse) -> Subscription {
        let (stop, stopped) = oneshot::channel();
        Subscription { forwarder: tokio::spawn(forward(name, campaign, stopped)), stop }
    }

    /// Gives the campaign back, when every event that the SDK had received has been told.
    async fn finish(self) -> Result<EventsCampaignResponse, Failure> {
        // The forwarder is gone only if it panicked, which the next line reports.
        let _ = self.stop.send(());
        self.forwarder.await.map_err(|error| Failure::Command(error.to_string()))
    }
}

async fn forward(
    name: String,
    mut campaign: EventsCampaignResponse,
    mut stopped: oneshot::Receiver<()>,
) -> EventsCampaignResponse {
    loop {
        tokio::select! {
            // Events first: what was received before the stop is told before the stop.
            biased;
            Some(event) = campaign.events_receiver.recv() => say(told(&name, &event)),
            _ = &mut stopped => return campaign,
        }
    }
}

/// An event as the driver is told of it.
fn told(subscription: &str, event: &EventEntry) -> Value {
    json!({
        "step": "event",
        "subscription": subscription,
        "added": event.added_fields,
        "updated": event.updated_fields,
        "removed": event.removed_fields,
        "state": plain(&event.complete_state),
    })
}

/// A `CompleteState` as both SDKs' workloads print it: only what the scenarios look at.
fn plain(state: &CompleteState) -> Value {
    let mut workloads: Vec<String> = state.get_workloads().into_iter().map(|w| w.name).collect();
    workloads.sort();
    let instances = state.get_workload_states().as_list().into_iter().map(|instance| {
        let substate = format!("{:?}", instance.execution_state.substate);
        (instance.workload_instance_name.workload_name, substate.into())
    });
    json!({
        "apiVersion": state.get_api_version(),
        "configs": state.get_configs(),
        "workloads": workloads,
        "workloadStates": instances.collect::<Map<String, Value>>(),
    })
}

/// Why a command was not carried out.
enum Failure {
    /// The SDK says so.
    Sdk(AnkaiosError),
    /// The driver's mistake, or this program's.
    Command(String),
}

impl From<AnkaiosError> for Failure {
    fn from(error: AnkaiosError) -> Failure {
        Failure::Sdk(error)
    }
}

/// The answer to a command that failed; who is to blame in words that both SDKs' workloads share.
fn failure(action: &str, error: &Failure) -> Value {
    let (why, message) = match error {
        Failure::Sdk(error) => (blame(error), error.to_string()),
        Failure::Command(message) => ("broken", message.clone()),
    };
    json!({ "step": "failed", "do": action, "why": why, "message": message })
}

fn blame(error: &AnkaiosError) -> &'static str {
    match error {
        AnkaiosError::AnkaiosResponseError(_) => "refused",
        AnkaiosError::ConnectionClosedError(_) => "closed",
        AnkaiosError::ConnectionError(_) => "not connected",
        AnkaiosError::TimeoutError(_) => "timeout",
        _ => "broken",
    }
}

/// One line of the driver, and its fields.
struct Command(Value);

impl Command {
    fn text(&self, field: &str) -> Result<String, Failure> {
        self.0[field].as_str().map(str::to_owned).ok_or_else(|| missing(field))
    }

    fn number(&self, field: &str) -> Result<u64, Failure> {
        self.0[field].as_u64().ok_or_else(|| missing(field))
    }

    fn masks(&self) -> Result<Vec<String>, Failure> {
        let masks = self.0["masks"].as_array().ok_or_else(|| missing("masks"))?;
        masks
            .iter()
            .map(|mask| mask.as_str().map(str::to_owned).ok_or_else(|| missing("masks")))
            .collect()
    }
}

fn missing(field: &str) -> Failure {
    Failure::Command(format!("the command has no {field}, or not of the right type"))
}
