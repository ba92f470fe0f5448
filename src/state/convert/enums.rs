//! How the values of enums are spelled in the tree (docs/protocol.md#fields).

use super::{ConvertError, Entries, pb};
use crate::state::Node;

/// The enums that are plain fields.
#[derive(Clone, Copy)]
pub(super) enum Enum {
    RestartPolicy,
    AddCondition,
    ReadWrite,
}

impl Enum {
    const fn names(self) -> &'static [(i32, &'static str)] {
        match self {
            Self::RestartPolicy => &[(0, "NEVER"), (1, "ON_FAILURE"), (2, "ALWAYS")],
            Self::AddCondition => {
                &[(0, "ADD_COND_RUNNING"), (1, "ADD_COND_SUCCEEDED"), (2, "ADD_COND_FAILED")]
            }
            Self::ReadWrite => &[(0, "Nothing"), (1, "Read"), (2, "Write"), (5, "ReadWrite")],
        }
    }

    /// From a number of this enum to the tree.
    pub(super) fn reader(self) -> impl Fn(i32) -> Result<Node, ConvertError> {
        move |number| {
            let found = self.names().iter().find(|(own, _)| *own == number);
            found.map(|(_, name)| Node::text(name)).ok_or(ConvertError::UnknownEnum(number))
        }
    }

    /// The number of a spelling; 0 for one that the enum does not have.
    pub(super) fn number(self, node: &Node) -> i32 {
        let found = self.names().iter().find(|(_, name)| node.as_str() == Some(name));
        found.map_or(0, |(number, _)| *number)
    }
}

/// One member of the execution state's oneof: `state`, and its numbers with their `subState`.
struct Kind {
    state: &'static str,
    make: fn(i32) -> State,
    sub_states: &'static [(i32, &'static str)],
}

use pb::execution_state::ExecutionStateEnum as State;

const KINDS: [Kind; 8] = [
    Kind {
        state: "AgentDisconnected",
        make: State::AgentDisconnected,
        sub_states: &[(0, "AgentDisconnected")],
    },
    Kind {
        state: "Pending",
        make: State::Pending,
        sub_states: &[
            (0, "Initial"),
            (1, "WaitingToStart"),
            (2, "Starting"),
            (8, "StartingFailed"),
        ],
    },
    Kind { state: "Running", make: State::Running, sub_states: &[(0, "Ok")] },
    Kind {
        state: "Stopping",
        make: State::Stopping,
        sub_states: &[
            (0, "Stopping"),
            (1, "WaitingToStop"),
            (2, "RequestedAtRuntime"),
            (8, "DeleteFailed"),
        ],
    },
    Kind { state: "Succeeded", make: State::Succeeded, sub_states: &[(0, "Ok")] },
    Kind {
        state: "Failed",
        make: State::Failed,
        sub_states: &[(0, "ExecFailed"), (1, "Unknown"), (2, "Lost")],
    },
    Kind { state: "NotScheduled", make: State::NotScheduled, sub_states: &[(0, "NotScheduled")] },
    Kind { state: "Removed", make: State::Removed, sub_states: &[(0, "Removed")] },
];

/// The node of one execution state.
///
/// # Errors
/// A number that an enum does not have.
pub fn execution_state_from_pb(value: &pb::ExecutionState) -> Result<Node, ConvertError> {
    let mut entries = Entries::default();
    entries.put("additionalInfo", value.additional_info.as_deref().map(Node::text));
    if let Some(state) = &value.execution_state_enum {
        let (kind, number) = place(state);
        let kind = &KINDS[kind];
        let sub_state = kind.sub_states.iter().find(|(own, _)| *own == number);
        let (_, sub_state) = sub_state.ok_or(ConvertError::UnknownEnum(number))?;
        entries.put("state", Some(Node::text(kind.state)));
        entries.put("subState", Some(Node::text(sub_state)));
    }
    Ok(entries.node())
}

/// The message of an execution state.
#[must_use]
pub fn execution_state_to_pb(node: &Node) -> pb::ExecutionState {
    pb::ExecutionState {
        additional_info: node.str_at("additionalInfo").map(str::to_owned),
        execution_state_enum: spelled(node).map(|(kind, number)| (KINDS[kind].make)(number)),
    }
}

/// The field that the oneof of this state has, and the number in it; nothing if there is no such.
pub(super) fn execution_state_numbers(node: &Node) -> Option<(u32, u64)> {
    /// Number of the first field of the oneof; the others follow in order.
    const FIRST: u32 = 2;
    let (kind, number) = spelled(node)?;
    Some((FIRST + u32::try_from(kind).ok()?, u64::try_from(number).ok()?))
}

/// The row of [`KINDS`] and the number in it that a node spells.
fn spelled(node: &Node) -> Option<(usize, i32)> {
    let state = node.str_at("state")?;
    let kind = KINDS.iter().position(|kind| kind.state == state)?;
    let sub_state = node.str_at("subState")?;
    let (number, _) = KINDS[kind].sub_states.iter().find(|(_, name)| *name == sub_state)?;
    Some((kind, *number))
}

/// The row of [`KINDS`] and the number in it.
fn place(state: &State) -> (usize, i32) {
    match *state {
        State::AgentDisconnected(number) => (0, number),
        State::Pending(number) => (1, number),
        State::Running(number) => (2, number),
        State::Stopping(number) => (3, number),
        State::Succeeded(number) => (4, number),
        State::Failed(number) => (5, number),
        State::NotScheduled(number) => (6, number),
        State::Removed(number) => (7, number),
    }
}
