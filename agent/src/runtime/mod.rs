//! Runtimes: start, stop and wait for workload processes.
//!
//! The only runtime is `process`: a child of this agent, in its own namespaces where privileges allow.
//! A [`config::Command`] and a [`LaunchContext`] go in; a running [`Process`] comes out.

mod accounts;
mod capabilities;
pub mod config;
mod exec;
mod mounts;
mod placeholders;
mod process;
pub mod shim;
mod yaml;

use std::path::PathBuf;

use fifogate::pb::ank_base as pb;

pub(crate) use accounts::{Account, account};
pub use mounts::Hidden;
pub use process::{Around, Exit, Launcher, Process, StartError};
pub use shim::Isolation;

/// Name of the only runtime, in the `runtime` field of a workload.
pub const PROCESS: &str = "process";

/// Launch parameters from outside of the `runtimeConfig`.
#[derive(Clone, Debug, Default)]
pub struct LaunchContext {
    /// The `user` of the `runtimeConfig`, looked up.
    pub(crate) account: Option<Account>,
    /// Folder of the pair, if the workload has one.
    pub pair: Option<PathBuf>,
    /// Files to mount.
    pub files: Vec<pb::File>,
    /// The agent's folder for data of this workload.
    pub folder: PathBuf,
}
