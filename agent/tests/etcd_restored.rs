//! An etcd that goes back to a time before the process that uses it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod etcd_store;

use std::time::Duration;

use etcd_client::Client;
use fifogate::pb::ank_base::{self as pb, execution_state::ExecutionStateEnum};
use fifogate_agent::store::{
    Etcd, Event, Events,
    etcd::{Options, Place},
};
use prost::Message;
use testkit::Etcd as Server;
use tokio::time::timeout;

/// Of the same agent on the same machine, before and after a restart of it.
fn options(server: &Server) -> Options {
    let text = |text: &str| text.to_owned();
    Options {
        takeover_after: Some(Duration::from_secs(60)),
        place: Place { machine: text("machine"), boot: text("boot"), lock: text("lock") },
        ..etcd_store::options(server, "agent_A")
    }
}

async fn until_reachable(events: &mut Events) {
    let heard = async {
        while let Some(event) = events.recv().await {
            if event == Event::Reachable(true) {
                return;
            }
        }
        panic!("nothing more is told");
    };
    timeout(Duration::from_secs(20), heard).await.expect("never reachable");
}

#[tokio::test]
async fn agent_goes_on_if_the_backup_is_of_a_time_before_its_last_start() {
    let mut server = Server::start();
    let first = Etcd::open(options(&server), None).await.unwrap();
    let backup = server.backup();
    // As if it was killed: it gives nothing back.
    drop(first);
    let (store, mut events) = Etcd::open(options(&server), None).await.unwrap();
    server.restore(backup.path());
    until_reachable(&mut events).await;
    assert_eq!(*store.lease().unwrap().lost.borrow(), None);
    server.kill();
    server.restart();
    until_reachable(&mut events).await;
}

/// The name and the state of an instance, with which nothing is begun.
fn report(state: ExecutionStateEnum) -> pb::WorkloadState {
    pb::WorkloadState {
        instance_name: Some(pb::WorkloadInstanceName {
            workload_name: "w".to_owned(),
            agent_name: "agent_A".to_owned(),
            id: "1".to_owned(),
        }),
        execution_state: Some(pb::ExecutionState {
            additional_info: Some(String::new()),
            execution_state_enum: Some(state),
        }),
    }
}

async fn until_state(events: &mut Events, wanted: &str) {
    let heard = async {
        while let Some(event) = events.recv().await {
            let Event::State { tree, .. } = event else { continue };
            let state = tree.get(&["workloadStates", "agent_A", "w", "1"]);
            if state.is_some_and(|own| own.str_at("state") == Some(wanted)) {
                return;
            }
        }
        panic!("nothing more is told");
    };
    timeout(Duration::from_secs(20), heard).await.expect("never told");
}

#[tokio::test]
async fn state_is_said_again_although_the_other_history_has_the_same_keys_at_the_same_revisions() {
    let mut server = Server::start();
    let (store, mut events) = Etcd::open(options(&server), None).await.unwrap();
    let starting = report(ExecutionStateEnum::Pending(pb::Pending::Starting.into()));
    store.report(vec![starting.clone()]).await.unwrap();
    let backup = server.backup();
    until_reachable(&mut events).await;
    let before = server.revision();
    store.report(vec![report(ExecutionStateEnum::Running(pb::Running::Ok.into()))]).await.unwrap();
    until_state(&mut events, "Running").await;
    let known = server.hide_with(backup);
    assert_eq!(server.revision(), before);
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    let value = starting.execution_state.unwrap().encode_to_vec();
    client.put("test/states/agent_A/w/1", value, None).await.unwrap();
    server.show(known);
    until_reachable(&mut events).await;
    // An observer knows only what etcd has.
    let other = Options { agent: "agent_B".to_owned(), ..options(&server) };
    let (_other, mut seen) = Etcd::open(other, None).await.unwrap();
    until_state(&mut seen, "Running").await;
}
