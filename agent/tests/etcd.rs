//! The state of many nodes in a real etcd: three stores as three nodes, each watched by an observer
//! that makes the state of what it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod etcd_store;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use etcd_client::{Client, GetOptions};
use etcd_store::options;
use fifogate::{
    internal::state::WORKLOAD_STATES,
    pb::ank_base::{self as pb, config_item::ConfigItemEnum, execution_state::ExecutionStateEnum},
    state::Tree,
};
use fifogate_agent::{
    model::{self, StateModel, Update},
    store::{EVENTS_THAT_WAIT, Etcd, Event, Events, OpenError, Refused, Store, etcd::Options},
};
use testkit::Etcd as Server;
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// One node: its store, and what it was told.
struct Node {
    store: Store,
    tree: watch::Receiver<Tree>,
    told: Arc<Mutex<Vec<Event>>>,
}

async fn open(server: &Server, agent: &str, seed: Option<&Tree>) -> Node {
    let (store, events) = Etcd::open(options(server, agent), seed).await.unwrap();
    let (sender, tree) = watch::channel(model::empty());
    let told = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(observe(events, sender, told.clone()));
    tree.clone().changed().await.unwrap();
    Node { store, tree, told }
}

async fn observe(mut events: Events, tree: watch::Sender<Tree>, told: Arc<Mutex<Vec<Event>>>) {
    while let Some(event) = events.recv().await {
        let now = match &event {
            Event::State { tree: new, .. } => {
                assert_ne!(*new, *tree.borrow(), "nobody is told a change that is none");
                Some(new.clone())
            }
            Event::Reachable(_) | Event::Unusable(_) => None,
        };
        told.lock().await.push(event);
        if let Some(now) = now {
            tree.send_replace(now);
        }
    }
}

impl Node {
    /// Waits until what this node was told makes this so.
    async fn until(&self, what: &str, is_so: impl FnMut(&Tree) -> bool) {
        let mut tree = self.tree.clone();
        let waited = timeout(PATIENCE, tree.wait_for(is_so)).await;
        waited.unwrap_or_else(|_| panic!("never: {what}")).unwrap();
    }

    async fn heard(&self, what: impl Fn(&Event) -> bool) {
        let heard = async {
            while !self.told.lock().await.iter().any(&what) {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, heard).await.expect("never told");
    }

    async fn set(&self, config: &str, value: &str) -> Result<pb::UpdateStateSuccess, Refused> {
        self.store.update(set(config, value)).await
    }

    /// The state of now, which is not held on to: whoever tells the next one would wait.
    fn tree(&self) -> Tree {
        self.tree.borrow().clone()
    }

    fn config(&self, name: &str) -> Option<String> {
        config(&self.tree.borrow(), name)
    }
}

fn config(tree: &Tree, name: &str) -> Option<String> {
    let path = ["desiredState", "configs", name];
    tree.get(&path).and_then(|own| own.as_str()).map(ToOwned::to_owned)
}

fn set(name: &str, value: &str) -> Update {
    let item = pb::ConfigItem { config_item_enum: Some(ConfigItemEnum::String(value.to_owned())) };
    let configs = pb::ConfigMap { configs: [(name.to_owned(), item)].into() };
    update(pb::State { configs: Some(configs), ..Default::default() }, "configs", name)
}

fn workload(name: &str, agent: &str, text: &str) -> Update {
    let own = pb::Workload {
        agent: Some(agent.to_owned()),
        runtime: Some("process".to_owned()),
        runtime_config: Some(text.to_owned()),
        ..Default::default()
    };
    let workloads = pb::WorkloadMap { workloads: [(name.to_owned(), own)].into() };
    update(pb::State { workloads: Some(workloads), ..Default::default() }, "workloads", name)
}

fn update(state: pb::State, part: &str, name: &str) -> Update {
    let state = pb::State { api_version: "v1".to_owned(), ..state };
    Update {
        by: String::new(),
        new_state: pb::CompleteState { desired_state: Some(state), ..Default::default() },
        masks: vec![format!("desiredState.{part}.{name}")],
    }
}

fn seed() -> Tree {
    StateModel::default().update(&workload("seeded", "agent_A", "x")).unwrap().tree
}

/// The execution state of the only instance of a workload.
fn state_of(tree: &Tree, agent: &str, workload: &str) -> Option<String> {
    let path = [WORKLOAD_STATES, agent, workload];
    let mut all = tree.entries(&path).iter();
    all.next().and_then(|(_, state)| state.str_at("state")).map(ToOwned::to_owned)
}

fn running(tree: &Tree, agent: &str, workload: &str) -> pb::WorkloadState {
    let path = [WORKLOAD_STATES, agent, workload];
    let mut all = tree.entries(&path).iter();
    let (id, _) = all.next().expect("no instance");
    pb::WorkloadState {
        instance_name: Some(pb::WorkloadInstanceName {
            workload_name: workload.to_owned(),
            agent_name: agent.to_owned(),
            id: id.to_string(),
        }),
        execution_state: Some(pb::ExecutionState {
            additional_info: Some(String::new()),
            execution_state_enum: Some(ExecutionStateEnum::Running(pb::Running::Ok.into())),
        }),
    }
}

async fn all_agree(nodes: &[&Node], server: &Server) {
    let last = nodes[0].set("last", "1").await;
    last.unwrap();
    for node in nodes {
        node.until("the last update", |tree| config(tree, "last").is_some()).await;
    }
    // Another reading of all, by one who was not there.
    let fresh = open(server, "observer", None).await;
    fresh.until("a first reading", |tree| config(tree, "last").is_some()).await;
    let strip = |tree: &Tree| tree.with("agents", None);
    for node in nodes {
        let now = strip(&node.tree.borrow());
        assert_eq!(now, strip(&fresh.tree.borrow()));
    }
    fresh.store.close(true).await;
}

#[tokio::test]
async fn an_update_is_answered_when_its_change_is_in_the_queue() {
    let server = Server::start();
    let (store, mut events) = Etcd::open(options(&server, "a"), None).await.unwrap();
    for value in 0..10 {
        // So large that the answer of etcd is there before all of the change.
        let value = value.to_string().repeat(1_000_000);
        store.update(set("k", &value)).await.unwrap();
        let mut told = None;
        while let Ok(event) = events.try_recv() {
            if let Event::State { tree, .. } = event {
                told = config(&tree, "k");
            }
        }
        assert!(told == Some(value), "{:?}", told.map(|own| own.len()));
    }
}

#[tokio::test]
async fn an_empty_cluster_is_seeded_once_and_updates_reach_all_by_one_watch_each() {
    let server = Server::start();
    let other = StateModel::default().update(&workload("late", "agent_B", "y")).unwrap().tree;
    let a = open(&server, "agent_A", Some(&seed())).await;
    let b = open(&server, "agent_B", Some(&other)).await;
    let c = open(&server, "agent_C", None).await;
    for node in [&a, &b, &c] {
        node.until("the seed", |tree| state_of(tree, "agent_A", "seeded").is_some()).await;
        assert_eq!(state_of(&node.tree.borrow(), "agent_B", "late"), None);
    }
    let success = b.store.update(workload("w", "agent_C", "z")).await.unwrap();
    assert_eq!(success.added_workloads.len(), 1);
    // Events come before success.
    b.until("its own update", |tree| state_of(tree, "agent_C", "w").is_some()).await;
    c.until("the update", |tree| state_of(tree, "agent_C", "w").is_some()).await;
    c.store.report(vec![running(&c.tree(), "agent_C", "w")]).await.unwrap();
    a.until("the report", |tree| state_of(tree, "agent_C", "w").as_deref() == Some("Running"))
        .await;
    assert_eq!(server.metric("etcd_debugging_mvcc_watcher_total"), 3.0);
    all_agree(&[&a, &b, &c], &server).await;
}

/// How many updates each of three nodes asks for.
const EACH: usize = 170;

async fn three_nodes(server: &Server) -> [Arc<Node>; 3] {
    [
        Arc::new(open(server, "agent_A", None).await),
        Arc::new(open(server, "agent_B", None).await),
        Arc::new(open(server, "agent_C", None).await),
    ]
}

/// All ask at once for what an `update` makes of texts that count, and get it.
async fn all_ask(nodes: &[Arc<Node>; 3], update: fn(&str) -> Update) {
    let mut tasks = Vec::new();
    for (at, node) in nodes.iter().cloned().enumerate() {
        tasks.push(tokio::spawn(async move {
            for count in 0..EACH {
                node.store.update(update(&format!("{at} {count}"))).await.unwrap();
            }
        }));
    }
    for task in tasks {
        timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
    }
}

/// Every node was told every text, those of each node in the order in which it asked.
async fn all_are_told(nodes: &[Arc<Node>; 3], server: &Server, text: fn(&Tree) -> Option<String>) {
    all_agree(&nodes.each_ref().map(AsRef::as_ref), server).await;
    for node in nodes {
        let mut counts = [0; 3];
        let mut before = None;
        for event in node.told.lock().await.iter() {
            let Event::State { tree, .. } = event else { continue };
            let now = text(tree);
            if now == before {
                continue;
            }
            let (at, count) = now.as_deref().unwrap().split_once(' ').unwrap();
            let at: usize = at.parse().unwrap();
            assert_eq!(count.parse::<usize>().unwrap(), counts[at]);
            counts[at] += 1;
            before = now;
        }
        assert_eq!(counts, [EACH; 3]);
    }
}

#[tokio::test]
async fn conflicting_updates_from_three_nodes_are_all_done_one_after_the_other() {
    let server = Server::start();
    let nodes = three_nodes(&server).await;
    all_ask(&nodes, |text| workload("same", "agent_A", text)).await;
    all_are_told(&nodes, &server, |tree| {
        let path = ["desiredState", "workloads", "same", "runtimeConfig"];
        tree.get(&path).and_then(|own| own.as_str()).map(ToOwned::to_owned)
    })
    .await;
}

#[tokio::test]
async fn events_from_three_nodes_in_one_config_are_not_in_each_others_way() {
    let server = Server::start();
    let nodes = three_nodes(&server).await;
    let before = server.transactions();
    all_ask(&nodes, |text| set("event", text)).await;
    assert_eq!(server.transactions() - before, 3 * EACH, "one was asked for again");
    all_are_told(&nodes, &server, |tree| config(tree, "event")).await;
}

#[tokio::test]
async fn an_update_of_what_is_so_already_is_done_although_its_node_does_not_know_better() {
    let server = Server::start();
    let (store, mut events) = Etcd::open(options(&server, "agent_A"), None).await.unwrap();
    let other = open(&server, "agent_B", None).await;
    store.update(set("k", "first")).await.unwrap();
    // Nobody takes what A is told, so it does not get to know the last of this.
    for count in 0..2 * EVENTS_THAT_WAIT {
        other.set("busy", &count.to_string()).await.unwrap();
    }
    other.set("k", "second").await.unwrap();
    let update = store.update(set("k", "first"));
    let take_all = async { while events.recv().await.is_some() {} };
    tokio::select! {
        biased;
        done = update => assert!(done.is_ok()),
        () = take_all => panic!("nothing more is told"),
    }
    other.until("what was acknowledged last", |tree| config(tree, "k").unwrap() == "first").await;
}

#[tokio::test]
async fn while_etcd_is_away_updates_are_refused_and_afterwards_nothing_is_missed() {
    let mut server = Server::start();
    let a = open(&server, "agent_A", Some(&seed())).await;
    let b = open(&server, "agent_B", None).await;
    a.set("before", "1").await.unwrap();
    server.kill();
    a.heard(|event| *event == Event::Reachable(false)).await;
    b.heard(|event| *event == Event::Reachable(false)).await;
    let Err(Refused::Unavailable(text)) = a.set("during", "1").await else { panic!("accepted") };
    assert!(text.contains("cannot be reached"), "{text}");
    server.restart();
    a.heard(|event| *event == Event::Reachable(true)).await;
    b.heard(|event| *event == Event::Reachable(true)).await;
    b.set("after", "1").await.unwrap();
    a.until("what came after", |tree| config(tree, "after").is_some()).await;
    assert_eq!(a.config("before").as_deref(), Some("1"));
    assert_eq!(a.config("during"), None);
    all_agree(&[&a, &b], &server).await;
}

#[tokio::test]
async fn after_a_compaction_past_what_is_known_the_difference_is_told_as_a_whole() {
    let mut server = Server::start();
    let a = open(&server, "agent_A", Some(&seed())).await;
    a.set("before", "1").await.unwrap();
    let known = server.hide();
    let b = open(&server, "agent_B", None).await;
    for count in 0..20 {
        b.set("meanwhile", &count.to_string()).await.unwrap();
    }
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    let now = client.get("x", None).await.unwrap().header().unwrap().revision();
    client.compact(now, None).await.unwrap();
    b.store.close(true).await;
    server.show(known);
    a.until("what came meanwhile", |tree| config(tree, "meanwhile").as_deref() == Some("19")).await;
    let told = a.told.lock().await;
    let seen = told.iter().filter_map(|event| match event {
        Event::State { tree, .. } => config(tree, "meanwhile"),
        Event::Reachable(_) | Event::Unusable(_) => None,
    });
    assert_eq!(seen.collect::<BTreeSet<_>>(), ["19".to_owned()].into(), "the outcome at once");
    drop(told);
    a.heard(|event| *event == Event::Reachable(true)).await;
    all_agree(&[&a], &server).await;
}

#[tokio::test]
async fn removal_at_the_very_revision_of_a_compaction_is_not_missed() {
    let mut server = Server::start();
    let a = open(&server, "agent_A", Some(&seed())).await;
    a.set("removed", "1").await.unwrap();
    let known = server.hide();
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    let removed = client.delete("test/desired/configs/removed", None).await.unwrap();
    assert_eq!(removed.deleted(), 1);
    let revision = removed.header().unwrap().revision();
    client.compact(revision, None).await.unwrap();
    server.show(known);
    a.until("the removal", |tree| config(tree, "removed").is_none()).await;
}

#[tokio::test]
async fn states_of_our_workloads_are_said_again_to_an_etcd_that_lost_them() {
    let mut server = Server::start();
    let a = open(&server, "agent_A", Some(&seed())).await;
    a.store.report(vec![running(&a.tree(), "agent_A", "seeded")]).await.unwrap();
    let backup = server.backup();
    a.heard(|event| *event == Event::Reachable(true)).await;
    let mut failed = running(&a.tree(), "agent_A", "seeded");
    let state = Some(ExecutionStateEnum::Failed(pb::Failed::Lost.into()));
    failed.execution_state.as_mut().unwrap().execution_state_enum = state;
    a.store.report(vec![failed]).await.unwrap();
    let is_failed = |tree: &Tree| state_of(tree, "agent_A", "seeded").as_deref() == Some("Failed");
    a.until("the failure", is_failed).await;
    let known = server.hide_with(backup);
    a.told.lock().await.clear();
    server.show(known);
    a.heard(|event| *event == Event::Reachable(true)).await;
    a.set("after", "1").await.unwrap();
    a.until("its state again", |tree| config(tree, "after").is_some() && is_failed(tree)).await;
    all_agree(&[&a], &server).await;
}

#[tokio::test]
async fn an_etcd_that_was_restored_from_a_backup_is_read_again_even_if_others_wrote_past_it() {
    let mut server = Server::start();
    let a = open(&server, "agent_A", Some(&seed())).await;
    a.set("before", "1").await.unwrap();
    let backup = server.backup();
    a.heard(|event| *event == Event::Reachable(true)).await;
    for count in 0..5 {
        a.set(&format!("lost{count}"), "1").await.unwrap();
    }
    let known = server.hide_with(backup);
    let b = open(&server, "agent_B", None).await;
    for count in 0..20 {
        b.set("after", &count.to_string()).await.unwrap();
    }
    b.store.close(true).await;
    a.told.lock().await.clear();
    server.show(known);
    a.until("what etcd holds now", |tree| {
        config(tree, "after").as_deref() == Some("19") && config(tree, "lost0").is_none()
    })
    .await;
    a.heard(|event| *event == Event::Reachable(true)).await;
    a.set("again", "1").await.unwrap();
    all_agree(&[&a], &server).await;
}

#[tokio::test]
async fn a_lease_that_ends_makes_states_disconnected_until_the_agent_is_back() {
    let server = Server::start();
    let a = open(&server, "agent_A", Some(&seed())).await;
    let b = open(&server, "agent_B", None).await;
    a.store.report(vec![running(&a.tree(), "agent_A", "seeded")]).await.unwrap();
    let is = |wanted: &'static str| {
        move |tree: &Tree| state_of(tree, "agent_A", "seeded").as_deref() == Some(wanted)
    };
    b.until("the report", is("Running")).await;
    a.store.close(true).await;
    b.until("that agent_A is gone", is("AgentDisconnected")).await;
    assert!(b.tree.borrow().get(&["agents", "agent_A"]).is_none());
    let again = open(&server, "agent_A", None).await;
    b.until("that agent_A begins again", is("Pending")).await;
    let state = running(&again.tree(), "agent_A", "seeded");
    again.store.report(vec![state]).await.unwrap();
    b.until("what agent_A reports", is("Running")).await;
    all_agree(&[&again, &b], &server).await;
}

#[tokio::test]
async fn a_lease_that_was_taken_away_is_had_again() {
    let server = Server::start();
    let a = open(&server, "agent_A", Some(&seed())).await;
    let b = open(&server, "agent_B", None).await;
    a.store.report(vec![running(&a.tree(), "agent_A", "seeded")]).await.unwrap();
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    let found = client.get("test/agents/agent_A", None).await.unwrap();
    client.lease_revoke(found.kvs()[0].lease()).await.unwrap();
    b.heard(|event| {
        let Event::State { tree, .. } = event else { return false };
        state_of(tree, "agent_A", "seeded").as_deref() == Some("AgentDisconnected")
    })
    .await;
    b.until("that agent_A is back as it was", |tree| {
        state_of(tree, "agent_A", "seeded").as_deref() == Some("Running")
            && tree.get(&["agents", "agent_A"]).is_some()
    })
    .await;
    a.heard(|event| *event == Event::Reachable(true)).await;
    all_agree(&[&a, &b], &server).await;
}

#[tokio::test]
async fn name_of_an_agent_stays_taken_unless_all_of_its_workloads_ended() {
    let server = Server::start();
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    for all_ended in [true, false] {
        let a = open(&server, "agent_A", None).await;
        a.store.close(all_ended).await;
        let all = client.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
        let keys: Vec<_> = all.kvs().iter().map(|own| own.key_str().unwrap()).collect();
        let held = keys.iter().any(|key| key.ends_with("holders/agent_A"));
        assert_eq!(held, !all_ended, "{keys:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let server = Server::start();
    let a = open(&server, "agent_A", None).await;
    let Err(OpenError::Storage(text)) = Etcd::open(options(&server, "agent_A"), None).await else {
        panic!("two agents of one name");
    };
    assert!(text.to_string().contains("another agent of the name agent_A"), "{text}");
    a.set("still", "1").await.unwrap();
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    client.put("new/layout", "2", None).await.unwrap();
    client.put("foreign/stuff", "x", None).await.unwrap();
    let at = |prefix: &str| Options { prefix: prefix.to_owned(), ..options(&server, "agent_B") };
    for (prefix, reason) in [("new", "layout '2'"), ("foreign", "foreign/stuff is there")] {
        let Err(OpenError::Storage(text)) = Etcd::open(at(prefix), None).await else {
            panic!("opened {prefix}");
        };
        assert!(text.to_string().contains(reason), "{text}");
    }
    let nobody = Options { endpoints: vec!["127.0.0.1:1".to_owned()], ..at("test") };
    let Err(OpenError::Storage(text)) = Etcd::open(nobody, None).await else { panic!("opened") };
    assert!(text.to_string().contains("127.0.0.1:1"), "{text}");
}
