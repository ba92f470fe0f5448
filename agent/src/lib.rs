//! fifogate-agent runs the workloads of a manifest as processes, and serves their control interface
//! by fifogate, to which it speaks through the agent link alone.

pub mod model;
pub mod render;
pub mod store;
