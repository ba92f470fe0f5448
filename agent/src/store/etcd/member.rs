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
    keys::Keys,
};
use crate::{model, store::Change};

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

/// Takes our name, which nobody may have, and begins anew with all our workloads.
pub(super) async fn join(
    client: &mut Client,
    options: &Options,
    keys: &Keys,
    id: &str,
) -> Result<i64, Trouble> {
    let owner = keys.owner(&options.agent);
    let lease = answer(client.lease_grant(connect::seconds(options.lease), None)).await?.id();
    // One that was killed has its name until its lease ends.
    let end = Instant::now() + options.lease + connect::ANSWER;
    loop {
        let free = Compare::create_revision(owner.as_str(), CompareOp::Equal, 0);
        if put(client, free, vec![leased(&owner, id, lease)]).await? {
            break;
        }
        if Instant::now() > end {
            let _ = answer(client.lease_revoke(lease)).await;
            return Err(taken(&options.agent));
        }
        let _ = answer(client.lease_keep_alive(lease)).await?;
        sleep(Duration::from_millis(100)).await;
    }
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
    Ok(lease)
}

/// Is there again after the connection was lost; with the same lease if it still holds.
pub(super) async fn rejoin(client: &mut Client, shared: &Shared, old: i64) -> Result<i64, Trouble> {
    let agent = &shared.options.agent;
    let owner = shared.keys.owner(agent);
    let left = answer(client.lease_time_to_live(old, None)).await.is_ok_and(|own| own.ttl() > 0);
    if left && put(client, shared.is_ours(), Vec::new()).await? {
        return Ok(old);
    }
    let ttl = connect::seconds(shared.options.lease);
    let lease = answer(client.lease_grant(ttl, None)).await?.id();
    let free = Compare::create_revision(owner.as_str(), CompareOp::Equal, 0);
    let known = shared.view().attributes(agent);
    for when in [shared.is_ours(), free] {
        let own = announce(&shared.keys, agent, &known, lease);
        let all = vec![leased(&owner, &shared.id, lease), own];
        if put(client, when, all).await? {
            return Ok(lease);
        }
    }
    let _ = answer(client.lease_revoke(lease)).await;
    Err(taken(agent))
}

fn taken(agent: &str) -> Trouble {
    let text = format!("there is another agent of the name {agent}");
    Trouble::Lasting(format!("{text}: stop it, or give another --name"))
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
        answer(keeper.keep_alive()).await?;
        let lost = || Trouble::Away("this agent's lease has ended".to_owned());
        match answer(kept.message()).await? {
            Some(own) if own.ttl() > 0 => {}
            _ => return Err(lost()),
        }
        if doubt && !put(&mut client, shared.is_ours(), Vec::new()).await? {
            return Err(lost());
        }
    }
}
