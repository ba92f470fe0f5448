//! The generated messages of `proto/grpc_api.proto`, and clients of its services.
//!
//! The services that this agent serves are in [`crate::command_interface`].
#![allow(missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::pedantic, clippy::large_enum_variant, clippy::unwrap_used)]

include!(concat!(env!("OUT_DIR"), "/grpc_api.rs"));
include!(concat!(env!("OUT_DIR"), "/client/grpc_api.CommandConnection.rs"));
include!(concat!(env!("OUT_DIR"), "/client/grpc_api.AgentConnection.rs"));
