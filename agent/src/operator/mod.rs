//! Commands of operators: each connects to the command interface of a running agent, asks, and prints
//! (docs/command-interface.md#commands).
//!
//! Arguments go in; text and an exit status come out. A command needs nothing of the agent but its interface,
//! so it works for an agent on another machine as well.

mod apply;
mod args;
mod client;
mod get;
mod logs;
mod outcome;
mod print;
mod set;

use tokio::runtime::Builder;

pub(crate) use args::OperatorCommand;

use crate::cli::CliError;
use client::Client;

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
            let mut client = Client::connect(&args.connect).await?;
            get::events(&mut client, args.masks, args.output, args.count).await
        }
        OperatorCommand::Logs(args) => logs::logs(args).await,
        OperatorCommand::Set(args) => set::set(args).await,
        OperatorCommand::Restart(args) => set::restart(args).await,
    }
}
