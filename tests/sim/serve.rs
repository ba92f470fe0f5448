//! The naive model of the protocol: what each input is to bring about (docs/protocol.md#sessions,
//! docs/protocol.md#masks, docs/protocol.md#reads, docs/protocol.md#events, docs/protocol.md#updates,
//! docs/protocol.md#access-rules, docs/protocol.md#logs, docs/differences.md#sessions-and-answers).

use std::rc::Rc;

use fifogate::{
    broker::{Input, PeerId, Updates},
    internal::Session,
    message::FromWorkload,
    pb::ank_base::{
        EventsCancelAccepted, LogsCancelAccepted, UpdateStateSuccess, response::ResponseContent,
    },
};
use serde_json::{Value, json};

use super::{
    access::Rules,
    asks::{RequestKind, Saying, Unknown},
    checks::assert_may_see,
    link::ForwardedKind,
    peer::{Expected, Place, Subscription},
    server::Seen,
    tree::{self, Masks},
    update::{self, Refused},
    world::World,
};

impl World {
    /// A workload says something.
    pub(crate) fn say(&mut self, id: PeerId, saying: &Saying) {
        self.note(format!("{id:?} says {saying:?}"));
        let message = FromWorkload::decode(&saying.encode().into(), &self.config.limits);
        let written = self.peers.get(&id).map_or(0, |peer| peer.server.written);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.has_written(written);
            let phase = peer.phase;
            self.expect_answer(id, phase, saying);
        }
        self.handle(Input::Message { peer: id, message, written });
    }

    fn expect_answer(&mut self, id: PeerId, phase: Session, saying: &Saying) {
        match (phase, saying) {
            (_, Saying::Hello(version)) if version.starts_with("1.") => self.begin(id),
            (_, Saying::Hello(version)) => {
                let supported = "Currently supported '1'";
                self.close(id, &format!("Unsupported protocol version '{version}'. {supported}"));
            }
            (Session::Closed, _) => {}
            (Session::AwaitHello, Saying::Spoiled { .. } | Saying::Noise) => {
                self.close(id, "Could not decode protobuf data");
            }
            (Session::AwaitHello, _) => self.close(id, "Initial Hello missing!"),
            (Session::Open, Saying::Request { id: request_id, ask }) => {
                self.counts.one("requests");
                self.request(id, request_id, ask);
            }
            (Session::Open, Saying::Spoiled { id: request_id }) => {
                self.counts.one("undecodable");
                // An empty id is not on the wire, so there is none that could be read.
                if !request_id.is_empty() {
                    self.due(id, Place::Answer, Expected::some_error(request_id));
                }
            }
            (Session::Open, Saying::Noise | Saying::Empty) => self.counts.one("undecodable"),
        }
    }

    fn begin(&mut self, id: PeerId) {
        let peer = self.peers.get_mut(&id).unwrap();
        let anew = if peer.is_open() { "sessions begun anew" } else { "sessions begun" };
        self.counts.one(anew);
        // As when a reader died, and the next one comes.
        self.counts.many("sessions begun behind what nobody read", u64::from(peer.queued > 0));
        peer.phase = Session::Open;
        peer.session += 1;
        peer.subscriptions.clear();
        peer.views.clear();
        peer.expected.clear();
        self.round.reset = Some(id);
        self.due(id, Place::Answer, Expected::accepted());
        self.session_changed(id, None);
    }

    /// What a closed session is still owed comes first, but for events.
    pub(crate) fn close(&mut self, id: PeerId, reason: &str) {
        self.counts.one("sessions closed");
        let peer = self.peers.get_mut(&id).unwrap();
        peer.phase = Session::Closed;
        let ended = std::mem::take(&mut peer.subscriptions);
        let uids: Vec<_> = ended.values().map(|own| own.uid).collect();
        peer.take_back(&uids, &mut self.counts);
        self.due(id, Place::Answer, Expected::closed(reason));
        self.session_changed(id, Some(reason));
    }

    /// The stream of a workload makes no sense.
    pub(crate) fn break_stream(&mut self, id: PeerId) {
        self.note(format!("{id:?} breaks its stream"));
        self.counts.one("broken streams");
        let reason = "Frame length is not a varint of at most 64 bits";
        if self.peers.get(&id).is_some_and(|peer| peer.phase != Session::Closed) {
            self.close(id, reason);
        }
        self.handle(Input::Broken { peer: id, reason: reason.to_owned() });
    }

    pub(crate) fn end_of_file(&mut self, id: PeerId) {
        self.note(format!("{id:?} hangs up"));
        self.counts.one("ends of file");
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.phase == Session::Closed
        {
            peer.phase = Session::AwaitHello;
        }
        self.handle(Input::EndOfFile(id));
    }

    pub(crate) fn request(&mut self, id: PeerId, request_id: &str, ask: &RequestKind) {
        let limits = &self.config.limits;
        let masks = ask.masks();
        if masks.len() > limits.max_masks
            || masks.iter().any(|mask| mask.len() > limits.max_mask_length)
        {
            self.counts.one("over a limit");
            return self.due(id, Place::Answer, Expected::some_error(request_id));
        }
        let rules = self.rules_of(id);
        let allowed = match ask {
            RequestKind::State { masks, .. } => rules.may_read(masks),
            RequestKind::Update { masks, .. } => rules.may_write(masks),
            RequestKind::Logs(names) => rules.may_read_logs(names),
            RequestKind::CancelLogs | RequestKind::CancelEvents => true,
            RequestKind::Nothing => false,
        };
        if !allowed {
            self.counts.one("denied");
            return self.due(id, Place::Answer, Expected::denied(request_id));
        }
        let is_agent = id == PeerId::AGENT;
        match ask {
            RequestKind::State { masks, subscribe } => self.read(id, request_id, masks, *subscribe),
            RequestKind::Update { .. } if self.forwards_updates(id) => {
                self.forward(id, request_id, ForwardedKind::Update, ask);
            }
            RequestKind::Update { new, masks, unknown } => {
                self.update(id, request_id, new.as_ref(), masks, *unknown);
            }
            RequestKind::Logs(_) if self.is_linked() && !is_agent => {
                self.forward(id, request_id, ForwardedKind::Logs, ask)
            }
            RequestKind::CancelLogs if self.is_linked() && !is_agent => {
                self.forward(id, request_id, ForwardedKind::CancelLogs, ask);
            }
            RequestKind::Logs(_) => self.due(id, Place::Answer, Expected::some_error(request_id)),
            RequestKind::CancelLogs => {
                let content = ResponseContent::LogsCancelAccepted(LogsCancelAccepted {});
                self.due(id, Place::Answer, Expected::response(request_id, content));
            }
            RequestKind::CancelEvents => self.cancel(id, request_id),
            RequestKind::Nothing => {}
        }
    }

    fn rules_of(&self, id: PeerId) -> Rules {
        let all = json!({"allowRules": [
            {"type": "StateRule", "operation": "ReadWrite", "filterMasks": ["*"]},
            {"type": "LogRule", "workloadNames": ["*"]},
        ]});
        self.peers.get(&id).map_or_else(|| Rules::of(Some(&all)), |peer| peer.rules.clone())
    }

    fn may_change_access(&self, id: PeerId, made: &update::Made) -> bool {
        self.peers.get(&id).is_none_or(|peer| {
            let name = &peer.instance.workload;
            update::may_change_access(&self.state, made, name, &peer.rules)
        })
    }

    fn forwards_updates(&self, id: PeerId) -> bool {
        self.config.updates == Updates::Forward && id != PeerId::AGENT
    }

    fn cancel(&mut self, id: PeerId, request_id: &str) {
        let peer = self.peers.get_mut(&id);
        let ended = peer.is_some_and(|peer| peer.subscriptions.remove(request_id).is_some());
        self.counts.many("subscriptions cancelled", ended.into());
        let content = ResponseContent::EventsCancelAccepted(EventsCancelAccepted {});
        self.due(id, Place::Answer, Expected::response(request_id, content));
    }

    fn read(&mut self, id: PeerId, request_id: &str, texts: &[String], subscribe: bool) {
        let (uid, masks) = (self.next_uid(), Masks::new(texts));
        let state = tree::read(&self.state, &masks);
        let mut answer = Expected::state(request_id, &state, masks.everything());
        let Some(peer) = self.peers.get_mut(&id) else {
            return self.due(id, Place::Answer, answer);
        };
        let replaces = peer.subscriptions.contains_key(request_id);
        if subscribe
            && !replaces
            && peer.subscriptions.len() >= self.config.limits.max_subscriptions
        {
            self.counts.one("over a limit");
            return self.due(id, Place::Answer, Expected::some_error(request_id));
        }
        assert_may_see(peer, &state);
        self.counts.one("reads answered");
        if subscribe {
            let what = if replaces { "subscriptions replaced" } else { "subscriptions" };
            self.counts.one(what);
            let starred = texts.iter().any(|text| text.contains('*'));
            self.counts.many("subscriptions by wildcard", starred.into());
            let live_at = (self.config.subscribe_grace_ms == 0).then_some(0);
            let told = Rc::clone(&self.state);
            let own = Subscription::new(uid, masks, told, live_at);
            peer.subscriptions.insert(request_id.to_owned(), own);
            answer.seen = Seen::First(uid, state);
        }
        self.due(id, Place::Answer, answer);
    }

    fn update(
        &mut self,
        id: PeerId,
        request_id: &str,
        new: Option<&Value>,
        masks: &[String],
        unknown: Unknown,
    ) {
        let refused = |world: &mut Self, expected| {
            world.counts.one("updates refused");
            world.due(id, Place::Answer, expected);
        };
        let Some(new) = new.filter(|_| unknown != Unknown::Desired) else {
            return refused(self, Expected::some_error(request_id));
        };
        let rules = self.rules_of(id);
        if !update::may_refer(&self.state, &update::as_sent(new), masks, &rules) {
            self.counts.one("updates refused for a reference");
            return self.due(id, Place::Answer, Expected::denied(request_id));
        }
        match update::apply(&self.state, &update::as_sent(new), masks, self.is_linked()) {
            Err(Refused::Text(text)) => refused(self, Expected::error(request_id, &text)),
            Err(Refused::Somehow) => refused(self, Expected::some_error(request_id)),
            Ok(made) => {
                if !self.may_change_access(id, &made) {
                    self.counts.one("updates refused for access rules");
                    return self.due(id, Place::Answer, Expected::denied(request_id));
                }
                let idle = made.state == *self.state;
                self.counts.one("updates accepted");
                self.counts.many("updates that change nothing", idle.into());
                self.due(id, Place::Answer, success(request_id, &made));
                self.adopt(&made);
            }
        }
    }
}

pub(crate) fn success(request_id: &str, made: &update::Made) -> Expected {
    let texts = |instances: &[update::Instance]| instances.iter().map(|own| own.text()).collect();
    let success = UpdateStateSuccess {
        added_workloads: texts(&made.started),
        deleted_workloads: texts(&made.ended),
    };
    Expected::response(request_id, ResponseContent::UpdateStateSuccess(success))
}
