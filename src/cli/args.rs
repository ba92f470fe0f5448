//! The definition of the command line for clap: commands, options, values and their help texts.
//!
//! Command-line arguments go in; a [`Cli`] with parsed values comes out. Help, man page and
//! completions are all generated from these types. A value is checked here if it can be checked
//! alone; the module of each command checks the rest. Every long help ends with examples.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use log::LevelFilter;
use nix::unistd::geteuid;

use super::{error::CliError, examples};
use crate::limits::Limits;

mod limits;

use limits::{LimitArgs, at_least_one};

/// Serves the Ankaios control interface of a node's workloads
///
/// fifogate opens a pair of named pipes for each workload with access to the control interface.
/// Through the pair it answers reads of the state and updates, and sends events to subscribers when
/// the state changes. The same binary also speaks the workload's side, for scripts and manual
/// inspection.
#[derive(Debug, Parser)]
#[command(name = "fifogate", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_long_help = examples::FIFOGATE, subcommand_value_name = "COMMAND")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) logging: LogArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Run(RunArgs),
    Get(GetArgs),
    Watch(WatchArgs),
    Set(SetArgs),
    Encode(EncodeArgs),
    Decode(DecodeArgs),
    Check(CheckArgs),
    /// Prints the JSON Schema of a manifest, for editors
    #[command(after_long_help = examples::SCHEMA)]
    Schema,
    Status(StatusArgs),
    Completions(CompletionsArgs),
    /// Prints this program's manual page
    #[command(after_long_help = examples::MAN)]
    Man,
}

/// Verbosity of the log on standard error.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Log more to standard error; twice: each message, too
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = "Logging")]
    #[arg(conflicts_with = "quiet")]
    verbose: u8,
    /// Log less to standard error; twice: errors only; three times: nothing
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = "Logging")]
    quiet: u8,
}

impl LogArgs {
    /// The requested level; `None` without `-v` and `-q`.
    pub(super) fn level(&self) -> Option<LevelFilter> {
        match (self.verbose, self.quiet) {
            (0, 0) => None,
            (1, _) => Some(LevelFilter::Debug),
            (2.., _) => Some(LevelFilter::Trace),
            (0, 1) => Some(LevelFilter::Warn),
            (0, 2) => Some(LevelFilter::Error),
            (0, 3..) => Some(LevelFilter::Off),
        }
    }
}

/// Serves the workloads of a manifest
///
/// The manifest is the initial state. Each of its workloads with allow rules in its
/// controlInterfaceAccess gets a folder RUN-DIR/WORKLOAD.ID/control_interface with the pipes
/// `input` and `output`. Updates of the state add and remove pairs. Runs in the foreground until
/// SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(after_long_help = examples::RUN)]
#[command(group = ArgGroup::new("source").args(["manifest", "agent_link"]).multiple(true).required(true))]
pub(super) struct RunArgs {
    /// YAML file with the initial state, as a manifest or as printed by `fifogate get`; `-`:
    /// standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) manifest: Option<PathBuf>,
    /// Take workloads and state from an agent: over `stdio`, or its listening socket, `unix:PATH`
    ///
    /// Together with --manifest, the manifest is the initial state, and the agent adds workloads.
    #[arg(long, value_name = "ADDRESS", value_parser = link_address)]
    pub(super) agent_link: Option<LinkAddress>,
    /// Component in charge of updates by workloads
    ///
    /// With `forward`, the agent decides every update allowed by the workload's rules.
    #[arg(long, value_name = "WHO", ignore_case = true, default_value = "apply")]
    pub(super) updates: UpdatesBy,
    /// Seconds for the agent to answer a forwarded request
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(super) forward_timeout: Duration,
    /// Seconds for the agent to add the workloads of earlier pairs again; other pairs are removed then
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(super) keep_old_pairs: Duration,
    /// Serve only the workloads of this agent [default: of all agents]
    #[arg(long, value_name = "NAME")]
    pub(super) agent_name: Option<String>,
    #[command(flatten)]
    pub(super) run_dir: RunDirArgs,
    /// Write one newline to this file descriptor when everything is served, then close it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(super) notification_fd: Option<i32>,
    /// Milliseconds without events for a subscriber after its first answer
    ///
    /// The Ankaios SDKs register their event handler only after the first answer. The first event
    /// covers all changes made during this time.
    // The former name stays for one release (docs/operations.md#upgrade).
    #[arg(long = "subscribe-grace-ms", alias = "settle", value_name = "MS", default_value_t = 20)]
    pub(super) subscribe_grace_ms: u64,
    /// Messages in a workload's pipe at a time
    ///
    /// A larger number is faster for clients with read-ahead. It breaks clients unable to handle
    /// two messages in one read, such as the Python SDK.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) window: u16,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

/// Component in charge of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum UpdatesBy {
    /// fifogate itself
    Apply,
    /// The agent at the other end of the link
    Forward,
}

/// A Unix socket, or standard input and output if `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkAddress(pub(super) Option<PathBuf>);

fn link_address(text: &str) -> Result<LinkAddress, &'static str> {
    match text.split_once(':') {
        None if text == "stdio" => Ok(LinkAddress(None)),
        Some(("unix", path)) if !path.is_empty() => Ok(LinkAddress(Some(path.into()))),
        _ => Err("expected `stdio` or `unix:PATH`"),
    }
}

/// Location of fifogate's pipes and status socket.
#[derive(Debug, Args)]
pub(super) struct RunDirArgs {
    /// Folder for the workloads' pipes [default: $XDG_RUNTIME_DIR/fifogate, as root /run/fifogate]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    run_dir: Option<PathBuf>,
}

impl RunDirArgs {
    /// The folder given by `--run-dir`, or the default of this user.
    pub(super) fn resolve(&self) -> Result<PathBuf, CliError> {
        match &self.run_dir {
            Some(given) => Ok(given.clone()),
            None => default_run_dir(geteuid().is_root(), std::env::var_os("XDG_RUNTIME_DIR")),
        }
    }
}

fn default_run_dir(is_root: bool, runtime_dir: Option<OsString>) -> Result<PathBuf, CliError> {
    if is_root {
        return Ok(PathBuf::from("/run/fifogate"));
    }
    // The XDG specification demands to ignore a relative path.
    match runtime_dir.map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(dir) => Ok(dir.join("fifogate")),
        None => Err(CliError::unusable(
            "XDG_RUNTIME_DIR is not set to an absolute path, so there is no default run \
             directory: give one by --run-dir DIR",
        )),
    }
}

/// Control interface used by a client.
#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// Control-interface folder: the one with the pipes `input` and `output` [default:
    /// $CONTROL_INTERFACE_DIR, else /run/ankaios/control_interface]
    ///
    /// The command takes the place of the workload. A workload using the same pipes at the same
    /// time loses its session, and the two read each other's messages. Commands of fifogate take
    /// turns.
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,
    /// Seconds to wait for the session to open, and for each answer
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(super) timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "expected a number of seconds above 0, such as 5 or 0.5";
    let seconds = text.parse().map_err(|_| WRONG)?;
    // Bounded by a year: a point in time much further away cannot be computed.
    let most = Duration::from_secs(365 * 24 * 60 * 60);
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration.min(most)),
        _ => Err(WRONG),
    }
}

/// Output format of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StateFormat {
    Yaml,
    Json,
}

/// Output format of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ReadFormat {
    /// The tree
    Yaml,
    /// The tree in one line
    Json,
    /// The bare text of the one value at MASK, such as a config; status 1 if it is not there
    Value,
}

/// Output format of an update's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutcomeFormat {
    Text,
    Json,
}

/// Reads the state as a workload would, and prints it
///
/// A MASK is a path in the state, such as desiredState.workloads.db.tags; `*` stands for any one
/// name in it. The answer holds only the parts allowed by the workload's rules.
#[derive(Debug, Args)]
#[command(after_long_help = examples::GET)]
pub(super) struct GetArgs {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    #[arg(ignore_case = true, default_value = "yaml")]
    pub(super) output: ReadFormat,
    /// Parts of the state to print [default: everything]
    #[arg(value_name = "MASK")]
    pub(super) masks: Vec<String>,
}

/// Watches the state as a workload would: prints it, and every change of it
///
/// The first document is the state, as `completeState`. Each event is one more document, with the
/// changed paths as `alteredFields` and the new values as `completeState`. Ends on Ctrl-C, or when
/// its output has no reader any more. If fifogate goes away, the command waits for its return,
/// subscribes again, and prints the state again.
#[derive(Debug, Args)]
#[command(after_long_help = examples::WATCH)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    /// How to print: YAML documents with `---` between them, or one JSON object in each line
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    #[arg(ignore_case = true, default_value = "yaml")]
    pub(super) output: StateFormat,
    /// Print events only, and not the state before them
    #[arg(long)]
    pub(super) no_state: bool,
    /// End after this many events; 0: after the state
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// Parts of the state to watch [default: everything]
    #[arg(value_name = "MASK")]
    pub(super) masks: Vec<String>,
}

/// Updates the state as a workload would, and prints what it changed, started and ended
///
/// PATH is a path below desiredState, or agents.NAME.tags, without `*`; none may lie inside of another.
/// All changes are applied together, or none of them. Prints `changed: PATH`, `unchanged: PATH` or
/// `removed: PATH`, then `added: WORKLOAD.ID.AGENT` for each started instance, and `deleted: ...` for
/// each ended one; a changed workload has both.
///
/// The paths are compared with the state read just before. A workload without the right to read all
/// of them can still set them: it gets `accepted: PATH` for each, and a --mask that is nowhere is not
/// refused.
#[derive(Debug, Args)]
#[command(after_long_help = examples::SET, override_usage = SET_USAGE)]
pub(super) struct SetArgs {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    /// How to print: a line for each path and instance, or one line of JSON
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    #[arg(ignore_case = true, default_value = "text")]
    pub(super) output: OutcomeFormat,
    /// Print what would be changed, unchanged or removed, and send no update
    ///
    /// This requires the right to read all of the paths. Whether fifogate would accept the update is not
    /// checked.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Read every VALUE as YAML or JSON, not as text, for example to set a mapping or a sequence
    #[arg(long, conflicts_with = "file")]
    pub(super) yaml: bool,
    /// YAML or JSON file for the parts named by --mask: a state (desiredState: ...), or a manifest;
    /// `-`: standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "masks")]
    pub(super) file: Option<PathBuf>,
    /// Paths to take from FILE; a path missing in FILE is removed from the state, and refused if it
    /// is missing there too
    #[arg(long = "mask", value_name = "MASK", num_args = 1.., requires = "file")]
    pub(super) masks: Vec<String>,
    /// Changes: PATH=VALUE sets a value, PATH= an empty text, and PATH- removes
    #[arg(value_name = "PATH=VALUE", required_unless_present = "file", conflicts_with = "file")]
    pub(super) changes: Vec<String>,
}

const SET_USAGE: &str = "\
fifogate set [OPTIONS] PATH=VALUE...
       fifogate set [OPTIONS] --file <FILE> --mask <MASK>...";

/// Message types of the control interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum MessageType {
    /// Messages written by a workload
    #[value(name = "ToAnkaios")]
    ToAnkaios,
    /// Messages read by a workload
    #[value(name = "FromAnkaios")]
    FromAnkaios,
}

/// Turns lines of protobuf JSON into framed messages
///
/// Reads FILE or standard input line by line. Each message is written to standard output at once and as a
/// whole, behind its length. Empty lines are skipped. Stops at the first line without a valid
/// message.
#[derive(Debug, Args)]
#[command(after_long_help = examples::ENCODE)]
pub(super) struct EncodeArgs {
    /// Type of the messages
    #[arg(long = "type", value_name = "TYPE", value_enum, ignore_case = true)]
    #[arg(default_value = "ToAnkaios")]
    pub(super) message_type: MessageType,
    /// File with the lines; `-`: standard input
    #[arg(value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub(super) file: PathBuf,
}

/// Turns framed messages into lines of protobuf JSON
///
/// Reads FILE or standard input, and prints each message as soon as it is complete. An undecodable message
/// is reported and skipped.
#[derive(Debug, Args)]
#[command(after_long_help = examples::DECODE)]
pub(super) struct DecodeArgs {
    /// Type of the messages
    #[arg(long = "type", value_name = "TYPE", value_enum, ignore_case = true)]
    #[arg(default_value = "FromAnkaios")]
    pub(super) message_type: MessageType,
    /// File with the messages; `-`: standard input
    #[arg(value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub(super) file: PathBuf,
    /// Most bytes in one message
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_frame)]
    #[arg(value_parser = at_least_one())]
    pub(super) max_frame: usize,
}

/// Checks manifests without serving them
///
/// Prints one line for each FILE accepted by `fifogate run`: a manifest, or a state as printed by
/// `fifogate get`. For any other FILE it prints the faults, each with its line and the expected
/// form. What has no effect is a warning: rules that deny or allow nothing, references that no
/// template uses. A name that is not in the manifest, but that an update may add, is a note.
#[derive(Debug, Args)]
#[command(after_long_help = examples::CHECK)]
pub(super) struct CheckArgs {
    /// Manifests to check; `-`: standard input
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub(super) files: Vec<PathBuf>,
    /// Refuse a manifest with warnings, too; notes do not count
    #[arg(long)]
    pub(super) strict: bool,
    /// Tell whether this workload may `read` (or subscribe to) or `write` this mask, or read the
    /// `logs` of a workload of this name, and by which rule; status 1 if not
    #[arg(long, num_args = 3, value_names = ["WORKLOAD", "OPERATION", "MASK"])]
    #[arg(action = ArgAction::Append, conflicts_with = "strict")]
    pub(super) may: Vec<String>,
}

/// Shows the status of a running fifogate
///
/// Queries the fifogate serving RUN-DIR. The text shows the totals first, then one line for each
/// workload. For programs there are one JSON object, and metrics for Prometheus.
#[derive(Debug, Args)]
#[command(after_long_help = examples::STATUS)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) run_dir: RunDirArgs,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", ignore_case = true, default_value = "text")]
    pub(super) output: StatusFormat,
    /// Query again every second, until Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
}

/// Output format of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusFormat {
    /// For people
    Text,
    /// One object
    Json,
    /// Metrics in Prometheus' text format
    Prometheus,
}

/// Prints a completion script of this program for a shell
#[derive(Debug, Args)]
#[command(after_long_help = examples::COMPLETIONS)]
pub(super) struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_name = "SHELL", value_enum, ignore_case = true)]
    pub(super) shell: Shell,
}

#[cfg(test)]
mod tests;
