//! The beginning and the end of a stream.

use std::os::unix::fs::PermissionsExt;

use testkit::Agent;
use tonic::Code;

use super::client::{ANK, Client, Hello, TOOL, ToServer, channel, hello, open};

#[tokio::test]
async fn headers_come_before_any_message_and_goodbye_ends_the_stream_in_order() {
    let agent = Agent::start("", &[]);
    for method in [ANK, TOOL] {
        // `connect` waits for the headers, and has sent the hello alone.
        let mut client = Client::connect(&agent, method).await;
        client.read(&["desiredState.configs"]).await;
        client.goodbye().await;
    }
}

#[tokio::test]
async fn first_message_other_than_a_compatible_hello_is_refused_with_status_and_reason() {
    let agent = Agent::start("", &[]);
    let channel = channel(&agent).await;
    let another =
        |message: ToServer| (message, Code::InvalidArgument, "No CommanderHello received.");
    let agent_hello = Some(Hello { protocol_version: "1.1.0".to_owned() });
    let table = [
        (
            hello("2.0.0"),
            Code::FailedPrecondition,
            "Unsupported protocol version '2.0.0'. Currently supported '1'",
        ),
        (
            hello("1.1"),
            Code::FailedPrecondition,
            "Unsupported protocol version '1.1'. Currently supported '1'",
        ),
        (
            hello(""),
            Code::FailedPrecondition,
            "Unsupported protocol version ''. Currently supported '1'",
        ),
        another(ToServer { agent_hello, ..ToServer::default() }),
        another(super::client::request("x", super::client::state(&[], false))),
        (ToServer::default(), Code::InvalidArgument, "Empty"),
    ];
    for (first, code, text) in table {
        for method in [ANK, TOOL] {
            let refused = open(channel.clone(), method, vec![first.clone()]).await;
            let status = refused.expect_err("it is refused");
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }
    for version in ["1.0.0", "1.99.7", "1.1.0-pre"] {
        open(channel.clone(), TOOL, vec![hello(version)]).await.unwrap();
    }
}

#[tokio::test]
async fn socket_is_of_the_user_alone_replaces_a_left_over_one_and_goes_with_the_agent() {
    let mut agent = Agent::start("", &[]);
    let socket = agent.path("run/command.sock");
    Client::connect(&agent, TOOL).await;
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    agent.kill_with_gate();
    assert!(socket.exists(), "nothing was left over");
    agent.restart();
    let mut client = Client::connect(&agent, TOOL).await;
    client.read(&[]).await;
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    assert!(!socket.exists());
    assert_eq!(client.next().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn stream_ends_with_a_status_when_fifogate_ends_and_the_next_one_is_served() {
    let agent = Agent::start("", &[]);
    let mut client = Client::connect(&agent, TOOL).await;
    client.read(&[]).await;
    let run_dir = agent.path("run").display().to_string();
    let line = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let gate = testkit::processes_with("--agent-link")
        .into_iter()
        .find(|pid| String::from_utf8_lossy(&line(pid)).contains(&run_dir));
    let gate = nix::unistd::Pid::from_raw(gate.unwrap());
    nix::sys::signal::kill(gate, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(client.next().await.unwrap_err().code(), Code::Unavailable);
    loop {
        let opened = open(channel(&agent).await, TOOL, vec![hello("1.1.0")]).await;
        match opened {
            Ok(_) => break,
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
