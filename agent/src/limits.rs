//! Limits on the work that one workload can cause in this agent: nesting, counts, bytes and steps.
//!
//! A step is a small piece of work of at most some 100 ns in a release build. The limits therefore allow
//! some 50 ms for a field, 100 ms for a workload and 200 ms for an update. Nothing can end a thread from
//! outside, so the renderer counts its own steps and gives up at the limit. `render::search`, a search
//! for the most expensive field, checks that no step takes far longer.

pub use fifogate::limits::MAX_NESTING;

/// Most `{{else if}}` and blocks open at one place of a template: each needs stack while it is rendered.
pub const MOST_BRANCHES: usize = 100;

/// Most parameters of one expression of a template, not counting those of its inner expressions.
pub const MOST_PARAMETERS: usize = 64;

/// Most bytes of one rendered field, and of a `runtimeConfig` of the runtime `process`.
pub const MOST_BYTES: usize = 1 << 20;

/// Most values in the YAML of a `runtimeConfig`, counting the values repeated by aliases.
pub const MOST_VALUES: usize = 1 << 16;

/// Most files, dependencies or config aliases of one workload, each.
pub const MOST_ENTRIES: usize = 1 << 10;

/// Most steps of one field.
pub const FIELD_STEPS: u64 = 500_000;

/// Most steps of one workload over all its fields.
pub const WORKLOAD_STEPS: u64 = 1_000_000;

/// Most steps of one update over all workloads changed by it.
pub const UPDATE_STEPS: u64 = 2_000_000;

/// Most bytes of the reason for a failed rendering.
pub const MOST_REASON: usize = 2_000;
