//! A complete agent for fifogate, with the blocking client of the link.
//!
//! It spawns fifogate, adds two workloads, sets the state, and decides an update of one of them. Start
//! it, then be the workload `writer` in another terminal:
//!
//! ```text
//! cargo run --example agent_blocking -- target/debug/fifogate /tmp/gate
//! fifogate set -d /tmp/gate/writer.1/control_interface desiredState.configs.speed=60
//! ```

#![allow(clippy::print_stdout)] // the output of the example

use std::{env, error::Error, process};

use fifogate::{
    link::{AgentLink, CallError, Owner},
    pb::{
        agent_link::{ForwardedRequest, to_agent::Content},
        ank_base::{
            self as pb, ReadWriteEnum, ReadWriteEnum::RwRead, ReadWriteEnum::RwReadWrite,
            access_rights_rule::AccessRightsRuleEnum::StateRule, config_item::ConfigItemEnum,
            request::RequestContent, response::ResponseContent,
        },
    },
};

type Link = AgentLink<process::ChildStdout, process::ChildStdin>;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: agent_blocking PATH-TO-FIFOGATE RUN-DIR";
    let mut args = env::args_os().skip(1);
    let (program, run_dir) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    // With `--updates forward` the agent decides updates.
    let mut command = process::Command::new(program);
    command.args(["run", "--updates", "forward", "--run-dir"]).arg(run_dir);
    let (mut link, mut child) = AgentLink::spawn(&mut command, "node_a")?;
    link.replace_state(speed("50"))?;
    link.add_workload(instance("reader"), access(RwRead), Owner::default())?;
    link.add_workload(instance("writer"), access(RwReadWrite), Owner::default())?;
    println!("workloads added");
    while let Some(message) = link.recv()? {
        match message {
            Content::WorkloadReady(ready) => println!("ready {}", ready.control_interface_dir),
            Content::Session(change) => {
                let phase = change.phase().as_str_name().to_lowercase();
                println!("{} {phase}", change.instance_name.unwrap_or_default().workload_name);
            }
            Content::Request(forwarded) => {
                decide(&mut link, forwarded)?;
                link.shutdown()?; // one update is enough for an example
            }
            _ => {}
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("fifogate ended with {status}").into()) }
}

/// Applies an update as it is, before it is answered: its events come first then.
fn decide(link: &mut Link, forwarded: ForwardedRequest) -> Result<(), CallError> {
    let (by, request) =
        (forwarded.instance_name.unwrap_or_default(), forwarded.request.unwrap_or_default());
    let result = match request.request_content {
        Some(RequestContent::UpdateStateRequest(update)) => {
            println!("{} updates {:?}", by.workload_name, update.update_mask);
            link.update_state(update.new_state.unwrap_or_default(), update.update_mask)
                .map_err(|error| error.to_string())
        }
        _ => Err("this agent decides updates only".to_owned()),
    };
    let content = match result {
        Ok(()) => ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess::default()),
        Err(message) => ResponseContent::Error(pb::Error { message }),
    };
    let (request_id, response_content) = (request.request_id, Some(content));
    link.respond(by, pb::Response { request_id, response_content })
}

fn instance(name: &str) -> pb::WorkloadInstanceName {
    let (workload_name, agent_name) = (name.to_owned(), "node_a".to_owned());
    pb::WorkloadInstanceName { workload_name, agent_name, id: "1".to_owned() }
}

/// Access to all configs.
fn access(operation: ReadWriteEnum) -> pb::ControlInterfaceAccess {
    let (operation, filter_masks) = (operation.into(), vec!["desiredState.configs".to_owned()]);
    let rule = Some(StateRule(pb::StateRule { operation, filter_masks }));
    let allow_rules = vec![pb::AccessRightsRule { access_rights_rule_enum: rule }];
    pb::ControlInterfaceAccess { allow_rules, ..Default::default() }
}

/// A state with one config.
fn speed(value: &str) -> pb::CompleteState {
    let config_item_enum = Some(ConfigItemEnum::String(value.to_owned()));
    let configs = [("speed".to_owned(), pb::ConfigItem { config_item_enum })].into();
    let (api_version, configs) = ("v1".to_owned(), Some(pb::ConfigMap { configs }));
    let desired_state = Some(pb::State { api_version, configs, ..Default::default() });
    pb::CompleteState { desired_state, ..Default::default() }
}
