//! fifogate serves the control interface of a node's workloads.
pub mod frame;
pub mod pb;
pub mod state;
