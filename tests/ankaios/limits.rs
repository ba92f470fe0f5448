//! What is too large, and what is there twice.

use fifogate::pb::ank_base::response::ResponseContent;
use serde_json::{Value, json};
use testkit::{Podman, Session, wait_for};

use crate::{
    cluster::Cluster,
    manifest::{LIVES, Workload, manifest},
};

const MIB: usize = 1 << 20;

/// Below the 1 MiB of a `runtimeConfig` that an agent of ours takes.
const LARGE: usize = 900 << 10;

/// A process whose `runtimeConfig` has this size, most of it a comment.
fn large(number: usize, size: usize) -> Workload {
    let comment = "x".repeat(size);
    let config = format!("command: sleep\nargs: ['{}']\n# {comment}\n", 100_000 + number);
    Workload::process("ours", "").with("runtimeConfig", config)
}

/// The states of workloads: `ank` itself cannot read more than 4 MiB.
fn states(cluster: &Cluster) -> Value {
    let said = cluster.ank(&["get", "state", "-o", "json", "workloadStates", "agents"]).good();
    serde_json::from_str(&said).unwrap()
}

#[test]
fn more_than_4_mib_of_workloads_run_at_an_agent_of_ours() {
    let names: Vec<_> = (0..6).map(|number| format!("large{number}")).collect();
    let all = names.iter().enumerate().map(|(n, name)| (name.as_str(), large(n, LARGE)));
    let own = [("w", Workload::process("ours", LIVES).spoken_for())];
    let text = manifest(all.chain(own), &json!({}));
    let Some(cluster) = Cluster::of(&text) else { return };
    let ours = cluster.start_ours("ours", &[], &[]);
    wait_for("all of them", || {
        let states = states(&cluster)["workloadStates"]["ours"].clone();
        let run = states.as_object()?.values().filter(|own| own.to_string().contains("Running"));
        (run.count() == 7).then_some(())
    });
    let state = ours.state("w", &["desiredState.workloads.large5.runtimeConfig"]);
    let read = state["desiredState"]["workloads"]["large5"]["runtimeConfig"].as_str().unwrap();
    assert!(read.len() > LARGE);
}

#[test]
fn more_than_1_mib_of_runtime_config_starts_at_the_real_agent_and_not_at_ours() {
    let Some(cluster) = Cluster::new() else { return };
    let Some(podman) = Podman::new() else { return };
    let (_ours, _real) =
        (cluster.ours_with("ours", &[], &podman.env()), cluster.real("real", &podman));
    let large = |agent| {
        let own = Workload::container(agent, LIVES);
        let config = format!("{}\n# {}\n", own.text("runtimeConfig"), "x".repeat(MIB));
        own.with("runtimeConfig", config)
    };
    cluster.add([
        ("mine", large("ours")),
        ("theirs", large("real")),
        ("process", self::large(0, MIB)),
    ]);
    let until = |agent: &str, name: &str, wanted: &str| {
        wait_for(&format!("{name} {wanted}"), || {
            let own = states(&cluster)["workloadStates"][agent][name].to_string();
            own.contains(wanted).then_some(own)
        })
    };
    until("real", "theirs", "Running");
    for name in ["mine", "process"] {
        let own = until("ours", name, "StartingFailed");
        assert!(own.contains("more than 1048576 bytes"), "{own}");
    }
}

#[test]
fn an_update_of_more_than_4_mib_is_refused_and_the_agent_stays() {
    let text = manifest([("w", Workload::process("ours", LIVES).spoken_for())], &json!({}));
    let Some(cluster) = Cluster::of(&text) else { return };
    let ours = cluster.ours("ours", &[]);
    cluster.until("ours", "w", "Running(Ok)");
    let mut session = ours.connect("w");
    // The largest frame that fifogate takes, without its length of 4 bytes: the name of the workload is too much.
    let text = "x".repeat(4 * MIB - 500);
    let left = 4 * MIB + 4 - Session::frame_of_config("a", &text).len();
    session.set_config("half", "a", &(text + &"x".repeat(left)));
    let ResponseContent::Error(error) = session.answer("half") else { panic!() };
    assert!(error.message.contains("4 MiB"), "{error:?}");
    session.set_config("fits", "a", &"x".repeat(3 * MIB));
    let answer = session.answer("fits");
    assert!(matches!(answer, ResponseContent::UpdateStateSuccess(_)), "{answer:?}");
    let size = session.until("the config", |tree| {
        Some(tree.get(&["desiredState", "configs", "a"])?.as_str()?.len())
    });
    assert_eq!(size, 3 * MIB);
    assert!(states(&cluster)["agents"].get("ours").is_some());
    // Its connection was never lost.
    assert!(!ours.log().contains("unreachable"), "{}", ours.log());
}

#[test]
fn of_two_agents_of_one_name_the_one_that_stays_has_it() {
    let text = manifest([("w", Workload::process("ours", LIVES))], &json!({}));
    let Some(cluster) = Cluster::of(&text) else { return };
    let first = cluster.ours("ours", &[]);
    let second = cluster.start_ours_in("second", "ours", &[], &[]);
    for own in [&first, &second] {
        wait_for("word of it", || own.log().contains("it has ended the connection").then_some(()));
    }
    drop(second);
    cluster.until_connected("ours", true);
    cluster.until("ours", "w", "Running(Ok)");
    cluster.add([("new", Workload::process("ours", LIVES))]);
    cluster.until("ours", "new", "Running(Ok)");
}
