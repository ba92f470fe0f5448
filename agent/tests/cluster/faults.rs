//! Faults of etcd, of a node and of a process: no acknowledged update is lost, all nodes come to the same
//! state, and no subscriber is sent a state that never was.

use std::{process::Command, thread, time::Duration};

use fifogate::{internal::state::WORKLOAD_STATES, pb::ank_base::response::ResponseContent};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    network::is_done_elsewhere,
    world::{Cluster, NAMES},
};
use testkit::{Session, fifogate, processes_with, update, wait_for};

/// How long etcd is away.
const OUTAGE: Duration = Duration::from_secs(10);

/// While it is away updates are refused and reads are answered, on every node, and its status says so.
fn outage(cluster: &Cluster) {
    for (node, writer) in cluster.writers.iter().enumerate() {
        let reason = writer.refusal();
        assert!(reason.contains("cannot be reached"), "{reason}");
        cluster.state(node);
        wait_for("the outage in the status", || {
            status(cluster, node).contains("the store cannot be reached since").then_some(())
        });
    }
}

/// When it is over, nothing of it is left in the status.
fn over(cluster: Cluster) {
    for node in 0..NAMES.len() {
        wait_for("the end of the outage in the status", || {
            let told = status(&cluster, node);
            assert!(told.contains("agent link connected"), "{told}");
            (!told.contains("the agent says")).then_some(())
        });
    }
    cluster.verify();
}

fn status(cluster: &Cluster, node: usize) -> String {
    let mut command = Command::new(fifogate());
    let output = command.args(["status", "--run-dir"]).arg(cluster.run_dir(node)).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn etcd_that_does_not_answer_for_ten_seconds() {
    if is_done_elsewhere() {
        return;
    }
    let cluster = Cluster::busy();
    cluster.etcd.signal(Signal::SIGSTOP);
    thread::scope(|scope| {
        scope.spawn(|| outage(&cluster));
        thread::sleep(OUTAGE);
    });
    cluster.etcd.signal(Signal::SIGCONT);
    over(cluster);
}

#[test]
fn etcd_that_is_killed_and_started_again_after_ten_seconds() {
    if is_done_elsewhere() {
        return;
    }
    let mut cluster = Cluster::busy();
    cluster.etcd.kill();
    thread::scope(|scope| {
        scope.spawn(|| outage(&cluster));
        thread::sleep(OUTAGE);
    });
    cluster.network.hub.enter(|| cluster.etcd.restart());
    over(cluster);
}

/// Until the others take it for gone.
fn cut_off(cluster: &Cluster, node: usize) {
    cluster.network.cable(node, false);
    let agent = format!("agent_{}", NAMES[node]);
    for other in (0..NAMES.len()).filter(|own| *own != node) {
        cluster.until(other, "that it is gone", |tree| {
            let path = [WORKLOAD_STATES, &agent];
            let mut all = tree.entries(&path).iter();
            let is = |own: &fifogate::state::Node| own.str_at("state") == Some("AgentDisconnected");
            all.all(|(_, ids)| ids.as_map().into_iter().flatten().all(|(_, own)| is(own)))
        });
    }
}

#[test]
fn a_node_that_is_cut_off_and_joins_again() {
    if is_done_elsewhere() {
        return;
    }
    let cluster = Cluster::busy();
    cut_off(&cluster, 1);
    let reason = cluster.writers[1].refusal();
    assert!(reason.contains("cannot be reached"), "{reason}");
    cluster.writers[0].progress(30);
    cluster.writers[2].progress(30);
    cluster.network.cable(1, true);
    cluster.verify();
}

#[test]
fn a_node_that_is_cut_off_while_etcd_forgets_what_it_knew() {
    if is_done_elsewhere() {
        return;
    }
    let cluster = Cluster::busy();
    cut_off(&cluster, 2);
    cluster.writers[0].progress(30);
    let revision = cluster.network.hub.enter(|| {
        let revision = cluster.etcd.revision();
        cluster.history.until(revision);
        cluster.etcd.compact(revision);
        revision
    });
    cluster.writers[1].progress(30);
    cluster.network.cable(2, true);
    cluster.writers[2].progress(1);
    let said = cluster.agents[2].log();
    assert!(said.contains("compacted revisions not read yet"), "revision {revision}: {said}");
    cluster.verify();
}

#[test]
fn an_agent_that_is_killed_and_started_again() {
    if is_done_elsewhere() {
        return;
    }
    let mut cluster = Cluster::busy();
    cluster.agents[0].kill();
    cluster.writers[1].progress(30);
    cluster.restart(0);
    cluster.verify();
}

#[test]
fn a_fifogate_that_is_killed() {
    if is_done_elsewhere() {
        return;
    }
    let cluster = Cluster::busy();
    let run_dir = cluster.run_dir(1);
    let line = format!("--run-dir\u{0}{}", run_dir.canonicalize().unwrap().display());
    let gates = || {
        let all = processes_with("--agent-link").into_iter();
        let ours = processes_with(&line);
        all.filter(|pid| ours.contains(pid)).collect::<Vec<_>>()
    };
    let [gate] = gates()[..] else { panic!("{:?}", gates()) };
    kill(Pid::from_raw(gate), Signal::SIGKILL).unwrap();
    wait_for("another fifogate", || matches!(gates()[..], [other] if other != gate).then_some(()));
    cluster.verify();
}

#[test]
fn five_hundred_conflicting_updates_of_one_workload_from_three_nodes() {
    if is_done_elsewhere() {
        return;
    }
    const EACH: usize = 167;
    let cluster = Cluster::busy();
    let ask = |session: &mut Session, tags: &str, mask: &str| {
        let config = "'{command: sleep, args: [100001]}'";
        let own = format!("{{runtime: process, agent: agent_A, runtimeConfig: {config}{tags}}}");
        let request = update(&format!("workloads: {{same: {own}}}"), &[mask]);
        let id = session.ask(request);
        let answer = session.answer(&id);
        assert!(matches!(answer, ResponseContent::UpdateStateSuccess(_)), "{mask}: {answer:?}");
    };
    ask(&mut cluster.session(0, 3), "", "desiredState.workloads.same");
    thread::scope(|scope| {
        for (node, name) in NAMES.into_iter().enumerate() {
            let mut session = cluster.session(node, 3);
            scope.spawn(move || {
                // An update from an old state undoes the update of another workload.
                let mask = format!("desiredState.workloads.same.tags.{name}");
                for number in 0..EACH {
                    ask(&mut session, &format!(", tags: {{{name}: '{number}'}}"), &mask);
                }
            });
        }
    });
    cluster.now();
    let tags = cluster.history.now().tags.clone();
    for name in NAMES {
        let mut own: Vec<_> = tags.iter().filter_map(|tags| tags.get(name)).collect();
        own.dedup();
        let asked: Vec<_> = (0..EACH).map(|number| number.to_string()).collect();
        assert_eq!(own, asked.iter().collect::<Vec<_>>(), "each once, as {name} asked");
    }
    assert_eq!(tags.last().map(|tags| tags.len()), Some(NAMES.len()), "none was undone");
    cluster.verify();
}
