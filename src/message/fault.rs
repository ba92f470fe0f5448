//! Faults of messages. The sender of the message made each of them: a workload, or the author of an agent.

use std::{error::Error, fmt};

use super::agent::MAX_ID;
use crate::{
    limits::too_deep,
    state::{
        Instance,
        convert::ConvertError,
        reach::NamesNothing,
        validate::{NameFault, RuleFault},
    },
};

/// A body that is no message of the protocol. Its sender is a broken program, or speaks another protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub(super) prost::DecodeError);

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        // The nesting bound of the decoder is above the bound of fifogate, and a sender has to keep
        // to the latter.
        if text.ends_with("recursion limit reached") {
            return f.write_str(&too_deep("a value in it"));
        }
        f.write_str(&text)
    }
}

// The decoder's error is no source: its text is the text of this error.
impl Error for Undecodable {}

/// Fault of a command that decodes. The author of the agent made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandFault {
    /// A field that has to be there.
    Missing(&'static str),
    WorkloadName(String, NameFault),
    AgentName(String),
    Id(String),
    /// The field of a state, and the fault of the state.
    State(&'static str, ConvertError),
    Access(ConvertError),
    AccessRule(RuleFault),
    /// A mask of a rule about nothing.
    RuleMask(NamesNothing),
    /// An execution state without a value.
    NoExecutionState(Instance),
    ExecutionState(Instance, ConvertError),
    NoContent,
    /// A response of a kind that fifogate itself gives.
    WrongKind,
}

impl fmt::Display for CommandFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(field) => write!(f, "{field} is missing"),
            Self::WorkloadName(name, why) => {
                write!(f, "unsupported workloadName '{}': {why}", name.escape_debug())
            }
            Self::AgentName(name) => {
                let name = name.escape_debug();
                write!(f, "unsupported agentName '{name}': at most 63 of [a-zA-Z0-9_-]")
            }
            Self::Id(id) => {
                let id = id.escape_debug();
                write!(f, "unsupported id '{id}': 1 to {MAX_ID} of [a-zA-Z0-9_-]")
            }
            Self::State(field, error) => write!(f, "{field} does not convert: {error}"),
            Self::Access(error) => error.fmt(f),
            Self::AccessRule(fault) => fault.fmt(f),
            Self::RuleMask(why) => why.fmt(f),
            Self::NoExecutionState(instance) => {
                write!(f, "executionState of {instance} says nothing")
            }
            Self::ExecutionState(instance, error) => {
                write!(f, "executionState of {instance}: {error}")
            }
            Self::NoContent => f.write_str("the response has no content"),
            Self::WrongKind => f.write_str("this kind of response answers no forwarded request"),
        }
    }
}

impl Error for CommandFault {}
