//! The two SDKs of Eclipse Ankaios, unmodified, as workloads of a running fifogate.
//!
//! Every scenario runs with each SDK, in the place where the SDKs look for their FIFOs
//! (`tests/sdk/README.md`). `tests/sdk/setup.sh` has to be run once before.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sdk {
    pub(crate) mod gate;
    pub(crate) mod process;
    pub(crate) mod workload;
}

use sdk::workload::{Sdk, Workload};
use serde_json::json;
use testkit::wait_for;

const CONFIGS: &[&str] = &["desiredState.configs.*"];

/// One test per scenario and SDK.
macro_rules! with_each_sdk {
    ($($scenario:ident),* $(,)?) => {
        mod python {
            $(#[test] fn $scenario() { super::$scenario(super::Sdk::Python); })*
        }
        mod rust {
            $(#[test] fn $scenario() { super::$scenario(super::Sdk::Rust); })*
        }
    };
}

with_each_sdk! {
    connects_and_reads_what_its_masks_name,
    hears_each_of_200_changes_once_and_in_order,
    hears_nothing_after_cancelling,
    a_successor_of_a_killed_process_starts_afresh,
    a_successor_of_a_refused_process_connects_at_the_first_try,
    reconnects_after_fifogate_was_killed,
    is_denied_what_no_rule_allows,
}

fn connects_and_reads_what_its_masks_name(sdk: Sdk) {
    let gate = sdk::gate::start();
    let mut receiver = Workload::connect(sdk, &gate, "receiver");

    let state = receiver.read(&["desiredState.configs", "workloadStates"]);
    assert_eq!(state["apiVersion"], "v1");
    assert_eq!(state["configs"], json!({ "greeting": "hello", "hosts": ["h1", "h2"] }));
    let pending = json!({ "receiver": "PendingInitial", "sender": "PendingInitial" });
    assert_eq!(state["workloadStates"], pending);
    assert_eq!(state["workloads"], json!([]));

    let state = receiver.read(&["desiredState.configs.greeting"]);
    assert_eq!(state["configs"], json!({ "greeting": "hello" }));
    assert_eq!(state["workloadStates"], json!({}));
}

fn hears_each_of_200_changes_once_and_in_order(sdk: Sdk) {
    let gate = sdk::gate::start();
    let mut receiver = Workload::connect(sdk, &gate, "receiver");
    let mut sender = Workload::connect(sdk, &gate, "sender");
    let masks = ["desiredState.configs.*", "workloadStates.*.*.*.state"];
    let state = receiver.subscribe("all", &masks);
    assert_eq!(state["configs"]["greeting"], "hello");
    assert_eq!(state["workloadStates"]["sender"], "PendingInitial");
    receiver.probe("all", &mut sender);

    sender.count("event", 200);
    for number in 1..=200 {
        let event = receiver.event("all");
        assert_eq!(event["state"]["configs"], json!({ "event": number.to_string() }));
        let altered = if number == 1 { "added" } else { "updated" };
        assert_eq!(event[altered], json!(["desiredState.configs.event"]), "{event}");
    }

    // The next event is that of the next change, so there was no 201st.
    sender.add_workload("extra", "agent_A");
    let event = receiver.event("all");
    let added = event["added"].as_array().unwrap();
    assert_eq!(added.len(), 1, "{event}");
    let path: Vec<&str> = added[0].as_str().unwrap().split('.').collect();
    assert!(matches!(path[..], ["workloadStates", "agent_A", "extra", _id, "state"]), "{event}");
    assert_eq!(event["state"]["workloadStates"], json!({ "extra": "PendingInitial" }));
    assert_eq!(event["state"]["configs"], json!({}));
}

fn hears_nothing_after_cancelling(sdk: Sdk) {
    let gate = sdk::gate::start();
    let mut receiver = Workload::connect(sdk, &gate, "receiver");
    let mut sender = Workload::connect(sdk, &gate, "sender");
    receiver.subscribe("cancelled", CONFIGS);
    receiver.probe("cancelled", &mut sender);

    receiver.cancel("cancelled");
    sender.update("event", "unheard");

    // Frames keep their order: an event of the update would be here before this answer.
    receiver.subscribe("marker", CONFIGS);
    assert!(receiver.unexpected().is_empty(), "{:?}", receiver.unexpected());
    receiver.probe("marker", &mut sender);
}

fn a_successor_of_a_killed_process_starts_afresh(sdk: Sdk) {
    let gate = sdk::gate::start();
    let mut receiver = Workload::connect(sdk, &gate, "receiver");
    let mut sender = Workload::connect(sdk, &gate, "sender");
    receiver.subscribe("orphan", CONFIGS);
    receiver.probe("orphan", &mut sender);
    receiver.kill();
    // These are owed to a session that the successor's Hello ends.
    sender.count("event", 20);

    let mut successor = Workload::connect(sdk, &gate, "receiver");
    assert_eq!(successor.read(CONFIGS)["configs"]["event"], "20");
    successor.update("event", "own");
    sender.update("event", "foreign");
    assert_eq!(successor.read(CONFIGS)["configs"]["event"], "foreign");
    assert!(successor.unexpected().is_empty(), "{:?}", successor.unexpected());

    successor.subscribe("asked", CONFIGS);
    successor.probe("asked", &mut sender);
}

fn a_successor_of_a_refused_process_connects_at_the_first_try(sdk: Sdk) {
    let gate = sdk::gate::start();
    let mut refused = gate.open("receiver");
    refused.write(&[0xff; 10]);
    wait_for("the refusal", || (gate.status_of("receiver")["malformed"] == 1).then_some(()));
    drop(refused); // killed, without having read why
    wait_for("an unused pair", || {
        gate.log().contains("nobody has the pair of receiver").then_some(())
    });

    let mut successor = Workload::connect(sdk, &gate, "receiver");
    assert_eq!(successor.read(CONFIGS)["configs"]["greeting"], "hello");
    assert!(successor.unexpected().is_empty(), "{:?}", successor.unexpected());
}

fn reconnects_after_fifogate_was_killed(sdk: Sdk) {
    let mut gate = sdk::gate::start();
    let mut receiver = Workload::connect(sdk, &gate, "receiver");
    let mut sender = Workload::connect(sdk, &gate, "sender");
    receiver.subscribe("lost", CONFIGS);
    receiver.probe("lost", &mut sender);

    gate.process.kill();
    receiver.wait_for_connection("AgentDisconnected");
    sender.wait_for_connection("AgentDisconnected");
    gate.restart();
    receiver.wait_for_connection("Connected");
    sender.wait_for_connection("Connected");

    // The manifest is the start of the state again, and the subscriptions are gone.
    let fresh = json!({ "greeting": "hello", "hosts": ["h1", "h2"] });
    assert_eq!(receiver.read(CONFIGS)["configs"], fresh);
    receiver.update("event", "own");
    sender.update("event", "foreign");
    assert_eq!(receiver.read(CONFIGS)["configs"]["event"], "foreign");
    assert!(receiver.unexpected().is_empty(), "{:?}", receiver.unexpected());

    receiver.subscribe("renewed", CONFIGS);
    receiver.probe("renewed", &mut sender);
}

fn is_denied_what_no_rule_allows(sdk: Sdk) {
    let gate = sdk::gate::start();
    let mut receiver = Workload::connect(sdk, &gate, "receiver");

    receiver.is_denied(json!({ "do": "read", "masks": ["agents"] }));
    receiver.is_denied(json!({ "do": "read", "masks": [] }));
    // One mask that is not allowed spoils the others.
    receiver.is_denied(json!({ "do": "read", "masks": ["desiredState.configs", "agents"] }));
    receiver.is_denied(json!({ "do": "subscribe", "name": "no", "masks": ["desiredState.*"] }));
    receiver.is_denied(json!({ "do": "update", "config": "locked", "value": "no" }));
    receiver.is_denied(json!({ "do": "add_workload", "name": "extra", "agent": "agent_A" }));

    // A refusal costs nothing but the request.
    receiver.update("event", "yes");
    let configs = receiver.read(CONFIGS)["configs"].take();
    assert_eq!(configs, json!({ "greeting": "hello", "hosts": ["h1", "h2"], "event": "yes" }));
}
