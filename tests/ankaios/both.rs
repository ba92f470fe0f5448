//! Two agents in one cluster: one of Ankaios, with containers, and one of ours.

use fifogate::state::{Map, Node, convert};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::{Podman, wait_for};

use crate::{
    cluster::{Cluster, Member},
    interface::followed,
    manifest::{LIVES, Workload, manifest},
};

/// The names of both agents, and how each makes a workload of a script.
type Side = (&'static str, fn(&str) -> Workload);
const OURS: Side = ("ours", |script| Workload::process("ours", script));
const REAL: Side = ("real", |script| Workload::container("real", script));

/// A cluster with both agents. `None`, and the test is skipped, where one of them cannot be.
fn both() -> Option<(Cluster, Member, Member, Podman)> {
    let cluster = Cluster::new()?;
    let podman = Podman::new()?;
    let (ours, real) = (cluster.ours("ours", &[]), cluster.real("real", &podman));
    Some((cluster, ours, real, podman))
}

/// Does something in such a cluster, in which nobody speaks for a workload.
fn in_both(act: impl FnOnce(&Cluster)) {
    if let Some((cluster, _ours, _real, _podman)) = both() {
        act(&cluster);
    }
}

/// A workload of `to` starts when one of `from` is in a state, and not before.
fn dependencies(cluster: &Cluster, (from, first): Side, (to, second): Side) {
    let cases = [
        ("ADD_COND_RUNNING", LIVES, "Running(Ok)"),
        ("ADD_COND_SUCCEEDED", "exit 0", "Succeeded(Ok)"),
        ("ADD_COND_FAILED", "exit 3", "Failed(ExecFailed)"),
    ];
    for (number, (condition, script, state)) in cases.into_iter().enumerate() {
        let [one, other, never] =
            ["one", "other", "never"].map(|own| format!("{own}{number}-{to}"));
        // Only a state that does not come fits.
        let unfit = if number == 0 { "ADD_COND_FAILED" } else { "ADD_COND_RUNNING" };
        cluster.add([
            (&*other, second(LIVES).after(&one, condition)),
            (&*never, second(LIVES).after(&one, unfit)),
        ]);
        cluster.until(to, &other, "Pending(WaitingToStart)");
        cluster.until(to, &never, "Pending(WaitingToStart)");
        cluster.add([(&*one, first(script))]);
        cluster.until(to, &other, "Running(Ok)");
        assert_eq!(cluster.states(from, &one), [state]);
        if number == 0 {
            assert_eq!(cluster.states(to, &never), ["Pending(WaitingToStart)"]);
        }
        cluster.remove(&[&other, &never, &one]);
        cluster.until_gone(to, &other);
        cluster.until_gone(to, &never);
        cluster.until_gone(from, &one);
    }
}

#[test]
fn a_workload_of_ours_waits_for_one_of_the_real_agent() {
    in_both(|cluster| dependencies(cluster, REAL, OURS));
}

#[test]
fn a_workload_of_the_real_agent_waits_for_one_of_ours() {
    in_both(|cluster| dependencies(cluster, OURS, REAL));
}

/// A workload that another one needs is ended only after that one has begun to end: this is all that an order of
/// the server asks for. Deleted together, it waits.
fn delete_conditions(cluster: &Cluster, (from, first): Side, (to, second): Side) {
    // Takes its time to end.
    let slow = "trap 'sleep 2; exit 0' TERM; sleep 100000 & wait";
    let slow = if to == "real" {
        let config = json!({
            "image": testkit::IMAGE,
            "commandArgs": ["sh", "-c", slow],
        });
        second("").with("runtimeConfig", config.to_string())
    } else {
        second(slow)
    };
    let text = manifest(
        [("needed", first(LIVES)), ("needs", slow.after("needed", "ADD_COND_RUNNING"))],
        &json!({}),
    );
    cluster.apply(&text);
    cluster.until(to, "needs", "Running(Ok)");
    let events =
        cluster.start_ank("deletion", &["get", "events", "-c", "-o", "json", "workloadStates"]);
    wait_for("the state of now", || (!cluster.log("deletion").is_empty()).then_some(()));
    cluster.ank(&["delete", "workload", "needed", "needs"]).good();
    cluster.until_gone(from, "needed");
    cluster.until_gone(to, "needs");
    events.signal(Signal::SIGINT);
    let text = cluster.log("deletion");
    let states = |agent: &str, name: &str| {
        let of = |(at, line): (usize, &str)| {
            let event: Value = serde_json::from_str(line).ok()?;
            let ids = event["completeState"]["workloadStates"][agent][name].as_object()?.clone();
            let text = |own: &Value| format!("{} {}", own["state"], own["subState"]);
            Some((at, ids.values().map(text).collect::<String>()))
        };
        text.lines().enumerate().filter_map(of).collect::<Vec<_>>()
    };
    let first_of = |agent: &str, name: &str, wanted: &str| {
        let all = states(agent, name);
        let found = all.iter().find(|(_, own)| own.contains(wanted)).map(|(at, _)| *at);
        found.unwrap_or_else(|| panic!("{name} is never {wanted}: {text}"))
    };
    let waits = first_of(from, "needed", "WaitingToStop");
    let stops = first_of(from, "needed", "RequestedAtRuntime");
    assert!(waits < stops && first_of(to, "needs", "Stopping") < stops, "{text}");
}

#[test]
fn a_workload_of_ours_is_ended_after_that_of_the_real_agent_that_needs_it() {
    in_both(|cluster| delete_conditions(cluster, OURS, REAL));
}

#[test]
fn a_workload_of_the_real_agent_is_ended_after_that_of_ours_that_needs_it() {
    in_both(|cluster| delete_conditions(cluster, REAL, OURS));
}

/// A workload of `to` reads the log of one of `from` while it grows, and gets its end.
fn logs(cluster: &Cluster, (from, first): Side, (to, second): Side, speaker: &Member) {
    let script = "echo first; sleep 3; echo last";
    cluster.add([("w", second(LIVES).spoken_for()), ("writer", first(script))]);
    cluster.until(to, "w", "Running(Ok)");
    wait_for("the writer", || {
        let states = cluster.states(from, "writer");
        states.first().filter(|own| !own.starts_with("Pending")).map(drop)
    });
    let mut session = speaker.connect("w");
    assert_eq!(followed(&mut session, cluster, from, "writer", || {}), ["first", "last"]);
}

#[test]
fn a_workload_of_ours_reads_the_log_of_one_of_the_real_agent() {
    let Some((cluster, ours, _real, _podman)) = both() else { return };
    logs(&cluster, REAL, OURS, &ours);
}

#[test]
fn a_workload_of_the_real_agent_reads_the_log_of_one_of_ours() {
    let Some((cluster, _ours, real, _podman)) = both() else { return };
    logs(&cluster, OURS, REAL, &real);
}

#[test]
fn workloads_of_both_agents_read_the_same_state() {
    let Some((cluster, ours, real, _podman)) = both() else { return };
    let needs = OURS.1("exit 1").after("theirs", "ADD_COND_RUNNING");
    cluster.apply(&manifest(
        [
            ("mine", OURS.1(LIVES).spoken_for()),
            ("theirs", REAL.1(LIVES).spoken_for()),
            ("failed", needs),
            ("nowhere", Workload::process("", LIVES)),
            ("elsewhere", Workload::process("elsewhere", LIVES)),
        ],
        &json!({"a": "b", "c": {"d": ["e"]}}),
    ));
    cluster.until("ours", "failed", "Failed(ExecFailed)");
    let (mut mine, mut theirs) = (ours.connect("mine"), real.connect("theirs"));
    for masks in [&[][..], &["workloadStates.*.*.*.state"], &["desiredState.workloads.*.agent"]] {
        // The real agent takes one session of a pair.
        let [mine, theirs] = [&mut mine, &mut theirs].map(|session| {
            session.read("read", masks, false);
            let state = session.state_response().complete_state.unwrap_or_default();
            let tree = convert::from_pb(&state).unwrap();
            let agents = tree.entries(&["agents"]).iter();
            let calm = agents.map(|(name, own)| {
                let mut own = own.entries().clone();
                own.remove("status");
                (name.clone(), Node::Map(own))
            });
            let calm = calm.collect::<Map<_>>();
            tree.with("agents", (!calm.is_empty()).then_some(Node::Map(calm)))
        });
        assert_eq!(mine, theirs, "{masks:?}");
    }
}

#[test]
fn a_workload_moves_between_both_agents() {
    let Some((cluster, _ours, _real, podman)) = both() else { return };
    let env = podman.env();
    let _third = cluster.ours_with("third", &[], &env);
    for agent in ["real", "third", "real"] {
        cluster.apply(&manifest([("w", Workload::container(agent, LIVES))], &json!({})));
        cluster.until(agent, "w", "Running(Ok)");
        for other in ["real", "third"].into_iter().filter(|other| *other != agent) {
            cluster.until_gone(other, "w");
        }
        let all = wait_for("one container", || {
            let all = podman.containers();
            (all.len() == 1).then_some(all)
        });
        assert_eq!(all[0]["Labels"]["agent"], agent);
    }
}

#[test]
fn a_container_goes_from_the_real_agent_to_ours_and_back() {
    let Some(cluster) = Cluster::new() else { return };
    let Some(podman) = Podman::new() else { return };
    let mut real = cluster.real("node", &podman);
    cluster.apply(&manifest([("w", Workload::container("node", LIVES))], &json!({})));
    let id = |podman: &Podman| podman.containers()[0]["Id"].clone();
    let first = id(&podman);
    real.process.kill();
    cluster.until("node", "w", "AgentDisconnected(AgentDisconnected)");
    let ours = cluster.ours_with("node", &[], &podman.env());
    cluster.until("node", "w", "Running(Ok)");
    assert_eq!(podman.containers().len(), 1);
    // It has no pair, so nothing of it lies elsewhere.
    assert_eq!(id(&podman), first);
    let second = id(&podman);
    drop(ours);
    cluster.until("node", "w", "AgentDisconnected(AgentDisconnected)");
    drop(real);
    let _real = cluster.real("node", &podman);
    cluster.until("node", "w", "Running(Ok)");
    assert_eq!(podman.containers().len(), 1);
    println!("the same container at the real one: {}", id(&podman) == second);
}
