//! Store of a cluster: the state of many nodes in etcd (docs/etcd.md).
//!
//! Updates and reports go in and become transactions; events come out of one watch. Each agent reads all
//! keys once and follows them by the watch. A transaction applies only if the values used to compute it
//! are unchanged.

mod channel;
mod connect;
pub(super) mod fuzz;
mod holder;
mod keys;
mod large;
mod large_update;
mod lease;
mod replica;
mod step;
mod watcher;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, KvClient, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use fifogate::{pb::ank_base as pb, state::Tree};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{Change, EVENTS_THAT_WAIT, Event, Events, OpenError, Refused, StorageError, Store};
use crate::{
    apart,
    fence::Lease,
    model::{self, Update},
};
pub use connect::EtcdError;
use connect::{Opened, Trouble};
use holder::Holder;
pub use holder::Place;
use keys::{Keys, Write};
use replica::{Plan, View};

/// Time between two looks at the connection, in a wait for changes.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Longest time for an update.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most attempts to compute an update again after conflicts.
const MOST_ATTEMPTS: u32 = 100;
/// Most operations of a transaction with etcd's default settings.
pub(super) const MOST_OPERATIONS: usize = 128;

/// Address of etcd, and identity of this agent.
#[derive(Clone, Debug)]
pub struct Options {
    /// `HOST:PORT` or URLs; the agent uses one at a time.
    pub endpoints: Vec<String>,
    /// Prefix of all keys.
    pub prefix: String,
    /// Name of this agent.
    pub agent: String,
    /// PEM file of the authority for etcd's certificate.
    pub ca: Option<PathBuf>,
    /// PEM files of this agent's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// Time without a sign of life after which an agent counts as absent.
    pub lease: Duration,
    /// Time for which this agent may run its workloads without renewing its name while another agent of
    /// the same name waits elsewhere. `None`: forever.
    pub takeover_after: Option<Duration>,
    /// Machine, boot and lock file of this process.
    pub place: Place,
    /// URL at which other agents reach the command interface of this one.
    pub address: Option<String>,
    /// Whether an empty cluster is refused instead of begun.
    pub needs_state: bool,
}

/// A handle to the state in etcd.
#[derive(Clone, Debug)]
pub struct Etcd {
    shared: Arc<Shared>,
    /// This agent has begun the state.
    pub(super) is_new: bool,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    keys: Keys,
    /// Distinguishes this process from another one with the agent's name.
    holder: Holder,
    /// Time of the last confirmed renewal of the name.
    kept: watch::Sender<Duration>,
    /// The reason for the loss of the name, once it is lost.
    lost: watch::Sender<Option<String>>,
    view: Mutex<View>,
    /// Held while the view moves to another revision: its parts are inconsistent meanwhile.
    turn: tokio::sync::Mutex<()>,
    /// All changes up to this revision are in the event queue.
    told: watch::Sender<i64>,
    /// `Err` has the reason for having none, if it is other than that etcd cannot be reached.
    connection: Mutex<Result<Connection, Option<String>>>,
    /// Wakes the renewal of the lease to test a doubtful connection.
    doubt: Notify,
    /// True at the end of the agent: it leaves the cluster.
    closing: watch::Sender<bool>,
}

/// A usable connection and the lease on it.
#[derive(Clone)]
struct Connection {
    client: Client,
    lease: i64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Etcd {
    /// Opens the state below a prefix. `seed` is the initial desired state of an empty cluster.
    ///
    /// # Errors
    /// etcd cannot be used or holds other keys, an agent of this name exists, or the cluster is empty
    /// and the desired state breaks a rule.
    pub async fn open(options: Options, seed: Option<&Tree>) -> Result<(Store, Events), OpenError> {
        let keys = Keys::new(&options.prefix);
        let id = lease::new_id().map_err(StorageError::Id)?;
        let ends_after = options.takeover_after.map(|time| time.as_secs_f64());
        let holder = Holder { id, place: options.place.clone(), ends_after };
        let opened = connect::open(&options, &keys, &holder, seed).await?;
        let Opened { client, lease: (lease, kept), view, is_new } = opened;
        let (events, receiver) = mpsc::channel(EVENTS_THAT_WAIT);
        // A new queue has space for the first event.
        let _ = events.try_send(Event::State { tree: view.current.tree().clone(), changes: None });
        let told = watch::Sender::new(view.revision);
        let shared = Arc::new(Shared {
            options,
            keys,
            holder,
            kept: watch::Sender::new(kept),
            lost: watch::Sender::new(None),
            view: Mutex::new(view),
            turn: tokio::sync::Mutex::default(),
            told,
            connection: Mutex::new(Ok(Connection { client, lease })),
            doubt: Notify::new(),
            closing: watch::Sender::new(false),
        });
        tokio::spawn(watcher::run(shared.clone(), events));
        Ok((Store::Etcd(Self { shared, is_new }), receiver))
    }

    pub(super) async fn state(&self) -> Tree {
        self.shared.known().await.current.tree().clone()
    }

    pub(super) async fn update(&self, update: Update) -> Result<pb::UpdateStateSuccess, Refused> {
        let shared = &self.shared;
        let deadline = Instant::now() + PATIENCE;
        let update = Arc::new(update);
        for attempt in 0..MOST_ATTEMPTS {
            let client = shared.keys_and_values()?;
            shared.no_large_update(deadline).await?;
            let view = shared.known().await;
            let known = view.revision;
            let Planned { plan, success } = plan(view, update.clone()).await?;
            if plan.is_empty() {
                return Ok(success);
            }
            if plan.is_large() {
                match shared.update_in_parts(&update, deadline).await? {
                    Some(success) => return Ok(success),
                    // Another one was faster.
                    None => continue,
                }
            }
            // A large update reads no item again once its head is there.
            let alone = vec![shared.has_no_large_update()];
            match shared.commit_if(client, &plan, alone, deadline).await? {
                // etcd confirmed that the values match the update already, so no event follows.
                Outcome::Done(_) if plan.writes.is_empty() => return Ok(success),
                Outcome::Done(revision) => {
                    shared.told(revision, deadline).await?;
                    return Ok(success);
                }
                Outcome::Outdated(revision) => {
                    shared.caught_up(revision.max(known + 1), deadline).await?;
                    sleep(lease::pause(attempt)).await;
                }
            }
        }
        Err(Refused::Unavailable("Others were always faster to change the same".to_owned()))
    }

    pub(super) async fn report(&self, states: Vec<pb::WorkloadState>) -> Result<(), Refused> {
        let shared = &self.shared;
        let deadline = Instant::now() + PATIENCE;
        for states in states.chunks(MOST_OPERATIONS / 2) {
            let client = shared.keys_and_values()?;
            let writes = states.iter().map(|state| shared.keys.write(&change(state))).collect();
            let plan = Plan { writes, ..Plan::default() };
            let ours = shared.is_ours();
            // Noted before: if the answer is lost, a reconnection writes this state again, and not the one
            // before it.
            let before = shared.view().note_reports(states);
            let done = shared.commit_if(client, &plan, vec![ours], deadline).await;
            if let Err(Refused::Invalid(_) | Refused::Denied(_)) = &done {
                shared.view().take_back(before);
            }
            match done? {
                Outcome::Done(revision) => shared.told(revision, deadline).await?,
                Outcome::Outdated(_) => return Err(shared.not_ours()),
            }
        }
        Ok(())
    }

    pub(super) async fn set_agent(
        &self,
        name: &str,
        status: pb::AgentStatus,
    ) -> Result<(), Refused> {
        let shared = &self.shared;
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..MOST_ATTEMPTS {
            let client = shared.keys_and_values()?;
            let (plan, known) = {
                let view = shared.known().await;
                if view.agent(name).is_none() {
                    return Err(shared.not_ours());
                }
                let tree = model::set_agent(view.current.tree(), name, Some(status));
                let changes = model::changes_between(view.current.tree(), &tree);
                (view.plan(&tree, &changes), view.revision)
            };
            if plan.writes.is_empty() {
                return Ok(());
            }
            let ours = shared.is_ours();
            match shared.commit_if(client, &plan, vec![ours], deadline).await? {
                Outcome::Done(revision) => return shared.told(revision, deadline).await,
                Outcome::Outdated(revision) => {
                    shared.caught_up(revision.max(known + 1), deadline).await?;
                }
            }
        }
        Err(shared.not_ours())
    }

    /// The URL of an agent's command interface, if the agent is there and listens.
    pub(super) fn address_of(&self, agent: &str) -> Option<String> {
        self.shared.view().listener(agent).cloned()
    }

    /// The lease of this agent's name.
    pub(super) fn lease(&self) -> Lease {
        let (kept, lost) = (self.shared.kept.subscribe(), self.shared.lost.subscribe());
        Lease { kept, lost, ends_after: self.shared.options.takeover_after }
    }

    /// Leaves the cluster: the other agents see at once that this agent is absent. If not all of its
    /// workloads have ended, its name stays taken.
    pub(super) async fn close(&self, all_ended: bool) {
        self.shared.closing.send_replace(true);
        // Read before the next await: the watcher, told to end above, drops the connection then.
        let connection = self.shared.connection().ok();
        if let Some(Connection { mut client, lease }) = connection {
            let end = Instant::now() + Duration::from_secs(1);
            if all_ended {
                // No workload runs under the name any more, so the next agent need not wait.
                let shared = &self.shared;
                let record = TxnOp::delete(shared.keys.holder(&shared.options.agent), None);
                let left = Txn::new().when([shared.is_ours()]).and_then([record]);
                let _ = timeout_at(end, client.txn(left)).await;
            }
            if !matches!(timeout_at(end, client.lease_revoke(lease)).await, Ok(Ok(_))) {
                log::warn!("cannot revoke the lease in etcd: it expires by itself");
            }
        }
    }
}

/// The outcome of a transaction.
enum Outcome {
    /// It was applied at this revision.
    Done(i64),
    /// It was not applied: a compared key was written at this revision or later.
    Outdated(i64),
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of the view at one revision.
    async fn known(&self) -> View {
        let _turn = self.turn.lock().await;
        self.view().snapshot()
    }

    fn connection(&self) -> Result<Connection, Refused> {
        self.with_connection(Connection::clone)
    }

    /// The client for transactions only: a whole connection is expensive to clone.
    fn keys_and_values(&self) -> Result<KvClient, Refused> {
        self.with_connection(|own| own.client.kv_client())
    }

    fn with_connection<T>(&self, take: impl FnOnce(&Connection) -> T) -> Result<T, Refused> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = || self.options.endpoints.join(", ");
        let text = match connection.as_ref() {
            Ok(own) => return Ok(take(own)),
            Err(None) => format!("The cluster cannot be reached now: etcd at {}", endpoints()),
            Err(Some(why)) => format!("The cluster has no state now: {why}"),
        };
        Err(Refused::Unavailable(text))
    }

    fn set_connection(&self, connection: Result<Connection, Option<String>>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// The condition that this process still owns the name.
    fn is_ours(&self) -> Compare {
        let owner = self.keys.owner(&self.options.agent);
        Compare::value(owner, CompareOp::Equal, self.holder.id.as_str())
    }

    /// The condition that others find this process in the record of the name.
    fn is_recorded(&self) -> Compare {
        let holder = self.keys.holder(&self.options.agent);
        Compare::value(holder, CompareOp::Equal, self.holder.encode())
    }

    fn not_ours(&self) -> Refused {
        self.doubt.notify_one();
        let name = &self.options.agent;
        Refused::Unavailable(format!("The cluster does not know this process as {name} now"))
    }

    /// Runs one transaction. It applies nothing if a compared key was written, or a condition of `more`
    /// fails.
    async fn commit_if(
        &self,
        mut client: KvClient,
        plan: &Plan,
        more: Vec<Compare>,
        deadline: Instant,
    ) -> Result<Outcome, Refused> {
        let count = plan.writes.len().max(plan.compares.len() + more.len());
        if count > MOST_OPERATIONS {
            let text = format!("The update touches {count} items; etcd takes {MOST_OPERATIONS}");
            return Err(Refused::Invalid(format!("{text} at once: split it")));
        }
        let compared = plan.compares.iter();
        let when = compared
            .clone()
            .map(|(key, revision)| Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision))
            .chain(more);
        let mut then: Vec<_> = plan.writes.iter().map(|own| self.operation(own)).collect();
        if then.is_empty() {
            // A member would compare a transaction without operations with its own, possibly stale,
            // data. The get prevents this.
            then.extend(compared.clone().take(1).map(|(key, _)| TxnOp::get(key.as_str(), None)));
        }
        let txn = Txn::new().when(when.collect::<Vec<_>>()).and_then(then);
        let answer = self.transact(&mut client, txn, deadline).await?;
        if answer.succeeded() {
            return Ok(Outcome::Done(answer.header().map_or(0, |own| own.revision())));
        }
        // Read only after a failure: most transactions succeed, and are faster without these reads.
        let looks: Vec<_> = compared.map(|(key, _)| TxnOp::get(key.as_str(), None)).collect();
        let looks = Txn::new().and_then(looks);
        let Ok(found) = self.transact(&mut client, looks, deadline).await else {
            return Ok(Outcome::Outdated(0));
        };
        let written = found.op_responses().into_iter().filter_map(|own| match own {
            TxnOpResponse::Get(found) => found.kvs().iter().map(|kv| kv.mod_revision()).max(),
            _ => None,
        });
        Ok(Outcome::Outdated(written.max().unwrap_or(0)))
    }

    async fn transact(
        &self,
        client: &mut KvClient,
        txn: Txn,
        deadline: Instant,
    ) -> Result<TxnResponse, Refused> {
        let mut answer = timeout_at(deadline, client.txn(txn.clone())).await;
        if let Ok(Err(error)) = &answer
            && connect::has_outdated_token(error)
            && let Ok(Connection { client: whole, .. }) = self.connection()
        {
            // etcd checks the token before it applies anything, so the same transaction may be sent again.
            answer = match timeout_at(deadline, whole.refresh_token()).await {
                Ok(Ok(())) => timeout_at(deadline, client.txn(txn)).await,
                Ok(Err(error)) => Ok(Err(error)),
                Err(late) => Err(late),
            };
        }
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let refused = connect::refusal(&error);
                Err(refused.unwrap_or_else(|| self.failed(&Trouble::from(error).to_string())))
            }
            Err(_) => Err(self.failed("it does not answer")),
        }
    }

    fn failed(&self, why: &str) -> Refused {
        self.doubt.notify_one();
        let text = "The cluster cannot be reached, so it is not known whether this was done";
        Refused::Unavailable(format!("{text}: etcd: {why}"))
    }

    fn operation(&self, write: &Write) -> TxnOp {
        let Write { key, value } = write;
        match value {
            None => TxnOp::delete(key.as_str(), None),
            Some(value) => {
                // Keeps the lease of an agent's key, whichever agent writes it.
                let leased = key.starts_with(&self.keys.agent(""));
                let options = leased.then(|| PutOptions::new().with_ignore_lease());
                TxnOp::put(key.as_str(), value.clone(), options)
            }
        }
    }

    /// Waits for the changes that have kept a transaction from being done. If they do not come, nothing
    /// was done, and this is known.
    async fn caught_up(&self, revision: i64, deadline: Instant) -> Result<(), Refused> {
        let mut told = self.told.subscribe();
        while Instant::now() < deadline {
            let soon = (Instant::now() + LOOK_AGAIN).min(deadline);
            if timeout_at(soon, told.wait_for(|told| *told >= revision)).await.is_ok() {
                return Ok(());
            }
            // Without a connection, as in an emptied etcd, no change comes.
            self.keys_and_values()?;
        }
        let text =
            "Others have changed the cluster's state, and their changes have not come here yet";
        Err(Refused::Unavailable(text.to_owned()))
    }

    /// Waits until all changes up to a revision are in the event queue.
    async fn told(&self, revision: i64, deadline: Instant) -> Result<(), Refused> {
        let mut told = self.told.subscribe();
        match timeout_at(deadline, told.wait_for(|told| *told >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.failed("its watch tells nothing")),
        }
    }
}

/// An update, planned for a view.
struct Planned {
    plan: Plan,
    success: pb::UpdateStateSuccess,
}

async fn plan(view: View, update: Arc<Update>) -> Result<Planned, Refused> {
    apart::plan(view.current.work_of(&update), move || {
        let planned = view.current.update(&update)?;
        Ok(Planned { plan: view.plan_update(&update, &planned), success: planned.success })
    })
    .await
}

/// Converts a report to a change.
fn change(state: &pb::WorkloadState) -> Change {
    use pb::execution_state::ExecutionStateEnum as State;
    let own = state.execution_state.clone();
    let gone =
        |own: &pb::ExecutionState| matches!(own.execution_state_enum, Some(State::Removed(_)));
    let name = state.instance_name.clone().unwrap_or_default();
    Change::WorkloadState(name, own.filter(|own| !gone(own)))
}
