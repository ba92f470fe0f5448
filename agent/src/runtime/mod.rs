//! Runtimes: they start workloads, report how each of them fares, and end them.
//!
//! A [`Runtime`] gets an [`Order`] and returns a [`Started`] workload, whose [`Unit`] reports its states
//! until its end. `process` starts children of this agent or of keepers, `podman` containers. Keepers and
//! containers outlive the agent.

mod accounts;
mod capabilities;
pub mod config;
mod exec;
mod files;
mod inherited;
mod mounts;
mod placeholders;
mod podman;
mod process;
pub mod shim;
mod yaml;

use std::{collections::BTreeMap, fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc};

use fifogate::{
    pb::ank_base::{self as pb, ExecutionState},
    state::Instance,
};
use tokio::{
    process::{ChildStderr, ChildStdout},
    time::Duration,
};

use crate::{
    logs::{KeptLog, Log},
    model::states,
    pairs::Pairs,
};

pub use inherited::Inherited;
pub use mounts::Hidden;
pub use podman::runtimes as podman_runtimes;
pub(crate) use process::keeper;
pub use process::{Around, Launcher};
pub use shim::Isolation;

/// Name of the runtime of processes, in the `runtime` field of a workload.
pub const PROCESS: &str = "process";

/// The result of a runtime, later. Boxed, as workloads choose their runtime by its name.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs the workloads of one `runtime`.
pub trait Runtime: fmt::Debug + Send + Sync {
    /// Starts a workload. One that runs already, left by an earlier agent, is taken over as it is.
    ///
    /// # Errors
    /// The workload was not started, and nothing of it is left.
    fn start(self: Arc<Self>, order: Order) -> Later<'static, Result<Started, StartError>>;

    /// Whether the runtime itself keeps what workloads write.
    fn keeps_logs(&self) -> bool;

    /// Whether its workloads go on when this agent ends.
    fn outlives_agent(&self) -> bool;

    /// Whether a start has to come to its end, as a start given up half way would leave something
    /// behind that [`Runtime::remove`] does not know.
    fn finishes_starts(&self) -> bool;

    /// The pause before this retry of a failed start, from 1; `None` to give the workload up.
    fn pause_before(&self, retry: u32) -> Option<Duration>;

    /// Instances left by an earlier agent, as they were found at the start of this one; and whether
    /// each of them runs.
    fn left(&self) -> Vec<(Instance, bool)>;

    /// Whether workloads of an earlier agent may go on with their pairs, also unknown ones.
    fn may_have_left(&self) -> bool {
        !self.left().is_empty()
    }

    /// Begins to end all workloads that this agent knows, and returns at once: the agent ends now, and
    /// another one has its name.
    fn abandon_all(&self);

    /// Ends and removes all that is there of an instance.
    ///
    /// # Errors
    /// Something may be left, for this reason.
    fn remove<'a>(&'a self, instance: &'a Instance) -> Later<'a, Result<(), String>>;
}

/// A workload that was started.
pub trait Unit: fmt::Debug + Send + Sync {
    /// Waits for its next state, or its end. If this is cancelled, a later call returns the same.
    fn change(&mut self) -> Later<'_, Change>;

    /// Whether it had ended already when it was taken over from an earlier agent.
    fn has_ended(&self) -> bool {
        false
    }

    /// Ends and removes it; `grace` is the time of a process to end by itself. Returns its end in words.
    ///
    /// # Errors
    /// It may go on, for this reason; [`Runtime::remove`] tries again.
    fn stop(self: Box<Self>, grace: Duration) -> Later<'static, Result<String, String>>;
}

/// What became of a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It goes on, in this state.
    State(ExecutionState),
    /// It has ended.
    Ended(Ended),
}

/// The end of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with status 0.
    Succeeded,
    /// It failed, in words.
    Failed(String),
    /// Its end is unknown.
    Lost {
        /// What is known, in words.
        how: String,
        /// Whether the restart policy counts it as a failure.
        counts_as_failure: bool,
    },
}

impl Ended {
    /// An end that nobody has seen, and no failure.
    pub fn lost(how: &str) -> Self {
        Self::Lost { how: how.to_owned(), counts_as_failure: false }
    }

    /// The end of a container with this status, in the words of Ankaios.
    fn with_code(code: i64) -> Self {
        match code {
            0 => Self::Succeeded,
            _ => Self::Failed(format!("Exit code: '{code}'")),
        }
    }

    /// The execution state of a workload that has ended so.
    pub fn state(&self) -> ExecutionState {
        match self {
            Self::Succeeded => states::succeeded(),
            Self::Failed(how) => states::failed(how),
            Self::Lost { how, .. } => states::lost(how),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("exit status 0"),
            Self::Failed(how) | Self::Lost { how, .. } => f.write_str(how),
        }
    }
}

/// A started workload, and where its output is.
#[derive(Debug)]
pub struct Started {
    /// The workload.
    pub unit: Box<dyn Unit>,
    /// Its output.
    pub output: Output,
    /// It ran already, left by an earlier agent.
    pub taken_over: bool,
}

/// Where the output of a workload is.
#[derive(Debug)]
pub enum Output {
    /// It comes through these pipes.
    Pipes(ChildStdout, ChildStderr),
    /// Somebody writes it into the log of the order.
    InLog,
    /// The runtime keeps it.
    Kept(Arc<dyn KeptLog>),
}

/// The start of a workload.
#[derive(Clone, Debug)]
pub struct Order {
    /// The instance to start.
    pub instance: Instance,
    /// Its workload, rendered.
    pub workload: pb::Workload,
    /// The agent's folder for data of this instance.
    pub folder: PathBuf,
    /// All open pairs.
    pub pairs: Pairs,
    /// The log for its output; `None` if the runtime keeps it, or it is lost.
    pub log: Option<Log>,
}

impl Order {
    /// The rendered `runtimeConfig`.
    fn config(&self) -> &str {
        self.workload.runtime_config()
    }

    /// The files to show to it.
    fn files(&self) -> &[pb::File] {
        files_of(&self.workload)
    }

    fn has_pair(&self) -> bool {
        has_pair(&self.workload)
    }

    /// Opens the pair if the workload has rights, and returns its folder; else closes a pair that the
    /// same instance had before. A process finds its pair at once
    /// (docs/agent-link.md#write-an-agent), so this comes before its start.
    async fn open_pair(&self, owner: Option<(u32, u32)>) -> Result<Option<PathBuf>, StartError> {
        if !self.has_pair() {
            self.pairs.close(&self.instance).await;
            return Ok(None);
        }
        let access = self.workload.control_interface_access.clone().unwrap_or_default();
        let folder = self.pairs.open(&self.instance, access, owner).await;
        folder.map(Some).map_err(|error| StartError::Failed(error.to_string()))
    }
}

/// Reason of a failed start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Another try may succeed.
    Failed(String),
    /// A field of the workload is wrong; only a change of it helps.
    Wrong(String),
}

/// The runtimes of this agent, by the names in the `runtime` field of workloads.
#[derive(Clone, Debug, Default)]
pub struct Runtimes(BTreeMap<&'static str, Arc<dyn Runtime>>);

impl Runtimes {
    /// Adds a runtime.
    pub fn add(&mut self, name: &'static str, runtime: Arc<dyn Runtime>) {
        self.0.insert(name, runtime);
    }

    /// The runtime of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Runtime>, StartError> {
        self.0.get(name).ok_or_else(|| StartError::Wrong(unknown(name, self.0.keys().copied())))
    }

    /// Whether workloads of an earlier agent may go on with their pairs.
    #[must_use]
    pub fn may_have_left(&self) -> bool {
        self.0.values().any(|runtime| runtime.may_have_left())
    }

    /// Begins to end all workloads, and returns at once.
    pub fn abandon_all(&self) {
        self.0.values().for_each(|runtime| runtime.abandon_all());
    }

    /// All instances left by an earlier agent, with their runtimes.
    pub fn left(&self) -> Vec<Left> {
        let left = |(name, runtime): (&&'static str, &Arc<dyn Runtime>)| {
            let (name, all) = (*name, runtime.left());
            all.into_iter().map(move |(instance, runs)| Left { runtime: name, instance, runs })
        };
        self.0.iter().flat_map(left).collect()
    }
}

/// An instance that an earlier agent has left.
#[derive(Clone, Debug)]
pub struct Left {
    /// Its runtime.
    pub runtime: &'static str,
    /// The instance.
    pub instance: Instance,
    /// Whether it was running.
    pub runs: bool,
}

/// A fault of a workload that no start gets over: the path of the field in the workload, and the text.
pub(crate) type FieldFault = (Vec<String>, String);

/// The check of the `runtimeConfig` and the files of a workload.
type Check = fn(&pb::Workload) -> Vec<FieldFault>;

/// All runtimes, with the check of their workloads.
const ALL: [(&str, Check); 3] = [
    (podman::PODMAN, |own| podman::faults(own.runtime_config(), files_of(own))),
    (podman::PODMAN_KUBE, podman::kube_faults),
    (PROCESS, |own| process::faults(own.runtime_config(), files_of(own))),
];

/// The files to show to a workload.
fn files_of(workload: &pb::Workload) -> &[pb::File] {
    workload.files.as_ref().map_or(&[], |files| &files.files)
}

/// Whether a workload has allow rules, and so a pair; deny rules alone make none.
fn has_pair(workload: &pb::Workload) -> bool {
    let access = workload.control_interface_access.as_ref();
    access.is_some_and(|access| !access.allow_rules.is_empty())
}

/// The faults of a workload that no start gets over, as a start would find them.
///
/// # Errors
/// There is no such runtime.
pub(crate) fn faults(workload: &pb::Workload) -> Result<Vec<FieldFault>, String> {
    let name = workload.runtime();
    let found = ALL.iter().find(|(own, _)| *own == name);
    let (_, check) = found.ok_or_else(|| unknown(name, ALL.iter().map(|(own, _)| *own)))?;
    Ok(check(workload))
}

/// The fault of a workload of another runtime than these.
fn unknown<'n>(runtime: &str, known: impl Iterator<Item = &'n str>) -> String {
    let all: Vec<_> = known.map(|name| format!("'{name}'")).collect();
    let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    format!("unknown runtime '{runtime}'; this agent has {all}")
}

/// The faults of a `runtimeConfig` and of files, by checks of each.
fn field_faults(
    config: Result<(), yaml::Fault>,
    files: &[pb::File],
    check_file: impl Fn(&pb::File) -> Result<(), String>,
) -> Vec<FieldFault> {
    let of_config = config
        .err()
        .map(|fault| (vec!["runtimeConfig".to_owned()], format!("runtimeConfig, {fault}")));
    let place = |number: usize| vec!["files".to_owned(), number.to_string()];
    let of_files = files.iter().enumerate().filter_map(|(number, file)| {
        let fault = check_file(file).err()?;
        Some((place(number), fault))
    });
    let overlaps = files::overlaps(files).into_iter();
    let overlaps = overlaps.map(|(number, fault)| (place(number), fault));
    of_config.into_iter().chain(of_files).chain(overlaps).collect()
}
