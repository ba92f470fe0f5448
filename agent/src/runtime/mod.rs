//! How a workload is run. The one runtime is `process`: a child of this agent, in namespaces of its
//! own where privileges allow.

mod capabilities;
pub mod config;
mod exec;
mod mounts;
mod process;
pub mod shim;
mod yaml;

use std::path::PathBuf;

use fifogate::pb::ank_base as pb;

pub use mounts::Hidden;
pub(crate) use process::account;
pub use process::{Around, Exit, Launcher, Process, StartError};
pub use shim::Isolation;

/// The runtime's name in a workload.
pub const PROCESS: &str = "process";

/// What a process is to find beside what its `runtimeConfig` says.
#[derive(Clone, Debug, Default)]
pub struct LaunchContext {
    /// The folder of its pair, if it has one.
    pub pair: Option<PathBuf>,
    /// Its files.
    pub files: Vec<pb::File>,
    /// A folder of its own for what this agent keeps for it.
    pub folder: PathBuf,
}
