//! A server inside of another program, with its agent in the same process.
//!
//! ```text
//! cargo run --example embed_server -- /tmp/embedded
//! fifogate get -d /tmp/embedded/reader.1/control_interface desiredState.configs
//! ```
//!
//! The server has no signal handler, no standard input or output and no logger of its own. The example
//! ends at a line on its standard input.

use std::{env, error::Error, io, time::Duration};

use fifogate::{
    link::{AgentLink, Owner},
    pb::{
        agent_link::to_agent::Content,
        ank_base::{
            AccessRightsRule, CompleteState, ConfigItem, ConfigMap, ControlInterfaceAccess,
            ReadWriteEnum, State, StateRule, WorkloadInstanceName,
            access_rights_rule::AccessRightsRuleEnum, config_item::ConfigItemEnum,
        },
    },
    server::{AgentTransport, Server},
};

#[allow(clippy::print_stdout)] // it is what the example shows
fn main() -> Result<(), Box<dyn Error>> {
    let run_dir = env::args_os().nth(1).ok_or("usage: embed_server RUN-DIR")?;
    let (transport, agent_end) = AgentTransport::channel()?;
    let server = Server::builder(run_dir).agent(transport).spawn()?;

    let mut agent = AgentLink::open(agent_end.try_clone()?, agent_end, "node_a")?;
    agent.replace_state(speed("50"))?;
    agent.add_workload(instance("reader"), read_configs(), Owner::default())?;
    while let Some(message) = agent.recv()? {
        if let Content::WorkloadReady(ready) = message {
            println!("ready {}", ready.control_interface_dir);
            break;
        }
    }
    io::stdin().read_line(&mut String::new())?;
    println!("{}", server.status().ok_or("the server has ended")?);
    // Queued messages get a second to be written.
    server.shutdown(Duration::from_secs(1))?;
    println!("ended");
    Ok(())
}

fn instance(name: &str) -> WorkloadInstanceName {
    let [workload_name, agent_name, id] = [name, "node_a", "1"].map(str::to_owned);
    WorkloadInstanceName { workload_name, agent_name, id }
}

fn read_configs() -> ControlInterfaceAccess {
    let filter_masks = vec!["desiredState.configs".to_owned()];
    let rule = StateRule { operation: ReadWriteEnum::RwRead.into(), filter_masks };
    let rule = Some(AccessRightsRuleEnum::StateRule(rule));
    let allow_rules = vec![AccessRightsRule { access_rights_rule_enum: rule }];
    ControlInterfaceAccess { allow_rules, ..Default::default() }
}

fn speed(value: &str) -> CompleteState {
    let item = ConfigItem { config_item_enum: Some(ConfigItemEnum::String(value.to_owned())) };
    let configs = Some(ConfigMap { configs: [("speed".to_owned(), item)].into() });
    let desired = State { api_version: "v1".to_owned(), configs, ..Default::default() };
    CompleteState { desired_state: Some(desired), ..Default::default() }
}
