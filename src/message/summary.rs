//! Messages in a few words, for the log: kind, masks, names and ids, but no value of the state. Values may
//! be secrets, and the log has other readers than the state.

use std::fmt;

use prost::Message;

use crate::{
    foreign::Shortened,
    pb::ank_base::{Response, response::ResponseContent},
    state::{Instance, Mask},
};

use super::{
    Command, FromAgent, FromWorkload, Request, RequestKind, ResponseBody, ToAgent, ToWorkload,
};

/// Characters shown of all masks or names of a message.
const LIST: usize = 400;
/// Characters shown of an id or another text.
const TEXT: usize = 64;

fn short(text: &str) -> Shortened<'_> {
    Shortened(text, TEXT)
}

/// The masks of a message; none are everything.
fn masks(masks: &[Mask]) -> String {
    match masks {
        [] => "everything".to_owned(),
        _ => joined(masks.iter().map(Mask::text)),
    }
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut all = String::new();
    for text in texts {
        if all.len() > LIST {
            break;
        }
        if !all.is_empty() {
            all += ", ";
        }
        all += &Shortened(text, LIST).to_string();
    }
    Shortened(&all, LIST).to_string()
}

impl fmt::Display for FromWorkload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { version } => write!(f, "Hello, version {}", short(version)),
            Self::Request(request) => request.fmt(f),
            Self::Sealed(update) => {
                write!(f, "update of {}, id {}", masks(&update.masks), short(&update.id))
            }
            Self::Empty => f.write_str("an empty message"),
            Self::Undecodable { reason, .. } => {
                write!(f, "an undecodable message: {}", short(reason))
            }
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = short(&self.id);
        match &self.ask {
            RequestKind::State { masks: own, subscribe } => {
                let kind = if *subscribe { "subscription" } else { "read" };
                write!(f, "{kind} of {}, id {id}", masks(own.masks()))
            }
            RequestKind::Update { masks: own, .. } => {
                write!(f, "update of {}, id {id}", masks(own))
            }
            RequestKind::Logs(instances) => {
                let names = joined(instances.iter().map(|own: &Instance| own.workload.as_str()));
                write!(f, "log request of {names}, id {id}")
            }
            RequestKind::CancelLogs => write!(f, "cancel of logs, id {id}"),
            RequestKind::CancelEvents => write!(f, "cancel of events, id {id}"),
            RequestKind::Nothing => write!(f, "request of an unknown kind, id {id}"),
            RequestKind::OverLimit(_) => write!(f, "request over a limit, id {id}"),
        }
    }
}

impl fmt::Display for ToWorkload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("ControlInterfaceAccepted"),
            Self::Closed { reason } => write!(f, "ConnectionClosed: {}", short(reason)),
            Self::Response { request_id, body } => {
                write!(f, "{}, id {}, {} bytes", body.kind(), short(request_id), body.len())
            }
        }
    }
}

impl fmt::Display for FromAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            Command::Hello { agent_name, .. } => write!(f, "AgentHello of {}", short(agent_name)),
            Command::AddWorkload { instance, .. } => write!(f, "AddWorkload of {instance}"),
            Command::RemoveWorkload(instance) => write!(f, "RemoveWorkload of {instance}"),
            Command::ReplaceState(_) => f.write_str("ReplaceState"),
            Command::UpdateState { masks: own, .. } => write!(f, "UpdateState of {}", masks(own)),
            Command::UpdateWorkloadStates(states) => {
                write!(f, "UpdateWorkloadStates of {} instances", states.len())
            }
            Command::Request(request) => request.fmt(f),
            Command::Response { instance, request_id, bodies, .. } => {
                let kind = bodies.first().map_or("nothing", ResponseBody::kind);
                write!(f, "{kind} for {instance}, id {}", short(request_id))
            }
            Command::AddCommander { instance, .. } => write!(f, "AddCommander of {instance}"),
            Command::RemoveCommander(instance) => write!(f, "RemoveCommander of {instance}"),
            Command::FromCommander(instance, message) => write!(f, "{message} of {instance}"),
            Command::CommanderTook(instance, number) => {
                write!(f, "CommanderTook of {instance}, message {number}")
            }
            Command::Trouble(_) => f.write_str("AgentTrouble"),
            Command::Shutdown => f.write_str("Shutdown"),
            Command::Refused(rejected) => {
                write!(f, "an invalid command: {}", Shortened(&rejected.reason, LIST))
            }
        }?;
        write!(f, ", command {}", self.id)
    }
}

impl fmt::Display for ToAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { .. } => f.write_str("GateHello"),
            Self::Ack(id) => write!(f, "Ack of command {id}"),
            Self::Rejected(id, rejected) => {
                write!(f, "Rejected of command {id}: {}", Shortened(&rejected.reason, LIST))
            }
            Self::WorkloadReady(instance, _) => write!(f, "WorkloadReady of {instance}"),
            Self::WorkloadRemoved(instance) => write!(f, "WorkloadRemoved of {instance}"),
            Self::Request(instance, request) => {
                write!(f, "ForwardedRequest of {instance}, {} bytes", request.len())
            }
            Self::Response { request_id, body } => {
                write!(f, "{}, id {}, {} bytes", body.kind(), short(request_id), body.len())
            }
            Self::ToCommander { instance, message, .. } => write!(f, "{message} for {instance}"),
            Self::CommanderReading(instance, _) => write!(f, "CommanderReading of {instance}"),
            Self::Session(instance, _) => write!(f, "SessionChange of {instance}"),
        }
    }
}

impl ResponseBody {
    /// The name of its content in the schema.
    pub(crate) fn kind(&self) -> &'static str {
        let content = Response::decode(self.bytes()).ok().and_then(|own| own.response_content);
        match content {
            None => "a response without content",
            Some(ResponseContent::Error(_)) => "Error",
            Some(ResponseContent::CompleteStateResponse(own)) if own.altered_fields.is_some() => {
                "event"
            }
            Some(ResponseContent::CompleteStateResponse(_)) => "CompleteStateResponse",
            Some(ResponseContent::UpdateStateSuccess(_)) => "UpdateStateSuccess",
            Some(ResponseContent::LogsRequestAccepted(_)) => "LogsRequestAccepted",
            Some(ResponseContent::LogEntriesResponse(_)) => "LogEntriesResponse",
            Some(ResponseContent::LogsStopResponse(_)) => "LogsStopResponse",
            Some(ResponseContent::LogsCancelAccepted(_)) => "LogsCancelAccepted",
            Some(ResponseContent::EventsCancelAccepted(_)) => "EventsCancelAccepted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn summary_is_short_whatever_the_message_holds() {
        let long = "m".repeat(1 << 16);
        let all: Vec<_> = (0..1_000).map(|n| Mask::parse(&format!("{n}.{long}"))).collect();
        let id = long.clone();
        let ask = RequestKind::Update { new_state: super::super::NewState::Missing, masks: all };
        let original = bytes::Bytes::new();
        let update = FromWorkload::Request(Request { id, ask, original });
        let hello = FromWorkload::Hello { version: long.clone() };
        let closed = ToWorkload::Closed { reason: long };
        for text in [update.to_string(), hello.to_string(), closed.to_string()] {
            assert!(text.len() < 600 && text.contains("mmm"), "{text}");
        }
        let undecodable = FromAgent::decode(&[0x08, 7, 0x9a, 0x06, 0], &Limits::default()).unwrap();
        assert_eq!(
            undecodable.to_string(),
            "an invalid command: the message has no content, command 7"
        );
    }
}
