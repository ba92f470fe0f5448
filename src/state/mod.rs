//! The state as a persistent tree, with masks, differences between versions, and updates
//! (docs/protocol.md#state-tree, docs/protocol.md#masks, docs/protocol.md#updates,
//! docs/protocol.md#events).
//!
//! It is pure: it knows no subscribers and no rules, and does no I/O.

pub mod agent_update;
pub mod convert;
mod diff;
mod instance;
mod key;
mod map;
mod mask;
mod reuse;
pub mod schema;
mod size;
mod tree;
pub mod update;
pub mod validate;

pub use diff::{Altered, Change, ChangeSet, Changes};
pub use instance::{Instance, WorkloadChange, follow_workloads};
pub use key::{Key, is_addressable};
pub use map::Map;
pub use mask::{Mask, MaskSet, Segment, Selection};
pub use size::weight_after;
pub use tree::{AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, Node, Tree, WORKLOAD_STATES};
