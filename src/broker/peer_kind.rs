//! Kinds of peers: everything in which the agent is treated differently from a workload.
//!
//! The agent is one more peer, with all rights and a larger budget (docs/agent-link.md#back-pressure).

use std::sync::Arc;

use crate::{
    limits::Limits,
    message::{ResponseBody, ToAgent, ToWorkload},
};

use super::{
    Config, PeerId,
    outbox::{Budget, Outgoing},
};

/// Most messages to the agent handed out at a time: the link is a stream, and takes any number of
/// messages in pieces of any size.
pub(super) const LINK_WINDOW: usize = 64;

/// Most messages to a commander handed out at a time: so many may wait in the agent.
const COMMANDER_WINDOW: usize = 4;

/// A workload, a commander, or the agent at the other end of the agent link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerKind {
    Workload,
    /// As a workload, but its messages travel over the agent link.
    Commander,
    Agent,
}

impl PeerId {
    /// The first number of a commander. Workloads count from 0, and never get so far.
    pub(super) const FIRST_COMMANDER: u64 = 1 << 63;

    pub(super) fn kind(self) -> PeerKind {
        match self {
            Self::AGENT => PeerKind::Agent,
            Self(number) if number >= Self::FIRST_COMMANDER => PeerKind::Commander,
            Self(_) => PeerKind::Workload,
        }
    }

    pub(super) fn is_agent(self) -> bool {
        self.kind() == PeerKind::Agent
    }
}

impl PeerKind {
    /// Most messages handed out and not yet written.
    pub(super) fn window(self, config: &Config) -> usize {
        match self {
            Self::Workload => config.window,
            Self::Commander => COMMANDER_WINDOW,
            Self::Agent => LINK_WINDOW,
        }
    }

    /// Most bytes of all large bodies, when one more is made for this peer. The agent is never refused.
    pub(super) fn most_large(self, of_workloads: usize) -> usize {
        match self {
            Self::Workload | Self::Commander => of_workloads,
            Self::Agent => usize::MAX,
        }
    }

    /// Size of the state above which no update of this peer may enlarge it.
    pub(super) fn most_state_bytes(self, limits: &Limits) -> usize {
        match self {
            Self::Workload | Self::Commander => limits.max_state_bytes,
            // No bound for the agent (docs/agent-link.md#messages-to-fifogate).
            Self::Agent => usize::MAX,
        }
    }

    /// Most malformed messages in a session.
    pub(super) fn most_malformed(self, limits: &Limits) -> usize {
        match self {
            Self::Workload | Self::Commander => limits.max_malformed,
            Self::Agent => usize::MAX,
        }
    }

    /// The budget of an outbox, where the memory budget of all workloads has `left` bytes for it.
    pub(super) fn budget(self, limits: &Limits, left: usize) -> Budget {
        match self {
            Self::Workload | Self::Commander => {
                Budget { bytes: limits.outbox_bytes.min(left), messages: limits.outbox_messages }
            }
            Self::Agent => Budget { bytes: limits.link_bytes, messages: usize::MAX },
        }
    }

    /// True if a subscriber gets no event before it has read its first answer, and for a grace time after
    /// it: the SDKs register for events only then. The agent's client handles events from its request on.
    pub(super) fn has_grace(self, config: &Config) -> bool {
        self != Self::Agent && config.subscribe_grace_ms > 0
    }

    /// A response in the message type of its receiver.
    pub(super) fn response(self, request_id: Arc<str>, body: ResponseBody) -> Outgoing {
        match self {
            Self::Workload | Self::Commander => {
                Outgoing::Workload(ToWorkload::Response { request_id, body })
            }
            Self::Agent => Outgoing::Agent(ToAgent::Response { request_id, body }),
        }
    }
}
