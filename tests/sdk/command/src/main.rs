//! A tool outside of the cluster, on the unmodified Ankaios Rust SDK.
//!
//! `sdk-commander URL [CA CRT KEY]` does one thing after the other with the command interface, and prints a
//! line for each. Before the last two it waits for a line on standard input: meanwhile the agent is restarted.

use std::{error::Error, fs, time::Duration};

use ankaios_sdk::{
    Ankaios, EventsCampaignResponse, GrpcConfig, LogResponse, LogsRequest, Manifest,
    WorkloadInstanceName,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::{sleep, timeout},
};

type Done<T> = Result<T, Box<dyn Error>>;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

const MANIFEST: &str = "apiVersion: v1
workloads:
  remote:
    runtime: process
    agent: agent_A
    runtimeConfig: '{command: sh, args: [-c, \"echo hello; exec sleep 100000\"]}'
configs:
  color: green
";

#[tokio::main]
async fn main() -> Done<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let config = match &args[..] {
        [url] => GrpcConfig::insecure(url),
        [url, ca, crt, key] => {
            let read = |path: &String| fs::read_to_string(path);
            GrpcConfig::mtls(url, read(ca)?, read(crt)?, read(key)?)
        }
        _ => return Err("usage: sdk-commander URL [CA CRT KEY]".into()),
    };
    let mut ankaios = Ankaios::builder().command_interface(config).connect().await?;
    say("connected");
    let state = ankaios.get_state(vec!["agents".to_owned()]).await?;
    say(&format!("agents {:?}", state.get_agents().keys().collect::<Vec<_>>()));
    use_workload(&mut ankaios).await?;
    say("restart me");
    let mut line = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut line).await?;
    let reconnected = async {
        // Errors are expected until the SDK has connected again.
        while ankaios.get_state(vec!["agents".to_owned()]).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, reconnected).await?;
    say("reconnected");
    let success = ankaios.delete_manifest(Manifest::from_string(MANIFEST)?).await?;
    say(&format!("deleted {}", names(&success.deleted_workloads)));
    Ok(())
}

/// Applies a manifest, and looks at its workload by events and logs.
async fn use_workload(ankaios: &mut Ankaios) -> Done<()> {
    let mut events = ankaios.register_event(vec!["workloadStates.*.*.*.state".to_owned()]).await?;
    say("subscribed");
    let success = ankaios.apply_manifest(Manifest::from_string(MANIFEST)?).await?;
    say(&format!("added {}", names(&success.added_workloads)));
    until_running(&mut events).await?;
    say("event remote runs");
    let request = LogsRequest {
        workload_names: success.added_workloads.clone(),
        follow: true,
        ..LogsRequest::default()
    };
    let mut campaign = ankaios.request_logs(request).await?;
    match timeout(PATIENCE, campaign.logs_receiver.recv()).await? {
        Some(LogResponse::LogEntries(entries)) => say(&format!("log {}", entries[0].message)),
        other => return Err(format!("no lines: {other:?}").into()),
    }
    ankaios.stop_receiving_logs(campaign).await?;
    say("log cancelled");
    ankaios.unregister_event(events).await?;
    say("events cancelled");
    Ok(())
}

async fn until_running(events: &mut EventsCampaignResponse) -> Done<()> {
    loop {
        let event = timeout(PATIENCE, events.events_receiver.recv()).await?;
        let event = event.ok_or("the events ended")?;
        for state in event.complete_state.get_workload_states().as_list() {
            let own = state.workload_instance_name.workload_name == "remote";
            if own && format!("{:?}", state.execution_state.state) == "Running" {
                return Ok(());
            }
        }
    }
}

fn names(instances: &[WorkloadInstanceName]) -> String {
    instances.iter().map(|own| own.workload_name.as_str()).collect::<Vec<_>>().join(" ")
}

/// Tells the driver one thing.
fn say(step: &str) {
    println!("{step}");
}
