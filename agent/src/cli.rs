//! Command line of `fifogate-agent`: arguments go in, an exit status comes out.
//!
//! Options are checked here, before `run` makes anything. The hidden subcommands are the shim and the
//! watchdog.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{
    ArgGroup, Args, Parser, Subcommand,
    builder::{BoolishValueParser, NonEmptyStringValueParser},
};
use fifogate::internal::{journal, state::is_name};
use log::{Level, LevelFilter};
use nix::unistd::geteuid;

use crate::{
    check,
    command_interface::{CommandArgs, Listen, MOST_COMMANDERS},
    dial::Pem,
    fence,
    http::HttpArgs,
    log_text,
    operator::{self, OperatorCommand},
    run,
    runtime::{Isolation, keeper, shim},
    store::{ankaios, etcd},
};

mod ank_agent;
mod config_file;
mod examples;
mod generate;
mod toml_file;
mod usage;
mod values;
mod withheld;

pub(crate) use config_file::ConfigFile;
use config_file::Refused;
use values::{Endpoints, Takeover, endpoints, seconds, server_url, tag, takeover};

/// Runs a manifest's workloads as processes, and serves their control interface by fifogate
#[derive(Debug, Parser)]
#[command(name = "fifogate-agent", version, after_long_help = examples::AGENT)]
struct Cli {
    /// Says more, and so does fifogate; twice: each message, too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Says only what is wrong, and so does fifogate
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the workloads of one agent
    Run(Box<RunArgs>),
    /// Finds the faults of manifests that `run` finds only when a workload starts
    Check(CheckArgs),
    #[command(flatten)]
    Operator(OperatorCommand),
    /// Prints the script that lets a shell complete our commands, options and names
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        #[arg(value_parser = generate::shells())]
        shell: String,
    },
    /// Prints our manual page
    #[command(after_long_help = examples::MAN)]
    Man,
    /// Starts one workload's process; for the agent itself
    #[command(hide = true)]
    Launch(LaunchArgs),
    /// Keeps one workload's process when the agent ends; for the agent itself
    #[command(hide = true)]
    Keep(KeepArgs),
    /// Ends the agent if it cannot keep its name; for the agent itself
    #[command(hide = true)]
    Watchdog(WatchdogArgs),
}

#[derive(Debug, Args)]
#[command(after_long_help = examples::RUN)]
#[command(group = ArgGroup::new("source").args(["manifest", "state_dir", "etcd", "server"]).multiple(true).required(true))]
struct RunArgs {
    /// A file in TOML with a key for each of these options. An option takes precedence over the environment,
    /// as FIFOGATE_RUN_DIR, and that over the file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The desired state to begin with; `-`: from standard input
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Applies the manifest to a state that was kept, too, and logs the difference
    #[arg(long, requires = "manifest", value_parser = BoolishValueParser::new())]
    apply: bool,
    /// Our name: workloads with this `agent` are run here
    #[arg(long, value_name = "NAME", default_value = "agent_A")]
    name: String,
    /// Keeps desired state here over restarts; an update is answered when it is on disk
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Shares the state with other agents in etcd; the manifest counts when nothing is there yet
    #[arg(long, value_name = "ENDPOINT,…", conflicts_with = "state_dir")]
    #[arg(value_parser = endpoints)]
    etcd: Vec<Endpoints>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Joins this server of Ankaios, which has the state then, as http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "URL", conflicts_with_all = ["manifest", "state_dir", "etcd"])]
    #[arg(value_parser = server_url)]
    server: Option<String>,
    /// A tag of this agent at the server, as KEY=VALUE; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", requires = "server", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Where pairs and sockets are; default: $XDG_RUNTIME_DIR/fifogate, as root /run/fifogate
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The program fifogate; default: beside this program, or else in PATH
    #[arg(long, value_name = "PATH")]
    fifogate: Option<PathBuf>,
    /// Seconds that a process may take to end before it is killed; containers have their --stop-timeout
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE, value_parser = seconds)]
    grace: f64,
    /// How far workloads are kept apart; default: as far as it is possible here
    #[arg(long, value_enum, ignore_case = true, value_name = "HOW")]
    isolation: Option<Isolation>,
    /// What happens to workloads when the agent ends; default: processes end, containers go on, and the
    /// next agent of the name takes them over
    #[arg(long, value_enum, ignore_case = true, value_name = "WHAT")]
    on_exit: Option<OnExit>,
    /// Most bytes that are kept of what one process writes
    #[arg(long, value_name = "BYTES", default_value_t = LOG_BYTES)]
    #[arg(value_parser = clap::value_parser!(u64).range(65_536..))]
    log_bytes: u64,
    #[command(flatten)]
    commands: CommandArgs,
    #[command(flatten)]
    http: HttpArgs,
    /// Options for `fifogate run`
    #[arg(last = true, value_name = "OPTION")]
    gate_options: Vec<OsString>,
}

/// What the end of the agent means for workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OnExit {
    /// All end, containers too
    End,
    /// All go on, processes too
    Keep,
}

#[derive(Debug, Args)]
#[command(after_long_help = examples::CHECK)]
struct CheckArgs {
    /// Manifests, or states as printed by `fifogate get`; `-`: standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The agent that would run them
    #[arg(long, value_name = "NAME", default_value = "agent_A")]
    name: String,
    /// Refuse a manifest with warnings, too; notes do not count
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Args)]
struct ClusterArgs {
    /// Where all keys are in etcd
    #[arg(long, value_name = "PREFIX", default_value = "fifogate", requires = "etcd")]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    prefix: String,
    /// PEM file of who may sign etcd's certificate
    #[arg(long, value_name = "FILE", requires = "etcd")]
    etcd_ca: Option<PathBuf>,
    /// PEM file of our certificate
    #[arg(long, value_name = "FILE", requires = "etcd", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "etcd", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// Our name in etcd
    #[arg(long, value_name = "NAME", requires = "etcd", requires = "etcd_password_file")]
    etcd_user: Option<String>,
    /// File whose first line is our password there
    #[arg(long, value_name = "FILE", requires = "etcd", requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
    /// Seconds without etcd after which this agent ends its workloads, as another one may take its
    /// name then; `never`: no other place may, whatever happens
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = takeover)]
    #[arg(requires = "etcd")]
    takeover_after: Takeover,
}

#[derive(Debug, Args)]
struct WatchdogArgs {
    #[arg(value_parser = seconds)]
    seconds: f64,
    name: String,
}

#[derive(Debug, Args)]
struct KeepArgs {
    /// For lists of processes
    #[arg(value_name = "WORKLOAD")]
    _workload: String,
}

#[derive(Debug, Args)]
struct LaunchArgs {
    #[arg(long, value_enum)]
    isolation: Isolation,
    #[arg(long, value_enum, default_value = "outside")]
    stage: shim::Stage,
    #[arg(long)]
    probe: bool,
}

/// Failure of a command, by its exit status.
#[derive(Debug)]
pub(crate) enum CliError {
    /// Status 1.
    Failed(String),
    /// Status 2.
    Unusable(String),
}

/// Runs the command in `args`; the first one is the program's name.
pub fn main<A>(args: impl IntoIterator<Item = A>) -> ExitCode
where
    A: Into<OsString> + Clone,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    if ank_agent::is_meant(&args) {
        return ank_agent::main(args);
    }
    match operator::answer_shell(config_file::command, &args) {
        Ok(false) => (),
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return usage::answer(error),
    }
    let (cli, file) = match config_file::parse(args) {
        Ok(parsed) => parsed,
        Err(Refused::Usage(answer)) => return usage::answer(*answer),
        Err(Refused::File(text)) => return end(Err(CliError::Unusable(text))),
    };
    start_logging(level(cli.quiet, cli.verbose));
    let gate_verbosity = gate_verbosity(&cli);
    end(match cli.command {
        Command::Launch(args) => return shim::main(args.isolation, args.stage, args.probe),
        Command::Keep(_) => return keeper::main(),
        Command::Watchdog(args) => return fence::main(args.seconds, &args.name),
        Command::Check(args) => {
            check_name(&args.name).and_then(|()| check::check(&args.files, &args.name, args.strict))
        }
        Command::Operator(command) => operator::run(command),
        Command::Completions { shell } => generate::completions(&shell),
        Command::Man => generate::man(),
        Command::Run(args) => options(*args, gate_verbosity)
            .map_err(|error| match error {
                CliError::Unusable(text) => CliError::Unusable(file.locate(text)),
                failed @ CliError::Failed(_) => failed,
            })
            .and_then(|options| run::run(options, file)),
    })
}

/// Prints the failure of a command, if it failed. Returns the exit status.
fn end(done: Result<(), CliError>) -> ExitCode {
    let (status, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(CliError::Failed(message)) => (1, message),
        Err(CliError::Unusable(message)) => (2, message),
    };
    report(&message);
    ExitCode::from(status)
}

/// Prints a failure. A manifest has a line for each fault, and each is an error.
fn report(message: &str) {
    let message = withheld::withhold(message);
    let priority = journal::priority(Level::Error).unwrap_or_default();
    let lines: String = message.lines().map(|line| format!("{priority}error: {line}\n")).collect();
    // Even with standard error closed, the exit status reports the failure.
    let _ = io::stderr().lock().write_all(lines.as_bytes());
}

/// The log level; `None` if filters in `RUST_LOG` have it.
fn level(quiet: bool, verbose: u8) -> Option<LevelFilter> {
    match (quiet, verbose) {
        (true, _) => Some(LevelFilter::Error),
        (_, 0) => env::var_os("RUST_LOG").is_none().then_some(LevelFilter::Info),
        (_, 1) => Some(LevelFilter::Debug),
        _ => Some(LevelFilter::Trace),
    }
}

fn start_logging(level: Option<LevelFilter>) {
    let mut logger = env_logger::Builder::new();
    match level {
        None => logger.parse_filters(&env::var("RUST_LOG").unwrap_or_default()),
        // Libraries log warnings at most, whatever level is chosen for the agent. That one can change: it is not a
        // filter, but the bound of all.
        Some(_) => logger
            .filter_level(LevelFilter::Warn)
            .filter_module("fifogate_agent", LevelFilter::Trace),
    };
    // One line for each record, whatever it quotes.
    logger.format(|to, record| {
        let (time, level) = (to.timestamp(), record.level());
        let style = to.default_level_style(level);
        let (text, target) = (log_text::line(record.args()), record.target());
        if let Some(priority) = journal::priority(level) {
            return writeln!(to, "{priority}{target}: {text}");
        }
        writeln!(to, "[{time} {style}{level:<5}{style:#} {target}] {text}")
    });
    let _ = logger.try_init();
    if let Some(level) = level {
        log::set_max_level(level);
    }
}

/// The flag of fifogate for the verbosity of the agent.
fn gate_verbosity(cli: &Cli) -> Option<&'static str> {
    match (cli.quiet, cli.verbose) {
        // Errors alone, as the agent.
        (true, _) => Some("-qq"),
        (_, 0) => None,
        (_, 1) => Some("-v"),
        _ => Some("-vv"),
    }
}

/// Whether an option for fifogate is about its verbosity.
fn is_verbosity(option: &OsString) -> bool {
    let option = option.to_string_lossy();
    let letters = option.strip_prefix('-').unwrap_or_default();
    ["--verbose", "--quiet"].contains(&&*option)
        || !letters.is_empty() && letters.chars().all(|letter| "vq".contains(letter))
}

fn check_name(name: &str) -> Result<(), CliError> {
    let text = "a name is 1 to 63 of a-z, A-Z, 0-9, `_` and `-`";
    let wrong = || CliError::Unusable(format!("--name '{name}': {text}"));
    is_name(name).then_some(()).ok_or_else(wrong)
}

fn options(args: RunArgs, gate_verbosity: Option<&'static str>) -> Result<run::Options, CliError> {
    check_name(&args.name)?;
    let program = env::current_exe()
        .map_err(|error| CliError::Failed(format!("cannot find this program: {error}")))?;
    // clap does not ask for --server beside an option that excludes it.
    if !args.tags.is_empty() && args.server.is_none() {
        let text = "--tag: only an agent of a server has tags of its start; give --server";
        return Err(CliError::Unusable(text.to_owned()));
    }
    let endpoints = args.etcd.into_iter().flat_map(|Endpoints(all)| all).collect();
    let listen = args.commands.check().map_err(CliError::Unusable)?;
    let etcd = cluster(endpoints, args.cluster, &args.name, listen.advertised.clone())?;
    let server = args.server.map(|url| server(url, &args.name, args.tags, &listen)).transpose()?;
    if args.on_exit == Some(OnExit::Keep)
        && etcd.as_ref().is_some_and(|etcd| etcd.takeover_after.is_some())
    {
        return Err(CliError::Unusable(
            "--on-exit keep: with --etcd this takes --takeover-after never, as another machine could run \
             the workloads of this name while they go on here"
                .to_owned(),
        ));
    }
    Ok(run::Options {
        etcd,
        server,
        runtimes: None,
        manifest: args.manifest,
        applies: args.apply,
        state_dir: args.state_dir,
        run_dir: args.run_dir.map_or_else(default_run_dir, Ok)?,
        fifogate: args.fifogate.unwrap_or_else(|| fifogate_beside(&program)),
        program,
        name: args.name,
        grace: Duration::from_secs_f64(args.grace),
        isolation: args.isolation,
        ends_all: args.on_exit == Some(OnExit::End),
        keeps: args.on_exit == Some(OnExit::Keep),
        log_bytes: args.log_bytes,
        listen,
        http: args.http,
        // An option behind `--` takes precedence.
        gate_verbosity: gate_verbosity.filter(|_| !args.gate_options.iter().any(is_verbosity)),
        gate_options: args.gate_options,
    })
}

/// The server to join, by the PEM files of the command interface.
fn server(
    url: String,
    agent: &str,
    tags: Vec<(String, String)>,
    listen: &Listen,
) -> Result<ankaios::Options, CliError> {
    let pems = listen.pems.clone().map(|pems| pems.map(Pem::from));
    if pems.is_none() && !listen.is_insecure {
        return Err(CliError::Unusable(format!(
            "--server {url} needs TLS: give --ca-pem, --crt-pem and --key-pem, or --insecure for a \
             network of friends"
        )));
    }
    let options = ankaios::Options::new(url, agent, tags.into_iter().collect(), pems);
    // The files are read again for each connection; faults at the start are reported at the start.
    options.target.endpoint().map_err(CliError::Unusable)?;
    Ok(options)
}

/// Seconds for the end of a process, if nothing else is said.
const GRACE: f64 = 10.0;

/// Most bytes kept of what one process writes, if nothing else is said.
const LOG_BYTES: u64 = 16 << 20;

/// An agent without a sign of life for this long counts as gone.
const LEASE: Duration = Duration::from_secs(5);

fn cluster(
    endpoints: Vec<String>,
    args: ClusterArgs,
    agent: &str,
    address: Option<String>,
) -> Result<Option<etcd::Options>, CliError> {
    if endpoints.is_empty() {
        return Ok(None);
    }
    let read = |option: &str, path: &PathBuf| {
        fs::read_to_string(path)
            .map_err(|error| CliError::Unusable(format!("--{option} {}: {error}", path.display())))
    };
    // The files are read again for each connection; faults at the start are reported at the start.
    let files =
        [("etcd-ca", &args.etcd_ca), ("etcd-cert", &args.etcd_cert), ("etcd-key", &args.etcd_key)];
    for (option, path) in files {
        path.as_ref().map(|path| read(option, path)).transpose()?;
    }
    let password = args.etcd_password_file.as_ref().map(|path| read("etcd-password-file", path));
    let password = password.transpose()?;
    let password = password.map(|text| text.lines().next().unwrap_or_default().to_owned());
    Ok(Some(etcd::Options {
        endpoints,
        prefix: args.prefix,
        agent: agent.to_owned(),
        ca: args.etcd_ca,
        identity: args.etcd_cert.zip(args.etcd_key),
        user: args.etcd_user.zip(password),
        lease: LEASE,
        takeover_after: args.takeover_after.0,
        place: etcd::Place::default(),
        address,
        needs_state: false,
    }))
}

fn fifogate_beside(program: &Path) -> PathBuf {
    // Programs of one build belong together (docs/operations.md#upgrade).
    let beside = program.with_file_name("fifogate");
    if beside.is_file() { beside } else { "fifogate".into() }
}

pub(crate) fn default_run_dir() -> Result<PathBuf, CliError> {
    if geteuid().is_root() {
        return Ok("/run/fifogate".into());
    }
    match env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) => Ok(PathBuf::from(folder).join("fifogate")),
        None => Err(CliError::Unusable(
            "there is no $XDG_RUNTIME_DIR to keep pairs in: give --run-dir DIR".to_owned(),
        )),
    }
}
