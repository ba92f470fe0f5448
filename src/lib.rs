//! fifogate serves the control interface of a node's workloads.
pub mod agent;
pub mod broker;
pub mod cli;
mod foreign;
pub mod frame;
mod id_map;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod pb;
pub mod server;
mod small_deque;
pub mod state;
pub mod status;
