//! Being one of the cluster: a name that only one process has at a time, for as long as its lease is
//! kept.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
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

/// What nobody else calls itself.
pub(super) fn new_id() -> Result<String, String> {
    let path = "/proc/sys/kernel/random/uuid";
    let id = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(id.trim().to_owned())
}

/// What to wait before another attempt, so that those who disturb each other do not go on in step.
pub(super) fn pause(attempt: u32) -> Duration {
    let most = u64::from(attempt.min(20)) * 500 + 1;
    Duration::from_micros(RandomState::new().hash_one(attempt) % most)
}

/// Takes our name, which nobody may have, and begins anew with all our workloads. Gives when the name
/// was not yet ours.
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
    let own = view.said_by(&options.agent);
    for some in own.chunks(MOST_OPERATIONS / 2) {
        let anew = some.iter().map(|name| begun(keys, view.current.tree(), name)).collect();
        if !put(client, ours(), anew).await? {
            return Err(taken(&options.agent));
        }
    }
    let new = pb::AgentAttributes::default();
    if !put(client, ours(), vec![announce(keys, &options.agent, &new, lease)]).await? {
        return Err(taken(&options.agent));
    }
    Ok((lease, kept))
}

/// Takes our name when it is free, and when all that ran under it has ended; gives a time just before.
async fn take(
    client: &mut Client,
    options: &Options,
    keys: &Keys,
    own: &Holder,
    lease: i64,
) -> Result<Duration, Trouble> {
    let (agent, owner, holder) =
        (&options.agent, keys.owner(&options.agent), keys.holder(&options.agent));
    // One that was killed has its name until its lease ends.
    let patience = options.lease + connect::ANSWER;
    let mut end = Instant::now() + patience;
    // Since when the name has been seen to be free, after the process with this record.
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

/// Is there again after the connection was lost; with the same lease if it still holds.
pub(super) async fn rejoin(client: &mut Client, shared: &Shared, old: i64) -> Result<i64, Trouble> {
    let agent = &shared.options.agent;
    let owner = shared.keys.owner(agent);
    let asked = fence::now();
    let left = answer(client.lease_time_to_live(old, None)).await.is_ok_and(|own| own.ttl() > 0);
    if left && put(client, shared.is_ours(), Vec::new()).await? {
        shared.kept.send_replace(asked);
        return Ok(old);
    }
    let ttl = connect::seconds(shared.options.lease);
    let lease = answer(client.lease_grant(ttl, None)).await?.id();
    let holder = shared.keys.holder(agent);
    let absent = |key: &str| Compare::create_revision(key, CompareOp::Equal, 0);
    let was_us = || Compare::value(holder.as_str(), CompareOp::Equal, shared.holder.encode());
    let known = shared.view().attributes(agent);
    // Nobody took the name meanwhile if the record is still ours. Written again, it makes others that
    // wait for us begin anew.
    for when in [
        [shared.is_ours(), was_us()],
        [absent(&owner), was_us()],
        [shared.is_ours(), absent(&holder)],
        [absent(&owner), absent(&holder)],
    ] {
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

async fn put(client: &mut Client, when: Compare, then: Vec<TxnOp>) -> Result<bool, Trouble> {
    Ok(answer(client.txn(Txn::new().when([when]).and_then(then))).await?.succeeded())
}

fn leased(key: &str, value: &str, lease: i64) -> TxnOp {
    TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
}

fn announce(keys: &Keys, agent: &str, known: &pb::AgentAttributes, lease: i64) -> TxnOp {
    let options = PutOptions::new().with_lease(lease);
    TxnOp::put(keys.agent(agent), known.encode_to_vec(), Some(options))
}

/// What becomes of the state of an instance whose process is gone with the agent that ran it.
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

/// Keeps the lease until something is wrong with it or with the connection.
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
        let lost = || Trouble::Away("this agent's lease has ended".to_owned());
        match answer(kept.message()).await? {
            Some(own) if own.ttl() > 0 => {
                shared.kept.send_replace(asked);
            }
            _ => return Err(lost()),
        }
        if doubt && !put(&mut client, shared.is_ours(), Vec::new()).await? {
            return Err(lost());
        }
    }
}
