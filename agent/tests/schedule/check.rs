//! What holds after a schedule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::{Duration, Instant},
};

use fifogate::{
    internal::state::{AGENTS, DESIRED_STATE, EFFECTIVE_STATE, WORKLOAD_STATES},
    state::{Node, Tree},
};
use fifogate_agent::model;
use testkit::soon;

use super::cluster::{Cluster, NAMES, mark};

impl Cluster {
    /// Waits until all holds; then every agent takes an update that all see.
    pub(crate) fn verify(&mut self) {
        self.converge();
        for node in 0..self.size() {
            let item = format!("last{node}");
            let (yaml, mask) =
                (format!("configs: {{{item}: x}}"), format!("desiredState.configs.{item}"));
            // An agent may notice only now that etcd was started again.
            let mut session = self.session(node);
            testkit::wait_for("an update", || session.update(&yaml, &[&mask]).ok());
            for other in 0..self.size() {
                self.session(other).until("the last update", |tree| {
                    tree.get(&[DESIRED_STATE, "configs", &item]).map(drop)
                });
            }
        }
        self.converge();
    }

    fn converge(&mut self) {
        let end = soon();
        loop {
            for (node, name) in self.nodes.iter_mut().zip(NAMES) {
                let ended = node.agent.child.try_wait().unwrap();
                assert!(ended.is_none(), "{name} has ended");
            }
            let wrong = self.wrong();
            if wrong.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "{wrong:#?}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Everything that is not as it has to be.
    fn wrong(&self) -> Vec<String> {
        let trees: Vec<_> = (0..self.size()).map(|node| self.session(node).state()).collect();
        let mut wrong = self.known.unexplained(&trees[0]);
        for (node, name) in self.nodes.iter().zip(NAMES) {
            let trouble = node.agent.trouble();
            if !trouble.is_empty() {
                wrong.push(format!("{name} is in trouble: {trouble}"));
            }
        }
        let first = without_status(&trees[0]);
        for (tree, name) in trees.iter().zip(NAMES).skip(1) {
            let own = without_status(tree);
            if own != first {
                wrong.push(format!("{name} differs: {:?}", difference(&first, &own)));
            }
        }
        let agents: BTreeSet<_> =
            trees[0].entries(&[AGENTS]).keys().map(ToString::to_string).collect();
        if !agents.iter().eq(NAMES[..self.size()].iter()) {
            wrong.push(format!("the agents are {agents:?}"));
        }
        wrong.extend(self.wrong_instances(&trees[0]));
        wrong
    }

    /// Compares the states of instances and the processes with the desired state.
    fn wrong_instances(&self, tree: &Tree) -> Vec<String> {
        let mut wrong = Vec::new();
        let (_, wanted) = model::instances(&Tree::initial(), tree);
        let wanted: BTreeSet<_> = wanted.iter().map(ToString::to_string).collect();
        let mut expected = BTreeMap::new();
        let mut found = BTreeSet::new();
        for (agent, workloads) in tree.entries(&[WORKLOAD_STATES]) {
            for (name, ids) in workloads.entries() {
                for (id, state) in ids.entries() {
                    found.insert(format!("{name}.{id}.{agent}"));
                    let own = tree.get(&[EFFECTIVE_STATE, "workloads", name.as_str()]);
                    let Some(own) = own else { continue };
                    let is = state.str_at("state").unwrap_or_default();
                    let runs = is == "Running";
                    // One that was killed stays so by its policy.
                    let may_end = own.str_at("restartPolicy") != Some("ALWAYS");
                    let is_right = runs || (may_end && is == "Failed") || name.as_str() == "ctl";
                    if !is_right {
                        wrong.push(format!("{name} at {agent} is {state:?}"));
                    }
                    if let Some(line) = line_of(own).filter(|line| runs && line.contains(&mark())) {
                        expected.insert(line, agent.to_string());
                    }
                }
            }
        }
        if found != wanted {
            wrong.push(format!("instances are {found:?}, wanted are {wanted:?}"));
        }
        wrong.extend(self.wrong_processes(&expected));
        wrong
    }

    /// `expected` has the agent of each command line.
    fn wrong_processes(&self, expected: &BTreeMap<String, String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut missing = expected.clone();
        for (pid, line) in processes() {
            let agent = self.agent_of(pid);
            match missing.remove(&line) {
                Some(own) if agent == Some(&own) => {}
                other => wrong.push(format!("{line} runs at {agent:?}, wanted at {other:?}")),
            }
        }
        wrong.extend(
            missing.into_iter().map(|(line, agent)| format!("{line} is missing at {agent}")),
        );
        wrong
    }

    /// The agent from which a process stems.
    fn agent_of(&self, mut pid: i32) -> Option<&'static str> {
        while pid > 1 {
            let own = self.nodes.iter().position(|node| node.agent.child.id() == pid as u32);
            if let Some(node) = own {
                return Some(NAMES[node]);
            }
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            pid =
                status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        }
        None
    }
}

/// The processes of this test's workloads, each with its command line.
pub(crate) fn processes() -> Vec<(i32, String)> {
    let begins = format!("sleep {}", mark());
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let lines = pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
        line.starts_with(&begins).then_some((pid, line))
    });
    lines.collect()
}

/// The command line of a workload as it is rendered.
fn line_of(workload: &Node) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(workload.str_at("runtimeConfig")?).ok()?;
    let args = config["args"].as_array()?.iter().filter_map(|own| own.as_str());
    Some([config["command"].as_str()?].into_iter().chain(args).collect::<Vec<_>>().join(" "))
}

/// A state without what agents report every two seconds.
fn without_status(tree: &Tree) -> Tree {
    let names = tree.entries(&[AGENTS]).keys().map(|name| (name.clone(), Node::text("")));
    tree.with(AGENTS, Some(Node::map(names)))
}

fn difference(one: &Tree, other: &Tree) -> Vec<String> {
    let (_, masks) = model::difference(one, other).unwrap_or_default();
    masks
}
