//! Every number that bounds what a workload can make this agent do for it: nesting, counts, bytes, and
//! steps.
//!
//! A step is a small piece of work that takes at most some 100 ns in a release build: so the steps of a
//! field are at most some 50 ms, those of a workload 100 ms, and those of an update 200 ms. A thread
//! cannot be ended from outside, so what runs counts its own steps and gives up. A search for the dearest
//! field (`render::search`) checks that no step takes far longer.

pub use fifogate::limits::MAX_NESTING;

/// Most `{{else if}}` and blocks that are open at one place of a template: each takes a piece of stack
/// while it is rendered.
pub const MOST_BRANCHES: usize = 100;

/// Most parameters of one expression of a template, those of its inner expressions not counted.
pub const MOST_PARAMETERS: usize = 64;

/// Most bytes that one rendered field may become, and most of a `runtimeConfig` of the runtime `process`.
pub const MOST_BYTES: usize = 1 << 20;

/// Most values in the YAML of a `runtimeConfig`, those that aliases repeat included.
pub const MOST_VALUES: usize = 1 << 16;

/// Most files, dependencies or config aliases of one workload, each.
pub const MOST_ENTRIES: usize = 1 << 10;

/// Most steps of one field.
pub const FIELD_STEPS: u64 = 500_000;

/// Most steps of one workload with all its fields.
pub const WORKLOAD_STEPS: u64 = 1_000_000;

/// Most steps of one update with all the workloads that it changes.
pub const UPDATE_STEPS: u64 = 2_000_000;

/// Most bytes of the reason why a field cannot be rendered.
pub const MOST_REASON: usize = 2_000;
