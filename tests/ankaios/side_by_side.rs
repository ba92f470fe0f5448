//! Measured: a workload of an agent of ours beside one of the real agent, and the server with either.
//!
//! `make interop-figures` runs these and prints their tables.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use fifogate::pb::ank_base::{self as pb, response::ResponseContent};
use serde_json::json;
use testkit::{Podman, Session, memory_kib};

use crate::{
    cluster::{Cluster, Member},
    manifest::{LIVES, Workload, manifest},
};

const UPDATES: u32 = 1000;
const KEYS: u32 = 10;

fn text(item: &pb::ConfigItem) -> String {
    match &item.config_item_enum {
        Some(pb::config_item::ConfigItemEnum::String(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn configs(state: Option<pb::CompleteState>) -> BTreeMap<String, String> {
    let configs = state.and_then(|own| own.desired_state).and_then(|own| own.configs);
    configs.unwrap_or_default().configs.iter().map(|(key, own)| (key.clone(), text(own))).collect()
}

/// What events have told of the configs, and when each value was told.
#[derive(Default)]
struct Told {
    now: BTreeMap<String, String>,
    times: BTreeMap<u32, Instant>,
    events: usize,
    /// Changes that were none.
    untrue: usize,
}

impl Told {
    fn take(&mut self, event: pb::CompleteStateResponse) {
        let at = Instant::now();
        self.events += 1;
        let altered = event.altered_fields.unwrap_or_default();
        let new = configs(event.complete_state);
        let key = |path: &String| path.strip_prefix("desiredState.configs.").map(str::to_owned);
        for key in altered.removed_fields.iter().filter_map(key) {
            self.untrue += usize::from(self.now.remove(&key).is_none());
        }
        for key in altered.added_fields.iter().chain(&altered.updated_fields).filter_map(key) {
            let value = new[&key].clone();
            if let Ok(number) = value.parse() {
                self.times.entry(number).or_insert(at);
            }
            self.untrue += usize::from(self.now.insert(key, value.clone()) == Some(value));
        }
    }

    /// Reads events up to the last value, on a thread of its own.
    fn follow(mut session: Session) -> thread::JoinHandle<(Self, Session)> {
        session.subscribe(&["desiredState.configs"]);
        let first = session.state_response();
        let mut told = Self { now: configs(first.complete_state), ..Self::default() };
        thread::spawn(move || {
            while !told.now.contains_key("end") {
                let (_, content) = session.response();
                let ResponseContent::CompleteStateResponse(event) = content else { continue };
                told.take(event);
            }
            (told, session)
        })
    }
}

fn quantile(times: &mut [Duration], part: f64) -> f64 {
    times.sort();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = ((times.len() - 1) as f64 * part) as usize;
    times[at].as_secs_f64() * 1e3
}

fn row(name: &str, ours: &mut [Duration], real: &mut [Duration]) {
    let both = [ours, real].map(|times| [quantile(times, 0.5), quantile(times, 0.99)]);
    println!(
        "| {name} | {:.2} | {:.2} | {:.2} | {:.2} |",
        both[0][0], both[0][1], both[1][0], both[1][1]
    );
}

fn round_trips(session: &mut Session, mut ask: impl FnMut(&mut Session, u32)) -> Vec<Duration> {
    let one = |number| {
        let begun = Instant::now();
        ask(session, number);
        begun.elapsed()
    };
    (0..300).map(one).collect()
}

fn set(session: &mut Session, key: &str, value: &str) {
    session.set_config("set", key, value);
    let answer = session.answer("set");
    assert!(matches!(answer, ResponseContent::UpdateStateSuccess(_)), "{answer:?}");
}

#[test]
#[ignore = "prints figures"]
fn workloads_of_both_agents_are_told_the_same_and_ours_nothing_that_did_not_happen() {
    let own = |agent: &str| match agent {
        "real" => Workload::container("real", LIVES).spoken_for(),
        _ => Workload::process("ours", LIVES).spoken_for(),
    };
    let text = manifest(
        [("mine", own("ours")), ("writer", own("ours")), ("theirs", own("real"))],
        &json!({"begin": "x"}),
    );
    let Some(cluster) = Cluster::of(&text) else { return };
    let Some(podman) = Podman::new() else { return };
    let (ours, real) = (cluster.ours("ours", &[]), cluster.real("real", &podman));
    cluster.until("real", "theirs", "Running(Ok)");
    let mut writer = ours.connect("writer");
    let followers = [Told::follow(ours.connect("mine")), Told::follow(real.connect("theirs"))];
    let mut sent = BTreeMap::new();
    for number in 0..UPDATES {
        sent.insert(number, Instant::now());
        set(&mut writer, &format!("c{}", number % KEYS), &number.to_string());
    }
    set(&mut writer, "end", "x");
    let [mine, theirs] = followers.map(|own| own.join().unwrap());
    let ((mine, mut my_session), (theirs, mut their_session)) = (mine, theirs);
    let state = cluster.state();
    let state: BTreeMap<String, String> =
        serde_json::from_value(state["desiredState"]["configs"].clone()).unwrap();
    assert_eq!(mine.now, state);
    assert_eq!(theirs.now, state);
    assert_eq!(mine.untrue, 0);
    println!("events: {} at ours, {} at the real agent's", mine.events, theirs.events);
    let latency =
        |told: &Told| told.times.iter().map(|(number, at)| *at - sent[number]).collect::<Vec<_>>();
    println!("| ms | ours, median | p99 | real agent, median | p99 |\n|---|---|---|---|---|");
    row("event, from its update", &mut latency(&mine), &mut latency(&theirs));
    let read = |session: &mut Session, number: u32| {
        let id = format!("r{number}");
        session.read(&id, &["desiredState.configs.c1"], false);
        while session.response().0 != id {}
    };
    let mut reads = [&mut my_session, &mut their_session].map(|own| round_trips(own, read));
    let [mine, theirs] = &mut reads;
    row("read, there and back", mine, theirs);
    let write = |session: &mut Session, number: u32| set(session, "w", &number.to_string());
    let mut writes = [&mut my_session, &mut their_session].map(|own| round_trips(own, write));
    let [mine, theirs] = &mut writes;
    row("update, there and back", mine, theirs);
}

/// Processor time of a process so far, in seconds.
fn processor(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

const ELSEWHERE: usize = 2000;
const HERE: usize = 50;
const EVENTS: u32 = 20;

/// Processor time of the server for the updates, and its memory, with 50 subscribers at one agent.
fn load(start: impl Fn(&Cluster) -> (Member, fn(&str) -> Workload)) -> Option<(f64, usize)> {
    let elsewhere = (0..ELSEWHERE).map(|n| (format!("far{n}"), Workload::process("far", LIVES)));
    let mut all: Vec<_> = elsewhere.collect();
    let cluster = Cluster::of(&manifest([], &json!({"begin": "x"})))?;
    let (member, make) = start(&cluster);
    let names: Vec<_> = (0..HERE).map(|n| format!("w{n}")).collect();
    all.extend(names.iter().map(|name| (name.clone(), make(LIVES).spoken_for())));
    all.push(("writer".to_owned(), make(LIVES).spoken_for()));
    cluster.add(all.iter().map(|(name, own)| (name.as_str(), own.clone())));
    let mut sessions: Vec<_> = names
        .iter()
        .map(|name| {
            let mut session = member.connect(name);
            session.subscribe(&["desiredState.configs", "workloadStates.*.*.*.state"]);
            session.state_response();
            session
        })
        .collect();
    let mut writer = member.connect("writer");
    let server = cluster.server.as_ref().unwrap().id();
    let before = processor(server);
    for number in 0..EVENTS {
        set(&mut writer, "c", &number.to_string());
        for session in &mut sessions {
            // States of workloads that have just started may come before.
            let mut value = None;
            while value.as_deref() != Some(&*number.to_string()) {
                value = configs(session.state_response().complete_state).remove("c");
            }
        }
    }
    Some((processor(server) - before, memory_kib(server, "VmRSS")))
}

#[test]
#[ignore = "prints figures"]
fn load_of_the_server_with_fifty_subscribers_at_either_agent() {
    let ours = load(|cluster| {
        let make: fn(&str) -> Workload = |script| Workload::process("ours", script);
        (cluster.ours("ours", &[]), make)
    });
    let Some(ours) = ours else { return };
    let Some(podman) = Podman::new() else { return };
    let real = load(|cluster| {
        let make: fn(&str) -> Workload = |script| Workload::container("real", script);
        (cluster.real("real", &podman), make)
    });
    let Some(real) = real else { return };
    println!("| ank-server | with our agent | with the real one |\n|---|---|---|");
    println!("| processor, s | {:.2} | {:.2} |", ours.0, real.0);
    println!("| memory, MiB | {} | {} |", ours.1 / 1024, real.1 / 1024);
}
