//! Forwarded requests: updates with [`Updates::Forward`](super::Updates::Forward), and logs
//! (docs/agent-link.md).
//!
//! In go allowed requests of workloads and responses of the agent; out come messages to the other side.
//! Each workload has a bounded number of forwarded requests. Each ends with a response, with the
//! timeout, or with the session; a response without a matching request is rejected.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    message::{RejectCode, Rejected, ReplyKind, ResponseBody, ToAgent, cancel_logs},
    state::Instance,
};

use super::{
    Broker, PeerId, Rules, Tick, acks::unknown_instance, denial::Denial, outbox::Kind,
    refusal::Refusal, timers::Timer,
};

/// The kind of a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ForwardedKind {
    Update,
    /// Logs of the workloads with these names: changed rules are checked against them.
    Logs(Arc<[String]>),
    CancelLogs,
}

impl ForwardedKind {
    /// Charge of the names kept with the request.
    fn name_bytes(&self) -> usize {
        match self {
            Self::Logs(names) => names.iter().map(|name| NAME_COST + name.len()).sum(),
            Self::Update | Self::CancelLogs => 0,
        }
    }
}

/// The least charge for a name kept: its string, and its place in a collection.
const NAME_COST: usize = 64;

/// The forwarded requests of one session.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    /// Requests without a response yet, oldest first; so the first is due first.
    pending: Vec<Pending>,
    /// Campaigns: instances with unfinished logs, by request id.
    campaigns: BTreeMap<Arc<str>, BTreeSet<Instance>>,
    /// Log requests ended by new rules. The agent was sent a cancellation for each; its answer to it is
    /// dropped.
    revoked: BTreeSet<Arc<str>>,
    /// True if a timer of this peer is set. One timer at a time, so a workload with thousands of answered
    /// requests leaves no timer for each.
    has_timer: bool,
}

/// The use of a valid response of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disposition {
    /// Queue it for the workload.
    Deliver,
    /// Drop it: the request has ended.
    Drop,
}

#[derive(Debug)]
struct Pending {
    /// The end of the agent's time to answer.
    due: Tick,
    request_id: Arc<str>,
    wanted: ForwardedKind,
}

impl Forwards {
    fn len(&self) -> usize {
        self.pending.len() + self.campaigns.len()
    }

    /// Forgets all requests, at the end of the session. A timer stays set: it is the peer's, and finds
    /// nothing due or the requests of the next session.
    pub(super) fn end_session(&mut self) {
        *self = Self { has_timer: self.has_timer, ..Self::default() };
    }

    /// Charge of the names kept for log requests.
    fn name_bytes(&self) -> usize {
        let asked = self.pending.iter().map(|pending| pending.wanted.name_bytes()).sum::<usize>();
        let instances = self.campaigns.values().flatten();
        asked + instances.map(|own| NAME_COST + own.workload.len()).sum::<usize>()
    }

    /// Takes the requests due by `now`, with the time of the next one.
    fn take_overdue(&mut self, now: Tick) -> (Vec<Pending>, Option<Tick>) {
        let count = self.pending.partition_point(|pending| pending.due <= now);
        let overdue = self.pending.drain(..count).collect();
        (overdue, self.pending.first().map(|pending| pending.due))
    }

    /// Matches a response with its request. The error is the reason for rejecting it.
    fn accept(&mut self, request_id: &Arc<str>, kind: ReplyKind) -> Result<Disposition, Rejected> {
        // fifogate sent this cancellation, so no answer to it is due to the workload.
        if kind == ReplyKind::LogsCancelled && self.revoked.remove(request_id) {
            return Ok(Disposition::Drop);
        }
        let is_error = matches!(kind, ReplyKind::Error | ReplyKind::Denied);
        let valid = match kind {
            ReplyKind::Updated => self.take(request_id, |own| *own == ForwardedKind::Update),
            ReplyKind::Error | ReplyKind::Denied => {
                self.take(request_id, |_| true) || self.campaigns.remove(request_id).is_some()
            }
            ReplyKind::LogsAccepted(instances) => {
                let taken = self.take(request_id, |own| matches!(own, ForwardedKind::Logs(_)));
                // Without an accepted instance no `LogsStopResponse` would ever end the campaign.
                if taken && !instances.is_empty() {
                    let instances = instances.into_iter().collect();
                    self.campaigns.insert(Arc::clone(request_id), instances);
                }
                taken
            }
            ReplyKind::LogEntries => self.campaigns.contains_key(request_id),
            ReplyKind::LogsStop(instance) => {
                let campaign = self.campaigns.get_mut(request_id);
                let stopped = campaign.is_some_and(|campaign| campaign.remove(&instance));
                // An ended campaign frees its place among the forwarded requests.
                self.campaigns.retain(|_, campaign| !campaign.is_empty());
                stopped
            }
            ReplyKind::LogsCancelled => {
                // Removed in any case: behind `||` it would stay if a cancellation waits.
                let ended = self.campaigns.remove(request_id).is_some();
                self.take(request_id, |own| *own == ForwardedKind::CancelLogs) || ended
            }
        };
        if valid {
            return Ok(Disposition::Deliver);
        }
        // The agent may refuse the cancellation. An error under the id of a request of the workload is
        // the answer to this one, so it is tried first.
        if is_error && self.revoked.remove(request_id) {
            return Ok(Disposition::Drop);
        }
        let reason =
            format!("no request '{request_id}' of this instance waits for such a response");
        Err(Rejected::new(RejectCode::NoSuchRequest, reason))
    }

    /// Ends the log requests no longer allowed by `rules`, answered or not. Returns their ids, and why
    /// each is not allowed.
    pub(super) fn revoke(&mut self, rules: &Rules) -> Vec<(Arc<str>, Denial)> {
        let mut ended = Vec::new();
        self.pending.retain(|pending| {
            // A cancel needs no right, and an update is in the hands of the agent already.
            let ForwardedKind::Logs(names) = &pending.wanted else { return true };
            let denial = rules.deny_logs(names.iter().map(String::as_str));
            let may = denial.is_none();
            ended.extend(denial.map(|denial| (Arc::clone(&pending.request_id), denial)));
            may
        });
        self.campaigns.retain(|request_id, instances| {
            let denial = rules.deny_logs(instances.iter().map(|own| own.workload.as_str()));
            let may = denial.is_none();
            ended.extend(denial.map(|denial| (Arc::clone(request_id), denial)));
            may
        });
        self.revoked.extend(ended.iter().map(|(request_id, _)| Arc::clone(request_id)));
        ended
    }

    /// True if this cancels a log request counted here. The first such cancellation is not counted: a
    /// workload at its limit could not cancel otherwise.
    fn ends_own(&self, request_id: &Arc<str>, wanted: &ForwardedKind) -> bool {
        let waits = |is: fn(&ForwardedKind) -> bool| {
            self.pending.iter().any(|own| own.request_id == *request_id && is(&own.wanted))
        };
        *wanted == ForwardedKind::CancelLogs
            && (self.campaigns.contains_key(request_id)
                || waits(|own| matches!(own, ForwardedKind::Logs(_))))
            && !waits(|own| *own == ForwardedKind::CancelLogs)
    }

    fn take(&mut self, request_id: &Arc<str>, wanted: impl Fn(&ForwardedKind) -> bool) -> bool {
        let waits =
            |pending: &Pending| pending.request_id == *request_id && wanted(&pending.wanted);
        let at = self.pending.iter().position(waits);
        at.map(|at| self.pending.remove(at)).is_some()
    }
}

impl Broker {
    /// Forwards a request to the agent, or answers it with an error.
    pub(super) fn forward(
        &mut self,
        id: PeerId,
        request_id: Arc<str>,
        wanted: ForwardedKind,
        request: Bytes,
    ) {
        if let Err(why) = self.can_forward(id, &request_id, &wanted) {
            return self.answer(id, &request_id, ResponseBody::error(why.to_string()));
        }
        let due = Tick(self.now.0.saturating_add(self.config.forward_timeout_ms));
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.forwards.pending.push(Pending { due, request_id, wanted });
        let message = ToAgent::Request(peer.instance.clone(), request);
        if !std::mem::replace(&mut peer.forwards.has_timer, true) {
            self.timers.add(due, Timer::Forwards(id));
        }
        // The agent must know the session before it gets a request of it.
        self.tell_waiting_session(id);
        self.tell_agent(message);
    }

    fn can_forward(
        &self,
        id: PeerId,
        request_id: &Arc<str>,
        wanted: &ForwardedKind,
    ) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let (most, most_names) = (limits.max_forwarded, limits.subscription_bytes);
        let has_place =
            |forwards: &Forwards| forwards.len() < most || forwards.ends_own(request_id, wanted);
        let names = wanted.name_bytes();
        let keeps = |forwards: &Forwards| names == 0 || forwards.name_bytes() + names <= most_names;
        let queued = self.peers.agent().map_or(0, |agent| agent.outbox.bytes());
        if !self.agent_is_there() {
            Err(Refusal::NoAgent)
        } else if !self.peers.get(id).is_some_and(|peer| has_place(&peer.forwards)) {
            Err(Refusal::TooManyForwarded(most))
        } else if !self.peers.get(id).is_some_and(|peer| keeps(&peer.forwards)) {
            Err(Refusal::TooLargeLogRequests(most_names))
        } else if queued >= limits.link_bytes {
            Err(Refusal::SlowAgent)
        } else {
            Ok(())
        }
    }

    /// Queues a response of the agent for the workload.
    pub(super) fn on_forwarded_response(
        &mut self,
        instance: &Instance,
        request_id: &Arc<str>,
        kind: ReplyKind,
        bodies: Vec<ResponseBody>,
    ) -> Result<(), Rejected> {
        let unknown = || unknown_instance(instance);
        let id = self.peers.find(instance).ok_or_else(unknown)?;
        let peer = self.peers.get_mut(id).ok_or_else(unknown)?;
        // Log entries have no bound per request; all other responses have, and are always queued.
        let has_room = || peer.has_room(id.kind(), &self.config.limits, &self.memory);
        // An unknown campaign is rejected for good below: a retry would not help.
        let campaign = peer.forwards.campaigns.contains_key(request_id);
        if kind == ReplyKind::LogEntries && campaign && !has_room() {
            let reason = "the workload does not keep up with its logs; send this again later";
            return Err(Rejected::new(RejectCode::RetryLater, reason));
        }
        let role = if kind == ReplyKind::LogEntries { Kind::LogEntries } else { Kind::Answer };
        let denied = kind == ReplyKind::Denied;
        if peer.forwards.accept(request_id, kind)? == Disposition::Deliver {
            if denied {
                self.note_denied(id, Denial::by_agent());
            }
            for body in bodies {
                self.respond(id, Arc::clone(request_id), body, role);
            }
        }
        Ok(())
    }

    /// Ends log requests no longer allowed by `rules`. The agent is sent a cancellation for each, to
    /// stop collecting unreadable logs, and waiting entries are dropped. Returns the ids of the requests,
    /// and why each is not allowed.
    pub(super) fn revoke_logs(&mut self, id: PeerId, rules: &Rules) -> Vec<(Arc<str>, Denial)> {
        let Some(peer) = self.peers.get_mut(id) else { return Vec::new() };
        let ended = peer.forwards.revoke(rules);
        let instance = peer.instance.clone();
        ended.iter().for_each(|(request_id, _)| peer.outbox.take_back_log_entries(request_id));
        for (request_id, _) in &ended {
            let cancel = cancel_logs(request_id);
            self.tell_agent(ToAgent::Request(instance.clone(), cancel));
        }
        ended
    }

    /// Answers the requests whose time is over, and sets the timer for the next one.
    pub(super) fn forwards_timed_out(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let (overdue, next) = peer.forwards.take_overdue(self.now);
        peer.forwards.has_timer = next.is_some();
        if let Some(due) = next {
            self.timers.add(due, Timer::Forwards(id));
        }
        let seconds = self.config.forward_timeout_ms as f64 / 1_000.0;
        for Pending { request_id, .. } in overdue {
            let text = format!("The agent did not answer within {seconds} s");
            self.answer(id, &request_id, ResponseBody::error(text));
        }
    }
}
