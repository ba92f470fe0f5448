//! Store of an agent that has joined a server of Ankaios: the server owns the state (docs/ankaios.md).
//!
//! Orders, states and answers of the server go in; events with the state, as far as this agent knows it, come
//! out. Updates go to the server, and are answered after their events. One task follows the server: it connects
//! again each second, reads the whole state again, and reports all states of its workloads again.
//!
//! The agent has one subscription, of the whole state, however many of its workloads have some: fifogate computes
//! their events, as with every store. So they go on while the server is away, and are merged for slow readers.

mod connection;
mod follower;
mod given;
mod requests;
mod served_logs;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fifogate::{
    internal::state::{DESIRED_STATE, EFFECTIVE_STATE},
    pb::ank_base::{self as pb, request::RequestContent},
    state::{Instance, Node, Tree},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{EVENTS_THAT_WAIT, Events, Refused, Store};
use crate::{
    dial::{Pems, Target},
    logs::Logs,
    model::{self, StateModel, Update},
    supervisor::DeleteConditions,
};
pub(crate) use connection::PROTOCOL_VERSION;
use follower::Follower;
use requests::Pieces;

/// Time for the answer to an update.
const ANSWER: Duration = Duration::from_secs(30);

/// Most bytes around the id and the content of a request.
const HEAD: usize = 64;

/// How the server is reached, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) target: Target,
    pub(crate) agent: String,
    /// Sent with each hello; the server replaces what it had.
    pub(crate) tags: BTreeMap<String, String>,
}

impl Options {
    /// Without PEM files TLS is not used, whatever the scheme: one URL is right for both.
    pub(crate) fn new(
        url: String,
        agent: &str,
        tags: BTreeMap<String, String>,
        pems: Option<Pems>,
    ) -> Self {
        let (ca, identity) = match pems {
            Some([ca, crt, key]) => (Some(ca), Some((crt, key))),
            None => (None, None),
        };
        let bare = url.strip_prefix("https:").or_else(|| url.strip_prefix("http:"));
        let scheme = if ca.is_some() { "https:" } else { "http:" };
        let address = bare.map_or_else(|| url.clone(), |bare| format!("{scheme}{bare}"));
        let target = Target { option: "--server", address, ca, identity };
        Self { target, agent: agent.to_owned(), tags }
    }
}

/// The server will not take this agent, for this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server refuses this agent: {0}")]
pub struct RefusedByServer(String);

/// A handle to the state of a server. Handles are cheap to clone.
#[derive(Clone, Debug)]
pub struct Ankaios {
    commands: mpsc::Sender<Command>,
    delete_conditions: watch::Receiver<DeleteConditions>,
    refused: watch::Receiver<Option<String>>,
}

/// What the agent wants of its server.
#[derive(Debug)]
enum Command {
    Report(Vec<pb::WorkloadState>),
    Status(pb::AgentStatus),
    Update(Box<Asked>),
    /// The logs of this agent, for the server's requests.
    ServeLogs(Logs),
    FetchLogs(Box<Fetch>),
    CancelLogs(String),
    Close(oneshot::Sender<()>),
}

/// An update.
#[derive(Debug)]
struct Asked {
    by: String,
    update: Update,
    request_id: String,
    answer: oneshot::Sender<Result<pb::UpdateStateSuccess, Refused>>,
}

/// A request for logs of other agents.
#[derive(Debug)]
struct Fetch {
    id: String,
    request: pb::LogsRequest,
    pieces: Pieces,
}

impl Ankaios {
    /// Joins a server. Waits for it for as long as it is not there.
    ///
    /// # Errors
    /// The server refuses this agent for good.
    pub(crate) async fn open(options: Options) -> Result<(Store, Events), RefusedByServer> {
        let (events, receiver) = mpsc::channel(EVENTS_THAT_WAIT);
        let (commands, asked) = mpsc::channel(256);
        let (conditions, delete_conditions) = watch::channel(DeleteConditions::new());
        let (refuse, mut refused) = watch::channel(None);
        let (ready, is_ready) = oneshot::channel();
        let follower = Follower::new(options, events, conditions, ready);
        tokio::spawn(async move {
            if let Some(reason) = follower.run(asked).await {
                refuse.send_replace(Some(reason));
            }
        });
        tokio::select! {
            biased;
            Ok(reason) = refused.wait_for(Option::is_some) => {
                return Err(RefusedByServer(reason.clone().unwrap_or_default()));
            }
            _ = is_ready => {}
        }
        Ok((Store::Ankaios(Self { commands, delete_conditions, refused }), receiver))
    }

    pub(super) async fn update(
        &self,
        update: Update,
        request_id: &str,
    ) -> Result<pb::UpdateStateSuccess, Refused> {
        let (answer, answered) = oneshot::channel();
        let request_id = request_id.to_owned();
        let asked = Asked { by: update.by.clone(), update, request_id, answer };
        let away = || Refused::Unavailable("The agent is about to end".to_owned());
        self.commands.send(Command::Update(Box::new(asked))).await.map_err(|_| away())?;
        match timeout(ANSWER, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(away())),
            Err(_) => Err(Refused::Unavailable(format!(
                "The server has not answered for {ANSWER:?}; it may have done the update"
            ))),
        }
    }

    /// Reports are never lost: they are sent again with each connection.
    pub(super) async fn report(&self, states: Vec<pb::WorkloadState>) {
        // The follower ends with the agent.
        let _ = self.commands.send(Command::Report(states)).await;
    }

    pub(super) async fn set_status(&self, status: pb::AgentStatus) {
        let _ = self.commands.send(Command::Status(status)).await;
    }

    pub(super) fn delete_conditions(&self) -> watch::Receiver<DeleteConditions> {
        self.delete_conditions.clone()
    }

    /// Waits until the server refuses this agent for good, and returns the reason.
    pub(crate) async fn refused(&self) -> String {
        let mut refused = self.refused.clone();
        match refused.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(Some(reason)) => RefusedByServer(reason).to_string(),
            _ => std::future::pending().await,
        }
    }

    /// From now on the server gets the logs that it asks for.
    pub(crate) async fn serve_logs(&self, logs: Logs) {
        let _ = self.commands.send(Command::ServeLogs(logs)).await;
    }

    /// Asks for logs of other agents; their pieces come from the queue until it is dropped.
    pub(crate) async fn fetch_logs(
        &self,
        by: &str,
        request_id: &str,
        instances: &BTreeSet<Instance>,
        request: &pb::LogsRequest,
    ) -> FetchedLogs {
        let workload_names = instances.iter().map(model::instance_name).collect();
        let request = pb::LogsRequest { workload_names, ..request.clone() };
        let id = forwarded_id(by, request_id);
        let (pieces, from) = Pieces::new();
        let fetch = Fetch { id: id.clone(), request, pieces };
        let _ = self.commands.send(Command::FetchLogs(Box::new(fetch))).await;
        FetchedLogs { id, commands: self.commands.clone(), from }
    }

    pub(super) async fn close(&self) {
        let (closed, is_closed) = oneshot::channel();
        if self.commands.send(Command::Close(closed)).await.is_ok() {
            let _ = timeout(Duration::from_secs(2), is_closed).await;
        }
    }
}

/// Logs of other agents on their way. The server is told when it is dropped.
#[derive(Debug)]
pub(crate) struct FetchedLogs {
    id: String,
    commands: mpsc::Sender<Command>,
    from: requests::PiecesOut,
}

impl FetchedLogs {
    /// The next response.
    ///
    /// # Errors
    /// The reason why no more comes.
    pub(crate) async fn next(&mut self) -> Result<pb::response::ResponseContent, String> {
        self.from.next().await
    }
}

impl Drop for FetchedLogs {
    fn drop(&mut self) {
        let cancel = Command::CancelLogs(std::mem::take(&mut self.id));
        if let Err(mpsc::error::TrySendError::Full(cancel)) = self.commands.try_send(cancel) {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(cancel).await });
        }
    }
}

/// The id of a workload's request at the server, which routes the response back by its first part.
fn forwarded_id(workload: &str, request_id: &str) -> String {
    format!("{workload}@{request_id}")
}

/// Checks by the known state what the server does not check: the rights of the requester
/// (docs/differences.md#16-no-rights-for-oneself).
fn check(current: &StateModel, update: &Update) -> Result<(), Refused> {
    let checked = match with_requester(current.tree(), &update.by) {
        // Its server does not tell the state: the order to run it has its rights.
        Some(tree) => StateModel::new(tree).update(update),
        None => current.update(update),
    };
    match checked {
        // The server has rules of its own, and more recent facts.
        Ok(_) | Err(Refused::Invalid(_) | Refused::Unavailable(_)) => Ok(()),
        Err(denied @ Refused::Denied(_)) => Err(denied),
    }
}

/// Checks that the server reads a request with an update: it ends the connection for a larger one.
fn check_size(id: &str, content: &RequestContent) -> Result<(), Refused> {
    if id.len() + content.encoded_len() + HEAD > connection::MOST_BYTES {
        let text = "The update is larger than the 4 MiB that the server reads".to_owned();
        return Err(Refused::Invalid(text));
    }
    Ok(())
}

/// The state with a requester that is known by its order alone; `None` if it is known anyway.
fn with_requester(tree: &Tree, by: &str) -> Option<Tree> {
    let ordered = tree.get(&[EFFECTIVE_STATE, "workloads", by])?;
    let mut desired = tree.entries(&[DESIRED_STATE]).clone();
    let mut workloads = desired.get("workloads").map(Node::entries).cloned().unwrap_or_default();
    if workloads.get(by).is_some() {
        return None;
    }
    workloads.insert(by, ordered.clone());
    desired.insert("workloads", Node::Map(workloads));
    Some(tree.with(DESIRED_STATE, Some(Node::Map(desired))))
}

fn update_request(update: Update) -> RequestContent {
    RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
        new_state: Some(update.new_state),
        update_mask: update.masks,
    })
}
