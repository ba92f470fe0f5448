//! The program under the name `ank-agent`: options, environment and configuration file of Ankaios' agent.
//!
//! An option takes precedence over the environment, and the environment over the file. Everything is checked
//! before a server is asked (docs/ankaios-agent.md).

use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{ArgAction, Parser, builder::BoolishValueParser};
use fifogate::internal::state::is_name;
use nix::unistd::geteuid;

use super::{
    CliError, ConfigFile, GRACE, LOG_BYTES, MOST_COMMANDERS, fifogate_beside, usage, values::tag,
};
use crate::{
    command_interface::Listen,
    dial::Pem,
    folders::{Private, Readable},
    http::HttpArgs,
    run,
    store::ankaios,
};

mod file;
mod server;

use file::Config;
use server::{DEFAULT_URL, Server};

/// The name of this program for which it is `ank-agent`.
const PROGRAM: &str = "ank-agent";

/// Read if it is there, and no other file is given.
const DEFAULT_FILE: &str = "/etc/ankaios/ank-agent.conf";

/// Runtimes that the file may list. The last one is fifogate's own.
const RUNTIMES: [&str; 4] = ["podman", "podman-kube", "containerd", "process"];

const EXAMPLES: &str = "\
Exit status:
  0  ended by a signal
  1  failed, or an option, a file or a name cannot be used
  2  wrong usage

Options take precedence over the environment, and the environment over the configuration file. The level of the
log follows from RUST_LOG.";

/// Runs the workloads that an Ankaios server assigns to this node
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version = ankaios::PROTOCOL_VERSION, after_long_help = EXAMPLES)]
struct Options {
    /// Our name in the cluster
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    /// Where the server is; default: https://127.0.0.1:25551
    #[arg(short, long, value_name = "URL")]
    server_url: Option<String>,
    /// An existing folder for pairs and files of workloads; default: `ankaios` in $TMPDIR or /tmp
    #[arg(short, long, value_name = "DIR")]
    run_folder: Option<PathBuf>,
    /// Connects without TLS
    #[arg(short = 'k', long, action = ArgAction::Set, num_args = 0)]
    #[arg(env = "ANKAGENT_INSECURE", hide_env_values = true)]
    #[arg(default_missing_value = "true", value_parser = BoolishValueParser::new())]
    insecure: Option<bool>,
    /// A tag of this agent, as often as there are tags; all replace those of the file
    #[arg(short, long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// PEM file of who may sign the server's certificate
    #[arg(long = "ca_pem", value_name = "FILE", env = "ANKAGENT_CA_PEM", hide_env_values = true)]
    ca_pem: Option<PathBuf>,
    /// PEM file of our certificate, for our name
    #[arg(long = "crt_pem", value_name = "FILE", env = "ANKAGENT_CRT_PEM", hide_env_values = true)]
    crt_pem: Option<PathBuf>,
    /// PEM file of its key, with mode 0600 or 0400
    #[arg(long = "key_pem", value_name = "FILE", env = "ANKAGENT_KEY_PEM", hide_env_values = true)]
    key_pem: Option<PathBuf>,
    /// The configuration file; default: /etc/ankaios/ank-agent.conf if it is there
    #[arg(short = 'x', long, value_name = "FILE")]
    agent_config: Option<PathBuf>,
}

/// What was said about an agent of a server.
#[derive(Debug)]
struct AnkAgent {
    name: String,
    server: ankaios::Options,
    /// `<run folder>/<name>_io`, private to our user.
    run_dir: PathBuf,
    /// The only runtimes to serve; `None` for all.
    runtimes: Option<Vec<String>>,
}

/// Whether these arguments are for `ank-agent`. The agent starts itself for its hidden commands, by the name that
/// it has.
pub(super) fn is_meant(args: &[OsString]) -> bool {
    let program = args.first().and_then(|own| Path::new(own).file_name());
    let is_hidden = |own: &OsString| ["launch", "keep", "watchdog"].iter().any(|name| own == name);
    program == Some(PROGRAM.as_ref()) && !args.get(1).is_some_and(is_hidden)
}

/// Runs `ank-agent`.
pub(super) fn main(args: Vec<OsString>) -> ExitCode {
    match Options::try_parse_from(args) {
        Ok(options) => {
            super::start_logging(super::level(false, 0));
            super::end(options.check().map_err(CliError::Failed).and_then(run))
        }
        Err(answer) => usage::answer(answer),
    }
}

/// Runs the agent.
fn run(agent: AnkAgent) -> Result<(), CliError> {
    let program = env::current_exe()
        .map_err(|error| CliError::Failed(format!("cannot find this program: {error}")))?;
    let options = run::Options {
        manifest: None,
        applies: false,
        name: agent.name,
        etcd: None,
        server: Some(agent.server),
        runtimes: agent.runtimes,
        state_dir: None,
        run_dir: agent.run_dir,
        fifogate: fifogate_beside(&program),
        program,
        grace: Duration::from_secs_f64(GRACE),
        isolation: None,
        ends_all: false,
        keeps: false,
        log_bytes: LOG_BYTES,
        listen: Listen {
            tcp: None,
            advertised: None,
            pems: None,
            is_insecure: false,
            most: MOST_COMMANDERS as usize,
        },
        http: HttpArgs::default(),
        gate_verbosity: None,
        gate_options: Vec::new(),
    };
    run::run(options, ConfigFile::default())
}

impl Options {
    /// Reads the file, and checks everything.
    fn check(self) -> Result<AnkAgent, String> {
        let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists());
        let path = self.agent_config.or_else(default);
        let config = path.as_deref().map_or_else(|| Ok(Config::default()), file::read)?;
        let name = self.name.or(config.name).unwrap_or_default();
        if !is_name(&name) {
            let text = "a name is 1 to 63 of a-z, A-Z, 0-9, `_` and `-`: give one by --name";
            return Err(format!("agent name '{}': {text}", name.escape_debug()));
        }
        let given = [self.ca_pem, self.crt_pem, self.key_pem].map(|path| path.map(Pem::File));
        let mut pems = config.pems;
        for (pem, given) in pems.iter_mut().zip(given) {
            *pem = given.or_else(|| pem.take());
        }
        let url = self.server_url.or(config.server_url);
        let tags = match self.tags {
            none if none.is_empty() => config.tags.unwrap_or_default(),
            given => given.into_iter().collect(),
        };
        let server = Server {
            url: url.unwrap_or_else(|| DEFAULT_URL.to_owned()),
            is_insecure: self.insecure.or(config.insecure).unwrap_or_default(),
            pems,
            tags,
        };
        let server = server.check(&name)?;
        let run_dir = run_dir(self.run_folder.or(config.run_folder), &name)?;
        let agent = AnkAgent { name, server, run_dir, runtimes: config.runtimes };
        agent.log();
        Ok(agent)
    }
}

impl AnkAgent {
    /// Says what is in effect, wherever it was said.
    fn log(&self) {
        let Self { name, server, run_dir, runtimes } = self;
        let tls = if server.target.ca.is_some() { "mutual TLS" } else { "no TLS" };
        let tags: Vec<_> = server.tags.iter().map(|(key, own)| format!("{key}={own}")).collect();
        let tags = if tags.is_empty() { "none".to_owned() } else { tags.join(" ") };
        let served = runtimes.as_ref().map_or_else(|| "all".to_owned(), |all| all.join(" "));
        log::info!(
            "agent {name} of the server at {} with {tls}; tags: {tags}; runtimes: {served}; pairs are in {}",
            server.target.address,
            run_dir.display()
        );
        if runtimes.as_ref().is_some_and(|all| all.iter().any(|own| own == "containerd")) {
            log::warn!("the runtime containerd is not served here: its workloads will not start");
        }
    }
}

/// Makes the run directory of this agent.
fn run_dir(folder: Option<PathBuf>, name: &str) -> Result<PathBuf, String> {
    let folder = match folder {
        Some(folder) => match fs::metadata(&folder) {
            Ok(metadata) if metadata.is_dir() => folder,
            Ok(_) => return Err(format!("run folder {} is no folder", folder.display())),
            Err(error) => return Err(format!("run folder {}: {error}", folder.display())),
        },
        None => {
            let folder = env::temp_dir().join("ankaios");
            share(&folder).map_err(|error| format!("run folder {}: {error}", folder.display()))?;
            folder
        }
    };
    let own = folder.join(format!("{name}_io"));
    // Ankaios' agent leaves it readable by others: nobody could change what is in it.
    let own = Private::open(&own, Readable::Closed);
    own.map(|own| own.path).map_err(|error| format!("cannot make run directory: {error}"))
}

/// Makes a folder for agents of all users. Each may have folders in it, and nobody replaces those of others: so
/// one of ours that was left by Ankaios' agent, and is open to all, gets the sticky bit.
fn share(folder: &Path) -> io::Result<()> {
    const SHARED: u32 = 0o1777;
    match fs::DirBuilder::new().mode(SHARED).create(folder) {
        // The umask may have taken some of it.
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(SHARED)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(folder)?;
            let is_open = found.mode() & 0o1002 == 0o002;
            if found.is_dir() && is_open && found.uid() == geteuid().as_raw() {
                let mode = found.mode() & 0o7777 | 0o1000;
                fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}
