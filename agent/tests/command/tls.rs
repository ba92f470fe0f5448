//! Mutual TLS: who is let in, and what a start needs.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use nix::sys::signal::Signal;
use testkit::{Agent, Authority, fifogate_agent, wait_for};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::client::{Client, TOOL};

/// Ours, with certificates of the agent, an operator, and `late`, whose time is over; and a foreign one.
pub(crate) fn authorities() -> (Authority, Authority) {
    let (ours, foreign) = (Authority::new(), Authority::new());
    ours.issue("ank-server");
    ours.issue("operator");
    ours.issue_until("late", 2020);
    foreign.issue("operator");
    (ours, foreign)
}

/// Options of an agent with the certificate of this name.
pub(crate) fn options(authority: &Authority, name: &str, port: u16) -> Vec<String> {
    let [ca, crt, key] = authority.files(name);
    let address = format!("127.0.0.1:{port}");
    ["--listen", &address, "--ca-pem", &ca, "--crt-pem", &crt, "--key-pem", &key]
        .map(str::to_owned)
        .into()
}

/// A port that nobody uses.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn start(options: &[String]) -> Agent {
    start_with("", options)
}

/// With these workloads.
pub(crate) fn start_with(workloads: &str, options: &[String]) -> Agent {
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let agent = Agent::start(workloads, &options);
    wait_for("the listening agent", || agent.log().contains("commands are taken at").then_some(()));
    agent
}

/// A connection as the owner of a certificate; without `name` as one without.
pub(crate) async fn connect(
    trusted: &Authority,
    own: &Authority,
    name: Option<&str>,
    port: u16,
) -> Result<Channel, tonic::transport::Error> {
    let ca = Certificate::from_pem(fs::read(trusted.path("ca.pem")).unwrap());
    let mut tls = ClientTlsConfig::new().domain_name("ank-server").ca_certificate(ca);
    if let Some(name) = name {
        let read = |end: &str| fs::read(own.path(&format!("{name}.{end}"))).unwrap();
        tls = tls.identity(Identity::from_pem(read("pem"), read("key")));
    }
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    endpoint.tls_config(tls)?.connect().await
}

/// Whether a stream can be opened. With TLS 1.3 a client hears of its refusal only when it reads.
pub(crate) async fn is_served(channel: Result<Channel, tonic::transport::Error>) -> bool {
    let Ok(channel) = channel else { return false };
    let first = vec![super::client::hello("1.1.0")];
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    if grpc.ready().await.is_err() {
        return false;
    }
    super::client::open(channel, TOOL, first).await.is_ok()
}

#[tokio::test]
async fn only_an_owner_of_a_valid_certificate_is_served() {
    let (ours, foreign) = authorities();
    let port = free_port();
    let agent = start(&options(&ours, "ank-server", port));
    assert!(is_served(connect(&ours, &ours, Some("operator"), port).await).await);
    assert!(!is_served(connect(&ours, &ours, None, port).await).await, "no certificate");
    assert!(!is_served(connect(&ours, &ours, Some("late"), port).await).await, "expired");
    let of_another = connect(&ours, &foreign, Some("operator"), port).await;
    assert!(!is_served(of_another).await, "of another authority");
    let plain = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect().await;
    assert!(!is_served(plain).await, "no TLS");
    // None of them has done harm.
    Client::connect(&agent, TOOL).await.read(&[]).await;
    assert!(is_served(connect(&ours, &ours, Some("operator"), port).await).await);
}

#[tokio::test]
async fn clients_that_say_nothing_behind_tls_lose_their_places_to_others() {
    let authority = Authority::new();
    authority.issue("ank-server");
    let port = free_port();
    let mut options = options(&authority, "ank-server", port);
    options.extend(["--max-commanders", "2"].map(str::to_owned));
    let _agent = start(&options);
    let next = || connect(&authority, &authority, Some("ank-server"), port);
    // They answer when HTTP/2 asks whether they are there.
    let _silent = [next().await.unwrap(), next().await.unwrap()];
    assert!(!is_served(next().await).await, "there are no places");
    let end = tokio::time::Instant::now() + super::client::PATIENCE;
    while !is_served(next().await).await {
        assert!(tokio::time::Instant::now() < end, "the places stay taken");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_reload_replaces_certificates_for_new_connections_and_open_ones_go_on() {
    let (old, new, used) = (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    for authority in [&old, &new] {
        authority.issue("ank-server");
        authority.issue("operator");
    }
    let copy = |from: &Authority| {
        for file in ["ca.pem", "ank-server.pem", "ank-server.key"] {
            fs::copy(from.path(file), used.path().join(file)).unwrap();
        }
    };
    copy(&old);
    let port = free_port();
    let files = ["ca.pem", "ank-server.pem", "ank-server.key"].map(|file| used.path().join(file));
    let [ca, crt, key] = files.clone().map(|path| path.display().to_string());
    let address = format!("127.0.0.1:{port}");
    let options = ["--listen", &address, "--ca-pem", &ca, "--crt-pem", &crt, "--key-pem", &key];
    let agent = start(&options.map(str::to_owned));
    let reload = |end: &str| {
        let known = agent.log().len();
        agent.signal(Signal::SIGHUP);
        wait_for(end, || agent.log()[known..].contains("manifest.yaml was applied").then_some(()));
        let log = agent.log()[known..].to_owned();
        assert!(log.contains(end), "{log}");
    };
    let operator = || connect(&old, &old, Some("operator"), port);
    let mut open = Client::over(operator().await.unwrap(), TOOL).await;
    copy(&new);
    fs::set_permissions(&files[2], Permissions::from_mode(0o640)).unwrap();
    reload("certificates of the command interface stay as they were: ");
    assert!(is_served(operator().await).await, "nothing has changed");
    fs::set_permissions(&files[2], Permissions::from_mode(0o600)).unwrap();
    fs::write(&files[1], fs::read(old.path("ank-server.pem")).unwrap()).unwrap();
    reload("the PEM files of TLS do not fit together");
    assert!(is_served(operator().await).await, "nothing has changed");
    copy(&new);
    reload("the certificates of the command interface were read again");
    assert!(!is_served(operator().await).await, "the old authority counts");
    assert!(is_served(connect(&new, &new, Some("operator"), port).await).await);
    open.read(&["desiredState"]).await;
    // The one on the socket has no certificate.
    Client::connect(&agent, TOOL).await.read(&[]).await;
    reload("nothing differs");
    assert!(is_served(connect(&new, &new, Some("operator"), port).await).await);
}

/// The standard error of an agent that does not start.
fn refusal(dir: &Path, options: &[String], status: i32) -> String {
    let manifest = dir.join("empty.yaml");
    fs::write(&manifest, "apiVersion: v1\n").unwrap();
    let mut command = Command::new(fifogate_agent());
    command.args(["run", "--fifogate", testkit::fifogate(), "--manifest"]).arg(manifest);
    command.arg("--run-dir").arg(dir.join("run")).args(options);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

#[test]
fn start_refuses_unsafe_options_with_a_reason_and_without_a_secret() {
    let authority = Authority::new();
    authority.issue("ank-server");
    let dir = tempfile::tempdir().unwrap();
    let all = options(&authority, "ank-server", free_port());
    let missing = refusal(dir.path(), &all[..6], 2);
    assert!(missing.contains("belong together"), "{missing}");
    let open = refusal(dir.path(), &all[..2], 2);
    assert!(open.contains("needs TLS"), "{open}");
    let key = authority.path("ank-server.key");
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let readable = refusal(dir.path(), &all, 1);
    assert!(readable.contains("others may use this key, its mode is 0640"), "{readable}");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    // The certificate where the key belongs, and the other way round.
    let mut swapped = all.clone();
    swapped.swap(5, 7);
    let pem = authority.path("ank-server.pem");
    fs::set_permissions(&pem, Permissions::from_mode(0o600)).unwrap();
    let wrong = refusal(dir.path(), &swapped, 1);
    assert!(wrong.contains("ank-server.key: there is no certificate in it"), "{wrong}");
    let secret = fs::read_to_string(&key).unwrap();
    for text in [missing, open, readable, wrong] {
        assert!(!text.contains(secret.lines().nth(1).unwrap()), "{text}");
    }
}
