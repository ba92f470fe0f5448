//! Many commanders with equal subscriptions.

use std::time::Instant;

use fifogate::pb::ank_base::response::ResponseContent;
use testkit::Agent;

use super::client::{Client, TOOL, channel, state};

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
