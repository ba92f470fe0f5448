//! A reader that stops for ten thousand updates.

use std::collections::BTreeMap;

use fifogate::pb::ank_base::response::ResponseContent;

use super::child::{View, update};
use testkit::{TestServer, manifest_with};

const UPDATES: usize = 10_000;
const KEYS: usize = 500;
/// Updates that wait for their answers at a time.
const BATCH: usize = 50;

const RULE: &str = "{type: StateRule, operation: ReadWrite, filterMasks: [desiredState.configs]}";

/// Bytes that wait for the slow one, and the changes that were merged.
fn queued(gate: &TestServer) -> (u64, u64) {
    let (status, slow) = (gate.status(), gate.status_of("slow"));
    (slow["queued_bytes"].as_u64().unwrap(), status["totals"]["events_merged"].as_u64().unwrap())
}

/// Stops for all updates and then reads on: gives the events read, and the most bytes that waited.
fn stop_and_read_on(budget: u64, masks: &[&str]) -> (usize, u64) {
    let options =
        ["--outbox-bytes", &budget.to_string(), "--window", "64", "--subscribe-grace-ms", "0"];
    let gate = TestServer::with(&manifest_with("", &["slow", "busy"], RULE), &options);
    let mut slow = gate.connect("slow");
    for (n, mask) in masks.iter().enumerate() {
        slow.read(&format!("s{n}"), &[mask], true);
        slow.response();
    }
    let mut busy = gate.connect("busy");
    let mut newest = BTreeMap::new();
    let mut most = 0;
    for batch in 0..UPDATES / BATCH {
        for n in batch * BATCH..(batch + 1) * BATCH {
            let (key, value) = (format!("k{}", n % KEYS), format!("value {n}"));
            busy.set_config("u", &key, &value);
            newest.insert(key, value);
        }
        for _ in 0..BATCH {
            busy.success();
        }
        most = most.max(queued(&gate).0);
    }
    assert!(queued(&gate).1 > 0, "nothing was merged");
    let mut views = vec![View::new(); masks.len()];
    let mut events = 0;
    while views.iter().any(|view| *view != newest) {
        let (id, ResponseContent::CompleteStateResponse(told)) = slow.response() else { panic!() };
        events += 1;
        update(&mut views[id[1..].parse::<usize>().unwrap()], &told);
    }
    (events, most)
}

/// The longest event here: the one that tells all keys.
const LONGEST: u64 = 64 << 10;

#[test]
fn reader_that_stops_for_10_000_updates_of_500_keys_ends_with_the_newest_of_each() {
    // With the last, the number of messages is what bounds it.
    for budget in [16 << 10, 32 << 10, 1 << 20] {
        let (events, most) = stop_and_read_on(budget, &["desiredState.configs"]);
        println!("budget {budget}: {events} events, at most {most} bytes waited");
        assert!(events < 700, "{events} events");
        assert!(most <= budget + LONGEST, "{most} bytes waited");
    }
}

#[test]
fn reader_of_several_subscriptions_that_stops_ends_with_the_newest_of_each() {
    let masks = ["desiredState.configs", "desiredState.configs.*"];
    let (events, most) = stop_and_read_on(16 << 10, &masks);
    println!("two subscriptions: {events} events, at most {most} bytes waited");
    assert!(events < 700 * masks.len(), "{events} events");
}
