//! How long an event takes from a workload on one node to subscribers on three, beside what etcd needs
//! from a put to its watches: same etcd, same networks, same client library, one after the other in
//! turns. `make bench-cluster` runs it; `-- --rounds N` says how often.
//!
//! An update is measured from before its frame is written to node A's pipe until the frame of its event
//! was read from a pipe; a put from before it is asked for until its event was taken from a watch.
//!
//! A node is all that would be on one machine: its agent, fifogate and workloads, and for the put the
//! client that puts and the one that watches. All of that is pinned to one processor, and each node has
//! its own as far as there are so many; etcd is left to the scheduler. `-- --unpinned` leaves it all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "cluster/cpus.rs"]
mod cpus;

#[allow(dead_code)]
#[path = "../tests/cluster"]
mod cluster {
    pub(crate) mod follower;
    pub(crate) mod history;
    pub(crate) mod network;
    pub(crate) mod view;
    pub(crate) mod world;
    pub(crate) mod writer;
}

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use cluster::{
    history::History,
    network::Network,
    world::{Cluster, NAMES},
};
use cpus::Cpus;
use etcd_client::{Client, WatchOptions};
use fifogate::pb::ank_base::{config_item::ConfigItemEnum, response::ResponseContent};
use testkit::{Etcd, Harness, is_run_elsewhere, soon};
use tokio::runtime::{Builder, Runtime};

/// As many as the tests have.
const WORKLOADS: usize = 20;
/// The workload of node A that asks, and those that follow.
const ASKER: usize = 1;
const FOLLOWER: usize = 2;
/// Measures how long an event takes from node to node, beside etcd's own put and watch.
#[derive(Debug, Parser)]
struct Options {
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 500)]
    rounds: usize,
    /// Nodes are not pinned to processors
    #[arg(long)]
    unpinned: bool,
    #[command(flatten)]
    harness: Harness,
}

fn main() {
    let Options { rounds, unpinned, harness } = Options::parse();
    if !harness.measures("make bench-cluster") {
        return;
    }
    let rounds_text = rounds.to_string();
    let mut arguments = vec!["--bench", "--rounds", &rounds_text];
    arguments.extend(unpinned.then_some("--unpinned"));
    if is_run_elsewhere(&["--net"], &arguments) {
        return;
    }
    let cpus = Cpus::new(!unpinned);
    let mut cluster = Cluster::start_after(WORKLOADS, |node| cpus.pin(node));
    // Its own watch would take time from the agents'.
    cluster.history = History::default();
    let mut puts = Puts::start(&cluster, &cpus);
    let mut updates = Updates::start(&cluster, &cpus);
    let nodes = NAMES.len();
    println!("{rounds} rounds, {nodes} nodes with {WORKLOADS} workloads each; {}", cpus.describe());
    println!("{:<42}{:>8}{:>8}{:>8}{:>8}", "microseconds", "median", "25 %", "75 %", "99 %");
    // We are the workload that asks.
    cpus.pin(0);
    measure(rounds, 1, &mut puts, &mut updates);
    cpus.free();
    let network = &cluster.network;
    let second = network.hub.enter(|| Etcd::join(&[&cluster.etcd]));
    let _third = network.hub.enter(|| Etcd::join(&[&cluster.etcd, &second]));
    cpus.pin(0);
    measure(rounds, 3, &mut puts, &mut updates);
}

/// Measures and prints, with an etcd of so many members.
fn measure(rounds: usize, members: usize, puts: &mut Puts, updates: &mut Updates) {
    let (mut put, mut updated) = (Vec::new(), Vec::new());
    for round in 0..rounds + rounds / 10 {
        // A value that was not there before.
        let value = format!("{members}{round:015}");
        let both = (puts.measure(&value), updates.measure(&value));
        // The first tenth warms up.
        if round >= rounds / 10 {
            put.push(both.0);
            updated.push(both.1);
        }
    }
    println!("members of etcd: {members}");
    for (far, name) in [(1, "on node B"), (NAMES.len(), "on the last of three nodes")] {
        let put = report(&format!("etcd: put to watch {name}"), &put, far);
        let updated = report(&format!("update to event {name}"), &updated, far);
        println!("{:<42}{:>8.2}", "ratio of the medians", updated / put);
    }
}

/// When each node had it, from the start.
type Arrivals = [Duration; NAMES.len()];

/// Prints a line for one kind of measurement; gives the median.
fn report(name: &str, all: &[Arrivals], far: usize) -> f64 {
    let micros = |arrivals: &Arrivals| {
        let of_one = (far == 1).then_some(arrivals[1]);
        of_one.or(arrivals.iter().max().copied()).unwrap_or_default().as_secs_f64() * 1e6
    };
    let mut all: Vec<_> = all.iter().map(micros).collect();
    all.sort_by(f64::total_cmp);
    let at = |part: usize| all[(all.len() - 1) * part / 100];
    let [median, low, high, late] = [50, 25, 75, 99].map(at);
    println!("{name:<42}{median:>8.0}{low:>8.0}{high:>8.0}{late:>8.0}");
    median
}

/// What somebody on a node heard, and when.
type Heard = (usize, String, Instant);

/// Waits until all nodes heard a value.
fn arrivals(heard: &Receiver<Heard>, value: &str, began: Instant) -> Arrivals {
    let mut all = [None; NAMES.len()];
    while all.iter().any(Option::is_none) {
        let (node, own, when) = heard.recv_timeout(Duration::from_secs(20)).expect("an event");
        if own == value {
            all[node] = Some(when - began);
        }
    }
    all.map(Option::unwrap_or_default)
}

/// etcd alone: a client on node A puts, and one on each node watches.
struct Puts {
    ask: Sender<String>,
    began: Receiver<Instant>,
    heard: Receiver<Heard>,
}

impl Puts {
    fn start(cluster: &Cluster, cpus: &Cpus) -> Self {
        let (sender, heard) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        for node in 0..NAMES.len() {
            let (sender, ready) = (sender.clone(), ready.clone());
            let endpoint = endpoint(cluster, node);
            let (network, cpus) = (cluster.network.nodes[node].share(), cpus.clone());
            thread::spawn(move || {
                cpus.pin(node);
                network.enter(|| watch(node, &endpoint, &sender, &ready));
            });
        }
        NAMES.iter().for_each(|_| is_ready.recv().unwrap());
        let (ask, asked) = mpsc::channel::<String>();
        let (begin, began) = mpsc::channel();
        let (endpoint, network) = (endpoint(cluster, 0), cluster.network.nodes[0].share());
        let cpus = cpus.clone();
        thread::spawn(move || {
            cpus.pin(0);
            network.enter(|| {
                let runtime = runtime();
                let mut client = runtime.block_on(Client::connect([endpoint], None)).unwrap();
                for value in asked {
                    begin.send(Instant::now()).unwrap();
                    runtime.block_on(client.put("bench/event", value, None)).unwrap();
                }
            });
        });
        Self { ask, began, heard }
    }

    fn measure(&mut self, value: &str) -> Arrivals {
        self.ask.send(value.to_owned()).unwrap();
        let began = self.began.recv().unwrap();
        arrivals(&self.heard, value, began)
    }
}

fn endpoint(cluster: &Cluster, node: usize) -> String {
    format!("{}:{}", Network::hub_of(node), cluster.etcd.port())
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn watch(node: usize, endpoint: &str, heard: &Sender<Heard>, ready: &Sender<()>) {
    runtime().block_on(async {
        let mut client = Client::connect([endpoint], None).await.unwrap();
        let prefix = Some(WatchOptions::new().with_prefix());
        let mut stream = client.watch("bench/", prefix).await.unwrap();
        // The first message says that it is created.
        let mut begun = false;
        while let Ok(Some(response)) = stream.message().await {
            let now = Instant::now();
            if !std::mem::replace(&mut begun, true) {
                ready.send(()).unwrap();
            }
            for event in response.events() {
                let value = event.kv().unwrap().value_str().unwrap().to_owned();
                if heard.send((node, value, now)).is_err() {
                    return;
                }
            }
        }
    });
}

/// A workload on node A that sets a config, and one on each node that follows it.
struct Updates {
    asker: testkit::Session,
    heard: Receiver<Heard>,
}

impl Updates {
    fn start(cluster: &Cluster, cpus: &Cpus) -> Self {
        let (sender, heard) = mpsc::channel();
        for node in 0..NAMES.len() {
            let mut session = cluster.session(node, FOLLOWER);
            let id = session.subscribe(&["desiredState.configs.event"]);
            session.answer(&id);
            let (sender, cpus) = (sender.clone(), cpus.clone());
            thread::spawn(move || {
                cpus.pin(node);
                while let Ok(Some(response)) = session.try_response(soon()) {
                    let now = Instant::now();
                    let Some(value) = value_of(response.response_content) else { continue };
                    if sender.send((node, value, now)).is_err() {
                        return;
                    }
                }
            });
        }
        Self { asker: cluster.session(0, ASKER), heard }
    }

    fn measure(&mut self, value: &str) -> Arrivals {
        let text = format!("configs: {{event: '{value}'}}");
        let update = testkit::update(&text, &["desiredState.configs.event"]);
        let began = Instant::now();
        let id = self.asker.ask(update);
        let all = arrivals(&self.heard, value, began);
        let answer = self.asker.answer(&id);
        assert!(matches!(answer, ResponseContent::UpdateStateSuccess(_)), "{answer:?}");
        all
    }
}

fn value_of(content: Option<ResponseContent>) -> Option<String> {
    let Some(ResponseContent::CompleteStateResponse(own)) = content else { return None };
    let mut configs = own.complete_state?.desired_state?.configs?.configs;
    match configs.remove("event")?.config_item_enum? {
        ConfigItemEnum::String(value) => Some(value),
        _ => None,
    }
}
