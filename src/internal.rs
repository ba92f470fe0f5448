//! Parts for fifogate's own crates: its reference agent, tests, fuzz targets and benches.
//!
//! Nothing here is promised to users: any of it may change or vanish in any version. An item is here only
//! because a crate of this repository names it.

pub use crate::{
    // The reference agent applies updates itself, and checks the same rules before.
    broker::access::Rules,
    // Entries of the fuzz targets, and of tests over their seeds.
    broker::fuzz::fuzz_requests,
    // The simulation compares the figures of every workload with its model.
    broker::report::{SubscriptionReport, WorkloadReport},
    broker::session::Session,
    // The vectors of the protocol have a list of versions.
    broker::session::check_version,
    frame::fuzz::fuzz_frames,
    // All doors word this error alike, those of the reference agent too.
    limits::values::too_deep,
    // The tests of nesting look into decoded messages.
    message::agent::Command,
    message::request::{NewState, RequestKind},
    // The reference agent is a service, too.
    systemd::{notify, watchdog_pause},
};

/// The entry of the fuzz target `encode`.
#[cfg(feature = "cli")]
pub use crate::cli::frames::fuzz::fuzz_encode;

/// Metrics as text: the reference agent adds its own to those of the component.
pub mod metrics {
    pub use crate::metrics::{Metrics, of_status};
}

/// Parts of the reader of manifests: the reference agent checks what the component does not know.
#[cfg(feature = "manifest")]
pub mod manifest {
    pub use crate::{
        advice::{Advice, advise},
        manifest::places::{faults_at, read_text},
    };
}

/// The loader of YAML: the reference agent reads a `runtimeConfig` by it.
#[cfg(feature = "manifest")]
pub mod yaml {
    pub use crate::manifest::yaml::{
        Bounds, Data, Scalar, ScalarKind, Yaml, YamlFault, load, readable,
    };
}

/// Lines for the journal of systemd: the reference agent logs to it, too.
pub mod journal {
    pub use crate::journal::priority;
}

/// Manual pages: the reference agent has one, too.
#[cfg(feature = "man")]
pub use crate::man::page as man_page;

/// States as text: the reference agent prints them for operators.
#[cfg(feature = "printed")]
pub mod printed {
    pub use crate::printed::{change, json_line, state, yaml};
}

/// Masks typed by hand: those of the reference agent's commands are checked alike.
#[cfg(feature = "printed")]
pub mod masks {
    pub use crate::state::reach::{overlap, unknown_parts, why_nothing, without_match};
}

/// The tree as the reference agent works on it: names of parts, differences, entries of instances.
pub mod state {
    pub use crate::state::{
        diff::ChangeSet,
        instance::{WorkloadChange, follow_workloads},
        key::is_addressable,
        mask::{MaskSet, Selection},
        reach::begins_with_a_mistake,
        size::weight_after,
        tree::{AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, WORKLOAD_STATES},
        update::draft::propose,
        validate::is_name,
    };
}

/// Updates by an agent, which may touch every part: the reference agent keeps its own state by them.
pub mod agent_update {
    pub use crate::state::agent_update::{
        AgentUpdateError, replace, set_items, set_states, update,
    };
}

/// Parts of a state to protobuf and back: the reference agent stores and forwards them one by one.
pub mod parts {
    pub use crate::state::convert::parts::{
        access_from_pb, agent_from_pb, agent_to_pb, check_nesting, config_from_pb, config_to_pb,
        execution_state_from_pb, execution_state_to_pb, workload_from_pb, workload_to_pb,
    };
}
