//! A complete agent for fifogate, with the async client of the link.
//!
//! One loop reads the link, and each forwarded request is served by a task of its own. Start it, then be
//! the workload `writer` in another terminal:
//!
//! ```text
//! cargo run --features tokio --example agent_tokio -- target/debug/fifogate /tmp/gate
//! fifogate set -d /tmp/gate/writer.1/control_interface desiredState.configs.speed=60
//! ```

#![allow(clippy::print_stdout)] // the output of the example

use std::{env, error::Error};

use fifogate::{
    link::{AsyncLink, CallError, Incoming, Owner},
    pb::{
        agent_link::{ForwardedRequest, to_agent::Content},
        ank_base::{
            self as pb, ReadWriteEnum::RwReadWrite,
            access_rights_rule::AccessRightsRuleEnum::StateRule, request::RequestContent,
            response::ResponseContent,
        },
    },
};
use tokio::process::Command;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: agent_tokio PATH-TO-FIFOGATE RUN-DIR";
    let mut args = env::args_os().skip(1);
    let (program, run_dir) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    // With `--updates forward` the agent decides updates.
    let mut command = Command::new(program);
    command.args(["run", "--updates", "forward", "--run-dir"]).arg(run_dir);
    let (link, mut messages, mut child) = AsyncLink::spawn(&mut command, "node_a").await?;
    let desired = pb::State { api_version: "v1".to_owned(), ..Default::default() };
    link.replace_state(pb::CompleteState { desired_state: Some(desired), ..Default::default() })
        .await?;
    link.add_workload(instance("writer"), access_to_configs(), Owner::default()).await?;
    println!("workloads added");
    while let Some(message) = messages.recv().await? {
        match message {
            Incoming::Message(message) => match *message {
                Content::Session(change) => {
                    let phase = change.phase().as_str_name().to_lowercase();
                    println!("{} {phase}", change.instance_name.unwrap_or_default().workload_name);
                }
                Content::Request(forwarded) => {
                    tokio::spawn(serve(link.clone(), forwarded));
                }
                _ => {}
            },
            // Only commands of `send_step` are rejected here; this agent sends none.
            Incoming::StepRejected(rejected) => return Err(rejected.into()),
        }
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(format!("fifogate ended with {status}").into()) }
}

async fn serve(link: AsyncLink, forwarded: ForwardedRequest) {
    if let Err(error) = decide(&link, forwarded).await {
        println!("not answered: {error}");
    }
    // One update is enough for an example.
    let _ = link.shutdown().await;
}

/// Applies an update as it is, before it is answered: its events come first then.
async fn decide(link: &AsyncLink, forwarded: ForwardedRequest) -> Result<(), CallError> {
    let (by, request) =
        (forwarded.instance_name.unwrap_or_default(), forwarded.request.unwrap_or_default());
    let response = match request.request_content {
        Some(RequestContent::UpdateStateRequest(update)) => {
            println!("{} updates {:?}", by.workload_name, update.update_mask);
            link.update_state(update.new_state.unwrap_or_default(), update.update_mask).await?;
            ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess::default())
        }
        _ => ResponseContent::Error(pb::Error { message: "only updates are decided".to_owned() }),
    };
    let (request_id, response_content) = (request.request_id, Some(response));
    link.respond(by, pb::Response { request_id, response_content }).await
}

fn instance(name: &str) -> pb::WorkloadInstanceName {
    let (workload_name, agent_name) = (name.to_owned(), "node_a".to_owned());
    pb::WorkloadInstanceName { workload_name, agent_name, id: "1".to_owned() }
}

fn access_to_configs() -> pb::ControlInterfaceAccess {
    let filter_masks = vec!["desiredState.configs".to_owned()];
    let rule = Some(StateRule(pb::StateRule { operation: RwReadWrite.into(), filter_masks }));
    let allow_rules = vec![pb::AccessRightsRule { access_rights_rule_enum: rule }];
    pb::ControlInterfaceAccess { allow_rules, ..Default::default() }
}
