//! Membership in the cluster: a name owned by one process at a time, for as long as it renews its lease.
//!
//! A client and the agent's record go in; a lease id and the times of renewals come out. A process takes
//! a name only after the workloads of the previous process have ended (docs/etcd.md#one-name-one-agent).

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    io,
    time::Duration,
};

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};
use fifogate::{
    pb::ank_base::{self as pb, execution_state::ExecutionStateEnum as State},
    state::Tree,
};
use prost::Message;
use tokio::time::{Instant, interval, sleep};

use super::{
    Connection, MOST_OPERATIONS, Options, Shared,
    connect::{self, Trouble, answer},
    holder::{Holder, Wait},
    keys::Keys,
};
use crate::{fence, model, store::Change};

/// An id unique to this process.
pub(super) fn new_id() -> io::Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
    let id = fs::read_to_string(path).map_err(named)?;
    Ok(id.trim().to_owned())
}

/// The pause before another attempt; random, so that conflicting agents do not retry in step.
pub(super) fn pause(attempt: u32) -> Duration {
    let most = u64::from(attempt.min(20)) * 500 + 1;
    Duration::from_micros(RandomState::new().hash_one(attempt) % most)
}

/// Takes the agent's name and resets the states of its workloads. Returns the lease and a time before
/// the name was taken.
pub(super) async fn join(
    client: &mut Client,
    options: &Options,
    keys: &Keys,
    own: &Holder,
) -> Result<(i64, Duration), Trouble> {
    let (id, owner) = (own.id.as_str(), keys.owner(&options.agent));
    let lease = answer(client.lease_grant(connect::seconds(options.lease), None)).await?.id();
    let kept = match take(client, options, keys, own, lease).await {
        Ok(kept) => kept,
        Err(trouble) => {
            let _ = answer(client.lease_revoke(lease)).await;
            return Err(trouble);
        }
    };
    let view = connect::read(client, keys).await?;
    let ours = || Compare::value(owner.as_str(), CompareOp::Equal, id);
    // All of them: the processes of the agent before have ended (docs/etcd.md#being-there).
    let own = view.said_by(&options.agent);
    // Before the announcement: a present agent's states count, and these are of a former process.
    for some in own.chunks(MOST_OPERATIONS / 2) {
        let anew = some.iter().map(|name| begun(keys, view.current.tree(), name)).collect();
        if !connect::put(client, [ours()], anew).await? {
            return Err(taken(&options.agent));
        }
    }
    let new = pb::AgentAttributes::default();
    if !connect::put(client, [ours()], vec![announce(keys, &options.agent, &new, lease)]).await? {
        return Err(taken(&options.agent));
    }
    Ok((lease, kept))
}

/// Says where the command interface of this agent is, as long as its lease lasts.
pub(super) async fn advertise(
    client: &mut Client,
    shared: &Shared,
    lease: i64,
) -> Result<(), Trouble> {
    let Some(address) = &shared.options.address else { return Ok(()) };
    let key = shared.keys.listener(&shared.options.agent);
    let leased = Some(PutOptions::new().with_lease(lease));
    let put = TxnOp::put(key, address.as_str(), leased);
    // Another agent may have the name by now; this one hears of it elsewhere.
    connect::put(client, [shared.is_ours()], vec![put]).await.map(drop)
}

/// Takes the name once it is free and all workloads under it have ended. Returns a time just before.
async fn take(
    client: &mut Client,
    options: &Options,
    keys: &Keys,
    own: &Holder,
    lease: i64,
) -> Result<Duration, Trouble> {
    let (agent, owner, holder) =
        (&options.agent, keys.owner(&options.agent), keys.holder(&options.agent));
    // The name of a killed process stays taken until its lease ends.
    let patience = options.lease + connect::ANSWER;
    let mut end = Instant::now() + patience;
    // Since when the name has been free, after the process with the record of this revision.
    let mut free: Option<(i64, Instant)> = None;
    loop {
        let found = answer(client.get(holder.as_str(), None)).await?;
        let record = found.kvs().first();
        let revision = record.map_or(0, |kv| kv.mod_revision());
        let wait = match record.map(|kv| Holder::decode(kv.value())) {
            None => Wait::Nothing,
            Some(Some(before)) => before.wait(&options.place),
            Some(None) => Wait::ForEver,
        };
        let waited = free.filter(|(seen, _)| *seen == revision).map(|(_, since)| since.elapsed());
        // Read before the request: the lease may count from any time during it, so an earlier time is
        // safe.
        let now = fence::now();
        if wait.is_over(waited) && put_owner(client, &owner, &holder, revision, own, lease).await? {
            return Ok(now);
        }
        let is_free = answer(client.get(owner.as_str(), None)).await?.kvs().is_empty();
        if !is_free && Instant::now() > end {
            return Err(taken(agent));
        } else if !is_free {
            free = None;
        } else if wait == Wait::ForEver {
            return Err(held_elsewhere(agent, &holder));
        } else {
            end = Instant::now() + patience;
            if let (None, Wait::For(time)) = (waited, wait) {
                log::warn!("{}", waits(agent, time));
            }
            free = waited.map_or(Some((revision, Instant::now())), |_| free);
        }
        // The wait may take longer than the lease.
        let _ = answer(client.lease_keep_alive(lease)).await?;
        sleep(Duration::from_millis(100)).await;
    }
}

async fn put_owner(
    client: &mut Client,
    owner: &str,
    holder: &str,
    revision: i64,
    own: &Holder,
    lease: i64,
) -> Result<bool, Trouble> {
    let when = [
        Compare::create_revision(owner, CompareOp::Equal, 0),
        // The wait was computed from this record: another one has a wait of its own.
        Compare::mod_revision(holder, CompareOp::Equal, revision),
    ];
    let then = [leased(owner, &own.id, lease), TxnOp::put(holder, own.encode(), None)];
    Ok(answer(client.txn(Txn::new().when(when).and_then(then))).await?.succeeded())
}

fn waits(agent: &str, time: Duration) -> String {
    format!(
        "another agent of the name {agent} ran elsewhere and did not leave; this one waits {time:?}, \
         after which the workloads there have ended"
    )
}

fn held_elsewhere(agent: &str, holder: &str) -> Trouble {
    Trouble::Lasting(format!(
        "another agent of the name {agent} ran elsewhere and may still run workloads there: make sure \
         that it does not, and delete {holder} in etcd"
    ))
}

/// Rejoins after a lost connection, with the same lease if it still holds.
pub(super) async fn rejoin(client: &mut Client, shared: &Shared, old: i64) -> Result<i64, Trouble> {
    let agent = &shared.options.agent;
    let owner = shared.keys.owner(agent);
    let asked = fence::now();
    let left = answer(client.lease_time_to_live(old, None)).await.is_ok_and(|own| own.ttl() > 0);
    if left && is_ours(client, shared).await? {
        shared.kept.send_replace(asked);
        return Ok(old);
    }
    let ttl = connect::seconds(shared.options.lease);
    let lease = answer(client.lease_grant(ttl, None)).await?.id();
    let holder = shared.keys.holder(agent);
    let absent = |key: &str| Compare::create_revision(key, CompareOp::Equal, 0);
    let was_us = || shared.is_recorded();
    let known = shared.view().attributes(agent);
    let found = answer(client.get(holder.as_str(), None)).await?;
    let was_before = found.kvs().first().and_then(|kv| {
        // etcd was restored to the time of a process before this one, which ended.
        let before = Holder::decode(kv.value())?;
        let is_over = before.wait(&shared.options.place) == Wait::Nothing;
        let same = Compare::mod_revision(holder.as_str(), CompareOp::Equal, kv.mod_revision());
        is_over.then(|| [Compare::value(owner.as_str(), CompareOp::Equal, before.id), same])
    });
    // An unchanged record proves that no other process took the name meanwhile. Writing it again
    // restarts the wait of other processes.
    let of_us = [
        [shared.is_ours(), was_us()],
        [absent(&owner), was_us()],
        [shared.is_ours(), absent(&holder)],
        [absent(&owner), absent(&holder)],
    ];
    let of_none = was_before.clone().map(|[_, same]| [absent(&owner), same]);
    for when in of_us.into_iter().chain(was_before).chain(of_none) {
        let asked = fence::now();
        let own = announce(&shared.keys, agent, &known, lease);
        let record = TxnOp::put(holder.as_str(), shared.holder.encode(), None);
        let all = [leased(&owner, &shared.holder.id, lease), own, record];
        if answer(client.txn(Txn::new().when(when).and_then(all))).await?.succeeded() {
            shared.kept.send_replace(asked);
            return Ok(lease);
        }
    }
    let _ = answer(client.lease_revoke(lease)).await;
    Err(taken(agent))
}

fn taken(agent: &str) -> Trouble {
    let text = format!("there is another agent of the name {agent}");
    Trouble::Taken(format!("{text}: stop it, or give another --name"))
}

/// Whether the name belongs to this agent, and its record says so to others.
async fn is_ours(client: &mut Client, shared: &Shared) -> Result<bool, Trouble> {
    // A member would compare a transaction without operations with its own, possibly stale, data. The
    // get prevents this.
    let owner = TxnOp::get(shared.keys.owner(&shared.options.agent), None);
    connect::put(client, [shared.is_ours(), shared.is_recorded()], vec![owner]).await
}

fn leased(key: &str, value: &str, lease: i64) -> TxnOp {
    TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
}

fn announce(keys: &Keys, agent: &str, known: &pb::AgentAttributes, lease: i64) -> TxnOp {
    let options = PutOptions::new().with_lease(lease);
    TxnOp::put(keys.agent(agent), known.encode_to_vec(), Some(options))
}

/// Resets the state of an instance whose process ended with its agent.
fn begun(keys: &Keys, tree: &Tree, name: &pb::WorkloadInstanceName) -> TxnOp {
    let (_, wanted) = model::instances(&Tree::initial(), tree);
    let is_wanted = wanted.contains(&model::instance(name));
    let state = is_wanted.then(|| pb::ExecutionState {
        additional_info: Some(String::new()),
        execution_state_enum: Some(State::Pending(pb::Pending::Initial.into())),
    });
    let write = keys.write(&Change::WorkloadState(name.clone(), state));
    match write.value {
        Some(value) => TxnOp::put(write.key, value, None),
        None => TxnOp::delete(write.key, None),
    }
}

/// Renews the lease until it or the connection fails.
pub(super) async fn keep(connection: Connection, shared: &Shared) -> Trouble {
    match keep_on(connection, shared).await {
        Ok(never) => match never {},
        Err(trouble) => trouble,
    }
}

async fn keep_on(
    connection: Connection,
    shared: &Shared,
) -> Result<std::convert::Infallible, Trouble> {
    let Connection { mut client, lease } = connection;
    let (mut keeper, mut kept) = answer(client.lease_keep_alive(lease)).await?;
    let mut ticks = interval(shared.options.lease / 4);
    loop {
        let doubt = tokio::select! {
            _ = ticks.tick() => false,
            () = shared.doubt.notified() => true,
        };
        let asked = fence::now();
        answer(keeper.keep_alive()).await?;
        let lost = |what: &str| Trouble::Away(what.to_owned());
        match answer(kept.message()).await? {
            Some(own) if own.ttl() > 0 => {
                shared.kept.send_replace(asked);
            }
            _ => return Err(lost("this agent's lease has ended")),
        }
        // The lease may live on without the name: somebody may have written its key.
        if doubt && !is_ours(&mut client, shared).await? {
            return Err(lost("somebody has deleted or written this agent's name"));
        }
    }
}
