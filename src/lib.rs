//! fifogate serves the control interface of a node's workloads.
pub mod broker;
pub mod edge;
pub mod frame;
pub mod limits;
pub mod message;
pub mod pb;
pub mod state;
