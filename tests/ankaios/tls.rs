//! Mutual TLS between all programs of a cluster.

use serde_json::json;
use testkit::{Authority, Podman, wait_for};

use crate::{
    cluster::Cluster,
    manifest::{LIVES, Workload, manifest},
};

/// A cluster whose agents have certificates for these names.
fn cluster(agents: &[(&str, &str)], manifest: &str) -> Option<Cluster> {
    let authority = Authority::new();
    for own in ["ank-server", "operator"] {
        authority.issue(own);
    }
    for (agent, name) in agents {
        authority.issue_for(agent, name);
    }
    Cluster::with(Some(authority), manifest)
}

#[test]
fn agents_of_both_kinds_join_by_mutual_tls() {
    let text = manifest(
        [
            ("mine", Workload::process("ours", LIVES).spoken_for()),
            ("theirs", Workload::container("real", LIVES)),
        ],
        &json!({}),
    );
    let Some(cluster) = cluster(&[("ours", "ours"), ("real", "real")], &text) else { return };
    let Some(podman) = Podman::new() else { return };
    let (ours, _real) = (cluster.ours("ours", &[]), cluster.real("real", &podman));
    cluster.until("ours", "mine", "Running(Ok)");
    cluster.until("real", "theirs", "Running(Ok)");
    ours.speak("mine", "set", &["desiredState.configs.a=b"]).good();
    assert_eq!(cluster.state()["desiredState"]["configs"], json!({"a": "b"}));
}

#[test]
fn an_agent_with_the_certificate_of_another_is_not_taken_and_says_why() {
    let names = [("ours", "somebody"), ("any", "*")];
    let Some(cluster) = cluster(&names, &manifest([], &json!({}))) else { return };
    let ours = cluster.start_ours("ours", &[], &[]);
    wait_for("word of it", || ours.log().contains("does not match SAN").then_some(()));
    assert!(ours.log().contains("somebody"), "{}", ours.log());
    assert_eq!(cluster.state()["agents"].get("ours"), None);
    // The server takes a certificate for any name.
    let _any = cluster.ours("any", &[]);
}
