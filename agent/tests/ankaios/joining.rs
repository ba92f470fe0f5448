//! How an agent joins, leaves, and comes back.

use std::{
    fs,
    time::{Duration, Instant},
};

use fifogate::pb::ank_base::execution_state::ExecutionStateEnum as State;
use nix::sys::signal::Signal;
use testkit::{Agent, processes_with, update, wait_for, workload};
use tonic::{Code, Status};

use super::{
    joined::{Joined, LONG, US, added, answer_subscription, state, with_states},
    server::{FromServer, Incoming, Port, ToServerContent, state_text, workload_state},
};

fn sleeper(name: &str) -> String {
    workload(name, "sleep 1000", "")
}

#[test]
fn agent_says_hello_with_its_tags_and_then_its_load_every_two_seconds() {
    let port = Port::open();
    let _agent =
        Agent::join(&port.url(), &["--insecure", "--tag", "role=gateway", "--tag", "a=b=c"]);
    let mut stream = port.accept();
    let hello = stream.read_hello();
    assert_eq!(hello.agent_name, US);
    assert!(hello.protocol_version.starts_with("1."), "{hello:?}");
    let tags = hello.tags.unwrap().tags;
    assert_eq!((tags["role"].as_str(), tags["a"].as_str()), ("gateway", "b=c"));
    // Without headers and a hello of the server it says nothing else.
    assert!(stream.next_within(Duration::from_millis(500)).is_none());
    stream.send_headers();
    assert!(stream.next_within(Duration::from_millis(500)).is_none());
    stream.send(FromServer::states(Vec::new()));
    stream.send(FromServer::hello(Vec::new()));
    answer_subscription(&mut stream, state(""));
    let loads = port.record().wait("three loads", |_| {
        let loads = port.record().loads();
        (loads.len() >= 3).then_some(loads)
    });
    for (pair, load) in loads.windows(2).zip(&loads) {
        let pause = pair[1].0 - pair[0].0;
        assert!(
            pause > Duration::from_millis(1500) && pause < Duration::from_secs(10),
            "{pause:?}"
        );
        assert_eq!(load.1.agent_name, US);
        assert!(load.1.cpu_usage.is_some() && load.1.free_memory.unwrap().free_memory > 0);
    }
}

#[test]
fn tags_are_sent_even_if_there_are_none() {
    let port = Port::open();
    let _agent = Agent::join(&port.url(), &["--insecure"]);
    assert!(port.accept().read_hello().tags.unwrap().tags.is_empty());
}

#[test]
fn refused_version_ends_the_agent_with_the_reason_of_the_server() {
    let port = Port::open();
    let mut agent = Agent::join(&port.url(), &["--insecure"]);
    let text = "Unsupported protocol version '1.1.0'. Currently supported '2'";
    port.accept().fail(Status::failed_precondition(text));
    assert_eq!(agent.status(), Some(1));
    let log = agent.log();
    assert!(log.contains(&format!("error: the server refuses this agent: {text}")), "{log}");
    // A server that is replaced by a later one under a running agent.
    let mut joined = Joined::with(&sleeper("one"));
    joined.wait_for_state("one", "Running(Ok)");
    joined.port.reset_all();
    joined.port.accept().fail(Status::failed_precondition(text));
    assert_eq!(joined.agent.status(), Some(1));
    assert!(joined.agent.log().contains(text));
}

#[test]
fn server_that_says_no_more_than_its_headers_or_not_even_these_is_tried_again() {
    let port = Port::open();
    let agent = Agent::join(&port.url(), &["--insecure"]);
    let silent = port.accept();
    let mut polite = port.accept();
    polite.send_headers();
    let mut stream = port.accept();
    stream.greet(Vec::new());
    answer_subscription(&mut stream, state(""));
    for pair in [(silent.opened, polite.opened), (polite.opened, stream.opened)] {
        assert!(pair.1 - pair.0 > Duration::from_secs(5), "{:?}", pair.1 - pair.0);
    }
    let log = agent.log();
    assert!(log.contains("it does not answer") && log.contains("it does not say hello"), "{log}");
}

#[test]
fn server_that_does_not_tell_its_state_is_followed_by_its_orders() {
    let port = Port::open();
    let agent = Agent::join(&port.url(), &["--insecure"]);
    let mut stream = port.accept();
    let rights = ", controlInterfaceAccess: {allowRules: [\
                  {type: StateRule, operation: Write, filterMasks: [desiredState.configs]}]}";
    let one = workload("one", "sleep 1000", rights);
    stream.greet(added(&one));
    port.record().wait_for_state("one", "Running(Ok)");
    let mut session = agent.connect_as("one");
    session.request("x", update("configs: {a: b}", &["desiredState.configs.a"]));
    port.record().wait("the update", |all| {
        all.iter().find_map(|own| match &own.message.content {
            Some(ToServerContent::Request(request)) => {
                (request.request_id == "one@x").then_some(())
            }
            _ => None,
        })
    });
    assert!(agent.log().contains("the server does not tell its state"), "{}", agent.log());
}

#[test]
fn every_other_refusal_and_end_is_followed_by_another_attempt_after_a_second() {
    let port = Port::open();
    let agent = Agent::join(&port.url(), &["--insecure"]);
    let refusals = [
        Status::new(Code::InvalidArgument, "No AgentHello received."),
        Status::new(Code::Unauthenticated, "Agent name 'agent_A' does not match"),
        Status::unavailable("later"),
    ];
    let mut times = Vec::new();
    for refusal in refusals {
        let stream = port.accept();
        times.push(stream.opened);
        stream.fail(refusal);
    }
    // After its headers, and in the middle of everything.
    let mut stream = port.accept();
    times.push(stream.opened);
    stream.greet(Vec::new());
    stream.end();
    let mut stream = port.accept();
    times.push(stream.opened);
    stream.greet(Vec::new());
    answer_subscription(&mut stream, state(""));
    stream.reset();
    let mut stream = port.accept();
    times.push(stream.opened);
    stream.greet(Vec::new());
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] > Duration::from_millis(900), "{:?}", pair[1] - pair[0]);
    }
    let log = agent.log();
    for told in
        ["No AgentHello received.", "does not match", "later", "it has ended the connection"]
    {
        assert_eq!(log.matches(told).count(), 1, "{told}: {log}");
    }
}

#[test]
fn states_are_said_again_after_each_hello_and_exited_workloads_are_not_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let all = workload("runs", "exec sleep 10007", "")
        + &workload("done", &format!("echo x >> {}", runs.display()), "");
    let mut joined = Joined::with(&all);
    joined.wait_for_state("runs", "Running(Ok)");
    joined.wait_for_state("done", "Succeeded(Ok)");
    let process = processes_with("sleep\u{0}10007");
    assert_eq!(process.len(), 1);
    joined.port.reset_all();
    joined.take_again(&all);
    let number = joined.stream.number;
    let said = joined.port.record().wait("both states", |_| {
        let said: Vec<_> = states_on(&joined.port, number);
        (said.len() >= 2).then_some(said)
    });
    assert_eq!(said, ["Succeeded(Ok)", "Running(Ok)"]);
    // The server notices that it goes on as before.
    joined.order(added(&workload("new", "sleep 1000", "")), Vec::new());
    joined.wait_for_state("new", "Running(Ok)");
    assert_eq!(processes_with("sleep\u{0}10007"), process);
    assert_eq!(fs::read_to_string(&runs).unwrap(), "x\n");
    let more = states_on(&joined.port, number).len();
    assert_eq!(more, 2 + 2, "states of the new workload alone");
}

/// The states that were said on a stream.
fn states_on(port: &Port, number: usize) -> Vec<String> {
    let messages = port.record().of_stream(number).into_iter();
    let states = messages.filter_map(|message| match message.content {
        Some(ToServerContent::UpdateWorkloadState(states)) => Some(states.workload_states),
        _ => None,
    });
    states.flatten().map(|own| state_text(own.execution_state.as_ref().unwrap())).collect()
}

#[test]
fn state_that_is_left_at_the_server_is_said_to_be_removed() {
    let port = Port::open();
    let _agent = Agent::join(&port.url(), &["--insecure"]);
    let mut stream = port.accept();
    stream.greet(Vec::new());
    let left = [
        workload_state("old.1.agent_A", State::AgentDisconnected(0), ""),
        workload_state("far.1.agent_B", State::Running(0), ""),
    ];
    answer_subscription(&mut stream, with_states(state(""), &left));
    port.record().wait_for_state("old", "Removed");
    assert!(port.record().states_of("far").is_empty());
}

#[test]
fn end_of_the_agent_is_a_message_that_breaks_the_stream() {
    let mut joined = Joined::with(&sleeper("one"));
    joined.wait_for_state("one", "Running(Ok)");
    joined.agent.signal(Signal::SIGTERM);
    let end = loop {
        match joined.stream.next_within(LONG).expect("nothing comes") {
            Incoming::Message(message) if message.content.is_none() => break true,
            Incoming::Message(_) => {}
            Incoming::HalfClosed | Incoming::Broken(_) => break false,
        }
    };
    assert!(end, "a server does not notice other ends");
    assert_eq!(joined.agent.status(), Some(0));
}

#[test]
fn agent_waits_for_a_server_that_is_not_there_and_one_signal_ends_it() {
    let port = Port::open();
    port.close();
    let mut agent = Agent::join(&port.url(), &["--insecure"]);
    wait_for("word of it", || agent.log().contains("Connection refused").then_some(()));
    port.reopen();
    let begun = Instant::now();
    let mut stream = port.accept();
    assert!(begun.elapsed() < LONG);
    stream.greet(added(&sleeper("one")));
    answer_subscription(&mut stream, state(&sleeper("one")));
    port.record().wait_for_state("one", "Running(Ok)");
    port.close();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    // Before it has found its server.
    let mut lonely = Agent::join(&port.url(), &["--insecure"]);
    wait_for("word of it", || lonely.log().contains("Connection refused").then_some(()));
    lonely.signal(Signal::SIGTERM);
    assert_eq!(lonely.status(), Some(0));
}
