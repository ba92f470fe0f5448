//! A manifest of a thousand workloads, applied in a cluster of three.

use std::{fs, path::PathBuf, process::Stdio, thread, time::Duration};

use fifogate::pb::ank_base::{self as pb, response::ResponseContent};
use testkit::{Agent, Etcd, Session, state_of, wait_for};

use super::operator::{command, done};

const MANY: usize = 1_000;
/// The workloads through which each node is asked, and their agents.
const NODES: [(&str, &str); 3] = [("ctl", "agent_A"), ("ctl_B", "agent_B"), ("ctl_C", "agent_C")];

struct Cluster {
    etcd: Etcd,
    agents: Vec<Agent>,
}

impl Cluster {
    fn start() -> Self {
        let etcd = Etcd::start();
        let rights = "{allowRules: [{type: StateRule, operation: ReadWrite, filterMasks: ['*']}]}";
        let own = |(name, agent): &(&str, &str)| {
            format!(
                "  {name}: {{runtime: process, agent: {agent}, runtimeConfig: '{{command: sleep, \
                 args: [100000]}}', controlInterfaceAccess: {rights}}}\n"
            )
        };
        let text: String = NODES[1..].iter().map(own).collect();
        let endpoint = etcd.endpoint();
        let start = |(_, name): &(&str, &str)| {
            let cluster = ["--etcd", &endpoint, "--name", name, "--takeover-after", "3"];
            let gate = ["--", "--subscribe-grace-ms", "0"];
            let agent = Agent::start(&text, &[&cluster[..], &gate].concat());
            // The first one writes the manifest.
            wait_for("its start", || agent.log().contains(" runs; pairs are in ").then_some(()));
            agent
        };
        let agents = NODES.iter().map(start).collect();
        Self { etcd, agents }
    }

    /// A session at each node, with a subscription to all workloads.
    fn subscribed(&self) -> Vec<(Session, String)> {
        let subscribe = |(agent, (name, _)): (&Agent, &(&str, &str))| {
            let mut session = agent.connect_as(name);
            let id = session.subscribe(&["desiredState.workloads"]);
            session.answer(&id);
            (session, id)
        };
        self.agents.iter().zip(&NODES).map(subscribe).collect()
    }

    /// A manifest of many workloads of an agent that is not there, with a value.
    fn manifest(&self, value: &str) -> PathBuf {
        let own = |number| {
            format!(
                "  w{number}: {{runtime: process, agent: nobody, runtimeConfig: 'command: {value}'}}\n"
            )
        };
        let text: String = (0..MANY).map(own).collect();
        let path = self.agents[0].path(&format!("{value}.yaml"));
        fs::write(&path, format!("apiVersion: v1\nworkloads:\n{text}")).unwrap();
        path
    }
}

fn event(session: &mut Session, id: &str) -> pb::CompleteStateResponse {
    match session.answer(id) {
        ResponseContent::CompleteStateResponse(own) => own,
        other => panic!("{other:?}"),
    }
}

#[test]
fn thousand_workloads_are_one_event_at_each_of_three_nodes() {
    let cluster = Cluster::start();
    let mut sessions = cluster.subscribed();
    let manifest = cluster.manifest("v1").display().to_string();
    let printed = done(&cluster.agents[0], &["apply", "--no-wait", &manifest]);
    assert_eq!(printed.lines().filter(|line| line.ends_with(" added")).count(), MANY);
    for (session, id) in &mut sessions {
        let event = event(session, id);
        assert_eq!(event.altered_fields.unwrap().added_fields.len(), MANY);
        let workloads = event.complete_state.unwrap().desired_state.unwrap().workloads.unwrap();
        assert_eq!(workloads.workloads.len(), MANY);
        // Nothing came behind it: the answer to the next request is the next message.
        session.state();
    }
}

#[test]
fn apply_is_done_whole_or_not_at_all_if_its_agent_is_killed() {
    let mut cluster = Cluster::start();
    let (mut session, id) = cluster.subscribed().remove(1);
    let mut applied = 0;
    // Before the update is computed, somewhere in it, and after it.
    for (round, time) in [0, 60, 90, 120, 150, 2_000].into_iter().enumerate() {
        let manifest = cluster.manifest(&format!("v{round}")).display().to_string();
        let socket = cluster.agents[0].path("run/command.sock");
        wait_for("the socket", || socket.exists().then_some(()));
        let mut apply = command(&cluster.agents[0], &["apply", "--no-wait", &manifest]);
        let mut apply = apply.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(time));
        cluster.agents[0].kill_with_gate();
        let is_acknowledged = apply.wait().unwrap().success();
        cluster.agents[0].restart();
        cluster.agents[0].connect();
        // Whoever asks after it waits for its end, too.
        session.set_config("after", "after", &round.to_string());
        let mut was_told = false;
        loop {
            let (own, content) = session.response();
            match content {
                ResponseContent::CompleteStateResponse(event) if own == id => {
                    let altered = event.altered_fields.unwrap();
                    let count = altered.added_fields.len() + altered.updated_fields.len();
                    assert_eq!(count % MANY, 0, "a part of an update: {count}");
                    was_told = true;
                }
                ResponseContent::UpdateStateSuccess(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(was_told || !is_acknowledged, "acknowledged, and not done");
        applied += usize::from(was_told);
    }
    assert!(applied > 0, "each was too early");
    assert!(state_of(&session.state(), "ctl").is_some());
    drop(cluster.etcd);
}
