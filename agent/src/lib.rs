//! fifogate-agent: runs the workloads of a manifest as processes. fifogate serves their control
//! interface, and is reached through the agent link alone.
//!
//! One loop, one thread: a [`store`] owns the state and emits every change. The [`main_loop`] sends
//! each change to fifogate ([`link`]) and to the workload tasks ([`supervisor`]), and requests of
//! workloads to the store. [`model`] and [`render`] compute the effect of an update; they are pure.

pub mod apart;
mod check;
pub mod cli;
mod command_interface;
mod dial;
mod entries;
pub mod fence;
pub mod figures;
mod fingerprint;
mod folders;
mod grpc_api;
mod http;
pub mod limits;
pub mod link;
pub mod log_text;
pub mod logs;
pub mod main_loop;
mod manifest_file;
pub mod model;
mod operator;
pub mod pairs;
mod placement;
mod reload;
pub mod render;
mod run;
pub mod runtime;
mod service;
mod signals;
mod status;
pub mod store;
pub mod supervisor;
mod updates;
