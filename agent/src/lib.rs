//! fifogate-agent runs the workloads of a manifest as processes, and serves their control interface
//! by fifogate, to which it speaks through the agent link alone.
//!
//! One loop, one thread: a [`store`] owns the state and tells every change; [`main_loop`] passes each on to
//! fifogate ([`link`]) and to the tasks of the workloads ([`supervisor`]), and takes what workloads ask
//! to the store. What an update makes of the state is decided in [`model`] and [`render`], which are
//! pure.

pub mod apart;
pub mod cli;
pub mod fence;
mod folders;
pub mod limits;
pub mod link;
pub mod log_text;
pub mod logs;
pub mod main_loop;
pub mod model;
pub mod pairs;
pub mod render;
mod run;
pub mod runtime;
mod status;
pub mod store;
pub mod supervisor;
mod updates;
