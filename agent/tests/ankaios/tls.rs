//! Mutual TLS with the server.

use std::{fs, os::unix::fs::PermissionsExt};

use testkit::{Agent, Authority, wait_for, workload};

use super::{
    joined::Joined,
    server::{Port, server_config},
};

fn options(paths: &[String; 3]) -> Vec<&str> {
    vec!["--ca-pem", &paths[0], "--crt-pem", &paths[1], "--key-pem", &paths[2]]
}

#[test]
fn agent_joins_by_its_certificate_and_a_server_of_another_authority_is_not_trusted() {
    let authority = Authority::new();
    authority.issue("agent_A");
    let one = workload("one", "exec sleep 1000", "");
    let own = authority.files("agent_A");
    let port = Port::open_with_tls(server_config(&authority));
    // The server's name counts, and not its address.
    let joined = Joined::start(port, &options(&own), &one);
    joined.wait_for_state("one", "Running(Ok)");
    let other = Authority::new();
    let stranger = Port::open_with_tls(server_config(&other));
    let agent = Agent::join(&stranger.url(), &options(&own));
    wait_for("word of it", || agent.log().contains("invalid peer certificate").then_some(()));
    assert_eq!(stranger.streams(), 0);
}

#[test]
fn key_that_others_can_read_is_refused_and_never_told() {
    let authority = Authority::new();
    authority.issue("agent_A");
    let own = authority.files("agent_A");
    fs::set_permissions(&own[2], fs::Permissions::from_mode(0o640)).unwrap();
    let port = Port::open_with_tls(server_config(&authority));
    let mut agent = Agent::join(&port.url(), &options(&own));
    assert_eq!(agent.status(), Some(2));
    let log = agent.log();
    assert!(log.contains("others may use this key, its mode is 0640"), "{log}");
    assert!(!log.contains("PRIVATE"));
    // The text of the key in place of its path.
    let text = format!("--key-pem={}", authority.text("agent_A.key"));
    let mut agent = Agent::join(&port.url(), &["--ca-pem", &own[0], "--crt-pem", &own[1], &text]);
    assert_eq!(agent.status(), Some(2));
    let log = agent.log();
    assert!(log.contains("error: (a PEM text, not shown): ") && !log.contains("PRIVATE"), "{log}");
}

#[test]
fn server_without_tls_is_joined_only_if_that_is_wanted() {
    let port = Port::open();
    let mut agent = Agent::join(&port.url(), &[]);
    assert_eq!(agent.status(), Some(2));
    assert!(agent.log().contains("--server"), "{}", agent.log());
    // The default scheme is right for both.
    let url = port.url().replace("http:", "https:");
    let _agent = Agent::join(&url, &["--insecure"]);
    port.accept().read_hello();
}
