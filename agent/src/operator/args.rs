//! Arguments of the operator commands.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::completion;

/// Commands to a running agent.
#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Applies manifests to what runs, and waits for the outcome
    Apply(ApplyArgs),
    /// Deletes workloads or configs, and waits for the outcome
    Delete(DeleteArgs),
    /// Prints the state, or tables of its parts
    Get(GetArgs),
    /// Prints the state, and then each change of it
    Watch(WatchArgs),
    /// Prints the output of workloads
    Logs(LogsArgs),
    /// Sets or removes single values of the state
    Set(SetArgs),
    /// Starts workloads anew
    Restart(RestartArgs),
}

/// The agent to connect to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// unix:PATH, http://HOST:PORT or https://HOST:PORT of an agent; default: the socket of the agent
    /// that runs here
    #[arg(long, value_name = "ADDRESS", env = "FIFOGATE_CONNECT")]
    pub(super) connect: Option<String>,
    /// PEM file of who may sign the certificate of the agent
    #[arg(long, value_name = "FILE")]
    pub(super) ca_pem: Option<PathBuf>,
    /// PEM file of our certificate
    #[arg(long, value_name = "FILE", requires = "key_pem")]
    pub(super) crt_pem: Option<PathBuf>,
    /// PEM file of its key, readable by us alone
    #[arg(long, value_name = "FILE", requires = "crt_pem")]
    pub(super) key_pem: Option<PathBuf>,
}

/// Where an update goes, and what follows it.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// How it is printed
    #[arg(long, short, value_enum, default_value = "text")]
    pub(super) output: Format,
    /// Ends when the update is accepted, whatever becomes of its workloads
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Most seconds to wait for the outcome
    #[arg(long, value_name = "SECONDS", default_value_t = 60, conflicts_with = "no_wait")]
    pub(super) timeout: u64,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and lines for people
    Text,
    /// One JSON value a line
    Json,
    /// YAML documents
    Yaml,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Manifests; `-`: standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Deletes the workloads and configs of the manifests instead
    #[arg(long, short)]
    pub(super) delete: bool,
    /// The agent of all workloads, whatever the manifests say
    #[arg(long, value_name = "NAME", add = completion::agents())]
    pub(super) agent: Option<String>,
    /// Prints what would change, and changes nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) update: UpdateArgs,
}

/// What `delete` deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deletable {
    /// Workloads
    #[value(alias = "workloads")]
    Workload,
    /// Configs
    #[value(alias = "configs")]
    Config,
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// What they are
    #[arg(value_enum)]
    pub(super) what: Deletable,
    /// Their names
    #[arg(required = true, value_name = "NAME", add = completion::deletables())]
    pub(super) names: Vec<String>,
    #[command(flatten)]
    pub(super) update: UpdateArgs,
}

/// What `get` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gettable {
    /// The state, or the parts at the masks
    State,
    /// All workloads with their states, or those of these names
    Workloads,
    /// All agents
    Agents,
    /// All configs
    Configs,
    /// Changes of the state, as `watch` prints them
    Events,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// What is printed
    #[arg(value_enum)]
    pub(super) what: Gettable,
    /// Masks of the state or of events, names of workloads
    #[arg(value_name = "MASK|NAME", add = completion::gettables())]
    pub(super) names: Vec<String>,
    /// Workloads of this agent alone
    #[arg(long, value_name = "NAME", add = completion::agents())]
    pub(super) agent: Option<String>,
    /// Prints a table anew when something has changed
    #[arg(long, short)]
    pub(super) watch: bool,
    /// How it is printed; default: tables as text, state and events as YAML
    #[arg(long, short, value_enum)]
    pub(super) output: Option<Format>,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Parts of the state; none: all of it
    #[arg(value_name = "MASK")]
    pub(super) masks: Vec<String>,
    /// Ends after so many changes
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(super) count: Option<u64>,
    /// How it is printed
    #[arg(long, short, value_enum, default_value = "yaml")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Workloads
    #[arg(required = true, value_name = "NAME", add = completion::instances())]
    pub(super) names: Vec<String>,
    /// Goes on with what is written from now on
    #[arg(long, short)]
    pub(super) follow: bool,
    /// The last lines alone
    #[arg(long, short = 'n', value_name = "LINES")]
    pub(super) tail: Option<u32>,
    /// Lines from this time on, as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Lines up to this time
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// PATH=TEXT, or PATH- to remove; a path is as desiredState.configs.NAME
    #[arg(required = true, value_name = "CHANGE")]
    pub(super) changes: Vec<String>,
    #[command(flatten)]
    pub(super) update: UpdateArgs,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Workloads
    #[arg(required = true, value_name = "NAME", add = completion::workloads())]
    pub(super) names: Vec<String>,
    #[command(flatten)]
    pub(super) update: UpdateArgs,
}
