//! The state as a persistent tree, with masks, differences between versions, and updates
//! (docs/protocol.md#state-tree, docs/protocol.md#masks, docs/protocol.md#updates,
//! docs/protocol.md#events).
//!
//! It is pure: it knows no subscribers and no rules, and does no I/O.

pub(crate) mod agent_update;
pub mod convert;
pub(crate) mod diff;
pub(crate) mod instance;
pub(crate) mod key;
mod map;
pub(crate) mod mask;
pub(crate) mod reach;
mod reuse;
pub(crate) mod schema;
pub(crate) mod size;
pub(crate) mod tree;
pub mod update;
pub(crate) mod validate;

pub(crate) use diff::{Altered, Change, ChangeSet};
pub(crate) use instance::{WorkloadChange, follow_workloads};
pub(crate) use mask::{MaskSet, Segment, Selection};
pub(crate) use size::weight_after;
pub(crate) use tree::{AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, WORKLOAD_STATES};

pub use instance::Instance;
pub use key::Key;
pub use map::Map;
pub use mask::Mask;
pub use tree::{Node, Tree};
