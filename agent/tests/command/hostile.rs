//! Clients that mean harm: each is refused with a status and a reason, and others do not notice.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use fifogate::pb::ank_base as pb;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use testkit::{Agent, Commander, skip, wait_for};
use tonic::Code;

use super::{
    client::{Client, TOOL, ToServer, channel, hello, open, request, state},
    neighbour::{self, Neighbour},
    tls::free_port,
};

/// A workload is served, and so is an operator.
async fn is_well(agent: &Agent) {
    agent.connect_as("ctl").state();
    Client::connect(agent, TOOL).await.read(&["desiredState.configs"]).await;
}

/// The status that ends a stream on which this was said.
async fn status_after(agent: &Agent, message: ToServer) -> tonic::Status {
    let mut client = Client::connect(agent, TOOL).await;
    client.send(message).await;
    client.next().await.expect_err("the stream goes on")
}

#[tokio::test]
async fn message_without_sense_ends_its_stream_with_a_reason() {
    let agent = Agent::start("", &[]);
    let empty = status_after(&agent, ToServer::default()).await;
    assert_eq!(
        (empty.code(), empty.message()),
        (Code::InvalidArgument, "a message without content")
    );
    let nothing = pb::Request { request_id: "x".to_owned(), request_content: None };
    let nothing = ToServer { request: Some(nothing), ..ToServer::default() };
    let nothing = status_after(&agent, nothing).await;
    let expected = (Code::InvalidArgument, "a request without content");
    assert_eq!((nothing.code(), nothing.message()), expected);
    is_well(&agent).await;
}

#[tokio::test]
async fn message_of_five_mebibytes_ends_its_stream_with_a_reason() {
    let agent = Agent::start("", &[]);
    let long = "m".repeat(5 << 20);
    let status = status_after(&agent, request("x", state(&[&long], false))).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    is_well(&agent).await;
}

#[tokio::test]
async fn garbage_on_the_socket_ends_its_connection() {
    let agent = Agent::start("", &[]);
    channel(&agent).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxx",
    ] {
        let mut socket = UnixStream::connect(agent.path("run/command.sock")).unwrap();
        socket.set_read_timeout(Some(super::client::PATIENCE)).unwrap();
        // It may be refused before all of it is written.
        let _ = socket.write_all(garbage);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
    }
    is_well(&agent).await;
}

#[tokio::test]
async fn one_commander_more_than_allowed_is_refused_until_another_one_goes() {
    let agent = Agent::start("", &["--max-commanders", "2"]);
    let channel = channel(&agent).await;
    let first = Client::over(channel.clone(), TOOL).await;
    let _second = Client::over(channel.clone(), TOOL).await;
    let refused = open(channel.clone(), TOOL, vec![hello("1.1.0")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "2 commanders are connected, and no more are allowed");
    first.goodbye().await;
    Client::over(channel, TOOL).await.read(&[]).await;
}

#[tokio::test]
async fn commander_that_does_not_read_gets_the_truth_later_and_others_in_time() {
    let agent = Agent::start("", &["--", "--outbox-messages", "8"]);
    let mut slow = Client::connect(&agent, TOOL).await;
    let id = slow.ask(state(&["desiredState.configs"], true)).await;
    slow.answer(&id).await;
    let mut ctl = agent.connect();
    let text = "v".repeat(100_000);
    for number in 0..200 {
        let value = format!("{number} {text}");
        ctl.set_config("u", "c", &value);
        ctl.success();
    }
    let mut events = 0;
    loop {
        let fifogate::pb::ank_base::response::ResponseContent::CompleteStateResponse(event) =
            slow.answer(&id).await
        else {
            panic!("no event");
        };
        events += 1;
        let configs = event.complete_state.unwrap().desired_state.unwrap().configs.unwrap();
        let Some(pb::config_item::ConfigItemEnum::String(value)) =
            &configs.configs["c"].config_item_enum
        else {
            panic!("no text");
        };
        if value.starts_with("199 ") {
            break;
        }
    }
    assert!(events < 100, "{events} of 200 changes were sent one by one");
}

#[tokio::test]
async fn connections_without_a_byte_are_bounded_and_closed_and_their_places_are_free() {
    let agent = Agent::start("", &["--max-commanders", "2"]);
    channel(&agent).await;
    let connect = || {
        let socket = UnixStream::connect(agent.path("run/command.sock")).unwrap();
        socket.set_read_timeout(Some(super::client::PATIENCE)).unwrap();
        socket
    };
    // The connection from above may still be open, so one of these is over the limit, or two.
    let mut all = [connect(), connect(), connect()];
    assert_eq!(all[2].read(&mut [0]).unwrap(), 0, "one too many is closed at once");
    // The others are closed after their time, some with the settings of HTTP/2 in it.
    for socket in &mut all {
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).unwrap();
    }
    is_well(&agent).await;
}

/// Half-open connections.
const HALF_OPEN: usize = 10_000;
/// Time for the first hello, and some for a busy machine.
const CLOSED: Duration = Duration::from_secs(30);
/// All that every second of them sends.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The number of connections that this process can have, up to 10,000. Their other ends are the agent's.
fn most() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let most = HALF_OPEN.min(usize::try_from(hard).unwrap().saturating_sub(200));
    if most < HALF_OPEN {
        skip(&format!("{} of {HALF_OPEN} connections, by RLIMIT_NOFILE", HALF_OPEN - most));
    }
    most
}

/// So many connections that send nothing, or the preface of HTTP/2 alone; all are ended by the agent, and a
/// commander gets in `meanwhile`.
fn half_open_end<S: Read + Write>(
    agent: &Agent,
    connect: impl Fn() -> io::Result<S>,
    meanwhile: impl FnOnce(),
) {
    let neighbour = Neighbour::start(agent, "good");
    let mut all: Vec<_> = (0..most()).map(|_| connect().unwrap()).collect();
    for socket in all.iter_mut().step_by(2) {
        // It may be closed already.
        let _ = socket.write_all(PREFACE);
    }
    meanwhile();
    let began = Instant::now();
    for mut socket in all {
        // The settings of HTTP/2 may come first, or a reset in place of the end.
        let _ = socket.read_to_end(&mut Vec::new());
    }
    let took = began.elapsed();
    println!("all were ended {took:.1?} after the last one");
    assert!(took < CLOSED, "half-open connections were ended after {took:?}");
    neighbour.check();
    wait_for("a place", || Commander::connect(&agent.path("run/command.sock")).ok());
}

#[test]
fn ten_thousand_half_open_connections_over_tcp_leave_the_local_socket_to_operators() {
    let address = format!("127.0.0.1:{}", free_port());
    let agent = Agent::start(&neighbour::workload(), &["--listen", &address, "--insecure"]);
    wait_for("the listening agent", || agent.log().contains("commands are taken at").then_some(()));
    let connect = || {
        let socket = TcpStream::connect(&address)?;
        socket.set_read_timeout(Some(CLOSED))?;
        Ok(socket)
    };
    half_open_end(&agent, connect, || {
        Commander::connect(&agent.path("run/command.sock")).unwrap();
    });
    let refused = "connections for commands were not accepted: as many as allowed are open";
    assert!(agent.log().contains(refused), "{}", agent.log());
}

#[test]
fn ten_thousand_half_open_connections_to_the_local_socket_end_and_others_get_in_meanwhile() {
    // As many places as there are connections, so that all of them are open at once.
    let agent = Agent::start(&neighbour::workload(), &["--max-commanders", "12000"]);
    let socket = agent.path("run/command.sock");
    wait_for("the socket", || Commander::connect(&socket).ok());
    let connect = || {
        let own = UnixStream::connect(&socket)?;
        own.set_read_timeout(Some(CLOSED))?;
        Ok(own)
    };
    half_open_end(&agent, connect, || {
        Commander::connect(&socket).unwrap();
    });
}
