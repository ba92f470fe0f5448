//! The agent at the other end of the link, where a world has one: it changes the state in all its
//! parts, adds and removes workloads, and answers what is forwarded to it (docs/agent-link.md).
//!
//! It reads at once and subscribes to nothing. Log campaigns are not played.

mod acts;

use std::collections::{BTreeSet, VecDeque};

use fifogate::{
    broker::{AckMode, Input, PeerId, Seq},
    message::{FromAgent, ToAgent},
    pb::{
        agent_link::{self as link, from_agent, to_agent},
        ank_base as pb,
        control_api::{FromAnkaios, from_ankaios::FromAnkaiosEnum},
    },
};
use prost::Message;

use super::{
    access::Rules,
    asks::RequestKind,
    peer::{Expected, Place},
    update::Instance,
    world::World,
};

/// What was asked of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardedKind {
    Update,
    Logs,
    CancelLogs,
}

/// A forwarded request that waits.
#[derive(Debug)]
struct Pending {
    peer: PeerId,
    request_id: String,
    wanted: ForwardedKind,
    /// The workloads whose logs are wanted.
    workloads: Vec<String>,
    due: u64,
}

/// What the agent is to be told.
#[derive(Debug)]
enum Tell {
    Exactly(to_agent::Content),
    /// That the command of this id was not obeyed, for whatever reason.
    Rejected(u64),
    Response(Expected),
}

/// What became of a command.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Done(bool),
    /// Done when the pair of this peer is there; which it is turns out later in the step.
    Opening(Option<PeerId>),
    Closing(PeerId),
}

#[derive(Debug)]
pub(crate) struct Agent {
    expected: VecDeque<Tell>,
    /// Of each command its id, whether it wants to hear of a rejection only, and what becomes of it.
    outcomes: VecDeque<(u64, bool, Outcome)>,
    next_id: u64,
    handed: Seq,
    /// A ack that it wants.
    ack: Option<Seq>,
    pending: Vec<Pending>,
    /// Requests for logs that new rules ended, whose cancel the agent was sent.
    revoked: BTreeSet<(PeerId, String)>,
    /// Instances whose pairs are being removed.
    removing: Vec<(PeerId, Instance)>,
}

impl Default for Agent {
    fn default() -> Self {
        let hello = link::GateHello {
            protocol_version: "1.2.0".to_owned(),
            run_dir: "/run/of/the/world".to_owned(),
        };
        Self {
            expected: VecDeque::from([Tell::Exactly(to_agent::Content::Hello(hello))]),
            outcomes: VecDeque::new(),
            next_id: 1,
            handed: 0,
            ack: None,
            pending: Vec::new(),
            revoked: BTreeSet::new(),
            removing: Vec::new(),
        }
    }
}

impl Agent {
    pub(crate) fn expect_response(&mut self, expected: Expected) {
        self.expected.push_back(Tell::Response(expected));
    }

    fn expect(&mut self, content: to_agent::Content) {
        self.expected.push_back(Tell::Exactly(content));
    }

    /// Which commands are acknowledged by now, in their order.
    fn acknowledge(&mut self) {
        while let Some((id, rejections_only, Outcome::Done(fine))) = self.outcomes.front().copied()
        {
            self.outcomes.pop_front();
            match fine {
                _ if id == 0 => {}
                true if rejections_only => {}
                true => self.expect(to_agent::Content::Ack(link::Ack { id })),
                false => self.expected.push_back(Tell::Rejected(id)),
            }
        }
    }

    fn settle(&mut self, waited: impl Fn(Outcome) -> bool, fine: bool) {
        for (.., outcome) in &mut self.outcomes {
            if waited(*outcome) {
                *outcome = Outcome::Done(fine);
            }
        }
        self.acknowledge();
    }

    /// The pair that the last command waits for is that of this peer.
    pub(crate) fn opens(&mut self, id: PeerId) {
        if let Some((.., outcome @ Outcome::Opening(None))) = self.outcomes.back_mut() {
            *outcome = Outcome::Opening(Some(id));
        }
    }

    pub(crate) fn pair_opened(&mut self, id: PeerId, instance: Option<&Instance>, dir: &str) {
        if let Some(instance) = instance {
            self.expect(to_agent::Content::WorkloadReady(link::WorkloadReady {
                instance_name: Some(name(instance)),
                control_interface_dir: dir.to_owned(),
            }));
        }
        self.settle(|own| matches!(own, Outcome::Opening(Some(own)) if own == id), true);
    }

    pub(crate) fn pair_failed(&mut self, id: PeerId) {
        self.settle(|own| matches!(own, Outcome::Opening(Some(own)) if own == id), false);
    }

    pub(crate) fn pair_closed(&mut self, id: PeerId) {
        if let Some(at) = self.removing.iter().position(|(own, _)| *own == id) {
            let (_, instance) = self.removing.remove(at);
            let instance_name = Some(name(&instance));
            let removed = link::WorkloadRemoved { instance_name };
            self.expect(to_agent::Content::WorkloadRemoved(removed));
        }
        self.settle(|own| matches!(own, Outcome::Closing(own) if own == id), true);
    }
}

fn name(instance: &Instance) -> pb::WorkloadInstanceName {
    let Instance { workload, agent, id } = instance.clone();
    pb::WorkloadInstanceName { workload_name: workload, agent_name: agent, id }
}

impl World {
    pub(crate) fn session_changed(&mut self, id: PeerId, closed: Option<&str>) {
        let instance_name = Some(name(&self.peers[&id].instance));
        let Some(agent) = &mut self.agent else { return };
        agent.pending.retain(|own| own.peer != id);
        agent.revoked.retain(|(own, _)| *own != id);
        let phase = if closed.is_some() { link::Phase::Closed } else { link::Phase::Connected };
        let reason = closed.unwrap_or_default().to_owned();
        let change = link::SessionChange { instance_name, phase: phase.into(), reason };
        agent.expect(to_agent::Content::Session(change));
    }

    /// A request is the agent's to answer.
    pub(crate) fn forward(
        &mut self,
        id: PeerId,
        request_id: &str,
        wanted: ForwardedKind,
        ask: &RequestKind,
    ) {
        let instance_name = Some(name(&self.peers[&id].instance));
        let due = self.now + self.config.forward_timeout_ms;
        let agent = self.agent.as_mut().unwrap();
        let own = || agent.pending.iter().filter(|own| own.peer == id);
        let waits = |wanted| own().any(|own| own.request_id == request_id && own.wanted == wanted);
        // The end of something that has its place needs no other.
        let ends_own = wanted == ForwardedKind::CancelLogs
            && waits(ForwardedKind::Logs)
            && !waits(ForwardedKind::CancelLogs);
        if own().count() >= self.config.limits.max_forwarded && !ends_own {
            return self.due(id, Place::Answer, Expected::some_error(request_id));
        }
        self.counts.one("requests forwarded");
        let workloads = if let RequestKind::Logs(names) = ask { names.clone() } else { Vec::new() };
        let request_id = request_id.to_owned();
        agent.pending.push(Pending {
            peer: id,
            request_id: request_id.clone(),
            wanted,
            workloads,
            due,
        });
        let request = Some(ask.request(&request_id));
        agent.expect(to_agent::Content::Request(link::ForwardedRequest { instance_name, request }));
    }

    /// Requests for logs that the rules of a peer do not allow any more end, and the agent is asked to
    /// end them.
    pub(crate) fn revoke_logs(&mut self, id: PeerId, rules: &Rules) {
        let instance = self.peers[&id].instance.clone();
        let Some(agent) = &mut self.agent else { return };
        let lost = |own: &mut Pending| {
            let logs = own.peer == id && own.wanted == ForwardedKind::Logs;
            logs && !rules.may_read_logs(&own.workloads)
        };
        let lost: Vec<_> = agent.pending.extract_if(.., lost).collect();
        for Pending { request_id, .. } in lost {
            let agent = self.agent.as_mut().unwrap();
            let request = Some(RequestKind::CancelLogs.request(&request_id));
            let instance_name = Some(name(&instance));
            let cancel = link::ForwardedRequest { instance_name, request };
            agent.expect(to_agent::Content::Request(cancel));
            agent.revoked.insert((id, request_id.clone()));
            self.counts.one("requests for logs lost with their rules");
            self.due(id, Place::Ended, Expected::denied(&request_id));
        }
    }

    /// Requests that the agent did not answer in time.
    pub(crate) fn time_out(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let now = self.now;
        let late: Vec<_> = agent.pending.extract_if(.., |own| own.due <= now).collect();
        for Pending { peer, request_id, .. } in late {
            self.due(peer, Place::TimedOut, Expected::some_error(&request_id));
        }
    }

    pub(crate) fn told_to_agent(&mut self, seq: Seq, message: &ToAgent, ack: AckMode) {
        let bytes = message.clone().into_frame().to_vec();
        let message = link::ToAgent::decode_length_delimited(&*bytes).unwrap();
        let content = message.content.unwrap();
        let agent = self.agent.as_mut().unwrap();
        assert_eq!(seq, agent.handed + 1);
        agent.handed = seq;
        if ack != AckMode::None {
            agent.ack = Some(seq);
        }
        let Some(expected) = agent.expected.pop_front() else {
            panic!("the agent is told what nobody expects: {content:?}");
        };
        let fine = match &expected {
            Tell::Exactly(own) => *own == content,
            Tell::Rejected(id) => {
                matches!(&content, to_agent::Content::Rejected(own) if own.id == *id)
            }
            Tell::Response(own) => match &content {
                to_agent::Content::Response(response) => {
                    let content = Some(FromAnkaiosEnum::Response(response.clone()));
                    own.is(&FromAnkaios { from_ankaios_enum: content })
                }
                _ => false,
            },
        };
        assert!(fine, "the agent is told\n  {content:?}\nwhere this is due\n  {expected:?}");
        self.round.answered |=
            matches!(content, to_agent::Content::Ack(_) | to_agent::Content::Response(_));
    }

    /// Whatever is told to the agent, it reads at once.
    pub(crate) fn pump_agent(&mut self) {
        while let Some(seq) = self.agent.as_mut().and_then(|agent| agent.ack.take()) {
            self.handle(Input::Written(PeerId::AGENT, seq));
        }
    }

    pub(crate) fn agent_owes_nothing(&self) -> bool {
        self.agent.as_ref().is_none_or(|agent| {
            agent.expected.is_empty() && agent.outcomes.is_empty() && agent.pending.is_empty()
        })
    }

    /// The agent commands something, of which this is to come.
    fn command(&mut self, content: from_agent::Content, outcome: Outcome) {
        let (silent, rejections_only) = (self.chance(0.05), self.chance(0.2));
        let agent = self.agent.as_mut().unwrap();
        let id = if silent { 0 } else { agent.next_id };
        agent.next_id += 1;
        agent.outcomes.push_back((id, rejections_only, outcome));
        agent.acknowledge();
        let message = link::FromAgent { id, content: Some(content), rejections_only };
        let bytes = message.encode_to_vec();
        let message = FromAgent::decode(&bytes, &self.config.limits).unwrap();
        self.counts.one("agent's commands");
        self.handle(Input::Agent(message));
        self.pump_agent();
    }

    pub(crate) fn agent_hello(&mut self) {
        let agent_name = "n1".to_owned();
        let hello = link::AgentHello { protocol_version: "1.0.0".to_owned(), agent_name };
        self.command(from_agent::Content::Hello(hello), Outcome::Done(true));
    }

    /// Forgets what a peer that is gone waits for.
    pub(crate) fn forget_forwards(&mut self, id: PeerId) {
        if let Some(agent) = &mut self.agent {
            agent.pending.retain(|own| own.peer != id);
            agent.revoked.retain(|(own, _)| *own != id);
        }
    }
}
