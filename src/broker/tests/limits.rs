//! Each limit of the core, at its value and one above.

use super::{forwarding::with_an_agent_that_does_not_read, *};
use crate::{
    message::{Phase, ToAgent},
    state::{
        Selection,
        convert::{self, Fill},
    },
};

/// Two workloads with all rights, open sessions and no grace time.
fn world(limits: Limits) -> (World, PeerId, PeerId) {
    let config = Config { limits, subscribe_grace_ms: 0, ..Config::default() };
    let both = ["a", "b"].map(|name| (name, workload("", anything(), vec![])));
    let mut world = World::with(config, &both);
    let (a, b) = (world.hello("a"), world.hello("b"));
    (world, a, b)
}

#[test]
fn session_ends_with_one_message_without_sense_too_many_and_the_next_begins_anew() {
    let (mut world, a, _) = world(Limits { max_malformed: 2, ..Limits::default() });
    for _ in 0..2 {
        for n in 0..2 {
            world.say(a, FromWorkload::Empty);
            world.ask(a, &n.to_string(), RequestKind::CancelLogs);
        }
        assert_eq!(world.heard(a).len(), 2, "at the limit, it is served");
        world.ask(a, "r", RequestKind::Nothing);
        let closed = "closed: Too many messages without sense, at most 2 are allowed";
        assert_eq!(world.heard(a), [closed]);
        world.hello("a");
    }
}

#[test]
fn bytes_of_subscriptions_at_the_limit_pass_one_above_is_refused_and_what_ends_is_given_back() {
    // Twice: the subscription itself and two names of 6 bytes, and an id of one byte.
    let most = 2 * (3 * 256 + 12 + 1);
    let (mut world, a, _) = world(Limits { subscription_bytes: most, ..Limits::default() });
    for id in ["1", "2", "3", "2"] {
        world.subscribe(a, id, &["agents.agents"]);
    }
    let refused = format!("3 error: The masks of all subscriptions take more than {most} bytes");
    assert_eq!(world.heard(a), ["1 state", "2 state", &refused, "2 state"]);
    world.subscribe(a, "2", &["agents.agents1"]);
    assert!(world.heard(a)[0].contains("error"), "one byte more");
    world.ask(a, "1", RequestKind::CancelEvents);
    world.subscribe(a, "3", &["agents.agents"]);
    assert_eq!(world.heard(a).last().unwrap(), "3 state");
    world.hello("a");
    world.subscribe(a, "1", &["agents.agents"]);
    world.subscribe(a, "2", &["agents.agents"]);
    assert_eq!(world.heard(a), ["1 state", "2 state"]);
}

#[test]
fn state_may_grow_to_its_limit_and_shrink_above_it() {
    let (mut world, _, b) = world(Limits::default());
    world.set(b, "k", "1234");
    let most = world.broker.state_bytes();
    world.broker.config.limits.max_state_bytes = most;
    world.heard(b);
    world.set(b, "k", "5678");
    world.set(b, "k", "56789");
    let refused = format!("u error: The state would take more than {most} bytes");
    assert_eq!(world.heard(b), ["u done +0 -0", &refused]);
    world.broker.config.limits.max_state_bytes = 1;
    world.set(b, "k", "567");
    assert_eq!(world.heard(b), ["u done +0 -0"], "smaller, though too large still");
    assert_eq!(world.broker.state_bytes(), most - 1);
}

#[test]
fn one_version_serves_all_subscriptions_of_a_reader_that_stops() {
    let limits = Limits { outbox_bytes: 1, max_versions: 1, ..Limits::default() };
    let (mut world, a, b) = world(limits);
    for n in 0..5 {
        world.subscribe(a, &n.to_string(), &[&format!("desiredState.configs.k{n}")]);
    }
    world.take_all(a);
    world.prompt = false;
    for n in 0..25 {
        world.set(b, &format!("k{}", n % 5), &n.to_string());
        world.take_all(b);
    }
    let report = world.broker.report();
    assert_eq!(report.iter().map(|own| own.versions_kept).collect::<Vec<_>>(), [1, 0]);
    let heard = world.take_all(a);
    for n in 0..5 {
        let last = heard.iter().rfind(|event| event.starts_with(&n.to_string())).unwrap();
        assert!(last.ends_with(&format!("k{n}={}", 20 + n)), "{last}");
    }
    assert_eq!(world.broker.report()[0].versions_kept, 0, "given back");
}

#[test]
fn slow_reader_is_told_what_came_where_something_went_that_it_does_not_see() {
    let (mut world, a, b) = world(Limits { outbox_bytes: 1, ..Limits::default() });
    let set = |world: &mut World, value: Option<Node>| {
        let configs = Node::map(value.map(|value| ("m", value)));
        let desired = Node::map([("configs", configs)]);
        let new_state = Tree::default().with(DESIRED_STATE, Some(desired));
        world.update(b, new_state, &["desiredState.configs.m"]);
        world.take_all(b);
    };
    set(&mut world, Some(Node::text("no mapping")));
    world.subscribe(a, "k", &["desiredState.configs.k"]);
    world.subscribe(a, "m", &["desiredState.configs.m.x"]);
    world.take_all(a);
    world.prompt = false;
    // Two events are handed out, one waits: from the fourth on a snapshot is kept.
    for value in ["1", "2", "3", "4"] {
        world.set(b, "k", value);
        world.take_all(b);
    }
    assert_eq!(world.broker.report()[0].versions_kept, 1);
    // A prompt reader gets no event for the first change, and one for the second. In the snapshot `m`
    // is no mapping, and a scalar turned into a mapping gives no event.
    set(&mut world, None);
    set(&mut world, Some(Node::map([("x", Node::text("1"))])));
    assert_eq!(world.take_all(a).last().unwrap(), "m event +x");
}

#[test]
fn slow_reader_is_told_again_of_what_had_come_and_gone_before_it_got_ready() {
    let limits = Limits { outbox_bytes: 1, ..Limits::default() };
    let config = Config { limits, subscribe_grace_ms: 10, ..Config::default() };
    let both = ["a", "b"].map(|name| (name, workload("", anything(), vec![])));
    let mut world = World::with(config, &both);
    let (a, b) = (world.hello("a"), world.hello("b"));
    let remove = |world: &mut World, key| {
        world.update(b, Tree::default(), &[&format!("desiredState.configs.{key}")]);
    };
    let wait_until = |world: &mut World, now| {
        world.now = now;
        world.input(Input::Tick);
    };
    for id in ["m", "f"] {
        world.subscribe(a, id, &[&format!("desiredState.configs.{id}")]);
    }
    world.set(b, "m", "1");
    wait_until(&mut world, 5);
    world.subscribe(a, "k", &["desiredState.configs.k"]);
    world.set(b, "k", "1");
    assert_eq!(world.broker.report()[0].versions_kept, 2, "before and behind m=1");
    remove(&mut world, "m");
    world.heard(a);
    wait_until(&mut world, 10);
    assert_eq!(world.heard(a), [""; 0], "nothing differs");
    assert_eq!(world.broker.report()[0].versions_kept, 1, "for k");
    world.prompt = false;
    for value in ["1", "2", "3"] {
        world.set(b, "f", value);
    }
    world.set(b, "m", "1");
    wait_until(&mut world, 15);
    let heard = world.take_all(a);
    assert!(heard.contains(&"m event +m m=1".to_owned()), "{heard:?}");
}

#[test]
fn with_a_version_too_many_a_subscription_is_sent_all_that_it_sees() {
    let limits = Limits { outbox_bytes: 1, max_versions: 1, ..Limits::default() };
    let (mut world, a, b) = world(limits);
    for (id, mask) in
        [("1", "desiredState.configs.k1"), ("2", "desiredState.*.k2"), ("3", "*.*.k3")]
    {
        world.subscribe(a, id, &[mask]);
    }
    world.take_all(a);
    world.prompt = false;
    let set = |world: &mut World, key, value| {
        world.set(b, key, value);
        world.take_all(b);
    };
    // Two events are handed out, one waits, and from then on all subscriptions lag.
    for (key, value) in
        [("k1", "1"), ("k1", "2"), ("k1", "3"), ("k1", "4"), ("k2", "old"), ("k3", "old")]
    {
        set(&mut world, key, value);
    }
    let taken = world.sent.iter().map(|sent| sent.1).max().unwrap();
    world.input(Input::Taken(a, taken));
    assert_eq!(world.broker.report()[0].versions_kept, 1, "for the third, the others caught up");
    set(&mut world, "k2", "newest");
    assert_eq!(world.broker.report()[0].versions_kept, 1, "another would be one too many");
    let heard = world.take_all(a);
    assert_eq!(heard[heard.len() - 2..], ["3 event +k3 k3=old", "2 event ~desiredState k2=newest"]);
}

#[test]
fn messages_at_the_limit_wait_and_one_above_is_merged() {
    let (mut world, a, b) = world(Limits { outbox_messages: 3, ..Limits::default() });
    world.subscribe(a, "s", &["desiredState.configs"]);
    world.take_all(a);
    world.prompt = false;
    // Two are handed out, three wait, and the others are merged into one.
    for n in 0..10 {
        world.set(b, "k", &n.to_string());
        world.take_all(b);
    }
    let heard = world.take_all(a);
    assert_eq!(heard.len(), 6, "{heard:?}");
    assert_eq!(heard[5], "s event ~k k=9");
}

#[test]
fn over_the_total_those_wait_for_whom_something_waits_and_no_other() {
    let limits = Limits { total_bytes: 600, ..Limits::default() };
    let (mut world, a, b) = world(limits);
    world.prompt = false;
    let everything = || RequestKind::State { masks: MaskSet::parse([""; 0]), subscribe: false };
    while world.reading.is_empty() {
        world.ask(a, "r", everything());
    }
    assert_eq!(world.reading, [(a, false)]);
    world.ask(b, "1", RequestKind::CancelLogs);
    world.ask(b, "2", RequestKind::CancelLogs);
    assert_eq!(
        world.heard(b),
        [1, 2].map(|id| format!("{id} LogsCancelAccepted(LogsCancelAccepted)")),
        "what is taken at once"
    );
    world.ask(b, "3", RequestKind::CancelLogs);
    assert_eq!(world.reading, [(a, false), (b, false)], "what waits counts");
    world.take_all(a);
    world.input(Input::Taken(b, Seq::MAX));
    assert_eq!(world.reading[2..], [(a, true), (b, true)]);
    assert_eq!(world.broker.memory.queued_bytes(), 0);
    assert_eq!(world.episodes, ["slow", "slow", "caught up", "caught up"]);
}

#[test]
fn resynchronised_subscription_is_sent_no_more_than_its_masks_name() {
    let masks = ["*.configs", "*", "*.configs.k", "agents", "*.*.k", "desiredState.*.k", "*.x.*"];
    for mask in masks {
        let limits = Limits { outbox_bytes: 1, max_versions: 0, ..Limits::default() };
        let config = Config { limits, subscribe_grace_ms: 0, ..Config::default() };
        let reader = workload("", vec![rule("Read", &[mask])], vec![]);
        let writer = workload("", anything(), vec![]);
        let mut world = World::with(config, &[("a", reader), ("b", writer)]);
        let (a, b) = (world.hello("a"), world.hello("b"));
        world.subscribe(a, "s", &[mask]);
        world.take_all(a);
        world.prompt = false;
        for value in ["1", "2", "3", "4", "5"] {
            world.set(b, "k", value);
            world.take_all(b);
        }
        let allowed = world.broker.state().select(&Selection::of_masks(&[Mask::parse(mask)]));
        let allowed = convert::to_pb(&allowed, Fill::Sparse);
        let seen = world.take_states(a);
        assert!(seen.last().is_none_or(|last| *last == allowed), "{mask}: {:#?}", seen.last());
        let sees_configs = !["agents", "*.x.*"].contains(&mask);
        assert_eq!(!seen.is_empty(), sees_configs, "{mask}");
    }
}

#[test]
fn sessions_without_end_cost_an_agent_that_does_not_read_one_message_a_workload() {
    let (mut world, w) = with_an_agent_that_does_not_read(Limits::default());
    let waiting = |world: &World| world.broker.peers.get(PeerId::AGENT).unwrap().outbox.bytes();
    let say = |world: &mut World, version: &str| {
        world.say(w, FromWorkload::Hello { version: version.to_owned() });
        world.sent.clear();
    };
    for _ in 0..100 {
        say(&mut world, "1.0.0");
    }
    let after_some = waiting(&world);
    for n in 0..10_000 {
        say(&mut world, ["1.0.0", "9.0.0", "no version", "1.2.3"][n % 4]);
        world.input(Input::Broken { peer: w, reason: "a frame over the limit".to_owned() });
    }
    assert_eq!(waiting(&world), after_some);
    // The agent reads again: it gets the last change of the session.
    say(&mut world, "1.0.0");
    world.to_agent.clear();
    world.input(Input::Written(PeerId::AGENT, Seq::MAX));
    world.input(Input::Written(PeerId::AGENT, Seq::MAX));
    let sessions = world.to_agent.iter().filter_map(|message| match message {
        ToAgent::Session(instance, phase) if instance.workload == "w" => Some(phase.clone()),
        _ => None,
    });
    assert_eq!(sessions.last(), Some(Phase::Connected));
}

#[test]
fn agent_hears_of_a_pair_that_fails_after_it_was_acknowledged() {
    // A pair with half a frame is acknowledged before its FIFOs are open.
    let (mut world, w) = with_an_agent_that_does_not_read(Limits::default());
    world.input(Input::Written(PeerId::AGENT, Seq::MAX));
    world.to_agent.clear();
    world.input(Input::PairFailed(w, "no such device".to_owned()));
    world.input(Input::Written(PeerId::AGENT, Seq::MAX));
    let gone = |message: &ToAgent| matches!(message, ToAgent::WorkloadRemoved(instance) if instance.workload == "w");
    assert_eq!(world.to_agent.iter().filter(|message| gone(message)).count(), 1);
}

const KIB: usize = 1 << 10;

/// Ten workloads with all rights, and `writer`, with a memory budget of 1 MiB.
fn ten() -> (World, Vec<PeerId>, PeerId) {
    ten_with(Limits { total_bytes: 1024 * KIB, ..Limits::default() })
}

fn ten_with(limits: Limits) -> (World, Vec<PeerId>, PeerId) {
    let config = Config { limits, subscribe_grace_ms: 0, ..Config::default() };
    let names: Vec<_> = (0..10).map(|n| format!("w{n}")).collect();
    let all = names.iter().map(String::as_str).chain(["writer"]);
    let all: Vec<_> = all.map(|name| (name, workload("", anything(), vec![]))).collect();
    let mut world = World::with(config, &all);
    let peers = names.iter().map(|name| world.hello(name)).collect();
    let writer = world.hello("writer");
    world.prompt = false;
    (world, peers, writer)
}

/// Masks naming all configs, as a different list for each `n`.
fn own_masks(n: usize) -> Vec<String> {
    vec!["desiredState.configs".to_owned(), format!("desiredState.configs.none{n}")]
}

#[test]
fn answers_of_all_workloads_together_are_bounded_and_who_gets_none_is_told_why() {
    let (mut world, peers, writer) = ten();
    world.set(writer, "k", &"v".repeat(200 * KIB));
    let read =
        |n| RequestKind::State { masks: MaskSet::parse(own_masks(n)), subscribe: n % 2 == 0 };
    let mut served = 0;
    for (n, peer) in peers.iter().enumerate() {
        world.ask(*peer, "r", read(n));
        assert!(world.broker.memory.large_bytes() <= 1024 * KIB);
        let heard = world.sent.iter().filter(|sent| sent.0 == *peer).map(|sent| brief(&sent.2));
        let heard = heard.collect::<Vec<_>>();
        match heard[0].as_str() {
            "r state" => served += 1,
            text => assert!(text.contains("may wait for all workloads together; try"), "{text}"),
        }
        world.ask(
            *peer,
            "small",
            RequestKind::State { masks: MaskSet::parse(["agents"]), subscribe: false },
        );
    }
    assert_eq!(served, 5, "of 200 KiB each");
    for peer in &peers {
        assert_eq!(world.take_all(*peer).last().unwrap(), "small state", "others go on");
    }
    world.set(writer, "other", "v");
    world.sent.clear();
    world.ask(peers[9], "r", read(9));
    assert_eq!(world.take_all(peers[9]), ["r state"], "there is room again");
}

#[test]
fn events_of_all_workloads_together_are_bounded_and_all_are_told_the_newest_state_in_the_end() {
    let (mut world, peers, writer) = ten();
    for (n, peer) in peers.iter().enumerate() {
        let masks = own_masks(n);
        world.subscribe(*peer, "s", &masks.iter().map(String::as_str).collect::<Vec<_>>());
        world.take_all(*peer);
    }
    for value in ["a", "b", "c"] {
        world.set(writer, "k", &value.repeat(200 * KIB));
        world.take_all(writer);
        assert!(
            world.broker.memory.large_bytes() <= 1024 * KIB,
            "{}",
            world.broker.memory.large_bytes()
        );
    }
    let mut newest = 0;
    for _ in 0..100 {
        world.now += 50;
        world.input(Input::Tick);
        for peer in &peers {
            let states = world.take_states(*peer);
            let text = states.last().map(|state| format!("{state:?}"));
            newest += usize::from(text.is_some_and(|text| text.contains("cccc")));
        }
    }
    assert_eq!(newest, 10, "each once");
    assert_eq!(world.broker.next_deadline(), None);
}

/// Lets the time of a retry pass.
fn retry(world: &mut World) {
    world.now += 50;
    world.input(Input::Tick);
}

fn read_of(mask: &str) -> RequestKind {
    RequestKind::State { masks: MaskSet::parse([mask]), subscribe: false }
}

#[test]
fn event_larger_than_all_memory_is_told_when_nothing_else_takes_any() {
    let (mut world, peers, writer) = ten();
    world.subscribe(peers[0], "s", &["desiredState.configs"]);
    world.take_all(peers[0]);
    world.set(writer, "held", &"h".repeat(600 * KIB));
    // Its reader holds this event, so there is no room for the next one.
    world.set(writer, "k", &"v".repeat(2048 * KIB));
    world.take_all(writer);
    assert!(world.broker.memory.large_bytes() <= 1024 * KIB);
    world.take_states(peers[0]);
    retry(&mut world);
    let states = world.take_states(peers[0]);
    assert!(states.last().is_some_and(|state| format!("{state:?}").contains("vvvv")), "lost");
    assert_eq!(world.broker.next_deadline(), None, "nothing is left to retry");
}

#[test]
fn event_does_not_wait_for_memory_that_only_cached_answers_take() {
    let limits = Limits { total_bytes: 1024 * KIB, outbox_messages: 2, ..Limits::default() };
    let (mut world, peers, writer) = ten_with(limits);
    world.subscribe(peers[0], "s", &["desiredState.configs.k"]);
    world.take_all(peers[0]);
    world.set(writer, "other", &"o".repeat(600 * KIB));
    // It does not read, and falls behind: its outbox is full.
    for _ in 0..5 {
        world.set(writer, "k", "v");
        world.set(writer, "k", "w");
        world.take_all(writer);
    }
    world.set(writer, "k", &"v".repeat(600 * KIB));
    world.take_all(writer);
    world.ask(peers[1], "r", read_of("desiredState.configs.other"));
    world.take_all(peers[1]);
    assert!(world.broker.memory.large_bytes() > 600 * KIB, "the answer is cached");
    let mut newest = world.take_states(peers[0]);
    for _ in 0..3 {
        retry(&mut world);
        newest.extend(world.take_states(peers[0]));
    }
    let newest = format!("{:?}", newest.last());
    assert!(newest.contains("vvvv"), "it waits for memory that nobody uses: {newest}");
    assert_eq!(world.broker.next_deadline(), None);
}

#[test]
fn end_of_a_subscription_or_session_ends_its_wait_for_memory() {
    for cancels in [true, false] {
        let (mut world, peers, writer) = ten();
        world.set(writer, "a", &"a".repeat(500 * KIB));
        world.set(writer, "b", &"b".repeat(500 * KIB));
        world.take_all(writer);
        world.subscribe(peers[0], "large", &["desiredState.configs.c"]);
        world.subscribe(peers[0], "small", &["desiredState.configs.d"]);
        world.take_all(peers[0]);
        world.ask(peers[1], "r", read_of("desiredState.configs.a"));
        world.ask(peers[2], "r", read_of("desiredState.configs.b"));
        world.set(writer, "c", &"c".repeat(900 * KIB));
        world.set(writer, "d", &"d".repeat(100 * KIB));
        world.take_all(writer);
        world.take_all(peers[1]);
        retry(&mut world);
        assert!(world.take_states(peers[0]).is_empty(), "there is room for neither");
        if cancels {
            world.ask(peers[0], "large", RequestKind::CancelEvents);
            let heard = world.take_all(peers[0]);
            assert_eq!(heard.len(), 2, "the other one has room: {heard:?}");
        } else {
            world.hello("w0");
        }
        assert_eq!(world.broker.next_deadline(), None, "nobody waits");
    }
}
