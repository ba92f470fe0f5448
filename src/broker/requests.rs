//! Requests of an open session, each handled in one step (docs/protocol.md#requests-and-responses).
//!
//! In goes a checked [`Request`]; out come one answer, or a forwarded request, and the new state of an
//! update. The rules are checked before the state is read or changed.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    message::{FromWorkload, NewState, Request, RequestKind, ResponseBody, SealedUpdate},
    state::{
        DESIRED_STATE, Instance, Map, Mask, MaskSet, Node, Selection, WorkloadChange,
        convert::Fill,
        update::{self, UpdateError, Updated},
        weight_after,
    },
};

use super::{
    Broker, PeerId, Updates,
    denial::Denial,
    forward::ForwardedKind,
    outbox::Kind,
    peer::Peer,
    refusal::Refusal,
    subscriptions::{Subscription, SubscriptionPhase, cost},
};

impl Broker {
    /// Serves a message of an open session.
    pub(super) fn serve(&mut self, id: PeerId, message: FromWorkload) {
        match message {
            FromWorkload::Request(request) => self.serve_request(id, request),
            FromWorkload::Sealed(update) => self.serve_sealed(id, update),
            FromWorkload::Undecodable { request_id, reason } => {
                let closed = self.note_malformed(id);
                if let Some(request_id) = request_id.filter(|_| !closed) {
                    let text = format!("Could not decode the request: {reason}");
                    self.answer(id, &request_id.into(), ResponseBody::error(text));
                }
            }
            FromWorkload::Empty => {
                self.note_malformed(id);
            }
            // A Hello never comes here: it begins or closes a session.
            FromWorkload::Hello { .. } => {}
        }
    }

    /// Serves an update with its state still encoded: rules are checked before any work is spent on
    /// decoding.
    fn serve_sealed(&mut self, id: PeerId, update: SealedUpdate) {
        let Some(peer) = self.peers.get(id) else { return };
        if let Some(denial) = peer.rules.deny_update(&update.masks) {
            return self.deny(id, &update.id.as_str().into(), denial);
        }
        // An opened update has the masks of the sealed one, so its rights are known.
        match update.open(&self.config.limits) {
            FromWorkload::Request(Request {
                id: request_id,
                ask: RequestKind::Update { new_state, masks },
                original,
            }) => self.serve_update(id, request_id.into(), new_state, &masks, original),
            // A state that does not decode, or is over a limit: answered like any such message.
            other => self.serve(id, other),
        }
    }

    pub(super) fn serve_request(&mut self, id: PeerId, request: Request) {
        let request_id: Arc<str> = request.id.into();
        match request.ask {
            RequestKind::State { masks, subscribe } => {
                self.serve_state(id, request_id, &masks, subscribe)
            }
            RequestKind::Update { new_state, masks } => {
                let Some(peer) = self.peers.get(id) else { return };
                match peer.rules.deny_update(&masks) {
                    None => self.serve_update(id, request_id, new_state, &masks, request.original),
                    Some(denial) => self.deny(id, &request_id, denial),
                }
            }
            RequestKind::Logs(instances) => {
                self.serve_logs(id, request_id, &instances, request.original)
            }
            RequestKind::CancelLogs if self.link.is_some() && !id.is_agent() => {
                self.forward(id, request_id, ForwardedKind::CancelLogs, request.original);
            }
            // Without an agent there is no campaign, and unknown ids are accepted as well.
            RequestKind::CancelLogs => self.answer(id, &request_id, ResponseBody::logs_cancelled()),
            RequestKind::CancelEvents => {
                // Its last event, if one is due, is queued with the answer.
                self.answer(id, &request_id, ResponseBody::events_cancelled());
                self.end_subscription(id, &request_id);
            }
            RequestKind::Nothing => {
                if !self.note_malformed(id) {
                    self.deny(id, &request_id, Denial::unknown());
                }
            }
            RequestKind::OverLimit(reason) => {
                if !self.note_malformed(id) {
                    self.answer(id, &request_id, ResponseBody::error(reason));
                }
            }
        }
    }

    /// Answers a read, and adds its subscription in the same step: no change falls between the two.
    fn serve_state(&mut self, id: PeerId, request_id: Arc<str>, masks: &MaskSet, subscribe: bool) {
        let Some(peer) = self.peers.get(id) else { return };
        if let Some(denial) = peer.rules.deny_read(masks, subscribe) {
            return self.deny(id, &request_id, denial);
        }
        // Before the read: a refused subscription costs no encoding.
        if subscribe && let Err(why) = self.may_subscribe(peer, &request_id, masks) {
            return self.answer(id, &request_id, ResponseBody::error(why.to_string()));
        }
        let body = match self.read(id, masks) {
            Ok(body) => body,
            Err(len) => {
                let most = self.config.limits.total_bytes;
                let text = format!(
                    "The answer takes {len} bytes, and at most {most} may wait for all workloads \
                     together; try again later"
                );
                return self.answer(id, &request_id, ResponseBody::error(text));
            }
        };
        if subscribe {
            self.subscribe(id, request_id, masks, body);
        } else {
            self.answer(id, &request_id, body);
        }
    }

    fn may_subscribe(&self, peer: &Peer, request_id: &str, masks: &MaskSet) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let replaced = peer.subscriptions.get(request_id);
        // A request with the id of a subscription replaces it, so its cost does not count twice.
        let freed =
            replaced.and_then(|id| self.subscriptions.get(*id)).map_or(0, Subscription::cost);
        let count = peer.subscriptions.len() + usize::from(replaced.is_none());
        let bytes = peer.subscription_bytes - freed + cost(request_id, masks);
        if count > limits.max_subscriptions {
            return Err(Refusal::TooManySubscriptions(limits.max_subscriptions));
        }
        if bytes > limits.subscription_bytes {
            return Err(Refusal::TooLargeSubscriptions(limits.subscription_bytes));
        }
        Ok(())
    }

    /// The answer to a read of `masks`. The error is its length, if the memory budget has no room for
    /// it.
    fn read(&mut self, id: PeerId, masks: &MaskSet) -> Result<ResponseBody, usize> {
        // Not charged again: the copy shares the bytes of the cached body.
        if let Some(body) = self.read_cache.get(masks) {
            return Ok(body);
        }
        let body = self.encode(masks);
        if !self.memory.has_room(id.kind(), body.len()) {
            // Cached answers count as held, but no reader waits for them: drop them first.
            self.read_cache.clear();
        }
        let body = self.memory.charge(id.kind(), body)?;
        if self.memory.may_cache(body.len()) {
            self.read_cache.keep(masks, &body);
        }
        Ok(body)
    }

    fn encode(&mut self, masks: &MaskSet) -> ResponseBody {
        if masks.is_everything() {
            // Only this answer has empty sub-messages as well (docs/protocol.md#reads).
            return ResponseBody::state(&self.state, Fill::Full, Some(&mut self.leaf_cache));
        }
        let part = self.state.select(&Selection::of_masks(masks.masks()));
        // A wildcard builds a new mapping for each read, so its encoding could not be reused.
        let whole = !masks.masks().iter().any(Mask::has_wildcard);
        ResponseBody::state(&part, Fill::Sparse, whole.then_some(&mut self.leaf_cache))
    }

    fn subscribe(
        &mut self,
        id: PeerId,
        request_id: Arc<str>,
        masks: &MaskSet,
        first: ResponseBody,
    ) {
        let waits = id.kind().has_grace(&self.config);
        let phase =
            if waits { SubscriptionPhase::AwaitingFirstRead } else { SubscriptionPhase::Live };
        let own_id = Arc::clone(&request_id);
        let subscription = self.subscriptions.add(id, own_id, masks, phase, self.version);
        let kind = if waits { Kind::FirstAnswer(subscription) } else { Kind::Answer };
        self.respond(id, Arc::clone(&request_id), first, kind);
        // The replaced subscription ends after this: its last event, if one is due, comes before.
        self.end_subscription(id, &request_id);
        if let Some(peer) = self.peers.get_mut(id) {
            peer.subscription_bytes += cost(&request_id, masks);
            peer.subscriptions.insert(request_id, subscription);
        }
    }

    /// Serves an update whose sender may write its masks.
    fn serve_update(
        &mut self,
        id: PeerId,
        request_id: Arc<str>,
        new_state: NewState,
        masks: &[Mask],
        original: Bytes,
    ) {
        if self.forwards_updates(id) {
            return self.forward(id, request_id, ForwardedKind::Update, original);
        }
        let request_id = &request_id;
        let new_state = match new_state {
            NewState::Given(tree) => tree,
            NewState::Missing => {
                let text = "The UpdateStateRequest does not contain a new state";
                return self.answer(id, request_id, ResponseBody::error(text));
            }
            NewState::Unknown(number) => {
                let error = UpdateError::Invalid(format!("Failed to parse new state, '{number}'"));
                return self.answer(id, request_id, ResponseBody::error(error.to_string()));
            }
        };
        let proposed = match update::propose(&self.state, &new_state, masks) {
            Ok(proposed) => proposed,
            Err(error) => {
                return self.answer(id, request_id, ResponseBody::error(error.to_string()));
            }
        };
        // Access comes before validation: an error about a missing config would reveal its absence.
        if let Some(denial) = self.deny_references(id, &proposed) {
            return self.deny(id, request_id, denial);
        }
        // The first failure is answered, in the order of docs/protocol.md#order-of-checks.
        let updated = match update::accept(&self.state, &proposed) {
            Ok(updated) => updated,
            Err(error) => {
                return self.answer(id, request_id, ResponseBody::error(error.to_string()));
            }
        };
        match self.deny_change_of_rules(id, &updated) {
            Some(denial) => self.deny(id, request_id, denial),
            None if self.grows_too_large(id, &updated) => {
                let most = self.config.limits.max_state_bytes;
                let text = format!("The state would take more than {most} bytes");
                self.answer(id, request_id, ResponseBody::error(text));
            }
            None => self.apply(id, request_id, updated),
        }
    }

    /// A reference to a config counts as a read of it: a template could print it.
    fn deny_references(&self, id: PeerId, proposed: &Map<Node>) -> Option<Denial> {
        let peer = self.peers.get(id).filter(|_| !id.is_agent())?;
        let workloads = proposed.get(DESIRED_STATE).and_then(|desired| desired.get("workloads"))?;
        let before = self.state.entries(&[DESIRED_STATE, "workloads"]);
        peer.rules.deny_references(before, workloads.entries())
    }

    /// Access rules of a workload are written like any other field of it, except by the workload itself
    /// (docs/differences.md#16-no-rights-for-oneself).
    fn deny_change_of_rules(&self, id: PeerId, updated: &Updated) -> Option<Denial> {
        let peer = self.peers.get(id).filter(|_| !id.is_agent())?;
        let access = |workload: &Option<Node>| {
            workload.as_ref().and_then(|workload| workload.get("controlInterfaceAccess").cloned())
        };
        let own = &peer.instance.workload;
        let differs = |change: &&WorkloadChange| access(&change.old) != access(&change.new);
        updated.changes.iter().filter(differs).find_map(|change| {
            // Its own removal counts like that of others: its rules end with it.
            let is_own = change.new.is_some() && change.name.as_str() == own;
            peer.rules.deny_change_of_rules(change.name.as_str(), is_own)
        })
    }

    fn grows_too_large(&self, id: PeerId, updated: &Updated) -> bool {
        let bytes = weight_after(&self.state, self.state_bytes, &updated.tree);
        // Shrinking is always allowed: otherwise a state above the limit could not be repaired.
        bytes > self.state_bytes && bytes > id.kind().most_state_bytes(&self.config.limits)
    }

    /// Commits an update, and queues its answer behind its events
    /// (docs/differences.md#5-events-precede-the-answer). Pairs are opened and closed after it.
    fn apply(&mut self, id: PeerId, request_id: &Arc<str>, updated: Updated) {
        let (ended, started) = self.commit_update(&updated, Some(id));
        let names = |instances: &[Instance]| instances.iter().map(ToString::to_string).collect();
        self.answer(id, request_id, ResponseBody::updated(names(&started), names(&ended)));
        if self.link.is_none() {
            self.follow_desired(&updated.changes);
        }
    }

    fn forwards_updates(&self, id: PeerId) -> bool {
        self.config.updates == Updates::Forward && !id.is_agent()
    }

    fn serve_logs(
        &mut self,
        id: PeerId,
        request_id: Arc<str>,
        instances: &[Instance],
        original: Bytes,
    ) {
        let Some(peer) = self.peers.get(id) else { return };
        let names = instances.iter().map(|instance| instance.workload.as_str());
        if let Some(denial) = peer.rules.deny_logs(names) {
            return self.deny(id, &request_id, denial);
        }
        if self.link.is_some() && !id.is_agent() {
            let names = instances.iter().map(|instance| instance.workload.clone()).collect();
            return self.forward(id, request_id, ForwardedKind::Logs(names), original);
        }
        let text = if id.is_agent() {
            "Logs are not available here: the agent collects them itself"
        } else {
            "Logs are not available: fifogate runs without an agent that could collect them"
        };
        self.answer(id, &request_id, ResponseBody::error(text));
    }
}
