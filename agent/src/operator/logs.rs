//! `logs`: the output of workloads, line by line.

use fifogate::{
    internal::state::WORKLOAD_STATES,
    pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    state::Tree,
};
use tokio::signal::ctrl_c;

use super::{
    args::LogsArgs,
    connect,
    print::{note, put},
};
use crate::cli::CliError;

pub(super) async fn logs(args: LogsArgs) -> Result<(), CliError> {
    let mut client = connect(&args.connect).await?;
    let states = client.read(&[WORKLOAD_STATES]).await?;
    let names = instances(&states, &args.names)?;
    let is_named = names.len() > 1;
    let request = pb::LogsRequest {
        workload_names: names.clone(),
        follow: args.follow.then_some(true),
        tail: args.tail.map(|tail| i32::try_from(tail).unwrap_or(i32::MAX)),
        since: args.since,
        until: args.until,
    };
    let id = client.send(RequestContent::LogsRequest(request)).await?;
    let mut left = names.len();
    while left > 0 {
        let response = tokio::select! {
            response = client.response(&id) => response?,
            _ = ctrl_c() => {
                let cancel = RequestContent::LogsCancelRequest(pb::LogsCancelRequest {});
                client.send_as(&id, cancel).await?;
                break;
            }
        };
        match response {
            ResponseContent::LogsRequestAccepted(accepted) => {
                let others = names.iter().filter(|own| !accepted.workload_names.contains(own));
                let others: Vec<_> = others.map(|own| own.workload_name.as_str()).collect();
                if !others.is_empty() {
                    let text = format!("there is no log of {}", others.join(", "));
                    return Err(CliError::Failed(text));
                }
            }
            ResponseContent::LogEntriesResponse(entries) => {
                let line = |entry: pb::LogEntry| match entry.workload_name {
                    Some(name) if is_named => {
                        format!("{}: {}\n", name.workload_name, entry.message)
                    }
                    _ => format!("{}\n", entry.message),
                };
                put(&entries.log_entries.into_iter().map(line).collect::<String>())?;
            }
            ResponseContent::LogsStopResponse(stop) => {
                left -= 1;
                if args.follow {
                    let name = stop.workload_name.unwrap_or_default().workload_name;
                    note(&format!("the log of {name} has ended"));
                }
            }
            _ => return Err(client.unexpected().into()),
        }
    }
    client.goodbye().await;
    Ok(())
}

/// All instances of these workloads.
fn instances(states: &Tree, names: &[String]) -> Result<Vec<pb::WorkloadInstanceName>, CliError> {
    let mut found = Vec::new();
    for name in names {
        let before = found.len();
        for (agent, workloads) in states.entries(&[WORKLOAD_STATES]) {
            for (id, _) in workloads.get(name).map(|own| own.entries()).into_iter().flatten() {
                found.push(pb::WorkloadInstanceName {
                    workload_name: name.clone(),
                    agent_name: agent.to_string(),
                    id: id.to_string(),
                });
            }
        }
        if found.len() == before {
            return Err(CliError::Failed(format!("there is no workload {name}")));
        }
    }
    found.sort_by(|one, other| one.workload_name.cmp(&other.workload_name));
    found.dedup();
    Ok(found)
}
