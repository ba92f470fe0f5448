//! A cluster: etcd, agents around it, and workloads that follow and change the state all the time.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use fifogate::{
    internal::state::{AGENTS, WORKLOAD_STATES},
    state::Tree,
};

use super::{
    follower::Follower,
    history::{History, PREFIX},
    network::Network,
    view::View,
    writer::Writer,
};
use testkit::{Agent, Etcd, Session, soon};

pub(crate) const NAMES: [&str; 3] = ["A", "B", "C"];

/// The roles of a node's first workloads; others only run.
const ASKS: usize = 0;
const WRITES: usize = 1;
const FOLLOWS: usize = 2;

pub(crate) struct Cluster {
    // In the order in which they have to end.
    pub(crate) writers: Vec<Writer>,
    pub(crate) followers: Vec<Follower>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) etcd: Etcd,
    pub(crate) history: History,
    pub(crate) network: Network,
}

pub(crate) fn workload(node: usize, number: usize) -> String {
    format!("w_{}_{number}", NAMES[node])
}

/// A manifest's workloads that sleep, each with a pair through which it may do everything.
fn manifest(each: usize) -> String {
    let access = "{allowRules: [{type: StateRule, operation: ReadWrite, filterMasks: ['*']}]}";
    let own = |node: usize| {
        let line = move |number| {
            let (name, agent) = (workload(node, number), NAMES[node]);
            format!(
                "  {name}: {{runtime: process, agent: agent_{agent}, runtimeConfig: \
                 '{{command: sleep, args: [100000]}}', controlInterfaceAccess: {access}}}\n"
            )
        };
        (0..each).map(line).collect::<String>()
    };
    (0..NAMES.len()).map(own).collect()
}

impl Cluster {
    /// Three nodes with so many workloads each, all of which run.
    pub(crate) fn start(each: usize) -> Self {
        Self::start_after(each, |_| {})
    }

    /// The same; each node's agent is started by a thread that has `prepared` itself for it.
    pub(crate) fn start_after(each: usize, prepared: impl Fn(usize) + Sync) -> Self {
        let network = Network::new(NAMES.len());
        let etcd = network.hub.enter(|| Etcd::start_at("0.0.0.0"));
        let history = History::start(network.hub.share(), etcd.endpoint());
        let workloads = manifest(each);
        let start = |node: usize| {
            let endpoint = format!("{}:{}", Network::hub_of(node), etcd.port());
            let name = format!("agent_{}", NAMES[node]);
            let mut options = vec!["--name", &name, "--etcd", &endpoint, "--prefix", PREFIX];
            // A subscriber is told from its first answer on.
            options.extend(["--grace", "2", "--", "--subscribe-grace-ms", "0"]);
            network.nodes[node].enter(|| {
                prepared(node);
                Agent::start(&workloads, &options)
            })
        };
        let agents = (0..NAMES.len()).map(start).collect();
        let (writers, followers) = (Vec::new(), Vec::new());
        let cluster = Self { writers, followers, agents, etcd, history, network };
        cluster.agree();
        cluster
    }

    /// With a workload that writes and one that follows on each node.
    pub(crate) fn busy() -> Self {
        let mut cluster = Self::start(4);
        for node in 0..NAMES.len() {
            let run_dir = cluster.run_dir(node);
            cluster.followers.push(Follower::start(run_dir.clone(), &workload(node, FOLLOWS)));
            cluster.writers.push(Writer::start(run_dir, &workload(node, WRITES)));
        }
        cluster.all_progress(20);
        cluster
    }

    pub(crate) fn run_dir(&self, node: usize) -> PathBuf {
        self.agents[node].path("run")
    }

    pub(crate) fn session(&self, node: usize, number: usize) -> Session {
        Session::connect_until(&self.run_dir(node), &workload(node, number))
    }

    /// The state as one node has it.
    pub(crate) fn state(&self, node: usize) -> Tree {
        self.session(node, ASKS).state()
    }

    /// Waits until what one node knows is so.
    pub(crate) fn until(&self, node: usize, what: &str, is_so: impl Fn(&Tree) -> bool) {
        self.session(node, ASKS).until(what, |state| is_so(state).then_some(()));
    }

    /// Waits until every writer got on.
    pub(crate) fn all_progress(&self, more: usize) {
        thread::scope(|scope| {
            for writer in &self.writers {
                scope.spawn(move || writer.progress(more));
            }
        });
    }

    /// Starts a killed agent again, in its own network.
    pub(crate) fn restart(&mut self, node: usize) {
        let agent = &mut self.agents[node];
        self.network.nodes[node].enter(|| agent.restart());
    }

    /// The state in etcd, as soon as the history knows it.
    pub(crate) fn now(&self) -> View {
        let revision = self.network.hub.enter(|| self.etcd.revision());
        self.history.until(revision);
        self.history.now().view.clone()
    }

    /// Waits until all nodes know the same, all workloads run, and it is what etcd holds.
    pub(crate) fn agree(&self) {
        let end = soon();
        loop {
            let states: Vec<_> = (0..NAMES.len()).map(|node| self.state(node)).collect();
            let without = states.iter().map(without_status).collect::<Vec<_>>();
            let same = without.iter().all(|own| *own == without[0]);
            let now = self.now();
            if same && all_run(&states[0]) && View::of(&states[0]) == now {
                return;
            }
            if Instant::now() > end {
                let views: Vec<_> =
                    states.iter().map(|own| View::of(own).difference(&now)).collect();
                panic!("the nodes do not agree: {views:#?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The promises that hold after any fault.
    pub(crate) fn verify(mut self) {
        self.all_progress(10);
        self.writers.iter_mut().for_each(Writer::stop);
        self.agree();
        let (now, end) = (self.now(), soon());
        for follower in &self.followers {
            while !follower.is_at(&now) {
                let left = follower.difference(&now);
                assert!(Instant::now() < end, "a follower's view is not the state: {left:#?}");
                thread::sleep(Duration::from_millis(10));
            }
        }
        let past = self.history.now();
        self.followers.iter().for_each(|own| own.verify(&past));
        self.writers.iter().for_each(|own| own.verify(&past));
    }
}

/// A state without what differs every two seconds.
fn without_status(tree: &Tree) -> (Tree, Vec<String>) {
    let agents = tree.entries(&[AGENTS]).keys().map(ToString::to_string).collect();
    (tree.with(AGENTS, None), agents)
}

fn all_run(tree: &Tree) -> bool {
    let desired = ["desiredState", "workloads"];
    let (mut wanted, mut running) = (tree.entries(&desired).len(), 0);
    for name in NAMES {
        let agent = format!("agent_{name}");
        if tree.get(&[AGENTS, &agent]).is_none() {
            wanted += 1; // an agent that is missing
        }
        for (_, ids) in tree.entries(&[WORKLOAD_STATES, &agent]) {
            let states = ids.as_map().into_iter().flatten();
            running += states.filter(|(_, own)| own.str_at("state") == Some("Running")).count();
        }
    }
    wanted == running
}
