//! The whole command line. `--help`, the man page and the completions are all made from this.
//!
//! Here is what can be said and what each value may be; what becomes of it is decided in the file
//! of each command. Every command's long help ends with examples.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint, builder::RangedU64ValueParser,
};
use clap_complete::Shell;
use log::LevelFilter;
use nix::unistd::geteuid;

use super::{error::CliError, examples};
use crate::{limits::Limits, server::LinkAddress};

/// Serves the Ankaios control interface of a node's workloads
///
/// fifogate opens a pair of named pipes for each workload that may use the control interface, and
/// answers what the workloads ask through them: reads of the state, updates, and subscriptions whose
/// events come as the state changes. The same binary speaks the workload's side of it, for scripts
/// and for a look by hand.
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
    Status(StatusArgs),
    Completions(CompletionsArgs),
    /// Prints this program's manual page
    #[command(after_long_help = examples::MAN)]
    Man,
}

/// How much is logged to standard error.
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
    /// The level that was asked for; `None` if nothing was.
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
/// The manifest is the start of the state. Every workload in it that has allow rules in its
/// controlInterfaceAccess gets a folder RUN-DIR/WORKLOAD.ID/control_interface with the pipes `input`
/// and `output`; pairs follow what updates make of the state. Runs in the foreground until SIGTERM or
/// SIGINT.
#[derive(Debug, Args)]
#[command(after_long_help = examples::RUN)]
pub(super) struct RunArgs {
    /// YAML file with the state to start from
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(required_unless_present = "agent_link")]
    pub(super) manifest: Option<PathBuf>,
    /// Let an agent say what is served: over `stdio`, or a socket that it listens at, `unix:PATH`
    ///
    /// A manifest may be given too: it is the state to start from, and the agent adds workloads.
    #[arg(long, value_name = "ADDRESS", value_parser = link_address)]
    pub(super) agent_link: Option<LinkAddress>,
    /// Who decides what an update by a workload makes of the state
    ///
    /// `forward` lets the agent decide every update that the workload's rules allow.
    #[arg(long, value_name = "WHO", default_value = "apply")]
    pub(super) updates: UpdatesBy,
    /// Seconds that the agent has to answer a forwarded request
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(super) forward_timeout: Duration,
    /// Serve only the workloads of this agent [default: of all agents]
    #[arg(long, value_name = "NAME")]
    pub(super) agent_name: Option<String>,
    #[command(flatten)]
    pub(super) run_dir: RunDirArgs,
    /// Write one newline to this file descriptor when everything is served, then close it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(super) notification_fd: Option<i32>,
    /// Milliseconds for which a subscriber hears nothing after its first answer
    ///
    /// The Ankaios SDKs register what handles an event only after they have that answer. What
    /// changes meanwhile is told in the first event.
    #[arg(long = "subscribe-grace-ms", alias = "settle", value_name = "MS", default_value_t = 20)]
    pub(super) subscribe_grace_ms: u64,
    /// Messages in a workload's pipe at a time
    ///
    /// More than one is faster for clients that read ahead, and breaks those that cannot cope with
    /// two messages in one read, such as the Python SDK.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) window: u16,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

/// Who decides updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum UpdatesBy {
    /// fifogate itself
    Apply,
    /// The agent at the other end of the link
    Forward,
}

fn link_address(text: &str) -> Result<LinkAddress, String> {
    match text.split_once(':') {
        None if text == "stdio" => Ok(LinkAddress::Stdio),
        Some(("unix", path)) if !path.is_empty() => Ok(LinkAddress::Unix(path.into())),
        _ => Err("expected `stdio` or `unix:PATH`".to_owned()),
    }
}

/// Where fifogate keeps its pipes and its socket.
#[derive(Debug, Args)]
pub(super) struct RunDirArgs {
    /// Folder for the workloads' pipes [default: $XDG_RUNTIME_DIR/fifogate, as root /run/fifogate]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    run_dir: Option<PathBuf>,
}

impl RunDirArgs {
    /// The folder that was given, or the user's own.
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
    // The XDG specification: a path that is not absolute is to be ignored.
    match runtime_dir.map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(dir) => Ok(dir.join("fifogate")),
        None => Err(CliError::unusable(
            "XDG_RUNTIME_DIR is not set to an absolute path, so there is no default run \
             directory: give one by --run-dir DIR",
        )),
    }
}

/// What one workload can make fifogate do or hold at most.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Most bytes in one message of a workload; a longer one ends its session
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_frame)]
    #[arg(value_parser = at_least_one())]
    max_frame: usize,
    /// Most fields of one message of a workload, of all messages inside it together
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().max_fields)]
    #[arg(value_parser = at_least_one())]
    max_fields: usize,
    /// Most bytes that wait for one workload; above it events are merged
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().outbox_bytes)]
    #[arg(value_parser = at_least_one())]
    outbox_bytes: usize,
    /// Most messages that wait for one workload; above it events are merged
    #[arg(long, value_name = "N", default_value_t = Limits::default().outbox_messages)]
    #[arg(value_parser = at_least_one())]
    outbox_messages: usize,
    /// Most bytes that wait for all workloads together
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().total_bytes)]
    #[arg(value_parser = at_least_one())]
    total_bytes: usize,
    /// Most old versions of the state that are kept for a workload that reads slowly
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_versions)]
    #[arg(value_parser = at_least_one())]
    max_versions: usize,
    /// Most masks in one request
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_masks)]
    #[arg(value_parser = at_least_one())]
    max_masks: usize,
    /// Most bytes in one mask
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_mask_length)]
    #[arg(value_parser = at_least_one())]
    max_mask_length: usize,
    /// Most bytes in the id of a request
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_request_id)]
    #[arg(value_parser = at_least_one())]
    max_request_id: usize,
    /// Most subscriptions of one workload
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_subscriptions)]
    #[arg(value_parser = at_least_one())]
    max_subscriptions: usize,
    /// Most bytes that the subscriptions of one workload take
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().subscription_bytes)]
    #[arg(value_parser = at_least_one())]
    subscription_bytes: usize,
    /// Most messages of one workload on their way to being handled; more stay in its pipe
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_in_flight)]
    #[arg(value_parser = at_least_one())]
    max_in_flight: usize,
    /// Most bytes of these messages
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().in_flight_bytes)]
    #[arg(value_parser = at_least_one())]
    in_flight_bytes: usize,
    /// Most messages without sense in a session; one more ends it
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_malformed)]
    #[arg(value_parser = at_least_one())]
    max_malformed: usize,
    /// Most times a second that a workload may wake fifogate for nothing
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_wakeups)]
    #[arg(value_parser = at_least_one())]
    max_wakeups: usize,
    /// Most bytes of the state that updates of workloads may make
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_state_bytes)]
    #[arg(value_parser = at_least_one())]
    max_state_bytes: usize,
    /// Most requests of one workload that wait for the agent
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_forwarded)]
    #[arg(value_parser = at_least_one())]
    max_forwarded: usize,
    /// Most bytes in one message of the agent; a longer one ends fifogate
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_link_frame)]
    #[arg(value_parser = at_least_one())]
    max_link_frame: usize,
    /// Most bytes that wait for the agent; above it what needs the agent fails
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().link_bytes)]
    #[arg(value_parser = at_least_one())]
    link_bytes: usize,
}

impl From<&LimitArgs> for Limits {
    fn from(args: &LimitArgs) -> Self {
        Self {
            max_frame: args.max_frame,
            max_fields: args.max_fields,
            outbox_bytes: args.outbox_bytes,
            outbox_messages: args.outbox_messages,
            total_bytes: args.total_bytes,
            max_versions: args.max_versions,
            max_masks: args.max_masks,
            max_mask_length: args.max_mask_length,
            max_request_id: args.max_request_id,
            max_subscriptions: args.max_subscriptions,
            subscription_bytes: args.subscription_bytes,
            max_in_flight: args.max_in_flight,
            in_flight_bytes: args.in_flight_bytes,
            max_malformed: args.max_malformed,
            max_wakeups: args.max_wakeups,
            max_state_bytes: args.max_state_bytes,
            max_forwarded: args.max_forwarded,
            max_link_frame: args.max_link_frame,
            link_bytes: args.link_bytes,
        }
    }
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// The pair of pipes that a client uses.
#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// Control-interface folder: the one with the pipes `input` and `output`
    ///
    /// fifogate takes the workload's place in it: a workload that uses the same pipes at the same
    /// time loses its session, and the two take each other's messages.
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    #[arg(default_value = "/run/ankaios/control_interface")]
    pub(super) dir: PathBuf,
    /// Seconds to wait for the session to open, and for each answer
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(super) timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number of seconds above 0, such as 5 or 0.5".to_owned();
    let seconds = text.parse().map_err(|_| wrong())?;
    // A year is for ever; beyond some such length a point in time cannot be computed.
    let most = Duration::from_secs(365 * 24 * 60 * 60);
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration.min(most)),
        _ => Err(wrong()),
    }
}

/// How a state is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StateFormat {
    Yaml,
    Json,
}

/// How the outcome of an update is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutcomeFormat {
    Text,
    Json,
}

/// Asks for the state as a workload would, and prints it
///
/// A MASK is a path in the state, such as desiredState.workloads.db.tags; `*` stands for any one
/// name in it. Only what the workload's rules allow is answered.
#[derive(Debug, Args)]
#[command(after_long_help = examples::GET)]
pub(super) struct GetArgs {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    /// How to print; JSON is one line
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "yaml")]
    pub(super) output: StateFormat,
    /// Parts of the state to print [default: everything]
    #[arg(value_name = "MASK")]
    pub(super) masks: Vec<String>,
}

/// Subscribes as a workload would, and prints the state and every change of it
///
/// First comes the state, as `completeState`; then one document for each event, with what changed
/// as `alteredFields` and the new values as `completeState`. Ends on Ctrl-C, or when nobody reads
/// what it prints. If fifogate goes away, waits for it to be back, subscribes again, and prints the
/// state anew.
#[derive(Debug, Args)]
#[command(after_long_help = examples::WATCH)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    /// How to print: YAML documents with `---` between them, or one JSON object in each line
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "yaml")]
    pub(super) output: StateFormat,
    /// End after this many events; 0: after the state
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// Parts of the state to watch [default: everything]
    #[arg(value_name = "MASK")]
    pub(super) masks: Vec<String>,
}

/// Asks for an update of the state as a workload would, and prints what it started and ended
///
/// PATH is a path below desiredState, or agents.NAME.tags, without `*`. All is changed at once, or
/// nothing. Prints `added: WORKLOAD.ID.AGENT` for each instance that starts, and `deleted: ...` for
/// each that ends; a workload that changes does both.
#[derive(Debug, Args)]
#[command(after_long_help = examples::SET, override_usage = SET_USAGE)]
pub(super) struct SetArgs {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    /// How to print: a line for each workload instance, or one line of JSON
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub(super) output: OutcomeFormat,
    /// Take every VALUE as YAML or JSON, not as text: so it can be a mapping or a sequence
    #[arg(long, conflicts_with = "file")]
    pub(super) yaml: bool,
    /// YAML file with a state (desiredState: ...) to take the parts from that --mask names; `-`:
    /// standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "masks")]
    pub(super) file: Option<PathBuf>,
    /// Paths to take from FILE; one that FILE does not have is removed from the state
    #[arg(long = "mask", value_name = "MASK", num_args = 1.., requires = "file")]
    pub(super) masks: Vec<String>,
    /// What to change: PATH=VALUE sets a value, PATH= an empty text, and PATH- removes
    #[arg(value_name = "PATH=VALUE", required_unless_present = "file", conflicts_with = "file")]
    pub(super) changes: Vec<String>,
}

const SET_USAGE: &str = "\
fifogate set [OPTIONS] PATH=VALUE...
       fifogate set [OPTIONS] --file <FILE> --mask <MASK>...";

/// The messages that travel through a pair of pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum MessageType {
    /// What a workload writes
    #[value(name = "ToAnkaios")]
    ToAnkaios,
    /// What a workload reads
    #[value(name = "FromAnkaios")]
    FromAnkaios,
}

/// Turns lines of protobuf JSON into framed messages
///
/// Reads standard input line by line and writes each message, behind its length, to standard output
/// at once and as a whole. Empty lines are skipped. Stops at the first line that is no message.
#[derive(Debug, Args)]
#[command(after_long_help = examples::ENCODE)]
pub(super) struct EncodeArgs {
    /// Type of the messages
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value = "ToAnkaios")]
    pub(super) message_type: MessageType,
}

/// Turns framed messages into lines of protobuf JSON
///
/// Reads standard input and prints each message as soon as it is whole. A message that does not
/// decode is reported and skipped.
#[derive(Debug, Args)]
#[command(after_long_help = examples::DECODE)]
pub(super) struct DecodeArgs {
    /// Type of the messages
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value = "FromAnkaios")]
    pub(super) message_type: MessageType,
    /// Most bytes in one message
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_frame)]
    #[arg(value_parser = at_least_one())]
    pub(super) max_frame: usize,
}

/// Checks manifests without serving them
///
/// Prints one line for each FILE that `fifogate run` would take, and says of each other what is
/// wrong, in which line, and what would be right.
#[derive(Debug, Args)]
#[command(after_long_help = examples::CHECK)]
pub(super) struct CheckArgs {
    /// Manifests to check
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub(super) files: Vec<PathBuf>,
}

/// Tells what a running fifogate is doing
///
/// Asks the fifogate that serves RUN-DIR. As text, the whole comes first, then a line a workload; its
/// JSON object and its metrics for Prometheus hold the same.
#[derive(Debug, Args)]
#[command(after_long_help = examples::STATUS)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) run_dir: RunDirArgs,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) output: StatusFormat,
    /// Look again every second, until Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
}

/// How a status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusFormat {
    /// For people
    Text,
    /// One object
    Json,
    /// Metrics in Prometheus' text format
    Prometheus,
}

/// Prints what completes this program's command line in a shell
#[derive(Debug, Args)]
#[command(after_long_help = examples::COMPLETIONS)]
pub(super) struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_name = "SHELL", value_enum)]
    pub(super) shell: Shell,
}

#[cfg(test)]
mod tests;
