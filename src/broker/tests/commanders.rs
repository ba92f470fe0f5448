//! Commanders: sessions over the agent link.

use super::{forwarding::with_an_agent_that_does_not_read, *};
use crate::message::ToAgent;

fn commander(name: &str) -> Instance {
    Instance { workload: name.into(), agent: String::new(), id: "commander".into() }
}

fn command(world: &mut World, command: Command) {
    world.input(Input::Agent(FromAgent { id: 7, rejections_only: true, command }));
}

/// A world with an agent, a workload `w` and the commander `c`; nothing waits for the agent.
fn with_a_commander(limits: Limits) -> World {
    let (mut world, _) = with_an_agent_that_does_not_read(limits);
    add(&mut world, "c");
    read_link(&mut world);
    world
}

fn add(world: &mut World, name: &str) {
    let access = workload("", anything(), vec![]).get("controlInterfaceAccess").cloned();
    command(world, Command::AddCommander { instance: commander(name), access });
}

fn say(world: &mut World, message: FromWorkload) {
    command(world, Command::FromCommander(commander("c"), message));
}

fn ask(world: &mut World, id: &str, ask: RequestKind) {
    let request = Request { id: id.to_owned(), ask, original: bytes::Bytes::from_static(b"x") };
    say(world, FromWorkload::Request(request));
}

fn subscribe(world: &mut World, id: &str) {
    let masks = MaskSet::parse(["desiredState.configs"]);
    ask(world, id, RequestKind::State { masks, subscribe: true });
}

fn set(world: &mut World, value: &str) {
    let new_state = desired(&[], &[("k", value)]);
    let masks = vec![Mask::parse("desiredState.configs.k")];
    command(world, Command::UpdateState { new_state, masks });
}

fn took(world: &mut World, number: Seq) {
    command(world, Command::CommanderTook(commander("c"), number));
}

/// A short form of the messages over the link since the last call, read by the agent meanwhile.
fn read_link(world: &mut World) -> Vec<String> {
    assert!(world.sent.is_empty(), "nothing goes into a pipe");
    world.input(Input::Written(PeerId::AGENT, Seq::MAX));
    let brief = |message: ToAgent| match message {
        ToAgent::ToCommander { instance, seq, wants_took, message } => {
            let mark = if wants_took { "!" } else { "" };
            format!("{} {seq}{mark} {}", instance.workload, brief(&message))
        }
        ToAgent::CommanderReading(own, on) => format!("{} reading {on}", own.workload),
        ToAgent::Session(own, phase) => format!("{} {phase:?}", own.workload),
        ToAgent::Request(own, _) => format!("{} forwarded", own.workload),
        ToAgent::Rejected(_, rejected) => format!("rejected: {}", rejected.reason),
        other => format!("{other:?}"),
    };
    std::mem::take(&mut world.to_agent).into_iter().map(brief).collect()
}

#[test]
fn commander_needs_no_hello_and_hears_answers_and_events_until_it_is_removed() {
    let mut world = with_a_commander(Limits::default());
    subscribe(&mut world, "s");
    set(&mut world, "v");
    assert_eq!(read_link(&mut world), ["c 1 s state", "c 2 s event +configs k=v"]);
    say(&mut world, FromWorkload::Hello { version: "1.0.0".to_owned() });
    set(&mut world, "w");
    assert_eq!(read_link(&mut world), ["c 3 s event ~k k=w"], "a Hello ends nothing");
    command(&mut world, Command::RemoveCommander(commander("c")));
    set(&mut world, "x");
    let gone = r#"c Closed("the commander was removed")"#;
    assert_eq!(read_link(&mut world), [gone]);
    subscribe(&mut world, "s");
    assert!(read_link(&mut world)[0].starts_with("rejected: unknown instance"));
    assert!(world.pairs.iter().all(|(_, own)| own.as_ref().is_none_or(|own| own.workload == "w")));
}

#[test]
fn first_event_waits_until_the_first_answer_was_taken_for_the_grace_time() {
    let link = Some("/run".to_owned());
    let mut world = World::with(Config { link, subscribe_grace_ms: 20, ..Config::default() }, &[]);
    let hello = Command::Hello { version: "1.0.0".to_owned(), agent_name: "node_a".to_owned() };
    command(&mut world, hello);
    add(&mut world, "c");
    read_link(&mut world);
    subscribe(&mut world, "s");
    set(&mut world, "v");
    assert_eq!(read_link(&mut world), ["c 1! s state"]);
    took(&mut world, 1);
    assert!(read_link(&mut world).is_empty());
    world.now = 20;
    world.input(Input::Tick);
    assert_eq!(read_link(&mut world), ["c 2 s event +configs k=v"]);
}

#[test]
fn window_is_handed_out_and_the_rest_waits_until_it_is_taken() {
    let mut world = with_a_commander(Limits::default());
    subscribe(&mut world, "s");
    for value in 0..6 {
        set(&mut world, &value.to_string());
    }
    let heard = read_link(&mut world);
    assert_eq!((heard.len(), heard[4].as_str()), (5, "c 5! s event ~k k=3"));
    took(&mut world, 5);
    assert_eq!(read_link(&mut world), ["c 6 s event ~k k=4", "c 7 s event ~k k=5"]);
}

#[test]
fn events_are_merged_for_a_commander_over_its_budget_and_end_at_the_truth() {
    let limits = Limits { outbox_messages: 2, ..Limits::default() };
    let mut world = with_a_commander(limits);
    subscribe(&mut world, "s");
    for value in 0..50 {
        set(&mut world, &value.to_string());
    }
    assert_eq!(read_link(&mut world).len(), 6, "the window, one more, and a pause");
    took(&mut world, 5);
    let heard = read_link(&mut world);
    assert_eq!(heard.last().map(String::as_str), Some("c reading true"));
    assert_eq!(heard[heard.len() - 2], "c 8 s event ~k k=49");
}

#[test]
fn answers_over_the_budget_pause_the_requests_of_the_commander() {
    let limits = Limits { outbox_messages: 2, ..Limits::default() };
    let mut world = with_a_commander(limits);
    for _ in 0..7 {
        let masks = MaskSet::parse(["desiredState.configs"]);
        ask(&mut world, "r", RequestKind::State { masks, subscribe: false });
    }
    let heard = read_link(&mut world);
    assert_eq!((heard.len(), heard[5].as_str()), (6, "c reading false"));
    took(&mut world, 5);
    let heard = read_link(&mut world);
    assert_eq!(heard, ["c 6 r state", "c 7 r state", "c reading true"]);
}

#[test]
fn log_request_of_a_commander_is_forwarded_under_its_name_and_answered_over_the_link() {
    let access = Node::map([(
        "allowRules",
        Node::seq([Node::map([
            ("type", Node::text("LogRule")),
            ("workloadNames", Node::seq([Node::text("*")])),
        ])]),
    )]);
    let mut world = with_a_commander(Limits::default());
    let instance = commander("c");
    command(&mut world, Command::AddCommander { instance, access: Some(access) });
    ask(&mut world, "l", RequestKind::Logs(vec![commander("w")]));
    assert_eq!(read_link(&mut world), ["c forwarded"]);
    let error = ResponseContent::Error(pb::Error { message: "no logs".to_owned() });
    let (kind, bodies) = ResponseBody::of_forwarded(error).unwrap();
    let (instance, request_id) = (commander("c"), "l".into());
    command(&mut world, Command::Response { instance, request_id, kind, bodies });
    assert_eq!(read_link(&mut world), ["c 1 l error: no logs"]);
}

#[test]
fn name_of_a_workload_is_no_name_for_a_commander_and_the_other_way_round() {
    let mut world = with_a_commander(Limits::default());
    let w = Instance { workload: "w".into(), agent: "node_a".into(), id: "1".into() };
    command(&mut world, Command::AddCommander { instance: w.clone(), access: None });
    command(&mut world, Command::RemoveCommander(w));
    let owner = Owner::default();
    command(&mut world, Command::AddWorkload { instance: commander("c"), access: None, owner });
    command(&mut world, Command::RemoveWorkload(commander("c")));
    let heard = read_link(&mut world);
    assert_eq!(heard.iter().filter(|text| text.starts_with("rejected")).count(), 4, "{heard:?}");
}
