//! Messages of the agent link, between fifogate and its agent (docs/agent-link.md).
//!
//! Frame bodies of the link come in and become a [`FromAgent`], checked as far as possible without the
//! state; a [`ToAgent`] goes out as bytes. The agent is trusted, but may make mistakes: a faulty
//! command becomes a [`Command::Refused`] with a reason for its author.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::{
    limits::Limits,
    owner::Owner,
    pb::{
        agent_link::{self as link, from_agent, to_agent},
        ank_base as pb,
    },
    state::{Instance, Mask, Node, Tree, convert, reach, validate},
};

use super::{
    FromWorkload, Request, ResponseBody, ToWorkload,
    fault::{CommandFault, Undecodable},
    outgoing::Frame,
    outline,
    response::ReplyKind,
};

pub(crate) use crate::pb::agent_link::RejectCode;

/// Longest id of an instance. Real ones have 64 characters.
pub(super) const MAX_ID: usize = 128;

/// One message of the agent, made by [`FromAgent::decode`] for [`Input::Agent`](crate::broker::Input).
#[derive(Debug)]
pub struct FromAgent {
    /// Id for the answer; 0 if none is wanted.
    pub id: u64,
    /// No answer is wanted if it is done.
    pub rejections_only: bool,
    /// The command.
    #[doc(hidden)] // its kinds are internal
    pub command: Command,
}

/// The reason for rejecting a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The kind of reason, for programs.
    pub code: RejectCode,
    /// The reason in words, for the author of the agent.
    pub reason: String,
}

impl Rejected {
    /// A rejection with this code and reason.
    #[must_use]
    pub fn new(code: RejectCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// A command of the agent.
#[derive(Debug)]
pub enum Command {
    /// To begin.
    Hello {
        /// Its version of the link, unchecked.
        version: String,
        /// Its name.
        agent_name: String,
    },
    /// Adds a pair for this instance, or replaces the rules of its pair.
    AddWorkload {
        /// The instance.
        instance: Instance,
        /// Its rules, as the state holds them, checked.
        access: Option<Node>,
        /// Owner of the FIFOs.
        owner: Owner,
    },
    /// No pair for this instance any more.
    RemoveWorkload(Instance),
    /// This is the state now, in all its parts.
    ReplaceState(Tree),
    /// These parts of the state are now so.
    UpdateState {
        /// Where the parts are.
        new_state: Tree,
        /// The parts to update.
        masks: Vec<Mask>,
    },
    /// These instances are doing so; without a value, they are gone.
    UpdateWorkloadStates(Vec<(Instance, Option<Node>)>),
    /// A request of its own.
    Request(Request),
    /// The answer to a forwarded request.
    Response {
        /// The instance with the request.
        instance: Instance,
        /// Id of the request.
        request_id: Arc<str>,
        /// Kind of the answer.
        kind: ReplyKind,
        /// The answer; several messages where one would be too large.
        bodies: Vec<ResponseBody>,
    },
    /// Adds a commander, or replaces its rules.
    AddCommander {
        /// Its name.
        instance: Instance,
        /// Its rules, as the state holds them, checked.
        access: Option<Node>,
    },
    /// No such commander any more.
    RemoveCommander(Instance),
    /// A message of a commander.
    FromCommander(Instance, FromWorkload),
    /// A commander has taken its messages up to this one.
    CommanderTook(Instance, u64),
    /// This keeps it from doing its work; `None`: nothing does.
    Trouble(Option<String>),
    /// The end.
    Shutdown,
    /// Something that cannot be done, for this reason.
    Refused(Rejected),
}

impl FromAgent {
    /// Decodes the message in `body`. If only the content is undecodable, the message becomes a refused
    /// command: the framing is intact, so later messages are not affected.
    ///
    /// # Errors
    /// Not even the id for the answer is readable: then later messages cannot be trusted either.
    pub fn decode(body: &[u8], limits: &Limits) -> Result<Self, Undecodable> {
        if let Some(message) = Self::with_state(body) {
            return Ok(message);
        }
        // All other messages, and those with faults: the generated types decode and describe them.
        let message = match link::FromAgent::decode(body) {
            Ok(message) => message,
            Err(error) => {
                let fault = Undecodable(error);
                let Ok(head) = Head::decode(body) else { return Err(fault) };
                let reason = format!("the message does not decode: {fault}");
                let command = Command::Refused(Rejected::new(RejectCode::Invalid, reason));
                return Ok(Self { id: head.id, rejections_only: head.rejections_only, command });
            }
        };
        // A content of a later version is an unknown field to the decoder.
        let missing =
            || Rejected::new(RejectCode::UnsupportedCommand, "the message has no content");
        let invalid = |fault: CommandFault| Rejected::new(RejectCode::Invalid, fault.to_string());
        let command = message.content.ok_or_else(missing);
        let command = command.and_then(|content| command_of(content, limits).map_err(invalid));
        let (id, rejections_only) = (message.id, message.rejections_only);
        Ok(Self { id, rejections_only, command: command.unwrap_or_else(Command::Refused) })
    }

    /// A message with a state, decoded without the generated types in between. `None` for any other one;
    /// faults are left to the generated types as well.
    fn with_state(body: &[u8]) -> Option<Self> {
        let (content, masks, state) = outline::agent_state(body)?;
        let tree = convert::state_from_bytes(state).ok()?;
        let head = Head::decode(body).ok()?;
        let command = match content {
            outline::REPLACE_STATE => Command::ReplaceState(tree),
            _ => Command::UpdateState {
                new_state: tree,
                masks: masks.iter().map(|mask| Mask::parse(mask)).collect(),
            },
        };
        Some(Self { id: head.id, rejections_only: head.rejections_only, command })
    }
}

/// The part of an agent's message needed for its answer. Decoding it skips the content by its length,
/// with any content and at any depth.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bool, tag = "12")]
    rejections_only: bool,
}

/// [`link::ToAgent`] with a forwarded request in its encoding.
#[derive(Clone, PartialEq, Message)]
struct Forwarded {
    #[prost(message, optional, tag = "6")]
    request: Option<ForwardedRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct ForwardedRequest {
    #[prost(message, optional, tag = "1")]
    instance_name: Option<pb::WorkloadInstanceName>,
    #[prost(bytes = "bytes", tag = "2")]
    request: Bytes,
}

fn command_of(content: from_agent::Content, limits: &Limits) -> Result<Command, CommandFault> {
    use from_agent::Content;
    Ok(match content {
        Content::Hello(hello) => {
            Command::Hello { version: hello.protocol_version, agent_name: hello.agent_name }
        }
        Content::AddWorkload(add) => add_workload(add)?,
        Content::RemoveWorkload(remove) => Command::RemoveWorkload(instance(remove.instance_name)?),
        Content::ReplaceState(replace) => Command::ReplaceState(tree(replace.state, "state")?),
        Content::UpdateState(update) => Command::UpdateState {
            new_state: tree(update.new_state, "newState")?,
            masks: update.update_mask.iter().map(|mask| Mask::parse(mask)).collect(),
        },
        Content::UpdateWorkloadStates(update) => {
            let states = update.workload_states.into_iter().map(workload_state);
            Command::UpdateWorkloadStates(states.collect::<Result<_, _>>()?)
        }
        Content::Request(request) => Command::Request(Request::check(request, limits)),
        Content::Response(response) => forwarded_response(response)?,
        Content::AddCommander(add) => Command::AddCommander {
            instance: instance(add.instance_name)?,
            access: access(add.access.as_ref())?,
        },
        Content::RemoveCommander(remove) => {
            Command::RemoveCommander(instance(remove.instance_name)?)
        }
        Content::FromCommander(from) => Command::FromCommander(
            instance(from.instance_name)?,
            FromWorkload::decode_of_commander(&from.message, limits),
        ),
        Content::CommanderTook(took) => {
            Command::CommanderTook(instance(took.instance_name)?, took.number)
        }
        // An empty reason ends the trouble (docs/agent-link.md#messages-to-fifogate).
        Content::Trouble(trouble) => {
            Command::Trouble(Some(trouble.reason).filter(|reason| !reason.is_empty()))
        }
        Content::Shutdown(_) => Command::Shutdown,
    })
}

fn add_workload(add: link::AddWorkload) -> Result<Command, CommandFault> {
    let access = access(add.access.as_ref())?;
    let owner = Owner { uid: add.uid, gid: add.gid };
    Ok(Command::AddWorkload { instance: instance(add.instance_name)?, access, owner })
}

/// Checked access rules.
fn access(given: Option<&pb::ControlInterfaceAccess>) -> Result<Option<Node>, CommandFault> {
    let access = match given {
        None => None,
        Some(access) => convert::access_from_pb(access).map_err(CommandFault::Access)?,
    };
    if let Some(access) = &access {
        validate::check_access(access).map_err(CommandFault::AccessRule)?;
        // Not so for updates of workloads, which are as in Ankaios (docs/protocol.md#rule-validation).
        let faults = masks_of(access).find_map(|mask| reach::begins_with_a_mistake(&mask));
        faults.map_or(Ok(()), |why| Err(CommandFault::RuleMask(why)))?;
    }
    Ok(access)
}

/// The masks of all state rules.
fn masks_of(access: &Node) -> impl Iterator<Item = Mask> {
    let lists = ["allowRules", "denyRules"].into_iter().filter_map(|list| access.get(list));
    let rules = lists.filter_map(Node::as_seq).flatten();
    let masks = rules.filter_map(|rule| rule.get("filterMasks")?.as_seq()).flatten();
    masks.filter_map(Node::as_str).map(Mask::parse)
}

/// A name usable as the folder of an instance.
fn instance(name: Option<pb::WorkloadInstanceName>) -> Result<Instance, CommandFault> {
    let name = name.ok_or(CommandFault::Missing("instanceName"))?;
    let instance = Instance { workload: name.workload_name, agent: name.agent_name, id: name.id };
    if let Some(why) = validate::workload_name_fault(&instance.workload) {
        return Err(CommandFault::WorkloadName(instance.workload, why));
    }
    // Empty for a workload without an agent (docs/protocol.md#instances-and-ids).
    if !instance.agent.is_empty() && !validate::is_name(&instance.agent) {
        return Err(CommandFault::AgentName(instance.agent));
    }
    // The id is part of a folder's name.
    let of_id = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if instance.id.is_empty() || instance.id.len() > MAX_ID || !instance.id.bytes().all(of_id) {
        return Err(CommandFault::Id(instance.id));
    }
    Ok(instance)
}

fn tree(state: Option<pb::CompleteState>, field: &'static str) -> Result<Tree, CommandFault> {
    let state = state.ok_or(CommandFault::Missing(field))?;
    convert::from_pb(&state).map_err(|error| CommandFault::State(field, error))
}

fn workload_state(state: pb::WorkloadState) -> Result<(Instance, Option<Node>), CommandFault> {
    let instance = instance(state.instance_name)?;
    let execution = state.execution_state.ok_or(CommandFault::Missing("executionState"))?;
    // `Removed` is no state to keep: the entry goes (docs/agent-link.md#messages-to-fifogate).
    let removed = matches!(
        execution.execution_state_enum,
        Some(pb::execution_state::ExecutionStateEnum::Removed(_))
    );
    if execution.execution_state_enum.is_none() {
        return Err(CommandFault::NoExecutionState(instance));
    }
    match convert::execution_state_from_pb(&execution) {
        Ok(node) => Ok((instance, (!removed).then_some(node))),
        Err(error) => Err(CommandFault::ExecutionState(instance, error)),
    }
}

fn forwarded_response(forwarded: link::ForwardedResponse) -> Result<Command, CommandFault> {
    let instance = instance(forwarded.instance_name)?;
    let response = forwarded.response.ok_or(CommandFault::Missing("response"))?;
    let content = response.response_content.ok_or(CommandFault::NoContent)?;
    let (kind, bodies) = ResponseBody::of_forwarded(content)?;
    Ok(Command::Response { instance, request_id: response.request_id.into(), kind, bodies })
}

/// A message to the agent. [`ToAgent::into_frame`] has its bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ToAgent {
    /// fifogate is ready.
    Hello {
        /// Version of the link spoken by fifogate.
        version: String,
        /// Where the pairs are.
        run_dir: String,
    },
    /// The message of this id was applied.
    Ack(u64),
    /// The message of this id was not applied, for a reason.
    #[doc(hidden)] // its content is internal
    Rejected(u64, Rejected),
    /// The pair of an instance is there, in this folder.
    WorkloadReady(Instance, String),
    /// The pair of an instance is gone.
    WorkloadRemoved(Instance),
    /// A request of a workload for the agent, encoded.
    Request(Instance, Bytes),
    /// An answer or event for the agent itself.
    Response {
        /// The id of its request.
        request_id: Arc<str>,
        /// The answer or event.
        body: ResponseBody,
    },
    /// A message for a commander.
    #[doc(hidden)] // its content is internal
    ToCommander {
        /// The commander.
        instance: Instance,
        /// The number of the message.
        seq: u64,
        /// fifogate waits for the notice that it was taken.
        wants_took: bool,
        /// The message.
        message: ToWorkload,
    },
    /// Whether more messages of a commander are wanted.
    #[doc(hidden)] // its content is internal
    CommanderReading(Instance, bool),
    /// A workload's session began, or ended for a reason.
    #[doc(hidden)] // its content is internal
    Session(Instance, Phase),
}

/// A change of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is open.
    Connected,
    /// It is not, any more or at all.
    Closed(String),
}

impl ToAgent {
    /// The message as it is written.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        use to_agent::Content;
        let name = |instance: Instance| {
            let Instance { workload, agent, id } = instance;
            Some(pb::WorkloadInstanceName { workload_name: workload, agent_name: agent, id })
        };
        let content = match self {
            Self::Response { request_id, body } => {
                // The body is shared with workloads, so it is not encoded again.
                return Frame::to_agent(request_id, body);
            }
            Self::Hello { version, run_dir } => {
                Content::Hello(link::GateHello { protocol_version: version, run_dir })
            }
            Self::Ack(id) => Content::Ack(link::Ack { id }),
            Self::Rejected(id, Rejected { code, reason }) => {
                Content::Rejected(link::Rejected { id, reason, code: code.into() })
            }
            Self::WorkloadReady(instance, dir) => Content::WorkloadReady(link::WorkloadReady {
                instance_name: name(instance),
                control_interface_dir: dir,
            }),
            Self::WorkloadRemoved(instance) => {
                Content::WorkloadRemoved(link::WorkloadRemoved { instance_name: name(instance) })
            }
            Self::Request(instance, request) => {
                let message = Forwarded {
                    request: Some(ForwardedRequest { instance_name: name(instance), request }),
                };
                // The request is copied as bytes: it was checked when it came in.
                return Frame::whole(message.encode_length_delimited_to_vec().into());
            }
            Self::ToCommander { instance, seq, wants_took, message } => {
                Content::ToCommander(link::ToCommander {
                    instance_name: name(instance),
                    number: seq,
                    wants_took,
                    message: message.into_message(),
                })
            }
            Self::CommanderReading(instance, on) => {
                let instance_name = name(instance);
                Content::CommanderReading(link::CommanderReading { instance_name, on })
            }
            Self::Session(instance, phase) => {
                let (phase, reason) = match phase {
                    Phase::Connected => (link::Phase::Connected, String::new()),
                    Phase::Closed(reason) => (link::Phase::Closed, reason),
                };
                let instance_name = name(instance);
                Content::Session(link::SessionChange { instance_name, phase: phase.into(), reason })
            }
        };
        let message = link::ToAgent { content: Some(content) };
        Frame::whole(message.encode_length_delimited_to_vec().into())
    }

    /// Length of [`ToAgent::into_frame`] in bytes, approximately: the charge on a queue.
    #[must_use]
    pub fn charge(&self) -> usize {
        match self {
            Self::Response { request_id, body } => request_id.len() + body.len() + 16,
            Self::Request(_, request) => request.len() + 256,
            Self::Rejected(_, Rejected { reason: text, .. }) | Self::WorkloadReady(_, text) => {
                text.len() + 256
            }
            _ => 256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_of_a_later_version_and_no_content_are_unsupported_under_their_id() {
        // Field 1 is the id; 99 is the number of no content.
        for body in [&[0x08, 7][..], &[0x08, 7, 0x9a, 0x06, 0]] {
            let message = FromAgent::decode(body, &Limits::default()).unwrap();
            assert_eq!(message.id, 7);
            let Command::Refused(rejected) = message.command else { panic!("{message:?}") };
            assert_eq!(rejected.code, RejectCode::UnsupportedCommand);
        }
        assert!(FromAgent::decode(&[0x0a], &Limits::default()).is_err(), "no id can be read");
    }
}
