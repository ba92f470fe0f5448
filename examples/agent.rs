//! A complete agent for fifogate.
//!
//! It spawns fifogate, adds two workloads, changes the state, and answers an update that one of them
//! asks for. Try it: start it, then in another terminal be the workload `writer`:
//!
//! ```text
//! cargo run --example agent -- target/debug/fifogate /tmp/gate
//! fifogate set -d /tmp/gate/writer.1/control_interface desiredState.configs.speed=60
//! ```

use std::{env, error::Error, process::Command};

use fifogate::{
    agent::AgentLink,
    pb::{
        agent_link::{ForwardedRequest, Shutdown, from_agent, to_agent::Content},
        ank_base::{
            AccessRightsRule, CompleteState, ConfigItem, ConfigMap, ControlInterfaceAccess,
            ReadWriteEnum, Response, State, StateRule, UpdateStateSuccess, WorkloadInstanceName,
            WorkloadMap, access_rights_rule::AccessRightsRuleEnum, config_item::ConfigItemEnum,
            request::RequestContent, response::ResponseContent,
        },
    },
};

type Link = AgentLink<std::process::ChildStdout, std::process::ChildStdin>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1);
    let (program, run_dir) = (args.next(), args.next());
    let (Some(program), Some(run_dir)) = (program, run_dir) else {
        return Err("usage: agent PATH-TO-FIFOGATE RUN-DIR".into());
    };

    // fifogate serves nobody until it is told to, and lets us decide what updates do.
    let mut command = Command::new(program);
    command.args(["run", "--updates", "forward", "--run-dir"]).arg(run_dir);
    let (mut link, mut child) = AgentLink::spawn(&mut command, "node_a")?;

    let everything_in = |operation| (operation, "desiredState.configs");
    link.add_workload(instance("reader"), access(everything_in(ReadWriteEnum::RwRead)))??;
    link.add_workload(instance("writer"), access(everything_in(ReadWriteEnum::RwReadWrite)))??;
    link.replace_state(speed("50"))??;
    say("state set");

    while let Some(message) = link.recv()? {
        match message {
            Content::WorkloadReady(ready) => say(&format!("ready {}", ready.control_interface_dir)),
            Content::Session(change) => {
                let name = change.instance_name.clone().unwrap_or_default().workload_name;
                say(&format!("{name} {}", change.phase().as_str_name().to_lowercase()));
            }
            Content::Request(forwarded) => {
                decide(&mut link, forwarded)?;
                // One is enough for an example.
                link.send(from_agent::Content::Shutdown(Shutdown {}))?;
            }
            _ => {}
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("fifogate ended with {status}").into()) }
}

/// An agent decides what an update does: this one does what was asked, and says so.
fn decide(link: &mut Link, forwarded: ForwardedRequest) -> Result<(), Box<dyn Error>> {
    let (Some(instance), Some(request)) = (forwarded.instance_name, forwarded.request) else {
        return Ok(());
    };
    let Some(RequestContent::UpdateStateRequest(update)) = request.request_content else {
        // Logs, which this agent does not collect, or a request that could not be decoded.
        let message = "this agent decides updates only".to_owned();
        let error = ResponseContent::Error(fifogate::pb::ank_base::Error { message });
        let response = Response { request_id: request.request_id, response_content: Some(error) };
        link.respond(instance, response)??;
        return Ok(());
    };
    say(&format!("{} updates {:?}", instance.workload_name, update.update_mask));
    let done = match link.update_state(update.new_state.unwrap_or_default(), update.update_mask)? {
        Ok(()) => ResponseContent::UpdateStateSuccess(UpdateStateSuccess::default()),
        Err(rejected) => {
            ResponseContent::Error(fifogate::pb::ank_base::Error { message: rejected.to_string() })
        }
    };
    let response = Response { request_id: request.request_id, response_content: Some(done) };
    link.respond(instance, response)??;
    Ok(())
}

fn instance(name: &str) -> WorkloadInstanceName {
    WorkloadInstanceName {
        workload_name: name.to_owned(),
        agent_name: "node_a".to_owned(),
        id: "1".to_owned(),
    }
}

fn access((operation, mask): (ReadWriteEnum, &str)) -> ControlInterfaceAccess {
    let rule = StateRule { operation: operation.into(), filter_masks: vec![mask.to_owned()] };
    let rule = AccessRightsRuleEnum::StateRule(rule);
    ControlInterfaceAccess {
        allow_rules: vec![AccessRightsRule { access_rights_rule_enum: Some(rule) }],
        deny_rules: Vec::new(),
    }
}

fn speed(value: &str) -> CompleteState {
    let item = ConfigItem { config_item_enum: Some(ConfigItemEnum::String(value.to_owned())) };
    let desired = State {
        api_version: "v1".to_owned(),
        workloads: Some(WorkloadMap::default()),
        configs: Some(ConfigMap { configs: [("speed".to_owned(), item)].into() }),
    };
    CompleteState { desired_state: Some(desired), ..Default::default() }
}

#[allow(clippy::print_stdout)] // it is what the example shows
fn say(text: &str) {
    println!("{text}");
}
