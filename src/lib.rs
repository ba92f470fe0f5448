//! fifogate serves the control interface of a node's workloads.
pub mod agent;
pub mod broker;
pub mod cli;
pub mod edge;
mod foreign;
pub mod frame;
pub mod limits;
pub mod manifest;
pub mod message;
mod numbered;
pub mod pb;
mod queue;
pub mod state;
pub mod stats;
