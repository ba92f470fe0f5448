//! The generated protobuf types of `proto/`; never edited, and at home only on the way in and out.

// Generated code keeps none of these rules of the repository.
#![allow(missing_docs, unreachable_pub, clippy::large_enum_variant, clippy::pedantic)]

/// Requests, responses and the state (`proto/ank_base.proto`).
pub mod ank_base {
    include!(concat!(env!("OUT_DIR"), "/ank_base.rs"));
}

/// What travels through a pair of FIFOs (`proto/control_api.proto`).
pub mod control_api {
    include!(concat!(env!("OUT_DIR"), "/control_api.rs"));
}

/// What travels between the agent and fifogate (`proto/agent_link.proto`).
pub mod agent_link {
    include!(concat!(env!("OUT_DIR"), "/agent_link.rs"));
}

/// The descriptors of all three files, for tools that translate by name.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
