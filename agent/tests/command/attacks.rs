//! Clients that mean harm, of all kinds at once and again and again, beside a workload that measures.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use fifogate::pb::ank_base as pb;
use testkit::Agent;
use tokio::task::spawn_blocking;
use tonic::{Code, transport::Endpoint};

use super::{
    client::{Client, PATIENCE, TOOL, ToServer, request, state},
    neighbour::{self, Neighbour},
    tls::{authorities, connect, free_port, is_served, options, start_with},
};

/// How long all of them go on.
const LONG_ENOUGH: Duration = Duration::from_secs(3);

/// Does it until the time is over, and prints how often.
async fn again_and_again(name: &str, end: Instant, mut attack: impl AsyncFnMut()) {
    let mut count = 0;
    while count == 0 || Instant::now() < end {
        attack().await;
        count += 1;
    }
    println!("{name}: {count} times");
}

/// Each message ends its stream with this status.
async fn refused(agent: &Agent, message: &ToServer, code: Code) {
    let mut client = Client::connect(agent, TOOL).await;
    client.send(message.clone()).await;
    assert_eq!(client.next().await.expect_err("the stream goes on").code(), code);
}

/// Writes garbage, and reads until the connection ends.
fn garbage(mut socket: impl Read + Write) {
    // It may be refused before all of it is written.
    let _ = socket.write_all(&[0xff; 64 << 10]);
    let _ = socket.read_to_end(&mut Vec::new());
}

#[tokio::test]
async fn hostile_clients_of_all_kinds_at_once_are_refused_and_hold_up_no_workload() {
    let (ours, foreign) = authorities();
    let port = free_port();
    let agent = start_with(&neighbour::workload(), &options(&ours, "ank-server", port));
    let neighbour = Neighbour::start(&agent, "good");
    let end = Instant::now() + LONG_ENOUGH;
    let of = |own, name| {
        let ours = &ours;
        async move { assert!(!is_served(connect(ours, own, name, port).await).await, "{name:?}") }
    };
    let plain = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let long = request("x", state(&[&"m".repeat(5 << 20)], false));
    let nothing = pb::Request { request_id: "x".to_owned(), request_content: None };
    let nothing = ToServer { request: Some(nothing), ..ToServer::default() };
    let socket = agent.path("run/command.sock");
    let with_garbage = spawn_blocking(move || {
        while Instant::now() < end {
            let local = UnixStream::connect(&socket).unwrap();
            local.set_read_timeout(Some(PATIENCE)).unwrap();
            garbage(local);
            let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
            tcp.set_read_timeout(Some(PATIENCE)).unwrap();
            garbage(tcp);
        }
    });
    tokio::join!(
        again_and_again("no certificate", end, async || of(&ours, None).await),
        again_and_again("an expired one", end, async || of(&ours, Some("late")).await),
        again_and_again("of another authority", end, async || of(&foreign, Some("operator")).await),
        again_and_again("no TLS", end, async || assert!(!is_served(plain.connect().await).await)),
        again_and_again("5 MiB", end, async || refused(&agent, &long, Code::OutOfRange).await),
        again_and_again("empty messages", end, async || {
            refused(&agent, &ToServer::default(), Code::InvalidArgument).await;
        }),
        again_and_again("no content", end, async || {
            refused(&agent, &nothing, Code::InvalidArgument).await;
        }),
    );
    with_garbage.await.unwrap();
    neighbour.check();
    Client::connect(&agent, TOOL).await.read(&[]).await;
    assert!(is_served(connect(&ours, &ours, Some("operator"), port).await).await);
}
