//! Measured: a workload of an agent of ours beside one of the real agent, and the server with either.
//!
//! `make interop-figures` runs these and prints their tables.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use fifogate::{
    pb::ank_base::{self as pb, response::ResponseContent},
    state::Node,
};
use serde_json::json;
use testkit::{Podman, Session, memory_kib, wait_for};

use crate::{
    cluster::{Cluster, Member},
    manifest::{LIVES, Workload, manifest},
    same_state::Told,
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

/// What a workload was told of the configs, and when each value was told.
#[derive(Default)]
struct Timed {
    told: Told,
    times: BTreeMap<u32, Instant>,
}

impl Timed {
    /// Reads events up to the last value, on a thread of its own.
    fn follow(mut session: Session) -> thread::JoinHandle<(Self, Session)> {
        session.subscribe(&["desiredState.configs"]);
        let mut own = Self::default();
        own.told.take(session.state_response());
        thread::spawn(move || {
            while own.told.configs().get("end").is_none() {
                let (_, content) = session.response();
                let ResponseContent::CompleteStateResponse(event) = content else { continue };
                let at = Instant::now();
                own.told.take(event);
                for number in own.told.last.values() {
                    own.times.entry(*number).or_insert(at);
                }
            }
            (own, session)
        })
    }

    fn configs(&self) -> BTreeMap<String, String> {
        let text = |own: &Node| own.as_str().unwrap().to_owned();
        self.told.configs().iter().map(|(key, own)| (key.to_string(), text(own))).collect()
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
fn times_of_events_reads_and_updates_at_both_agents() {
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
    let followers = [Timed::follow(ours.connect("mine")), Timed::follow(real.connect("theirs"))];
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
    assert_eq!(mine.configs(), state);
    assert_eq!(theirs.configs(), state);
    assert_eq!(mine.told.untrue, [""; 0]);
    println!("events: {} at ours, {} at the real agent's", mine.told.events, theirs.told.events);
    let latency =
        |own: &Timed| own.times.iter().map(|(number, at)| *at - sent[number]).collect::<Vec<_>>();
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
/// Time in which nothing is asked of the server; both agents report their load meanwhile.
const IDLE: Duration = Duration::from_secs(20);

/// What the server took with 50 subscribers at one agent: processor time in seconds, and memory in KiB.
struct Load {
    subscriptions: f64,
    updates: f64,
    idle: f64,
    memory: usize,
}

/// A cluster with 2,000 workloads of an agent that is never there, and 51 of one that is, all of which run.
fn crowded(start: impl Fn(&Cluster) -> (Member, Side)) -> Option<(Cluster, Member)> {
    let cluster = Cluster::of(&manifest([], &json!({"begin": "x"})))?;
    let (member, (agent, make)) = start(&cluster);
    let far = (0..ELSEWHERE).map(|n| (format!("far{n}"), Workload::process("far", LIVES)));
    let own = (0..HERE).map(|n| format!("w{n}")).chain(["writer".to_owned()]);
    let all: Vec<_> = far.chain(own.map(|name| (name, make(LIVES).spoken_for()))).collect();
    cluster.add(all.iter().map(|(name, own)| (name.as_str(), own.clone())));
    // Events of starts would be told to who has subscribed already, and are not to be measured.
    wait_for("all of them", || {
        let mask = format!("workloadStates.{agent}");
        let said = cluster.ank(&["get", "state", "-o", "json", &mask]).good();
        (said.matches("\"Running\"").count() == HERE + 1).then_some(())
    });
    Some((cluster, member))
}

fn load(start: impl Fn(&Cluster) -> (Member, Side)) -> Option<Load> {
    let (cluster, member) = crowded(start)?;
    let server = cluster.server.as_ref().unwrap().id();
    let begun = processor(server);
    let subscribe = |n| {
        let mut session = member.connect(&format!("w{n}"));
        session.subscribe(&["desiredState.configs", "workloadStates.*.*.*.state"]);
        session.state_response();
        session
    };
    let mut sessions: Vec<_> = (0..HERE).map(subscribe).collect();
    let mut writer = member.connect("writer");
    let subscribed = processor(server);
    for number in 0..EVENTS {
        set(&mut writer, "c", &number.to_string());
        for session in &mut sessions {
            let mut value = None;
            while value.as_deref() != Some(&*number.to_string()) {
                value = configs(session.state_response().complete_state).remove("c");
            }
        }
    }
    let updated = processor(server);
    thread::sleep(IDLE);
    Some(Load {
        subscriptions: subscribed - begun,
        updates: updated - subscribed,
        idle: processor(server) - updated,
        memory: memory_kib(server, "VmRSS"),
    })
}

/// The name of an agent, and how it makes a workload of a script.
type Side = (&'static str, fn(&str) -> Workload);

#[test]
#[ignore = "prints figures"]
fn load_of_the_server_with_fifty_subscribers_at_either_agent() {
    let ours = load(|cluster| {
        (cluster.ours("ours", &[]), ("ours", |script| Workload::process("ours", script)))
    });
    let Some(ours) = ours else { return };
    let Some(podman) = Podman::new() else { return };
    let real = load(|cluster| {
        (cluster.real("real", &podman), ("real", |script| Workload::container("real", script)))
    });
    let Some(real) = real else { return };
    println!("| ank-server, {ELSEWHERE} + {HERE} workloads | with ours | with the real one |");
    println!("|---|---|---|");
    let row = |name: &str, of: fn(&Load) -> f64| {
        println!("| {name} | {:.2} | {:.2} |", of(&ours), of(&real));
    };
    row(&format!("processor for {HERE} subscriptions, s"), |own| own.subscriptions);
    row(&format!("processor for {EVENTS} updates of a config, s"), |own| own.updates);
    row(&format!("processor in {} idle seconds, s", IDLE.as_secs()), |own| own.idle);
    #[allow(clippy::cast_precision_loss)] // far below
    row("memory, MiB", |own| own.memory as f64 / 1024.0);
}
