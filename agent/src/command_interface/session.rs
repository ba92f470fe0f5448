//! One stream of a client: its requests go to fifogate, and it ends when one side wants it.
//!
//! One task for each stream. It sends one request after the other, each acknowledged before the next one is
//! read, so a client has no more of them under way than fifogate allows.

use std::ops::ControlFlow;

use bytes::Bytes;
use fifogate::{
    link::AsyncLink,
    pb::{
        agent_link::{
            AddCommander, CommanderTook, FromCommander, RemoveCommander, from_agent::Content,
        },
        ank_base::{self as pb, access_rights_rule::AccessRightsRuleEnum},
    },
    state::Tree,
};
use prost::Message;
use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc, watch},
};
use tonic::{Status, Streaming};

use super::{
    commanders::Commanders,
    outgoing::Reads,
    wire::{self, RequestHead, ToFifogate},
};
use crate::{grpc_api::UpdateWorkloadState, model};

/// A commander in fifogate, until it is dropped.
#[derive(Debug)]
pub(super) struct Commander {
    name: pb::WorkloadInstanceName,
    gate: AsyncLink,
    commanders: Commanders,
}

impl Commander {
    /// Opens a commander with all rights in fifogate.
    pub(super) async fn open(
        commanders: &Commanders,
        gate: AsyncLink,
        name: &pb::WorkloadInstanceName,
    ) -> Result<Self, Status> {
        // First: dropped in the middle, it is removed behind its addition.
        let own = Self { name: name.clone(), gate, commanders: commanders.clone() };
        let (instance_name, access) = (Some(name.clone()), Some(all_rights()));
        let add = own.gate.call(Content::AddCommander(AddCommander { instance_name, access }));
        add.await.map_err(|error| unavailable(&error))?;
        Ok(own)
    }

    async fn send(&self, request: Bytes) -> Result<(), Status> {
        let message = ToFifogate { request: Some(request) }.encode_to_vec().into();
        let message = FromCommander { instance_name: Some(self.name.clone()), message };
        let sent = self.gate.call(Content::FromCommander(message)).await;
        sent.map_err(|error| unavailable(&error))
    }

    async fn took(&self, number: u64) {
        let took = CommanderTook { instance_name: Some(self.name.clone()), number };
        self.gate.send(Content::CommanderTook(took)).await;
    }
}

impl Drop for Commander {
    fn drop(&mut self) {
        self.commanders.close(&self.name.workload_name);
        let (gate, instance_name) = (self.gate.clone(), Some(self.name.clone()));
        // At the end of the agent its fifogate ends, too.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                gate.send(Content::RemoveCommander(RemoveCommander { instance_name })).await;
            });
        }
    }
}

fn unavailable(error: &fifogate::link::CallError) -> Status {
    Status::unavailable(format!("fifogate does not serve this now: {error}"))
}

/// The rights of an operator: everything.
fn all_rights() -> pb::ControlInterfaceAccess {
    let all = || vec!["*".to_owned()];
    let rules = [
        AccessRightsRuleEnum::StateRule(pb::StateRule {
            operation: pb::ReadWriteEnum::RwReadWrite.into(),
            filter_masks: all(),
        }),
        AccessRightsRuleEnum::LogRule(pb::LogRule { workload_names: all() }),
    ];
    let rules = rules.map(|rule| pb::AccessRightsRule { access_rights_rule_enum: Some(rule) });
    pb::ControlInterfaceAccess { allow_rules: rules.into(), deny_rules: Vec::new() }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) commander: Commander,
    pub(super) incoming: Streaming<wire::FromCommander>,
    pub(super) reading: watch::Receiver<bool>,
    pub(super) ended: watch::Receiver<Option<Status>>,
    pub(super) took: mpsc::UnboundedReceiver<u64>,
    pub(super) end: mpsc::Sender<Status>,
    /// For `ank`: the changes of states.
    pub(super) changes: Option<Changes>,
    pub(super) reads: Option<Reads>,
}

/// How a stream ends: in order, or with a status.
type End = Option<Status>;

impl Session {
    /// Serves the stream until its end.
    pub(super) async fn run(mut self) {
        if let Some(status) = self.serve().await {
            log::debug!("{} ends: {status}", self.commander.name.workload_name);
            // The client may be gone. The queue is empty, so this never waits.
            let _ = self.end.try_send(status);
        }
    }

    async fn serve(&mut self) -> End {
        // A client that sends nothing more may still be waiting for its answers.
        let mut is_open = true;
        loop {
            let reads = is_open && *self.reading.borrow_and_update();
            tokio::select! {
                biased;
                // The client or its connection is gone.
                () = self.end.closed() => return None,
                Ok(()) = self.ended.changed() => return self.ended.borrow().clone(),
                Some(number) = self.took.recv() => self.commander.took(number).await,
                Ok(()) = self.reading.changed() => {}
                () = forward(&mut self.changes) => {}
                message = self.incoming.message(), if reads => match message {
                    Ok(None) => is_open = false,
                    Ok(Some(message)) => match self.on_message(message).await {
                        ControlFlow::Continue(()) => {}
                        ControlFlow::Break(end) => return end,
                    },
                    Err(status) => return Some(status),
                },
            }
        }
    }

    async fn on_message(&mut self, message: wire::FromCommander) -> ControlFlow<End> {
        let refuse = |text| ControlFlow::Break(Some(Status::invalid_argument(text)));
        if message.goodbye.is_some() {
            return ControlFlow::Break(None);
        }
        if message.hello.is_some() || message.agent_hello.is_some() {
            log::warn!("{} has said hello twice", self.commander.name.workload_name);
            return ControlFlow::Continue(());
        }
        let Some(request) = message.request else {
            return refuse("a message without content");
        };
        match RequestHead::decode(request.clone()) {
            Ok(head) if !head.has_content() => return refuse("a request without content"),
            Ok(head) => {
                if let Some(reads) = self.reads.as_ref().filter(|_| head.is_read()) {
                    reads.note(head.id);
                }
            }
            Err(_) => return refuse("a request that does not decode"),
        }
        match self.commander.send(request).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(status) => ControlFlow::Break(Some(status)),
        }
    }
}

/// The changes of execution states, for one client.
#[derive(Debug)]
pub(super) struct Changes {
    /// The state as the client knows it.
    seen: Tree,
    trees: broadcast::Receiver<Tree>,
    to: mpsc::Sender<UpdateWorkloadState>,
}

impl Changes {
    pub(super) fn of(commanders: &Commanders) -> (Self, mpsc::Receiver<UpdateWorkloadState>) {
        let (to, states) = mpsc::channel(1);
        let (seen, trees) = commanders.states();
        (Self { seen, trees, to }, states)
    }
}

/// Sends the next change of states. A client that does not take it gets the sum of all changes later. Dropping
/// this future loses nothing.
async fn forward(changes: &mut Option<Changes>) {
    let Some(Changes { seen, trees, to }) = changes else { return std::future::pending().await };
    loop {
        let Ok(place) = to.reserve().await else { return std::future::pending().await };
        match trees.recv().await {
            Ok(tree) => {
                let workload_states = model::workload_states_between(seen, &tree);
                *seen = tree;
                if !workload_states.is_empty() {
                    return place.send(UpdateWorkloadState { workload_states });
                }
            }
            // The next one has all changes so far.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}
