//! Fan-out in slices: inputs handled between two slices change the time of the events, never their
//! content or order for one reader.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::pb::ank_base::config_item::ConfigItemEnum;
use crate::state::convert::{self, Fill};

const PEERS: usize = 6;
const KEYS: [&str; 3] = ["k", "l", "m"];

/// The responses to each workload, in order.
type Received = BTreeMap<PeerId, Vec<pb::Response>>;

/// A broker with prompt readers.
struct Side {
    broker: Broker,
    received: Received,
    /// The last message handed out to each workload.
    handed: BTreeMap<PeerId, Seq>,
}

impl Side {
    fn new(slice: usize) -> Self {
        let config =
            Config { subscribe_grace_ms: 0, window: 1_000_000, slice, ..Config::default() };
        let mut broker = Broker::new(config);
        let names: Vec<_> = (0..PEERS).map(|n| format!("w{n}")).collect();
        let own = || workload("", anything(), vec![]);
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), own())).collect();
        broker.start(&update::apply(&Tree::initial(), &desired(&all, &[]), &[]).unwrap());
        let mut side = Self { broker, received: Received::new(), handed: BTreeMap::new() };
        while side.collect_slice() {}
        side
    }

    fn handle(&mut self, now: u64, input: Input) {
        self.broker.handle(Tick(now), input);
        self.collect_slice();
    }

    /// Collects the outputs until the end of a slice. Returns true if more follow.
    fn collect_slice(&mut self) -> bool {
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Send { peer, seq, message, .. } => self.note_sent(peer, seq, message),
                Output::Multicast { body, deliveries } => {
                    for own in deliveries {
                        self.note_sent(own.peer, own.seq, own.message(&body));
                    }
                }
                Output::Yield => return true,
                _ => {}
            }
        }
        false
    }

    fn note_sent(&mut self, peer: PeerId, seq: Seq, message: ToWorkload) {
        self.handed.insert(peer, seq);
        let frame = message.into_frame().to_vec();
        let message = FromAnkaios::decode_length_delimited(&*frame).unwrap();
        if let Some(FromAnkaiosEnum::Response(response)) = message.from_ankaios_enum {
            self.received.entry(peer).or_default().push(response);
        }
    }
}

/// The next message of one workload.
fn words(seed: u64, step: u64) -> FromWorkload {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let key = KEYS.choose(rng).unwrap();
    let mask = ["desiredState.configs.*".to_owned(), format!("desiredState.configs.{key}")];
    let masks = MaskSet::parse([mask.choose(rng).unwrap()]);
    let id = format!("s{}", rng.random_range(0..4));
    let (id, ask) = match rng.random_range(0..10) {
        0..=2 => (id, RequestKind::State { masks, subscribe: true }),
        3 => (id, RequestKind::CancelEvents),
        4..=6 => (format!("read {step}"), RequestKind::State { masks, subscribe: false }),
        _ => {
            let new_state = desired(&[], &[(key, &format!("{step:04}"))]);
            let masks = vec![Mask::parse(&mask[1])];
            (
                format!("u{step}"),
                RequestKind::Update { new_state: NewState::Given(new_state), masks },
            )
        }
    };
    FromWorkload::Request(Request { id, ask, original: bytes::Bytes::new() })
}

/// Sends the same inputs to both sides; the second delivers one event per slice. Messages handed out by
/// the second side are read, on both.
fn converse(seed: u64) -> [Received; 2] {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sides = [Side::new(usize::MAX), Side::new(1)];
    let peers: Vec<_> = sides[0].broker.peers().map(|(peer, ..)| peer).collect();
    let mut both = |now, make: &dyn Fn() -> Input| {
        sides.iter_mut().for_each(|side| side.handle(now, make()));
        sides[1].handed.clone()
    };
    let mut handed = BTreeMap::new();
    for peer in &peers {
        let hello = || FromWorkload::Hello { version: "1.0.0".to_owned() };
        handed = both(0, &|| Input::Message { peer: *peer, message: hello(), written: 0 });
    }
    for step in 1..400 {
        let peer = *peers.choose(&mut rng).unwrap();
        handed = if rng.random_bool(0.3) {
            let seq = handed.get(&peer).copied().unwrap_or(0);
            both(step, &|| Input::Taken(peer, seq))
        } else {
            let seed = rng.random();
            both(step, &|| Input::Message { peer, message: words(seed, step), written: 0 })
        };
    }
    sides.iter_mut().for_each(|side| while side.collect_slice() {});
    sides.map(|side| side.received)
}

fn by_request(received: &Received) -> BTreeMap<(PeerId, &str), Vec<&pb::Response>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (peer, responses) in received {
        for response in responses {
            all.entry((*peer, response.request_id.as_str())).or_default().push(response);
        }
    }
    all
}

/// The values of configs in a response, and true if it is an event.
fn values<'a>(response: &'a pb::Response) -> (bool, BTreeMap<&'a str, &'a str>) {
    let Some(ResponseContent::CompleteStateResponse(own)) = &response.response_content else {
        return Default::default();
    };
    let state = own.complete_state.as_ref().and_then(|state| state.desired_state.as_ref());
    let configs = state.and_then(|state| state.configs.as_ref());
    let text = |(key, item): (&'a String, &'a pb::ConfigItem)| match &item.config_item_enum {
        Some(ConfigItemEnum::String(text)) => Some((key.as_str(), text.as_str())),
        _ => None,
    };
    let values = configs.into_iter().flat_map(|all| &all.configs).filter_map(text).collect();
    (own.altered_fields.is_some(), values)
}

#[test]
fn streams_of_a_broker_that_tells_one_at_a_time_are_those_of_one_that_tells_all_at_once() {
    let mut events = 0;
    for seed in 0..50 {
        let received = converse(seed);
        let [whole, sliced] = received.each_ref().map(by_request);
        assert_eq!(whole, sliced, "seed {seed}");
        events += sliced.values().flatten().filter(|own| values(own).0).count();
    }
    assert!(events > 5_000, "only {events}");
}

#[test]
fn whoever_has_read_a_value_is_not_told_of_it_afterwards() {
    for seed in 0..50 {
        for received in converse(seed)[1].values() {
            let mut read = BTreeMap::new();
            for response in received {
                let (is_event, values) = values(response);
                for (key, value) in values {
                    if is_event {
                        let known = read.get(key).copied().unwrap_or_default();
                        assert!(known < value, "seed {seed}: {known} was read, then came {value}");
                    } else {
                        read.insert(key, value);
                    }
                }
            }
        }
    }
}

#[test]
fn request_of_another_is_answered_while_many_are_being_told() {
    let config = Config { subscribe_grace_ms: 0, slice: 1, ..Config::default() };
    let names: Vec<_> =
        ["a", "b", "c", "d"].map(|name| (name, workload("", anything(), vec![]))).into();
    let mut world = World::with(config, &names);
    let all: Vec<_> = names.iter().map(|(name, _)| world.hello(name)).collect();
    for peer in &all[1..] {
        world.subscribe(*peer, "s", &["desiredState.configs.k"]);
    }
    world.sent.clear();
    let say = |world: &mut World, peer, id: &str, ask| {
        let request = Request { id: id.to_owned(), ask, original: bytes::Bytes::new() };
        let message = FromWorkload::Request(request);
        world.broker.handle(Tick(0), Input::Message { peer, message, written: 0 });
        world.collect_slice()
    };
    let new_state = NewState::Given(desired(&[], &[("k", "v")]));
    let masks = vec![Mask::parse("desiredState.configs.k")];
    assert!(say(&mut world, all[0], "u", RequestKind::Update { new_state, masks }), "more events");
    assert_eq!(world.heard(all[1]), ["s event +k k=v"]);
    assert_eq!(world.broker.next_deadline(), None, "no time is waited for");
    let masks = MaskSet::parse(["desiredState.configs.k"]);
    assert!(say(&mut world, all[3], "r", RequestKind::State { masks, subscribe: false }));
    assert_eq!(world.heard(all[3]), ["s event +k k=v", "r state"]);
    assert_eq!(world.heard(all[2]), ["s event +k k=v"]);
    assert_eq!(world.heard(all[0]), [""; 0], "its answer comes behind all events");
    world.collect();
    assert_eq!(world.heard(all[0]), ["u done +0 -0"]);
    assert_eq!(world.broker.next_deadline(), None);
}

#[test]
fn whoever_catches_up_while_others_are_being_told_keeps_to_its_budget() {
    let limits = Limits { outbox_bytes: 1, ..Limits::default() };
    let config = Config { limits, subscribe_grace_ms: 0, window: 1, slice: 2, ..Config::default() };
    let names = ["a", "b"].map(|name| (name, workload("", anything(), vec![])));
    let mut world = World::with(config, &names);
    let (a, b) = (world.hello("a"), world.hello("b"));
    for key in KEYS {
        world.subscribe(b, key, &[&format!("desiredState.configs.{key}")]);
    }
    world.heard(b);
    world.prompt = false;
    // One more unread message, and the outbox is full.
    world.ask(b, "read", RequestKind::State { masks: MaskSet::parse([KEYS[0]]), subscribe: false });
    let all = KEYS.map(|key| (key, "1"));
    let masks = KEYS.map(|key| format!("desiredState.configs.{key}"));
    world.update(a, desired(&[], &all), &masks.each_ref().map(String::as_str));
    let handed = world.sent.iter().filter(|sent| sent.0 == b);
    let event = handed.map(|(_, _, message, _)| message.encoded_len()).last().unwrap();
    let queued = |world: &World| world.broker.report()[1].queued_bytes;
    assert_eq!(queued(&world), event, "more than one waits");
    let heard = world.take_all(b);
    assert_eq!(heard.len(), 1 + KEYS.len(), "{heard:?}");
    assert_eq!(queued(&world), 0);
}

/// A broker with 300 subscriptions of `b`, 40 masks each, and one of `c`, all affected by `a`.
fn with_costly_subscriptions(most_at_once: usize) -> (World, PeerId, PeerId, PeerId) {
    let config = Config { subscribe_grace_ms: 0, slice: 100, most_at_once, ..Config::default() };
    let names = ["a", "b", "c"].map(|name| (name, workload("", anything(), vec![])));
    let mut world = World::with(config, &names);
    let (a, b, c) = (world.hello("a"), world.hello("b"), world.hello("c"));
    for n in 0..300 {
        let masks: Vec<_> = (0..40).map(|m| format!("desiredState.configs.*.*.x{n}_{m}")).collect();
        let masks: Vec<_> = masks.iter().map(String::as_str).collect();
        world.subscribe(b, &format!("s{n}"), &masks);
    }
    world.subscribe(c, "s", &["desiredState.configs"]);
    world.sent.clear();
    (world, a, b, c)
}

/// Lets `a` set 500 configs to mappings of this value. Each subscription of `b` sees something in one
/// of them.
fn change_much(world: &mut World, a: PeerId, value: &str) {
    let item = |n: usize| {
        let names =
            if n == 0 { (0..300).map(|n| format!("x{n}_0")).collect() } else { vec!["z".into()] };
        let leaves = Node::map(names.into_iter().map(|name: String| (name, Node::text(value))));
        (format!("k{n}"), Node::map([("y", leaves)]))
    };
    let configs = Node::map((0..500).map(item));
    let state = Node::map([("apiVersion", Node::text("v1")), ("configs", configs)]);
    let new_state = NewState::Given(Tree::default().with(DESIRED_STATE, Some(state)));
    let masks = vec![Mask::parse("desiredState.configs")];
    let ask = RequestKind::Update { new_state, masks };
    let message =
        FromWorkload::Request(Request { id: "u".into(), ask, original: bytes::Bytes::new() });
    world.broker.handle(Tick(0), Input::Message { peer: a, message, written: 0 });
    world.collect_slice();
}

#[test]
fn slice_of_events_ends_by_the_work_that_they_take_and_not_by_their_number() {
    let (mut world, a, _, c) = with_costly_subscriptions(usize::MAX);
    change_much(&mut world, a, "1");
    let mut slices = 0;
    while world.collect_slice() {
        slices += 1;
        assert!(slices < 1_000_000);
    }
    // Each event takes some 500 look-ups at two levels: a slice of 100 has room for a few.
    assert!(slices > 50, "300 costly events were made in {slices} slices");
    assert_eq!(world.heard(c).len(), 1);
}

#[test]
fn change_that_comes_while_much_is_to_be_told_waits_for_a_bounded_part_of_it() {
    let (mut world, a, _, c) = with_costly_subscriptions(200);
    for value in ["1", "2", "3", "4"] {
        change_much(&mut world, a, value);
        assert!(world.broker.has_work(), "there is more to deliver than one slice may take");
    }
    world.collect();
    let seen = world.take_states(c);
    let last = seen.last().unwrap().desired_state.as_ref().unwrap().configs.as_ref().unwrap();
    let truth = convert::to_pb(world.broker.state(), Fill::Sparse).desired_state.unwrap();
    assert_eq!(Some(last), truth.configs.as_ref(), "the newest state arrives in the end");
    assert!(seen.len() < 4, "changes were merged: {}", seen.len());
    assert_eq!(world.heard(a).len(), 4, "each update was answered");
}

#[test]
fn peer_that_speaks_while_its_costly_events_are_due_is_answered_all_the_same() {
    let (mut world, a, b, _) = with_costly_subscriptions(200);
    change_much(&mut world, a, "1");
    let ask =
        RequestKind::State { masks: MaskSet::parse(["desiredState.apiVersion"]), subscribe: false };
    let message =
        FromWorkload::Request(Request { id: "r".into(), ask, original: bytes::Bytes::new() });
    let before = world.broker.work_done;
    world.broker.handle(Tick(0), Input::Message { peer: b, message, written: 0 });
    world.collect_slice();
    let work = world.broker.work_done - before;
    assert!(work < 1_500, "{work} for one small request");
    let heard = world.heard(b);
    assert!(heard.len() < 10 && heard.last().unwrap() == "r state", "{heard:?}");
}

#[test]
fn pending_event_of_a_reader_comes_before_its_merged_event_of_the_same_change() {
    let limits = Limits { outbox_bytes: 1, ..Limits::default() };
    let config = Config { limits, subscribe_grace_ms: 0, ..Config::default() };
    let names = ["a", "b"].map(|name| (name, workload("", anything(), vec![])));
    let mut world = World::with(config, &names);
    let (a, b) = (world.hello("a"), world.hello("b"));
    for key in ["k", "l"] {
        world.subscribe(b, key, &[&format!("desiredState.configs.{key}")]);
    }
    world.heard(b);
    world.prompt = false;
    // Two events of `k` are handed out, one waits, and from the fourth on `k` lags. `l` does not.
    for value in ["1", "2", "3", "4"] {
        world.set(a, "k", value);
        world.take_all(a);
    }
    // The reader takes all, and the next change comes before the outputs are polled: `k` may catch up
    // with this change, and the event of `l` for it is pending.
    let last = world.sent.iter().filter(|sent| sent.0 == b).map(|sent| sent.1).max().unwrap();
    world.broker.handle(Tick(0), Input::Taken(b, last));
    let new_state = NewState::Given(desired(&[], &[("k", "5"), ("l", "5")]));
    let masks = ["k", "l"].map(|key| Mask::parse(&format!("desiredState.configs.{key}")));
    let ask = RequestKind::Update { new_state, masks: masks.into() };
    let request = Request { id: "u".into(), ask, original: bytes::Bytes::new() };
    let message = FromWorkload::Request(request);
    world.input(Input::Message { peer: a, message, written: 0 });
    let heard = world.take_all(b);
    assert_eq!(heard[2..], ["k event ~k k=3", "l event +l l=5", "k event ~k k=5"]);
    assert_eq!(world.heard(a), ["u done +0 -0"]);
}

#[test]
fn author_of_a_change_is_not_read_beyond_its_outbox_while_its_events_are_delivered() {
    let limits = Limits { outbox_messages: 3, ..Limits::default() };
    let config = Config { limits, subscribe_grace_ms: 0, slice: 1, ..Config::default() };
    let own = || workload("", anything(), vec![]);
    let mut world = World::with(config, &[("author", own()), ("reader", own())]);
    let (author, reader) = (world.hello("author"), world.hello("reader"));
    for n in 0..200 {
        let masks = ["desiredState.configs.k".to_owned(), format!("desiredState.configs.none{n}")];
        world.subscribe(reader, &format!("s{n}"), &masks.each_ref().map(String::as_str));
    }
    world.reading.clear();
    let ask = |id: &str, ask: RequestKind| Input::Message {
        peer: author,
        message: FromWorkload::Request(Request {
            id: id.to_owned(),
            ask,
            original: bytes::Bytes::new(),
        }),
        written: Seq::MAX,
    };
    let new_state = NewState::Given(desired(&[], &[("k", "v")]));
    let masks = vec![Mask::parse("desiredState.configs.k")];
    world.broker.handle(Tick(0), ask("u", RequestKind::Update { new_state, masks }));
    let mut asked = 0;
    // As a driver does it: one more message is handled between two slices, as long as it is read.
    while world.reading.is_empty() && world.collect_slice() {
        let masks = MaskSet::parse(["agents"]);
        let read = RequestKind::State { masks, subscribe: false };
        world.broker.handle(Tick(0), ask(&asked.to_string(), read));
        asked += 1;
    }
    assert_eq!(world.reading.first(), Some(&(author, false)), "{asked} answers wait");
    assert!(asked <= 5, "{asked}");
    world.collect();
    assert_eq!(world.reading.last(), Some(&(author, true)), "it is read again in the end");
}
