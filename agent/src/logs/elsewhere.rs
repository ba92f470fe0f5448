//! Logs of workloads of other agents, fetched from there by their command interface (docs/etcd.md#logs), or
//! through the server that has the state (docs/ankaios.md#logs).
//!
//! A log request goes in; the answer of the other agent, then its entries, come out. They are for a collector
//! here, whose rights were checked here.

use std::collections::{BTreeMap, BTreeSet};

use fifogate::{
    pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    state::Instance,
};
use tokio::time::{Duration, timeout};

use crate::{
    command_interface::{Client, Pems},
    dial::Target,
    log_text::Quoted,
    model,
    store::{Store, ankaios::FetchedLogs},
};

/// Time for another agent to accept a log request.
const PATIENCE: Duration = Duration::from_secs(5);

/// The other agents of the cluster.
#[derive(Clone, Debug)]
pub struct OtherAgents {
    store: Store,
    /// The files by which they know this agent.
    pems: Option<Pems>,
}

/// A log request that another agent has accepted.
#[derive(Debug)]
pub(super) struct Fetched {
    agent: String,
    from: Origin,
    /// The instances whose logs have not ended yet.
    left: BTreeSet<Instance>,
}

/// Where responses come from.
#[derive(Debug)]
enum Origin {
    /// Another agent; the request has this id.
    Agent(Box<Client>, String),
    /// The server.
    Server(FetchedLogs),
}

impl Origin {
    async fn response(&mut self) -> Result<ResponseContent, String> {
        match self {
            Self::Agent(client, id) => client.response(id).await.map_err(|error| error.to_string()),
            Self::Server(fetched) => match fetched.next().await? {
                ResponseContent::Error(error) => Err(error.message),
                content => Ok(content),
            },
        }
    }
}

/// What comes from another agent.
#[derive(Debug)]
pub(super) enum Piece {
    /// Entries of logs.
    Entries(Vec<pb::LogEntry>),
    /// The log of this instance has ended.
    End(Instance),
    /// No more of the log of this instance comes, for this reason.
    Lost(Instance, String),
}

impl OtherAgents {
    /// They are found in the store.
    pub(crate) fn new(store: Store, pems: Option<Pems>) -> Self {
        Self { store, pems }
    }

    /// The requests to make for these instances: one for each agent, or one for all if a server knows them.
    pub(super) fn groups(
        &self,
        elsewhere: &BTreeMap<String, BTreeSet<Instance>>,
    ) -> BTreeMap<String, BTreeSet<Instance>> {
        match self.store {
            Store::Ankaios(_) if !elsewhere.is_empty() => {
                let all = elsewhere.values().flatten().cloned().collect();
                [("the server".to_owned(), all)].into()
            }
            _ => elsewhere.clone(),
        }
    }

    /// Asks an agent for the logs of its instances, for a request of this requester and id.
    ///
    /// # Errors
    /// The text for the collector: the agent is not reached, or it has refused.
    pub(super) async fn ask(
        &self,
        agent: &str,
        instances: &BTreeSet<Instance>,
        request: &pb::LogsRequest,
        (by, request_id): (&str, &str),
    ) -> Result<Fetched, String> {
        if let Store::Ankaios(server) = &self.store {
            let fetched = server.fetch_logs(by, request_id, instances, request).await;
            let asked = accepted(agent, Origin::Server(fetched));
            return match timeout(PATIENCE, asked).await {
                Ok(Ok(fetched)) => Ok(fetched),
                Ok(Err(reason)) => Err(format!("The server does not send the logs: {reason}")),
                Err(_) => Err("The server does not send the logs: it does not answer".to_owned()),
            };
        }
        let kept = || {
            let first = instances.first().map(|own| own.workload.as_str()).unwrap_or_default();
            let more = match instances.len().saturating_sub(1) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("The log of '{}'{more} is kept by '{}'", Quoted(first), Quoted(agent))
        };
        let Some(address) = self.store.address_of(agent) else {
            return Err(format!("{}, which does not run or was started without --listen", kept()));
        };
        let failed = |reason: &str| format!("{}, which does not send it: {reason}", kept());
        match timeout(PATIENCE, self.fetch(agent, address, instances, request)).await {
            Ok(fetched) => fetched.map_err(|reason| failed(&reason)),
            Err(_) => Err(failed("it does not answer")),
        }
    }

    async fn fetch(
        &self,
        agent: &str,
        address: String,
        instances: &BTreeSet<Instance>,
        request: &pb::LogsRequest,
    ) -> Result<Fetched, String> {
        let pems = self.pems.clone();
        let ca = pems.as_ref().map(|[ca, ..]| ca.clone().into());
        let identity = pems.map(|[_, crt, key]| (crt.into(), key.into()));
        let target = Target { option: "its address", address, ca, identity };
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut client = Client::connect(&target).await.map_err(|error| text(&error))?;
        let workload_names = instances.iter().map(model::instance_name).collect();
        let request = pb::LogsRequest { workload_names, ..request.clone() };
        let sent = client.send(RequestContent::LogsRequest(request)).await;
        let id = sent.map_err(|error| text(&error))?;
        accepted(agent, Origin::Agent(Box::new(client), id)).await
    }
}

/// Waits until a log request is accepted.
async fn accepted(agent: &str, mut from: Origin) -> Result<Fetched, String> {
    let ResponseContent::LogsRequestAccepted(accepted) = from.response().await? else {
        return Err("it has answered something else".to_owned());
    };
    let left = accepted.workload_names.iter().map(model::instance).collect();
    Ok(Fetched { agent: agent.to_owned(), from, left })
}

impl Fetched {
    /// The instances whose logs are to come.
    pub(super) fn accepted(&self) -> impl Iterator<Item = &Instance> {
        self.left.iter()
    }

    /// The next piece; `None` at the end of all logs.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        if self.left.is_empty() {
            return None;
        }
        loop {
            match self.from.response().await {
                Ok(ResponseContent::LogEntriesResponse(entries)) => {
                    return Some(Piece::Entries(entries.log_entries));
                }
                Ok(ResponseContent::LogsStopResponse(stop)) => {
                    let own = model::instance(&stop.workload_name.unwrap_or_default());
                    if self.left.remove(&own) {
                        return Some(Piece::End(own));
                    }
                }
                Ok(_) => {}
                Err(reason) => return self.lost(&reason),
            }
        }
    }

    fn lost(&mut self, reason: &str) -> Option<Piece> {
        let (first, agent) = (self.left.pop_first()?, Quoted(&self.agent));
        let text =
            format!("[the rest of this log is lost with the connection to {agent}: {reason}]");
        Some(Piece::Lost(first, text))
    }
}
