//! The server itself, as far as a scripted client sees it.

use std::{thread, time::Duration};

use std::collections::BTreeMap;

use fifogate::pb::ank_base::{
    self as pb, execution_state::ExecutionStateEnum as State, request::RequestContent,
    response::ResponseContent,
};

use super::server::{
    Ankaios, BreakBy, FromServer, FromServerContent, Incoming, PATIENCE, Port, ToServer,
    ToServerContent, with_workloads, workload, workload_state,
};
use testkit::Authority;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;

const METHOD: &str = "/grpc_api.AgentConnection/ConnectAgent";

async fn connect(url: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(url.to_owned()).unwrap().connect().await
}

type Client = (mpsc::UnboundedSender<ToServer>, Streaming<FromServer>);

async fn open(channel: Channel, first: Vec<ToServer>) -> Result<Client, Status> {
    let (to, messages) = mpsc::unbounded_channel();
    first.into_iter().for_each(|message| to.send(message).unwrap());
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let request = Request::new(UnboundedReceiverStream::new(messages));
    let codec = ProstCodec::<ToServer, FromServer>::default();
    let answer = grpc.streaming(request, PathAndQuery::from_static(METHOD), codec).await?;
    Ok((to, answer.into_inner()))
}

/// Runs clients on a runtime of this thread.
fn block_on<T>(clients: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(clients)
}

#[test]
fn script_answers_ends_and_breaks_streams_and_is_away_for_a_while() {
    let port = Port::open();
    let client = || async {
        let channel = connect(&port.url()).await.unwrap();
        open(channel, vec![ToServer::hello("agent_A", "1.1.0")]).await
    };
    let script = || {
        let mut stream = port.accept();
        assert_eq!(stream.greet(Vec::new()).agent_name, "agent_A");
        stream.end();
        port.accept().fail(Status::failed_precondition("no"));
        let mut stream = port.accept();
        stream.greet(Vec::new());
        stream.reset();
        // A cancelled call is no broken one.
        assert!(matches!(port.accept().until_end(), Incoming::HalfClosed));
    };
    let clients = async {
        let (_to, mut from) = client().await.unwrap();
        assert_eq!(from.message().await.unwrap(), Some(FromServer::hello(Vec::new())));
        assert_eq!(from.message().await.unwrap(), None);
        assert_eq!(client().await.unwrap_err().message(), "no");
        // The reset may be faster than the headers.
        if let Ok((_to, mut from)) = client().await {
            while let Ok(Some(_)) = from.message().await {}
        }
        let channel = connect(&port.url()).await.unwrap();
        let fourth = open(channel.clone(), vec![ToServer::hello("agent_A", "1.1.0")]);
        let fourth = tokio::time::timeout(Duration::from_millis(200), fourth);
        assert!(fourth.await.is_err(), "no headers");
        // Only now the call is cancelled, on a connection that stays.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    thread::scope(|scope| {
        let script = scope.spawn(script);
        block_on(clients);
        script.join().unwrap();
    });
    port.close();
    assert!(block_on(connect(&port.url())).is_err());
    port.reopen();
    block_on(connect(&port.url())).unwrap();
    assert_eq!((port.connections(), port.streams()), (5, 4));
    assert_eq!(port.record().all().len(), 4);
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// The next message, and whether the stream ended with OK or a status.
async fn next(client: &mut Client) -> Result<Option<FromServerContent>, Status> {
    let next = tokio::time::timeout(PATIENCE, client.1.message()).await.expect("no message came");
    Ok(next?.and_then(|message| message.content))
}

/// Waits without blocking the clients of this thread.
async fn until(is_so: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn model_greets_refuses_and_loses_agents_as_the_real_server_does() {
    let server = Ankaios::start();
    let other = server.agent("agent_B");
    other.until_hello();
    other.report(vec![workload_state("w.1.agent_B", State::Running(0), "")]);
    let first = server.apply("own", workload("agent_A", "process", "c"));
    block_on(async {
        let refusal = |hello: ToServer| async {
            let channel = connect(&server.url()).await.unwrap();
            let status = open(channel, vec![hello]).await.unwrap_err();
            format!("{:?}: {}", status.code(), status.message())
        };
        let version =
            "FailedPrecondition: Unsupported protocol version '2.0.0'. Currently supported '1'";
        assert_eq!(refusal(ToServer::hello("a", "2.0.0")).await, version);
        assert_eq!(refusal(ToServer::default()).await, "InvalidArgument: Empty");
        let states = refusal(ToServer::states(Vec::new())).await;
        assert_eq!(states, "InvalidArgument: No AgentHello received.");

        let hello = || ToServer::hello("agent_A", "1.99.7");
        let channel = connect(&server.url()).await.unwrap();
        let mut old = open(channel, vec![hello()]).await.unwrap();
        let FromServerContent::UpdateWorkloadState(states) = next(&mut old).await.unwrap().unwrap()
        else {
            panic!("states of others come first");
        };
        assert_eq!(states.workload_states.len(), 1, "not those of the agent itself");
        let FromServerContent::ServerHello(hello_of_server) =
            next(&mut old).await.unwrap().unwrap()
        else {
            panic!("then the hello");
        };
        let added = &hello_of_server.added_workloads[0];
        assert_eq!(added.workload.as_ref().unwrap().tags, Some(pb::Tags::default()), "all is set");
        let channel = connect(&server.url()).await.unwrap();
        let mut new = open(channel, vec![hello()]).await.unwrap();
        assert_eq!(next(&mut old).await.unwrap(), None, "the newer stream takes the name");
        drop(old);
        let running = workload_state(&first[0], State::Running(0), "");
        new.0.send(ToServer::states(vec![running])).unwrap();
        until(|| server.states_of("own")[0].1 == "Running(Ok)").await;
        // Half-closed, it stays; a further one of the name ends it, and is lost by an empty message.
        new.0 = mpsc::unbounded_channel().0;
        let channel = connect(&server.url()).await.unwrap();
        let mut last = open(channel, vec![hello()]).await.unwrap();
        next(&mut last).await.unwrap();
        next(&mut last).await.unwrap();
        assert_eq!(server.agents(), ["agent_A", "agent_B"]);
        last.0.send(ToServer::default()).unwrap();
        assert_eq!(next(&mut last).await.unwrap(), None);
        assert_eq!(server.agents(), ["agent_B"]);
        assert_eq!(server.states_of("own")[0].1, "AgentDisconnected");
        // A message above 4 MiB.
        let channel = connect(&server.url()).await.unwrap();
        let large = open(channel, vec![hello()]).await.unwrap();
        assert_eq!(server.agents(), ["agent_A", "agent_B"]);
        let text = "x".repeat(5 << 20);
        let large_state = workload_state(&first[0], State::Running(0), &text);
        large.0.send(ToServer::states(vec![large_state])).unwrap();
        until(|| server.agents() == ["agent_B"]).await;
    });
}

#[test]
fn model_orders_what_follows_an_update_and_tells_events_by_their_topmost_paths() {
    let server = Ankaios::start();
    let agent = server.agent("agent_A");
    assert!(agent.until_hello().is_empty());
    let operator = server.ank();
    let (all, _) = operator.subscribe(&[]);
    let (deep, _) = operator.subscribe(&["desiredState.workloads.*.agent"]);
    let (tags, _) = operator.subscribe(&["desiredState.workloads.w.tags"]);
    let mut own = workload("agent_A", "process", " config\n");
    own.tags = Some(pb::Tags { tags: [("k".to_owned(), "v".to_owned())].into() });
    let added = server.apply("w", own.clone());
    let (altered, state) = operator.event(&all);
    let added_fields =
        ["desiredState.workloads.w", "effectiveState.workloads.w", "workloadStates.agent_A"];
    assert_eq!(altered.added_fields, strings(&added_fields));
    assert!(state.agents.is_none());
    let (altered, _) = operator.event(&deep);
    assert_eq!(altered.added_fields, strings(&["desiredState.workloads.w.agent"]));
    let update = agent.until_update();
    assert_eq!(update.added_workloads.len(), 1);
    let config = update.added_workloads[0].workload.clone().unwrap().runtime_config;
    assert_eq!(config.as_deref(), Some("config"), "updates trim it");

    agent.report(vec![workload_state(&added[0], State::Pending(2), "Triggered at runtime.")]);
    let path = |field: &str| {
        let (name, rest) = added[0].split_once('.').unwrap();
        let (id, agent) = rest.split_once('.').unwrap();
        format!("workloadStates.{agent}.{name}.{id}.{field}")
    };
    let (altered, _) = operator.event(&all);
    assert_eq!(altered.updated_fields, [path("additionalInfo"), path("subState")]);
    assert_eq!(operator.states().len(), 1);
    // One without additional information is dropped.
    let mut incomplete = workload_state(&added[0], State::Running(0), "");
    incomplete.execution_state.as_mut().unwrap().additional_info = None;
    agent.report(vec![incomplete]);

    // The same id: delete and add in one message.
    own.tags = Some(pb::Tags { tags: [("k".to_owned(), "x".to_owned())].into() });
    assert_eq!(server.apply("w", own), added);
    let update = agent.until_update();
    assert_eq!((update.added_workloads.len(), update.deleted_workloads.len()), (1, 1));
    let (altered, _) = operator.event(&all);
    let updated = ["desiredState.workloads.w.tags.k", "effectiveState.workloads.w.tags.k"];
    assert_eq!(altered.updated_fields, strings(&updated));
    // New as a whole, the tags had no event.
    let (altered, _) = operator.event(&tags);
    assert_eq!(altered.updated_fields, strings(&["desiredState.workloads.w.tags.k"]));
}

#[test]
fn model_says_what_a_deletion_waits_for_and_removes_what_never_began() {
    let server = Ankaios::start();
    let agent = server.agent("agent_A");
    agent.until_hello();
    let added = server.apply("w", workload("agent_A", "process", "config"));
    agent.until_update();
    let mut dependent = workload("agent_A", "process", "d");
    let dependencies: BTreeMap<_, _> = [("w".to_owned(), 0)].into();
    dependent.dependencies = Some(pb::Dependencies { dependencies });
    server.apply("d", dependent);
    agent.until_update();
    server.delete("w");
    let deleted = &agent.until_update().deleted_workloads[0];
    assert_eq!(deleted.dependencies, [("d".to_owned(), 1)].into());
    agent.report(vec![workload_state(&added[0], State::Removed(0), "")]);
    server.wait_for_removal("w");
    // Without an agent, and never begun, a workload is removed at once.
    server.apply("far", workload("agent_Z", "process", "z"));
    server.wait_for_state("far", "Pending(Initial)");
    server.delete("far");
    let FromServerContent::UpdateWorkloadState(states) = agent.next() else {
        panic!("no removal");
    };
    let removed = states.workload_states[0].execution_state.clone().unwrap();
    assert_eq!(removed.execution_state_enum, Some(State::Removed(0)));
    let mut cycle = workload("agent_A", "process", "c");
    let dependencies: BTreeMap<_, _> = [("c".to_owned(), 0)].into();
    cycle.dependencies = Some(pb::Dependencies { dependencies });
    let refused = server.update(with_workloads([("c", cycle)]), &["desiredState.workloads.c"]);
    let text = "Update rejected: 'workload dependency 'c' is part of a cycle.'";
    assert_eq!(refused.unwrap_err(), text);
}

#[test]
fn model_routes_requests_and_logs_by_their_ids() {
    let server = Ankaios::start();
    let (own, other) = (server.agent("agent_A"), server.agent("agent_B"));
    own.until_hello();
    let added = server.apply("w", workload("agent_B", "process", "c"));
    other.until_update();
    let name = super::server::instance_name(&added[0]);
    let request = |name: &pb::WorkloadInstanceName| pb::LogsRequest {
        workload_names: vec![name.clone()],
        ..pb::LogsRequest::default()
    };
    // A workload of another agent reads them.
    let content = RequestContent::LogsRequest(request(&name));
    assert!(own.send(ToServer::request("reader@x@1", content)));
    let logs = other.until_logs_request();
    assert_eq!(logs.request_id, "agent_A@reader@x@1");
    let entry = pb::LogEntry { workload_name: Some(name.clone()), message: "line".to_owned() };
    other.write_logs(&logs.request_id, vec![entry]);
    let mut responses = Vec::new();
    while responses.len() < 2 {
        if let FromServerContent::Response(response) = own.next() {
            assert_eq!(response.request_id, "reader@x@1");
            responses.push(response.response_content.unwrap());
        }
    }
    assert!(matches!(responses[0], ResponseContent::LogsRequestAccepted(_)));
    assert!(matches!(responses[1], ResponseContent::LogEntriesResponse(_)));
    // An operator reads them, until their agent is gone.
    let operator = server.operator();
    let (id, accepted) = operator.logs(request(&name));
    assert_eq!(accepted, std::slice::from_ref(&name));
    assert_eq!(server.campaigns().len(), 2);
    other.leave();
    assert!(operator.lines_until_end(&id, 1).is_empty());
    assert!(server.campaigns().is_empty());
    // A request without a new state breaks the stream.
    let update = RequestContent::UpdateStateRequest(pb::UpdateStateRequest::default());
    assert!(!own.send(ToServer::request("w@1", update)));
    assert!(server.agents().is_empty());
    assert!(!matches!(own.try_next(), Some(FromServerContent::ServerHello(_))));
}

#[test]
fn model_breaks_a_stream_at_the_message_of_a_number() {
    let server = Ankaios::start();
    let mut kinds = Vec::new();
    for message in 0..3 {
        for how in [BreakBy::Reset, BreakBy::End, BreakBy::Unavailable] {
            server.break_next_stream(message, how);
            let (got, end) = block_on(async {
                let channel = connect(&server.url()).await.unwrap();
                let first = vec![ToServer::hello("agent_A", "1.1.0"), ToServer::states(Vec::new())];
                let mut client = match open(channel, first).await {
                    Ok(client) => client,
                    Err(status) => return (0, Err(status.code())),
                };
                let mut got = 0;
                loop {
                    match next(&mut client).await {
                        Ok(Some(_)) => got += 1,
                        Ok(None) => return (got, Ok(())),
                        Err(status) => return (got, Err(status.code())),
                    }
                }
            });
            // The network may lose more than the message.
            assert!(got <= usize::from(message > 1), "{message} {how:?}: {got}");
            kinds.push((how, end));
        }
    }
    assert!(server.agents().is_empty());
    for (how, end) in kinds {
        match how {
            BreakBy::Reset => assert!(end.is_err()),
            BreakBy::End => assert_eq!(end, Ok(())),
            BreakBy::Unavailable => assert_eq!(end, Err(tonic::Code::Unavailable)),
        }
    }
}

#[test]
fn model_checks_the_name_in_a_certificate() {
    let authority = Authority::new();
    let server = Ankaios::start_with_tls(&authority, &pb::CompleteState::default());
    authority.issue("agent_A");
    authority.issue_for("any", "*");
    let hello = |file: &'static str| {
        let (authority, url) = (&authority, server.url());
        async move {
            let ca = Certificate::from_pem(authority.text("ca.pem"));
            let [pem, key] = ["pem", "key"].map(|end| authority.text(&format!("{file}.{end}")));
            let tls = ClientTlsConfig::new().domain_name("ank-server").ca_certificate(ca);
            let tls = tls.identity(Identity::from_pem(pem, key));
            let endpoint = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap();
            let channel = endpoint.connect().await.unwrap();
            open(channel, vec![ToServer::hello("agent_A", "1.1.0-pre")]).await.map(drop)
        }
    };
    block_on(async {
        hello("agent_A").await.unwrap();
        hello("any").await.unwrap();
        let refused = hello("ank-server").await.unwrap_err();
        let text = "Agent name 'agent_A' does not match SAN [ank-server] in agent certificates!";
        assert_eq!((refused.code(), refused.message()), (tonic::Code::Unauthenticated, text));
    });
    let loads = server.record().all().into_iter();
    let hellos =
        loads.filter(|own| matches!(own.message.content, Some(ToServerContent::AgentHello(_))));
    assert_eq!(hellos.count(), 3);
}
