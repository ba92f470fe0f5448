use prost::Message;

use super::*;
use crate::{
    message::{Command, FromAgent, NewState, Owner, Request, RequestKind},
    pb::{
        ank_base::{self as pb, response::ResponseContent},
        control_api::{FromAnkaios, from_ankaios::FromAnkaiosEnum},
    },
    state::{DESIRED_STATE, Mask, MaskSet, Node, update},
};

mod commanders;
mod forwarding;
mod limits;
mod rights;
mod slices;

/// A broker with workloads, and a server with slow or prompt readers.
struct World {
    broker: Broker,
    now: u64,
    /// Messages handed out and not yet checked.
    sent: Vec<(PeerId, Seq, ToWorkload, AckMode)>,
    reading: Vec<(PeerId, bool)>,
    /// Reports of slow readers.
    episodes: Vec<&'static str>,
    pairs: Vec<(PeerId, Option<Instance>)>,
    resets: Vec<PeerId>,
    /// Ends of sessions taken back, with the last message concerned.
    dropped: Vec<(PeerId, Seq)>,
    /// Messages handed out for the agent.
    to_agent: Vec<ToAgent>,
    /// True if every message is read as soon as it is handed out.
    prompt: bool,
}

fn rule(operation: &str, masks: &[&str]) -> Node {
    Node::map([
        ("type", Node::text("StateRule")),
        ("operation", Node::text(operation)),
        ("filterMasks", Node::seq(masks.iter().map(|mask| Node::text(mask)))),
    ])
}

fn workload(config: &str, allow: Vec<Node>, deny: Vec<Node>) -> Node {
    let access = Node::map([("allowRules", Node::seq(allow)), ("denyRules", Node::seq(deny))]);
    Node::map([
        ("agent", Node::text("node_a")),
        ("runtime", Node::text("process")),
        ("runtimeConfig", Node::text(config)),
        ("controlInterfaceAccess", access),
    ])
}

fn anything() -> Vec<Node> {
    vec![rule("ReadWrite", &["*"])]
}

fn desired(workloads: &[(&str, Node)], configs: &[(&str, &str)]) -> Tree {
    let configs = configs.iter().map(|(key, value)| (*key, Node::text(value)));
    let state = Node::map([
        ("apiVersion", Node::text("v1")),
        ("workloads", Node::map(workloads.iter().cloned())),
        ("configs", Node::map(configs)),
    ]);
    Tree::default().with(DESIRED_STATE, Some(state))
}

impl World {
    fn with(config: Config, workloads: &[(&str, Node)]) -> Self {
        let start = update::apply(&Tree::initial(), &desired(workloads, &[]), &[]).unwrap();
        let mut broker = Broker::new(config);
        broker.start(&start);
        let mut world = Self {
            broker,
            now: 0,
            sent: Vec::new(),
            reading: Vec::new(),
            episodes: Vec::new(),
            pairs: Vec::new(),
            resets: Vec::new(),
            dropped: Vec::new(),
            to_agent: Vec::new(),
            prompt: true,
        };
        world.collect();
        world
    }

    fn new(workloads: &[(&str, Node)]) -> Self {
        Self::with(Config { subscribe_grace_ms: 0, ..Config::default() }, workloads)
    }

    fn peer(&self, name: &str) -> PeerId {
        self.broker.peers().find(|(_, own, _)| own.workload == name).unwrap().0
    }

    fn input(&mut self, input: Input) {
        self.broker.handle(Tick(self.now), input);
        self.collect();
    }

    fn collect(&mut self) {
        while self.collect_slice() {}
    }

    /// Collects the outputs until the end of a slice. Returns true if more follow.
    fn collect_slice(&mut self) -> bool {
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::OpenPair(peer, instance, _) => self.pairs.push((peer, Some(instance))),
                Output::ClosePair(peer) => self.pairs.push((peer, None)),
                Output::Reset(peer) => self.resets.push(peer),
                Output::DropClosed(peer, up_to) => self.dropped.push((peer, up_to)),
                Output::Slow(..) => self.episodes.push("slow"),
                Output::CaughtUp(..) => self.episodes.push("caught up"),
                Output::SendToAgent { message, .. } => self.to_agent.push(message),
                Output::Stop | Output::EndLink(_) | Output::Denied(..) => {}
                Output::Yield => return true,
                Output::SetReadEnabled(peer, on) => self.reading.push((peer, on)),
                Output::Send { peer, seq, message, ack } => {
                    self.note_sent(peer, seq, message, ack);
                }
                Output::Multicast { body, deliveries } => {
                    for own in deliveries {
                        self.note_sent(own.peer, own.seq, own.message(&body), own.ack);
                    }
                }
            }
        }
        false
    }

    fn note_sent(&mut self, peer: PeerId, seq: Seq, message: ToWorkload, ack: AckMode) {
        self.sent.push((peer, seq, message, ack));
        if self.prompt {
            self.broker.handle(Tick(self.now), Input::Taken(peer, seq));
        }
    }

    fn say(&mut self, peer: PeerId, message: FromWorkload) {
        self.input(Input::Message { peer, message, written: 0 });
    }

    fn hello(&mut self, name: &str) -> PeerId {
        let peer = self.peer(name);
        self.say(peer, FromWorkload::Hello { version: "1.0.0".to_owned() });
        assert_eq!(self.heard(peer), ["accepted"]);
        peer
    }

    fn ask(&mut self, peer: PeerId, id: &str, ask: RequestKind) {
        self.say(
            peer,
            FromWorkload::Request(Request {
                id: id.to_owned(),
                ask,
                original: bytes::Bytes::new(),
            }),
        );
    }

    fn subscribe(&mut self, peer: PeerId, id: &str, masks: &[&str]) {
        self.ask(peer, id, RequestKind::State { masks: MaskSet::parse(masks), subscribe: true });
    }

    fn update(&mut self, peer: PeerId, new_state: Tree, masks: &[&str]) {
        let masks = masks.iter().map(|mask| Mask::parse(mask)).collect();
        self.ask(peer, "u", RequestKind::Update { new_state: NewState::Given(new_state), masks });
    }

    fn set(&mut self, peer: PeerId, key: &str, value: &str) {
        let mask = format!("desiredState.configs.{key}");
        self.update(peer, desired(&[], &[(key, value)]), &[&mask]);
    }

    /// A short form of the messages to `peer` since the last call.
    fn heard(&mut self, peer: PeerId) -> Vec<String> {
        let (own, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sent).into_iter().partition(|sent| sent.0 == peer);
        self.sent = others;
        own.iter().map(|(_, _, message, _)| brief(message)).collect()
    }

    fn take_all(&mut self, peer: PeerId) -> Vec<String> {
        self.take_messages(peer).iter().map(brief).collect()
    }

    /// The states sent to `peer` since the last call, with all its waiting messages read meanwhile.
    fn take_states(&mut self, peer: PeerId) -> Vec<pb::CompleteState> {
        self.take_messages(peer).iter().filter_map(state_of).collect()
    }

    fn take_messages(&mut self, peer: PeerId) -> Vec<ToWorkload> {
        let mut taken = Vec::new();
        loop {
            let (own, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.sent).into_iter().partition(|sent| sent.0 == peer);
            self.sent = others;
            let Some(last) = own.iter().map(|sent| sent.1).max() else { return taken };
            taken.extend(own.into_iter().map(|(_, _, message, _)| message));
            self.input(Input::Taken(peer, last));
        }
    }
}

fn decoded(message: &ToWorkload) -> FromAnkaios {
    FromAnkaios::decode_length_delimited(&*message.clone().into_frame().to_vec()).unwrap()
}

/// The state in a message.
fn state_of(message: &ToWorkload) -> Option<pb::CompleteState> {
    let Some(FromAnkaiosEnum::Response(response)) = decoded(message).from_ankaios_enum else {
        return None;
    };
    match response.response_content {
        Some(ResponseContent::CompleteStateResponse(response)) => response.complete_state,
        _ => None,
    }
}

fn brief(message: &ToWorkload) -> String {
    let response = match decoded(message).from_ankaios_enum {
        Some(FromAnkaiosEnum::ControlInterfaceAccepted(_)) => return "accepted".to_owned(),
        Some(FromAnkaiosEnum::ConnectionClosed(closed)) => {
            return format!("closed: {}", closed.reason);
        }
        Some(FromAnkaiosEnum::Response(response)) => response,
        None => return "nothing".to_owned(),
    };
    let id = response.request_id;
    match response.response_content.unwrap() {
        ResponseContent::Error(error) => format!("{id} error: {}", error.message),
        ResponseContent::CompleteStateResponse(response) => match response.altered_fields {
            None => format!("{id} state"),
            Some(fields) => {
                format!("{id} event {}", altered(&fields, &response.complete_state.unwrap()))
            }
        },
        ResponseContent::UpdateStateSuccess(success) => {
            format!(
                "{id} done +{} -{}",
                success.added_workloads.len(),
                success.deleted_workloads.len()
            )
        }
        ResponseContent::EventsCancelAccepted(_) => format!("{id} cancelled"),
        other => format!("{id} {other:?}"),
    }
}

fn altered(fields: &pb::AlteredFields, state: &pb::CompleteState) -> String {
    let lists =
        [('+', &fields.added_fields), ('~', &fields.updated_fields), ('-', &fields.removed_fields)];
    let short = |path: &String| path.rsplit('.').next().unwrap().to_owned();
    let lists = lists
        .iter()
        .flat_map(|(sign, list)| list.iter().map(move |path| format!("{sign}{}", short(path))));
    let configs = state
        .desired_state
        .iter()
        .flat_map(|state| state.configs.iter())
        .flat_map(|map| &map.configs);
    let values = configs.filter_map(|(key, item)| match item.config_item_enum.as_ref()? {
        pb::config_item::ConfigItemEnum::String(value) => Some(format!("{key}={value}")),
        _ => None,
    });
    lists.chain(values).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_compatible_hello_is_answered_and_ends_what_was_before() {
    let mut world = World::new(&[("a", workload("", anything(), vec![]))]);
    let a = world.hello("a");
    world.subscribe(a, "s", &["desiredState.configs"]);
    assert_eq!(world.heard(a), ["s state"]);
    world.say(a, FromWorkload::Hello { version: "1.9.0-pre".to_owned() });
    assert_eq!(world.heard(a), ["accepted"]);
    assert_eq!(world.resets.len(), 2);
    world.set(a, "k", "v");
    assert_eq!(world.heard(a), ["u done +0 -0"], "the subscription is of the session before");
}

#[test]
fn refused_handshake_is_told_once_and_a_later_hello_opens() {
    let mut world = World::new(&[("a", workload("", anything(), vec![]))]);
    let a = world.peer("a");
    world.ask(a, "r", RequestKind::CancelEvents);
    assert_eq!(world.heard(a), ["closed: Initial Hello missing!"]);
    world.ask(a, "r", RequestKind::CancelEvents);
    assert!(world.heard(a).is_empty());
    world.input(Input::EndOfFile(a));
    world.say(a, FromWorkload::Undecodable { request_id: None, reason: String::new() });
    assert_eq!(world.heard(a), ["closed: Could not decode protobuf data"]);
    world.say(a, FromWorkload::Hello { version: "2.0.0".to_owned() });
    let text = "closed: Unsupported protocol version '2.0.0'. Currently supported '1'";
    assert_eq!(world.heard(a), [text]);
    world.hello("a");
}

#[test]
fn broken_stream_ends_the_session_with_its_reason_and_its_subscriptions() {
    let mut world = World::new(&[
        ("a", workload("", anything(), vec![])),
        ("b", workload("", anything(), vec![])),
    ]);
    let (a, b) = (world.hello("a"), world.hello("b"));
    world.subscribe(a, "s", &["desiredState.configs"]);
    world.input(Input::Broken { peer: a, reason: "too large".to_owned() });
    assert_eq!(world.heard(a), ["s state", "closed: too large"]);
    world.set(b, "k", "v");
    assert!(world.heard(a).is_empty());
    assert_eq!(world.heard(b), ["u done +0 -0"]);
}

#[test]
fn end_of_file_keeps_the_session_and_its_subscriptions() {
    let mut world = World::new(&[("a", workload("", anything(), vec![]))]);
    let a = world.hello("a");
    world.subscribe(a, "s", &["desiredState.configs.k"]);
    world.input(Input::EndOfFile(a));
    world.set(a, "k", "v");
    assert_eq!(world.heard(a), ["s state", "s event +k k=v", "u done +0 -0"]);
}

#[test]
fn what_makes_no_sense_is_answered_where_an_id_is_known_and_always_counted() {
    let mut world = World::new(&[("a", workload("", anything(), vec![]))]);
    let a = world.hello("a");
    world.say(a, FromWorkload::Empty);
    world.say(a, FromWorkload::Undecodable { request_id: None, reason: "x".to_owned() });
    assert!(world.heard(a).is_empty());
    let request_id = Some("r".to_owned());
    world.say(a, FromWorkload::Undecodable { request_id, reason: "bad tag".to_owned() });
    world.ask(a, "n", RequestKind::Nothing);
    let expected = ["r error: Could not decode the request: bad tag", "n error: Access denied"];
    assert_eq!(world.heard(a), expected);
    let counters = *world.broker.peers().next().unwrap().2;
    assert_eq!((counters.malformed, counters.denied), (4, 1));
}

#[test]
fn id_used_again_replaces_the_masks_and_cancel_ends_for_good() {
    let mut world = World::new(&[("a", workload("", anything(), vec![]))]);
    let a = world.hello("a");
    world.subscribe(a, "s", &["desiredState.configs.x"]);
    world.subscribe(a, "s", &["desiredState.configs.y"]);
    world.set(a, "x", "1");
    world.set(a, "y", "1");
    assert_eq!(
        world.heard(a),
        ["s state", "s state", "u done +0 -0", "s event +y y=1", "u done +0 -0"]
    );
    world.ask(a, "s", RequestKind::CancelEvents);
    world.ask(a, "unknown", RequestKind::CancelEvents);
    world.set(a, "y", "2");
    assert_eq!(world.heard(a), ["s cancelled", "unknown cancelled", "u done +0 -0"]);
}

#[test]
fn subscriptions_at_the_limit_pass_and_one_above_is_refused() {
    let limits = Limits { max_subscriptions: 2, ..Limits::default() };
    let config = Config { limits, subscribe_grace_ms: 0, ..Config::default() };
    let mut world = World::with(config, &[("a", workload("", anything(), vec![]))]);
    let a = world.hello("a");
    for id in ["1", "2", "3", "2"] {
        world.subscribe(a, id, &["agents"]);
    }
    let refused = "3 error: Too many subscriptions, at most 2 are allowed";
    assert_eq!(world.heard(a), ["1 state", "2 state", refused, "2 state"]);
}

#[test]
fn subscriber_is_told_nothing_until_it_had_time_to_get_ready_and_then_all_at_once() {
    let config = Config { subscribe_grace_ms: 20, ..Config::default() };
    let mut world = World::with(
        config,
        &[("a", workload("", anything(), vec![])), ("b", workload("", anything(), vec![]))],
    );
    let (a, b) = (world.hello("a"), world.hello("b"));
    world.prompt = false;
    world.subscribe(a, "s", &["desiredState.configs"]);
    assert_eq!(world.sent.last().unwrap().3, AckMode::Taken);
    world.set(b, "k", "1");
    world.now = 1_000;
    world.input(Input::Tick);
    assert_eq!(world.take_all(a), ["s state"], "its first answer had not been taken");
    assert_eq!(world.broker.next_deadline(), Some(Tick(1_020)));
    world.set(b, "k", "2");
    world.now = 1_019;
    world.input(Input::Tick);
    assert!(world.heard(a).is_empty());
    world.now = 1_020;
    world.input(Input::Tick);
    assert_eq!(world.take_all(a), ["s event +configs k=2"]);
    world.set(b, "k", "3");
    assert_eq!(world.take_all(a), ["s event ~k k=3"]);
}

#[test]
fn slow_reader_costs_its_budget_and_ends_at_the_newest_state() {
    let limits = Limits { outbox_bytes: 2_000, ..Limits::default() };
    let config = Config { limits, subscribe_grace_ms: 0, ..Config::default() };
    let mut world = World::with(
        config,
        &[("a", workload("", anything(), vec![])), ("b", workload("", anything(), vec![]))],
    );
    let (a, b) = (world.hello("a"), world.hello("b"));
    world.subscribe(a, "s", &["desiredState.configs.*"]);
    world.heard(a);
    world.prompt = false;
    for n in 0..1_000 {
        world.set(b, &format!("k{}", n % 5), &n.to_string());
        world.take_all(b);
        assert!(world.broker.peers.get(a).unwrap().outbox.bytes() < 2_200);
    }
    let events = world.take_all(a);
    assert!(events.len() < 60, "{} events", events.len());
    assert_eq!(
        events.last().unwrap(),
        "s event ~k0 ~k1 ~k2 ~k3 ~k4 k0=995 k1=996 k2=997 k3=998 k4=999"
    );
}

#[test]
fn workload_that_asks_and_does_not_read_is_not_read_until_it_does() {
    let limits = Limits { outbox_bytes: 300, ..Limits::default() };
    let config = Config { limits, subscribe_grace_ms: 0, ..Config::default() };
    let mut world = World::with(config, &[("a", workload("", anything(), vec![]))]);
    let a = world.hello("a");
    world.prompt = false;
    let mut asked = 0;
    while world.reading.is_empty() {
        world.ask(
            a,
            &asked.to_string(),
            RequestKind::State { masks: MaskSet::parse([""; 0]), subscribe: false },
        );
        asked += 1;
    }
    assert_eq!(world.reading, [(a, false)]);
    assert_eq!(world.take_all(a).len(), asked, "no answer is dropped");
    assert_eq!(world.reading, [(a, false), (a, true)]);
}

#[test]
fn pairs_follow_the_desired_state() {
    let mut world =
        World::new(&[("a", workload("", anything(), vec![])), ("b", workload("", vec![], vec![]))]);
    assert_eq!(world.pairs.len(), 1, "b has no allow rules");
    let a = world.hello("a");
    let mask = ["desiredState.workloads.b"];
    world.update(a, desired(&[("b", workload("1", anything(), vec![]))], &[]), &mask);
    let first = world.peer("b");
    world.update(a, desired(&[("b", workload("2", anything(), vec![]))], &[]), &mask);
    let second = world.peer("b");
    assert_ne!(first, second, "another configuration is another instance");
    world.update(a, desired(&[], &[]), &mask);
    let opened = |(peer, instance): &(PeerId, Option<Instance>)| (*peer, instance.is_some());
    let pairs: Vec<_> = world.pairs.iter().map(opened).collect();
    assert_eq!(pairs, [(a, true), (first, true), (first, false), (second, true), (second, false)]);
}

#[test]
fn subscribers_of_the_same_masks_share_the_bytes_of_an_event() {
    let mut world = World::new(&[
        ("a", workload("", anything(), vec![])),
        ("b", workload("", anything(), vec![])),
    ]);
    let (a, b) = (world.hello("a"), world.hello("b"));
    for peer in [a, b] {
        world.subscribe(peer, "s", &["desiredState.configs.*"]);
        world.heard(peer);
    }
    world.set(a, "k", "v");
    let to: Vec<_> = world.sent.iter().map(|sent| sent.0).collect();
    assert_eq!(to, [b, a, a], "the event of another comes before the answer too");
    let bodies: Vec<_> = world
        .sent
        .iter()
        .map(|(_, _, message, _)| message.clone().into_frame().body().clone())
        .collect();
    assert_eq!(bodies[0].as_ptr(), bodies[1].as_ptr());
}
