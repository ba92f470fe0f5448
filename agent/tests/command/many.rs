//! Many commanders with equal subscriptions.

use std::time::Instant;

use fifogate::pb::ank_base::response::ResponseContent;
use testkit::{Agent, Commander};

use super::{
    client::{Client, TOOL, channel, state},
    neighbour::{self, Neighbour},
};

const COMMANDERS: usize = 1_000;
/// Streams of one connection.
const EACH: usize = 250;

#[tokio::test]
async fn one_change_reaches_each_of_a_thousand_commanders_once() {
    let agent = Agent::start("", &[]);
    let mut all = Vec::new();
    let begun = Instant::now();
    let before = memory(&agent);
    for _ in 0..COMMANDERS / EACH {
        let channel = channel(&agent).await;
        for _ in 0..EACH {
            let mut client = Client::over(channel.clone(), TOOL).await;
            let id = client.ask(state(&["desiredState.configs"], true)).await;
            client.answer(&id).await;
            all.push((client, id));
        }
    }
    let connected = begun.elapsed();
    let each = (memory(&agent) - before) / COMMANDERS;
    let mut ctl = agent.connect();
    // The grace time of the last one.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let begun = Instant::now();
    ctl.set_config("u", "c", "v");
    ctl.success();
    let accepted = begun.elapsed();
    for (client, id) in &mut all {
        let ResponseContent::CompleteStateResponse(event) = client.answer(id).await else {
            panic!("no event");
        };
        let added = event.altered_fields.unwrap().added_fields;
        assert_eq!(added, ["desiredState.configs"]);
    }
    let reached = begun.elapsed();
    println!(
        "connected after {connected:?}, {each} KiB for each in agent and fifogate; the update was accepted \
         after {accepted:?}, and had reached the last one after {reached:?}"
    );
    // Nothing comes twice: the answer to the next request is the next message.
    for (client, _) in &mut all {
        let id = client.ask(state(&["desiredState.configs"], false)).await;
        client.answer(&id).await;
    }
}

/// Resident memory of the agent and its fifogate, in KiB.
fn memory(agent: &Agent) -> usize {
    let run_dir = agent.path("run").display().to_string();
    let pids = testkit::processes_with(&run_dir);
    pids.into_iter().map(|pid| testkit::memory_kib(u32::try_from(pid).unwrap(), "VmRSS")).sum()
}

/// Growth of the agent and its fifogate beside the mute: for each what waits for it, and 32 MiB for all.
const GROWTH_KIB: usize = MUTE * 1024 + (32 << 10);
const MUTE: usize = 100;

#[test]
fn hundred_commanders_that_never_read_cost_bounded_memory_and_delay_nobody() {
    let agent = Agent::start(&neighbour::workload(), &[]);
    let mut ctl = agent.connect();
    let neighbour = Neighbour::start(&agent, "good");
    let socket = agent.path("run/command.sock");
    let subscribed = || {
        let mut own = Commander::connect(&socket).unwrap();
        own.subscribe("desiredState.configs");
        own
    };
    let mut reader = subscribed();
    let _mute: Vec<_> = (0..MUTE).map(|_| subscribed()).collect();
    let before = memory(&agent);
    let text = "v".repeat(100_000);
    let (mut peak, mut worst) = (before, std::time::Duration::ZERO);
    for number in 0..300 {
        let began = Instant::now();
        ctl.set_config("u", "c", &format!("{number} {text}"));
        ctl.success();
        // The event, before or after others of the grace time.
        reader.response();
        if number > 0 {
            worst = worst.max(began.elapsed());
        }
        peak = peak.max(memory(&agent));
    }
    let growth = peak - before;
    println!(
        "+{growth} KiB for {MUTE} mute commanders; an event took {worst:.1?} at most to one that reads"
    );
    assert!(growth <= GROWTH_KIB, "more than {GROWTH_KIB} KiB: {growth}");
    assert!(worst <= neighbour::WORST, "another commander waited for {worst:?}");
    neighbour.check();
}
