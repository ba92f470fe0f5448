//! The fifogate of this agent: a child process, and the link to it (docs/agent-link.md).

use std::{ffi::OsString, path::PathBuf};

use fifogate::link::{AsyncLink, CallError, Messages};
use tokio::process::{Child, Command};

/// Option of `fifogate run`: the time after which the pairs of an earlier one are removed.
const KEEP_OLD_PAIRS: &str = "--keep-old-pairs";

/// Its value for the first fifogate of an agent. No workload is left that could go on with an old pair,
/// but a shell may stand in its folder.
const SECONDS_OF_FIRST: &str = "5";

/// True for the option with its value in the next word, or behind a `=`.
fn is_keep_old_pairs(option: &OsString) -> bool {
    option.as_encoded_bytes().starts_with(KEEP_OLD_PAIRS.as_bytes())
}

/// Start parameters of fifogate.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// Its program.
    pub program: PathBuf,
    /// The run directory, with its pairs.
    pub run_dir: PathBuf,
    /// Name of this agent.
    pub agent_name: String,
    /// Its verbosity, as of the agent; `None` for its default.
    pub verbosity: Option<&'static str>,
    /// Further options of `fifogate run`.
    pub options: Vec<OsString>,
    /// Whether workloads of an earlier agent are left, which go on with their pairs.
    pub keeps_old_pairs: bool,
}

/// A fifogate just started.
#[derive(Debug)]
pub struct GateProcess {
    /// Sends commands to it.
    pub link: AsyncLink,
    /// Its messages.
    pub messages: Messages,
    /// Its process.
    pub child: Child,
}

impl GateProcess {
    /// Starts a fifogate, and exchanges hellos. It ends with its link, so it never outlives this
    /// process. The `first` one soon removes the pairs of agents before: their workloads ended with them.
    ///
    /// # Errors
    /// It cannot be started, or does not send a compatible hello.
    pub async fn start(config: &GateConfig, first: bool) -> Result<Self, CallError> {
        let mut command = Command::new(&config.program);
        command.args(config.verbosity);
        command.args(["run", "--updates", "forward", "--run-dir"]);
        command.arg(&config.run_dir).args(&config.options);
        if first && !config.keeps_old_pairs && !config.options.iter().any(is_keep_old_pairs) {
            command.args([KEEP_OLD_PAIRS, SECONDS_OF_FIRST]);
        }
        // A Ctrl-C in a terminal reaches only the agent this way; it ends fifogate last.
        command.process_group(0).kill_on_drop(true);
        // We are the service, and say when it is ready.
        command.env_remove("NOTIFY_SOCKET");
        let (link, messages, child) = AsyncLink::spawn(&mut command, &config.agent_name).await?;
        Ok(Self { link, messages, child })
    }
}
