//! Updates of more items than one transaction of etcd takes: all of them at once, or none.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod etcd_store;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use etcd_client::{Client, GetOptions};
use etcd_store::options;
use fifogate::{
    pb::ank_base::{self as pb, config_item::ConfigItemEnum, execution_state::ExecutionStateEnum},
    state::Tree,
};
use fifogate_agent::{
    model::Update,
    store::{Etcd, Event, Events, Refused, Store},
};
use testkit::Etcd as Server;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(40);
const MANY: usize = 1_000;

async fn open(server: &Server, agent: &str) -> (Store, Events) {
    Etcd::open(options(server, agent), None).await.unwrap()
}

fn config(value: &str) -> pb::ConfigItem {
    pb::ConfigItem { config_item_enum: Some(ConfigItemEnum::String(value.to_owned())) }
}

fn update(state: pb::State, masks: Vec<String>) -> Update {
    let desired_state = Some(pb::State { api_version: "v1".to_owned(), ..state });
    Update {
        by: String::new(),
        new_state: pb::CompleteState { desired_state, ..Default::default() },
        masks,
    }
}

/// Sets so many workloads that nobody runs, and as many configs, to a value.
fn set_many(count: usize, value: &str) -> Update {
    let workload = pb::Workload {
        runtime: Some("process".to_owned()),
        agent: Some("nobody".to_owned()),
        runtime_config: Some(format!("command: {value}")),
        ..Default::default()
    };
    let workloads = (0..count).map(|n| (format!("w{n}"), workload.clone())).collect();
    let configs = (0..count).map(|n| (format!("c{n}"), config(value))).collect();
    let state = pb::State {
        workloads: Some(pb::WorkloadMap { workloads }),
        configs: Some(pb::ConfigMap { configs }),
        ..Default::default()
    };
    let mask =
        |n: usize| [format!("desiredState.workloads.w{n}"), format!("desiredState.configs.c{n}")];
    update(state, (0..count).flat_map(mask).collect())
}

fn set_one(name: &str, value: &str) -> Update {
    let configs = [(name.to_owned(), config(value))].into();
    let configs = Some(pb::ConfigMap { configs });
    let state = pb::State { configs, ..Default::default() };
    update(state, vec![format!("desiredState.configs.{name}")])
}

/// The values that the many items of a state have, each with how many have it.
fn values(tree: &Tree) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for (name, own) in tree.entries(&["desiredState", "configs"]) {
        if name.as_str().starts_with('c') {
            *all.entry(own.as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    for (_, own) in tree.entries(&["desiredState", "workloads"]) {
        let value = own.str_at("runtimeConfig").unwrap().trim_start_matches("command: ");
        *all.entry(value.to_owned()).or_default() += 1;
    }
    all
}

/// The states that are told until one is as wanted.
async fn until(events: &mut Events, is_wanted: impl Fn(&Tree) -> bool) -> Vec<Tree> {
    let told = async {
        let mut all = Vec::new();
        while let Some(event) = events.recv().await {
            let Event::State { tree, .. } = event else { continue };
            let is_last = is_wanted(&tree);
            all.push(tree);
            if is_last {
                return all;
            }
        }
        panic!("nothing more is told");
    };
    timeout(PATIENCE, told).await.expect("never told")
}

/// The keys below `desired/`, without the prefix.
async fn keys(server: &Server) -> BTreeSet<String> {
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    let all = GetOptions::new().with_prefix().with_keys_only();
    let found = client.get("test/desired/", Some(all)).await.unwrap();
    let key = |kv: &etcd_client::KeyValue| {
        kv.key_str().unwrap().strip_prefix("test/desired/").unwrap().to_owned()
    };
    found.kvs().iter().map(key).collect()
}

/// Waits until no large update is under way.
async fn until_copied(server: &Server) -> BTreeSet<String> {
    let copied = async {
        loop {
            let keys = keys(server).await;
            if !keys.iter().any(|own| own.starts_with("large")) {
                return keys;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, copied).await.expect("it stays")
}

#[tokio::test]
async fn thousands_of_items_are_one_event_everywhere_and_are_removed_as_one() {
    let server = Server::start();
    let (first, mut own_events) = open(&server, "agent_A").await;
    let (second, mut events) = open(&server, "agent_B").await;
    second.update(set_one("other", "1")).await.unwrap();
    first.update(set_many(MANY, "v1")).await.unwrap();
    // Nobody waits for what is copied behind it.
    second.update(set_one("other", "2")).await.unwrap();
    for events in [&mut own_events, &mut events] {
        let other = |tree: &Tree| {
            tree.get(&["desiredState", "configs", "other"]).and_then(|own| own.as_str())
                == Some("2")
        };
        let states = until(events, other).await;
        let mut counts: Vec<_> = states.iter().map(values).collect();
        counts.dedup();
        let all: BTreeMap<_, _> = [("v1".to_owned(), 2 * MANY)].into();
        assert_eq!(counts, [BTreeMap::new(), all], "all at once");
    }
    let keys = until_copied(&server).await;
    assert!(keys.contains("workloads/w999") && keys.contains("configs/c999"));
    // Who reads it anew finds the same.
    let (_third, mut events) = open(&server, "agent_C").await;
    let Some(Event::State { tree, .. }) = events.recv().await else { panic!() };
    assert_eq!(values(&tree).get("v1"), Some(&(2 * MANY)));
    // All are removed.
    let masks = ["workloads", "configs"].map(|part| format!("desiredState.{part}")).to_vec();
    let configs = Some(pb::ConfigMap { configs: [("other".to_owned(), config("3"))].into() });
    let rest = update(pb::State { configs, ..Default::default() }, masks);
    let done = second.update(rest).await.unwrap();
    assert_eq!(done.deleted_workloads.len(), MANY);
    let states = until(&mut events, |tree| values(tree).is_empty()).await;
    assert_eq!(states.iter().filter(|tree| values(tree).is_empty()).count(), 1);
    let keys = until_copied(&server).await;
    assert!(!keys.contains("workloads/w0") && keys.contains("configs/other"), "{keys:?}");
}

#[tokio::test]
async fn state_that_an_agent_reports_while_items_are_copied_stays() {
    let server = Server::start();
    let (first, _own_events) = open(&server, "agent_A").await;
    let (second, mut events) = open(&server, "agent_B").await;
    let mut many = set_many(MANY, "v1");
    let desired = many.new_state.desired_state.as_mut().unwrap();
    for workload in desired.workloads.as_mut().unwrap().workloads.values_mut() {
        workload.agent = Some("agent_B".to_owned());
    }
    let reports = async {
        let states = until(&mut events, |tree| !values(tree).is_empty()).await;
        let names: Vec<_> = instances(states.last().unwrap()).collect();
        assert_eq!(names.len(), MANY);
        // From the last one on: the copies begin with the first.
        for some in names.rchunks(50) {
            let running = |(workload, id): &(String, String)| pb::WorkloadState {
                instance_name: Some(pb::WorkloadInstanceName {
                    workload_name: workload.clone(),
                    agent_name: "agent_B".to_owned(),
                    id: id.clone(),
                }),
                execution_state: Some(pb::ExecutionState {
                    additional_info: Some(String::new()),
                    execution_state_enum: Some(ExecutionStateEnum::Running(0)),
                }),
            };
            second.report(some.iter().map(running).collect()).await.unwrap();
        }
    };
    let (updated, ()) = tokio::join!(first.update(many), reports);
    updated.unwrap();
    until_copied(&server).await;
    let (_third, mut events) = open(&server, "agent_C").await;
    let Some(Event::State { tree, .. }) = events.recv().await else { panic!() };
    let is_running = |own: &(String, String)| {
        let path = ["workloadStates", "agent_B", &own.0, &own.1];
        tree.get(&path).and_then(|own| own.str_at("state")) == Some("Running")
    };
    let others: Vec<_> = instances(&tree).filter(|own| !is_running(own)).collect();
    assert!(others.is_empty(), "{} have another state: {:?}", others.len(), others.first());
}

/// The workloads and ids of all instances of agent_B.
fn instances(tree: &Tree) -> impl Iterator<Item = (String, String)> {
    let all = tree.entries(&["workloadStates", "agent_B"]).iter();
    all.flat_map(|(name, ids)| {
        ids.entries().into_iter().map(move |(id, _)| (name.to_string(), id.to_string()))
    })
}

#[tokio::test]
async fn large_updates_and_small_ones_of_others_are_done_one_after_the_other() {
    let server = Server::start();
    let mut stores = Vec::new();
    for agent in ["agent_A", "agent_B", "agent_C"] {
        stores.push(open(&server, agent).await);
    }
    let (observer, mut events) = open(&server, "agent_D").await;
    let tasks: Vec<_> = stores
        .into_iter()
        .enumerate()
        .map(|(number, (store, mut events))| {
            tokio::spawn(async move { while events.recv().await.is_some() {} });
            tokio::spawn(async move {
                for round in 0..5 {
                    store.update(set_many(200, &format!("{number}.{round}"))).await.unwrap();
                    for small in 0..10 {
                        let value = format!("{round}.{small}");
                        store.update(set_one(&format!("s{number}"), &value)).await.unwrap();
                    }
                }
                store
            })
        })
        .collect();
    let all = async {
        let mut stores = Vec::new();
        for task in tasks {
            stores.push(task.await.unwrap());
        }
        observer.update(set_one("done", "1")).await.unwrap();
        stores
    };
    let is_done = |tree: &Tree| tree.get(&["desiredState", "configs", "done"]).is_some();
    let (_stores, states) = tokio::join!(all, until(&mut events, is_done));
    let mut seen = Vec::new();
    for tree in &states {
        let values = values(tree);
        assert!(values.len() <= 1, "a part of an update: {values:?}");
        seen.extend(values.into_keys());
    }
    seen.dedup();
    assert_eq!(seen.len(), 15, "each large update once: {seen:?}");
    let last = states.last().unwrap();
    for number in 0..3 {
        let config = last.get(&["desiredState", "configs", &format!("s{number}")]).unwrap();
        assert_eq!(config.as_str(), Some("4.9"));
    }
}

#[tokio::test]
async fn large_update_is_refused_as_a_whole_and_leaves_nothing() {
    let server = Server::start();
    let (store, _events) = open(&server, "agent_A").await;
    let mut wrong = set_many(200, "v1");
    let desired = wrong.new_state.desired_state.as_mut().unwrap();
    let workload = desired.workloads.as_mut().unwrap().workloads.get_mut("w7").unwrap();
    workload.dependencies = Some(pb::Dependencies { dependencies: [("w7".into(), 0)].into() });
    let refused = store.update(wrong).await;
    assert!(matches!(refused, Err(Refused::Invalid(_))), "{refused:?}");
    let keys = until_copied(&server).await;
    assert!(!keys.iter().any(|own| own.starts_with("workloads")), "{keys:?}");
    // What nobody can read is removed after a while; updates wait for it, and say so.
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    client.put("test/desired/large", "of another program", None).await.unwrap();
    let refused = wait_for_refusal(&store).await;
    assert!(refused.contains("A large update of another agent is under way"), "{refused}");
    until_copied(&server).await;
    store.update(set_many(200, "v2")).await.unwrap();
}

/// Updates until one is refused.
async fn wait_for_refusal(store: &Store) -> String {
    let refused = async {
        for number in 0.. {
            match store.update(set_one("c", &number.to_string())).await {
                Ok(_) => {}
                Err(refused) => return refused.to_string(),
            }
        }
        unreachable!()
    };
    timeout(PATIENCE, refused).await.expect("never refused")
}

#[test]
fn agent_that_is_killed_in_the_middle_has_done_all_of_its_update_or_nothing() {
    let server = Server::start();
    let new_runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut done, mut not) = (0, 0);
    let main = new_runtime();
    let (observer, mut events) = main.block_on(open(&server, "observer"));
    // Later and later after the update was asked for.
    for (round, time) in [0, 15, 30, 45, 60, 90, 4_000].into_iter().enumerate() {
        let (agent, value) = (format!("agent_{round}"), format!("v{round}"));
        let killed = new_runtime();
        killed.block_on(async {
            let (store, _events) = open(&server, &agent).await;
            let time = Duration::from_millis(time);
            // What a killed process has sent is all that is left of it.
            let _ = timeout(time, store.update(set_many(400, &value))).await;
            std::mem::forget(store);
        });
        killed.shutdown_background();
        main.block_on(observer.update(set_one("marker", &value))).unwrap();
        let marked = |tree: &Tree| {
            let marker = tree.get(&["desiredState", "configs", "marker"]);
            marker.and_then(|own| own.as_str()) == Some(&value)
        };
        let states = main.block_on(until(&mut events, marked));
        for tree in &states {
            let values = values(tree);
            assert!(values.is_empty() || values.values().eq([&800]), "a part: {values:?}");
        }
        let is_done = values(states.last().unwrap()).contains_key(&value);
        if is_done { done += 1 } else { not += 1 }
    }
    assert!(done > 0 && not > 0, "{done} done, {not} not");
    main.block_on(until_copied(&server));
}
