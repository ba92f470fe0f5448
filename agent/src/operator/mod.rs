//! Commands of operators: each connects to the command interface of a running agent, asks, and prints
//! (docs/command-interface.md#commands).
//!
//! Arguments go in; text and an exit status come out. A command needs nothing of the agent but its interface,
//! so it works for an agent on another machine as well.

mod apply;
mod args;
mod completion;
mod get;
mod logs;
mod outcome;
mod print;
mod progress;
mod set;

use tokio::runtime::Builder;

pub(crate) use args::OperatorCommand;
pub(crate) use completion::answer as answer_shell;

use crate::{
    cli::{CliError, default_run_dir},
    command_interface::{Client, ClientError, SOCKET},
    dial::Target,
};
use args::ConnectArgs;

/// Connects to the agent that the arguments name.
async fn connect(args: &ConnectArgs) -> Result<Client, CliError> {
    let address = match &args.connect {
        Some(address) => address.clone(),
        None => format!("unix:{}", default_run_dir()?.join(SOCKET).display()),
    };
    let identity = args.crt_pem.clone().zip(args.key_pem.clone());
    let target = Target {
        option: "--connect",
        address,
        ca: args.ca_pem.clone().map(Into::into),
        identity: identity.map(|(crt, key)| (crt.into(), key.into())),
    };
    Ok(Client::connect(&target).await?)
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unusable(text) => Self::Unusable(text),
            ClientError::Failed(text) => Self::Failed(text),
        }
    }
}

/// Runs one command.
pub(crate) fn run(command: OperatorCommand) -> Result<(), CliError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(error.to_string()))?;
    runtime.block_on(run_command(command))
}

async fn run_command(command: OperatorCommand) -> Result<(), CliError> {
    match command {
        OperatorCommand::Apply(args) => apply::apply(args).await,
        OperatorCommand::Delete(args) => apply::delete(args).await,
        OperatorCommand::Get(args) => get::get(args).await,
        OperatorCommand::Watch(args) => {
            get::check(&args.masks)?;
            let mut client = connect(&args.connect).await?;
            get::events(&mut client, args.masks, args.output, args.count).await
        }
        OperatorCommand::Logs(args) => logs::logs(args).await,
        OperatorCommand::Set(args) => set::set(args).await,
        OperatorCommand::Restart(args) => set::restart(args).await,
    }
}
