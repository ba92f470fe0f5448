//! The naive model of one workload: what it is owed, in order, and what it was told.
//!
//! *When* an event is made is taken from the broker's report; that it was due then, what it says and
//! where it comes in the order is for the model to judge.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use fifogate::{
    broker::{PeerId, Seq},
    internal::{Session, SubscriptionReport, WorkloadReport},
    pb::{
        ank_base::{self as pb, response::ResponseContent},
        control_api::{
            ConnectionClosed, ControlInterfaceAccepted, FromAnkaios, from_ankaios::FromAnkaiosEnum,
        },
    },
};
use prost::Message;
use serde_json::Value;

use super::{
    access::Rules,
    counts::Counts,
    pbs,
    server::{Edge, Seen},
    tree::{self, Masks, Path},
    update::Instance,
};

/// A message that is due.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// None: an error under this id, whatever it says.
    message: Option<FromAnkaios>,
    id: String,
    pub(crate) seen: Seen,
    /// The message that may come in its place: a resynchronisation, where versions are given up.
    instead: Option<Box<Expected>>,
}

impl Expected {
    pub(crate) fn accepted() -> Self {
        Self::session(FromAnkaiosEnum::ControlInterfaceAccepted(ControlInterfaceAccepted {}))
    }

    pub(crate) fn closed(reason: &str) -> Self {
        let reason = reason.to_owned();
        Self::session(FromAnkaiosEnum::ConnectionClosed(ConnectionClosed { reason }))
    }

    fn session(content: FromAnkaiosEnum) -> Self {
        let message = Some(FromAnkaios { from_ankaios_enum: Some(content) });
        Self { message, id: String::new(), seen: Seen::Other, instead: None }
    }

    pub(crate) fn response(id: &str, content: ResponseContent) -> Self {
        let response = pb::Response { request_id: id.to_owned(), response_content: Some(content) };
        let content = Some(FromAnkaiosEnum::Response(response));
        let message = Some(FromAnkaios { from_ankaios_enum: content });
        Self { message, id: id.to_owned(), seen: Seen::Other, instead: None }
    }

    pub(crate) fn error(id: &str, text: &str) -> Self {
        Self::response(id, ResponseContent::Error(pb::Error { message: text.to_owned() }))
    }

    pub(crate) fn denied(id: &str) -> Self {
        Self::error(id, "Access denied")
    }

    pub(crate) fn some_error(id: &str) -> Self {
        Self { message: None, id: id.to_owned(), seen: Seen::Other, instead: None }
    }

    pub(crate) fn state(id: &str, state: &Value, full: bool) -> Self {
        let complete_state = Some(pbs::complete_state(state, full));
        let content = pb::CompleteStateResponse { complete_state, altered_fields: None };
        Self::response(id, ResponseContent::CompleteStateResponse(content))
    }

    fn event(id: &str, subscription: u64, event: tree::Event) -> Self {
        let list = |texts: &std::collections::BTreeSet<String>| texts.iter().cloned().collect();
        let altered = pb::AlteredFields {
            added_fields: list(&event.added),
            updated_fields: list(&event.updated),
            removed_fields: list(&event.removed),
        };
        let content = pb::CompleteStateResponse {
            complete_state: Some(pbs::complete_state(&event.state, false)),
            altered_fields: Some(altered),
        };
        let seen = Seen::Event(subscription, event);
        Self { seen, ..Self::response(id, ResponseContent::CompleteStateResponse(content)) }
    }

    fn or(self, instead: Self) -> Self {
        Self { instead: Some(Box::new(instead)), ..self }
    }

    pub(crate) fn is(&self, message: &FromAnkaios) -> bool {
        self.is_this(message) || self.instead.as_ref().is_some_and(|own| own.is_this(message))
    }

    fn is_this(&self, message: &FromAnkaios) -> bool {
        match (&self.message, &message.from_ankaios_enum) {
            (Some(own), _) => own == message,
            (None, Some(FromAnkaiosEnum::Response(response))) => {
                response.request_id == self.id
                    && matches!(&response.response_content,
                        Some(ResponseContent::Error(error)) if error.message.len() > 10)
            }
            _ => false,
        }
    }

    fn is_event(&self) -> bool {
        matches!(self.seen, Seen::Event(..))
    }

    /// The one of the two that the message is.
    fn that_is(self, message: &FromAnkaios) -> Self {
        match self.instead {
            Some(instead) if instead.is_this(message) => *instead,
            _ => self,
        }
    }

    /// Its bytes, if they are known.
    fn len(&self) -> Option<usize> {
        self.message.as_ref().filter(|_| self.instead.is_none()).map(Message::encoded_len)
    }

    /// Its bytes, or those of what may come in its place.
    fn longest(&self) -> usize {
        let own = self.message.as_ref().map_or(0, Message::encoded_len);
        own.max(self.instead.as_ref().map_or(0, |instead| instead.longest()))
    }
}

/// Where in the order of its step a message comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Events of subscribers that are up to date, in any order, before all else.
    Direct,
    /// Events that come before or after the answer: the budget was used up between them, or the
    /// subscriber had its time to get ready at the moment of the change.
    Loose,
    Answer,
    /// Errors that end subscriptions, in any order.
    Ended,
    /// Errors of requests that the agent did not answer.
    TimedOut,
    /// Events of subscribers that were behind, in any order.
    CatchUp,
}

/// What one step made for one workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) step: u64,
    pub(crate) due: Vec<(Place, Expected)>,
}

/// One subscription.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) uid: u64,
    pub(crate) masks: Masks,
    /// The state that its reader was last told of.
    pub(crate) told: Rc<Value>,
    /// When it may be told something; none until its first answer was taken.
    pub(crate) live_at: Option<u64>,
    pub(crate) first_seq: Option<Seq>,
    events: u64,
    merged: u64,
    behind: bool,
    /// Places of which its reader cannot know all.
    pub(crate) blind: Vec<Path>,
}

impl Subscription {
    pub(crate) fn new(uid: u64, masks: Masks, told: Rc<Value>, live_at: Option<u64>) -> Self {
        let (first_seq, blind) = (None, Vec::new());
        Self { uid, masks, told, live_at, first_seq, events: 0, merged: 0, behind: false, blind }
    }
}

/// How fast a workload reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Prompt,
    Slow,
    Never,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) instance: Instance,
    pub(crate) access: Option<Value>,
    pub(crate) rules: Rules,
    pub(crate) phase: Session,
    /// Sessions so far.
    pub(crate) session: u64,
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    pub(crate) expected: VecDeque<Batch>,
    pub(crate) handed: Seq,
    pub(crate) told_written: Seq,
    pub(crate) reading: bool,
    /// Bytes that wait for it, as reported.
    pub(crate) queued: usize,
    pub(crate) has_pair: bool,
    pub(crate) server: Edge,
    pub(crate) habit: Habit,
    pub(crate) views: BTreeMap<u64, Value>,
}

/// What there is to know when the broker's report is looked at.
pub(crate) struct Moment<'a> {
    pub(crate) step: u64,
    pub(crate) state: &'a Rc<Value>,
    pub(crate) now: u64,
    /// The time of the step before.
    pub(crate) before: u64,
    /// Bytes that are surely within the budget of a workload, and those that surely are not.
    pub(crate) budget: (usize, usize),
    /// Old versions are given up, so that a subscriber may be sent all that it sees.
    pub(crate) may_resync: bool,
}

impl Peer {
    pub(crate) fn new(id: PeerId, instance: Instance, access: Option<Value>, habit: Habit) -> Self {
        Self {
            id,
            instance,
            rules: Rules::of(access.as_ref()),
            access,
            phase: Session::AwaitHello,
            session: 0,
            subscriptions: BTreeMap::new(),
            expected: VecDeque::new(),
            handed: 0,
            told_written: 0,
            reading: true,
            queued: 0,
            has_pair: false,
            server: Edge::default(),
            habit,
            views: BTreeMap::new(),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Session::Open
    }

    pub(crate) fn has_written(&mut self, seq: Seq) {
        self.told_written = self.told_written.max(seq);
    }

    /// Forgets what is not handed out yet of the subscriptions that `ended` names.
    pub(crate) fn take_back(&mut self, ended: &[u64], counts: &mut Counts) {
        for batch in &mut self.expected {
            let before = batch.due.len();
            batch.due.retain(
                |(_, due)| !matches!(&due.seen, Seen::Event(uid, _) if ended.contains(uid)),
            );
            counts.many("events taken back", (before - batch.due.len()) as u64);
        }
    }

    /// Compares the report with what is known, and gives the events that were made in this step.
    pub(crate) fn observe(
        &mut self,
        report: &WorkloadReport,
        moment: &Moment<'_>,
        counts: &mut Counts,
    ) -> Batch {
        let who = self.instance.text();
        assert_eq!(report.session, self.phase, "session of {who}");
        let ids: Vec<_> = report.subscriptions.iter().map(|own| &own.request_id).collect();
        assert_eq!(ids, self.subscriptions.keys().collect::<Vec<_>>(), "subscriptions of {who}");
        let mut made = Vec::new();
        for reported in &report.subscriptions {
            let own = self.subscriptions.get_mut(&reported.request_id).unwrap();
            counts.many("events merged", reported.events_merged - own.merged);
            own.merged = reported.events_merged;
            let ready = |by: u64| !own.behind && own.live_at.is_some_and(|at| at <= by);
            let (was_ready, is_ready) = (ready(moment.before), ready(moment.now));
            let half = moment.budget.0 / 2;
            let event = own.observe(reported, moment, report.queued_bytes > half);
            if let Some(event) = event {
                let expected = Expected::event(&reported.request_id, own.uid, event);
                let expected = match moment.may_resync {
                    true => {
                        let instead = tree::resync(moment.state, &own.masks);
                        expected.or(Expected::event(&reported.request_id, own.uid, instead))
                    }
                    false => expected,
                };
                made.push((was_ready, is_ready, expected));
            }
        }
        let bytes: usize = made.iter().map(|(.., due)| due.longest()).sum();
        let (sure, most) = moment.budget;
        let place = |was_ready, is_ready| match is_ready && self.queued < most {
            false => Place::CatchUp,
            true if was_ready && self.queued + bytes < sure => Place::Direct,
            true => Place::Loose,
        };
        let due = made.into_iter().map(|(was, is, due)| (place(was, is), due)).collect();
        self.queued = report.queued_bytes;
        Batch { step: moment.step, due }
    }

    /// Finds the message among those that may come next.
    pub(crate) fn take_expected(&mut self, message: &FromAnkaios) -> (u64, Place, Expected) {
        while self.expected.front().is_some_and(|batch| batch.due.is_empty()) {
            self.expected.pop_front();
        }
        let who = self.instance.text();
        let Some(batch) = self.expected.front_mut() else {
            panic!("{who} is sent what nobody expects: {message:?}");
        };
        let order = [Place::Direct, Place::Answer, Place::Ended, Place::TimedOut, Place::CatchUp];
        let next = order.into_iter().find(|own| batch.due.iter().any(|(place, _)| place == own));
        // Answers keep their order among themselves; so do other kinds, which nobody relies on.
        let first_answer = batch.due.iter().position(|(place, _)| *place == Place::Answer);
        let may_come = |at: usize, place: Place| match place {
            Place::Loose => true,
            Place::Answer => Some(place) == next && Some(at) == first_answer,
            _ => Some(place) == next,
        };
        let found = batch
            .due
            .iter()
            .enumerate()
            .position(|(at, (place, due))| may_come(at, *place) && due.is(message));
        let Some(found) = found else {
            panic!("{who} is sent\n  {message:?}\nwhere one of these is due\n  {:#?}", batch.due);
        };
        let (place, due) = batch.due.remove(found);
        (batch.step, place, due.that_is(message))
    }

    /// Bytes that have to wait for it now: of events, of all else, and whether that is all known.
    pub(crate) fn bytes_due(&self) -> (usize, usize, bool) {
        let all = || self.expected.iter().flat_map(|batch| &batch.due).map(|(_, due)| due);
        let sum = |events: bool| {
            all().filter(|due| due.is_event() == events).filter_map(Expected::len).sum()
        };
        (sum(true), sum(false), all().all(|due| due.len().is_some()))
    }

    pub(crate) fn largest_event_due(&self) -> usize {
        let all = self.expected.iter().flat_map(|batch| &batch.due).map(|(_, due)| due);
        all.filter(|due| due.is_event()).map(Expected::longest).max().unwrap_or_default()
    }

    pub(crate) fn owes_nothing(&self) -> bool {
        self.expected.iter().all(|batch| batch.due.is_empty())
    }
}

impl Subscription {
    /// What the report says of it: it was told what differs, or there is a reason that it was not.
    fn observe(
        &mut self,
        reported: &SubscriptionReport,
        moment: &Moment<'_>,
        is_full: bool,
    ) -> Option<tree::Event> {
        let id = &reported.request_id;
        let mut texts = self.masks.texts.clone();
        texts.sort();
        texts.dedup();
        if self.masks.everything() {
            texts.clear();
        }
        let mut masks = reported.masks.clone();
        masks.sort();
        assert_eq!(masks, texts, "masks of {id}");
        let is_live = self.live_at.is_some_and(|at| at <= moment.now);
        let news = reported.events_sent - self.events;
        self.events = reported.events_sent;
        self.behind = reported.behind;
        if reported.behind {
            assert_eq!(news, 0, "{id} was told something and is behind all the same");
            assert!(!is_live || is_full, "{id} is behind and could be told");
            return None;
        }
        let same = Rc::ptr_eq(&self.told, moment.state);
        let event = if same { None } else { tree::event(&self.told, moment.state, &self.masks) };
        let event = match event {
            None if moment.may_resync && news == 1 => Some(tree::resync(moment.state, &self.masks)),
            other => other,
        };
        match (&event, news) {
            (None, 0) => {}
            (Some(_), 1) => assert!(is_live, "{id} is told something before it had time"),
            (None, _) => panic!("{id} is told {news} events where nothing differs"),
            (Some(event), _) => panic!("{id} is told {news} events, of {event:#?}"),
        }
        if !same {
            let kinds = tree::kind_changes(&self.told, moment.state);
            self.blind.extend(kinds.into_iter().filter(|place| self.masks.look_below(place)));
            self.blind.extend(event.iter().flat_map(|event| event.partial.clone()));
            self.told = Rc::clone(moment.state);
        }
        event.filter(|_| news == 1)
    }

    /// The leaves of a tree that the reader can know.
    pub(crate) fn view<'a>(&self, tree: &'a Value) -> BTreeMap<Path, &'a Value> {
        let leaves = tree::leaves(tree).into_iter();
        leaves.filter(|(path, _)| self.masks.name(path) && !self.is_blind_to(path)).collect()
    }

    fn is_blind_to(&self, path: &Path) -> bool {
        self.blind.iter().any(|own| path.starts_with(own))
    }
}
