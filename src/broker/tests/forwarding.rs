//! Forwarded requests: what they keep, and how they end.

use super::*;
use crate::message::ToAgent;

/// A broker with a linked agent after its Hello, not reading; and `w`, added by the agent.
pub(super) fn with_an_agent_that_does_not_read(limits: Limits) -> (World, PeerId) {
    let link = Some("/run".to_owned());
    let config = Config { limits, link, subscribe_grace_ms: 0, ..Config::default() };
    let mut world = World::with(config, &[]);
    let hello = Command::Hello { version: "1.0.0".to_owned(), agent_name: "node_a".to_owned() };
    let instance = Instance { workload: "w".into(), agent: "node_a".into(), id: "1".into() };
    let access = workload("", anything(), vec![]).get("controlInterfaceAccess").cloned();
    let add = Command::AddWorkload { instance, access, owner: Owner::default() };
    for command in [hello, add] {
        world.input(Input::Agent(FromAgent { id: 1, rejections_only: false, command }));
    }
    let w = world.peer("w");
    world.input(Input::PairOpened(w, "/run/w.1".to_owned()));
    (world, w)
}

fn log_rule(names: &[&str]) -> Node {
    Node::map([
        ("type", Node::text("LogRule")),
        ("workloadNames", Node::seq(names.iter().map(|name| Node::text(name)))),
    ])
}

fn instance(name: &str) -> Instance {
    Instance { workload: name.into(), agent: "node_a".into(), id: "1".into() }
}

fn command(world: &mut World, command: Command) {
    world.input(Input::Agent(FromAgent { id: 1, rejections_only: false, command }));
}

/// A workload with a session and the right to read logs of `names`, and an agent.
fn with_logs_of(names: &[&str], limits: Limits) -> (World, PeerId) {
    let (mut world, w) = with_an_agent_that_does_not_read(limits);
    set_rules(&mut world, vec![log_rule(names)]);
    world.hello("w");
    (world, w)
}

fn set_rules(world: &mut World, allow: Vec<Node>) {
    let access = workload("", allow, vec![]).get("controlInterfaceAccess").cloned();
    let owner = Owner::default();
    command(world, Command::AddWorkload { instance: instance("w"), access, owner });
}

fn ask_logs(world: &mut World, w: PeerId, id: &str, names: &[&str]) {
    let instances = names.iter().map(|name| instance(name)).collect();
    world.ask(w, id, RequestKind::Logs(instances));
}

fn respond(world: &mut World, id: &str, content: ResponseContent) {
    let (kind, bodies) = ResponseBody::of_forwarded(content).unwrap();
    let (instance, request_id) = (instance("w"), id.into());
    command(world, Command::Response { instance, request_id, kind, bodies });
}

fn name_of(workload: &str) -> pb::WorkloadInstanceName {
    let (agent_name, id) = ("node_a".to_owned(), "1".to_owned());
    pb::WorkloadInstanceName { workload_name: workload.to_owned(), agent_name, id }
}

fn accept(world: &mut World, id: &str, names: &[&str]) {
    let workload_names = names.iter().map(|name| name_of(name)).collect();
    let accepted = pb::LogsRequestAccepted { workload_names };
    respond(world, id, ResponseContent::LogsRequestAccepted(accepted));
}

fn refuse(world: &mut World, id: &str) {
    let message = "no".to_owned();
    respond(world, id, ResponseContent::Error(pb::Error { message }));
}

fn enter(world: &mut World, id: &str, message: &str) {
    let workload_name = Some(name_of("a"));
    let log_entries = vec![pb::LogEntry { workload_name, message: message.to_owned() }];
    let entries = pb::LogEntriesResponse { log_entries };
    respond(world, id, ResponseContent::LogEntriesResponse(entries));
}

#[test]
fn names_of_log_requests_under_way_are_bounded_also_as_campaigns() {
    let names: Vec<_> = (0..10).map(|n| format!("workload_{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    // 64 and the 10 bytes of each name, in two requests.
    let exactly = 2 * 10 * (64 + 10);
    for most in [exactly - 1, exactly] {
        let limits = Limits { subscription_bytes: most, ..Limits::default() };
        let (mut world, w) = with_logs_of(&["*"], limits);
        let why = format!("The names in all log requests take more than {most} bytes");
        ask_logs(&mut world, w, "1", &names);
        ask_logs(&mut world, w, "2", &names);
        let heard = world.heard(w);
        if most < exactly {
            assert_eq!(heard, [format!("2 error: {why}")]);
            continue;
        }
        assert!(heard.is_empty(), "both wait for the agent");
        ask_logs(&mut world, w, "3", &["w"]);
        assert_eq!(world.heard(w), [format!("3 error: {why}")]);
        accept(&mut world, "1", &names);
        world.heard(w);
        ask_logs(&mut world, w, "3", &["w"]);
        assert_eq!(world.heard(w), [format!("3 error: {why}")]);
        // A cancellation keeps no name, and what ends is given back.
        refuse(&mut world, "2");
        world.heard(w);
        ask_logs(&mut world, w, "3", &names);
        assert!(world.heard(w).is_empty(), "it waits for the agent");
    }
}

#[test]
fn requests_answered_within_their_time_leave_one_timer() {
    let (mut world, w) = with_logs_of(&["*"], Limits::default());
    for n in 0..1_000 {
        world.now = n;
        let id = n.to_string();
        ask_logs(&mut world, w, &id, &["a"]);
        refuse(&mut world, &id);
        if n % 10 == 0 {
            world.heard(w);
            world.hello("w");
        }
    }
    assert_eq!(world.broker.timers.len(), 1);
}

#[test]
fn each_forwarded_request_is_answered_at_its_own_time() {
    let (mut world, w) = with_logs_of(&["*"], Limits::default());
    let after = world.broker.config.forward_timeout_ms;
    for (id, at) in [("1", 10), ("2", 20), ("3", 20), ("4", 40)] {
        world.now = at;
        ask_logs(&mut world, w, id, &["a"]);
    }
    refuse(&mut world, "2");
    world.heard(w);
    for (at, overdue) in [(9, ""), (10, "1"), (19, ""), (20, "3"), (39, ""), (40, "4"), (99, "")] {
        world.now = after + at;
        world.input(Input::Tick);
        let text = format!("{overdue} error: The agent did not answer within 30 s");
        let expected = if overdue.is_empty() { vec![] } else { vec![text] };
        assert_eq!(world.heard(w), expected, "at {at}");
    }
    assert_eq!(world.broker.timers.len(), 0);
}

#[test]
fn waiting_entries_of_a_log_request_that_loses_its_rule_are_dropped() {
    let (mut world, w) = with_logs_of(&["a", "b"], Limits::default());
    for (id, name) in [("1", "a"), ("2", "b")] {
        ask_logs(&mut world, w, id, &[name]);
        accept(&mut world, id, &[name]);
    }
    world.heard(w);
    world.prompt = false;
    for _ in 0..10 {
        enter(&mut world, "1", "secret of a");
        enter(&mut world, "2", "line of b");
    }
    let handed = world.sent.iter().filter(|sent| sent.0 == w).count();
    set_rules(&mut world, vec![log_rule(&["b"])]);
    let all = world.take_all(w);
    let of = |id: &str| all.iter().filter(|message| message.starts_with(id)).count();
    assert_eq!(of("2 "), 10, "{all:#?}");
    assert!(all[handed..].iter().all(|message| !message.contains("secret of a")), "{all:#?}");
    assert_eq!(all.last().map(String::as_str), Some("1 error: Access denied"));
}

#[test]
fn agent_that_refuses_the_cancellation_of_a_lost_log_request_is_not_rejected() {
    let (mut world, w) = with_logs_of(&["a"], Limits::default());
    ask_logs(&mut world, w, "1", &["a"]);
    accept(&mut world, "1", &["a"]);
    set_rules(&mut world, vec![]);
    world.heard(w);
    world.input(Input::Written(PeerId::AGENT, Seq::MAX));
    world.to_agent.clear();
    for rejected in [0, 1] {
        refuse(&mut world, "1");
        world.input(Input::Written(PeerId::AGENT, Seq::MAX));
        let is_rejected = |message: &&ToAgent| matches!(message, ToAgent::Rejected(..));
        assert_eq!(world.to_agent.iter().filter(is_rejected).count(), rejected);
    }
    assert!(world.heard(w).is_empty(), "it heard that access was denied");
}

#[test]
fn subscriptions_that_end_in_their_grace_time_leave_no_timer() {
    let config = Config { subscribe_grace_ms: 1_000, ..Config::default() };
    let mut world = World::with(config, &[("w", workload("", anything(), vec![]))]);
    let w = world.hello("w");
    for n in 0..100 {
        world.subscribe(w, "s", &["desiredState"]);
        if n % 2 == 0 {
            world.ask(w, "s", RequestKind::CancelEvents);
        }
    }
    assert!(world.broker.timers.len() <= 1);
    world.heard(w);
    world.hello("w");
    assert_eq!(world.broker.timers.len(), 0);
}
