//! An etcd that is full, hangs, wants to know who asks, or holds what makes no sense: what is said, and
//! that nothing else suffers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod etcd_store;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions, ConnectOptions, GetOptions,
    Permission,
};
use etcd_store::options;
use fifogate::pb::ank_base::{self as pb, config_item::ConfigItemEnum};
use fifogate_agent::{
    model::Update,
    store::{Etcd, Event, Events, OpenError, Refused, etcd::Options},
};
use nix::sys::signal::Signal;
use testkit::{Authority, Etcd as Server};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

async fn refusal(options: Options) -> String {
    match timeout(PATIENCE, Etcd::open(options, None)).await.expect("it waits for ever") {
        Err(OpenError::Storage(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Sets configs of these names to one value.
fn set(names: impl Iterator<Item = String>, value: &str) -> Update {
    let item = pb::ConfigItem { config_item_enum: Some(ConfigItemEnum::String(value.into())) };
    let configs: BTreeMap<_, _> = names.map(|name| (name, item.clone())).collect();
    let masks = configs.keys().map(|name| format!("desiredState.configs.{name}")).collect();
    let configs = Some(pb::ConfigMap { configs });
    let state = pb::State { api_version: "v1".to_owned(), configs, ..Default::default() };
    Update {
        by: String::new(),
        new_state: pb::CompleteState { desired_state: Some(state), ..Default::default() },
        masks,
    }
}

fn one(name: &str, value: &str) -> Update {
    set([name.to_owned()].into_iter(), value)
}

/// Takes what is told until a config is there.
async fn until(events: &mut Events, wanted: &str) {
    let told = async {
        while let Some(event) = events.recv().await {
            let path = ["desiredState", "configs", wanted];
            if matches!(&event, Event::State { tree, .. } if tree.get(&path).is_some()) {
                return;
            }
        }
        panic!("nothing more is told");
    };
    timeout(PATIENCE, told).await.expect("never told");
}

#[tokio::test]
async fn an_etcd_that_hangs_is_given_up_soon_and_said_not_to_answer() {
    let server = Server::start();
    server.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let text = refusal(options(&server, "agent_A")).await;
    server.signal(Signal::SIGCONT);
    assert!(text.contains(&server.endpoint()), "{text}");
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn as_many_items_as_a_transaction_takes_and_more_are_updated_at_once() {
    let server = Server::start();
    let (store, mut events) = Etcd::open(options(&server, "agent_A"), None).await.unwrap();
    let names = |count: usize| (0..count).map(|n| format!("k{n}"));
    for count in [127, 128, 129, 130] {
        store.update(set(names(count), "v")).await.unwrap();
        until(&mut events, &format!("k{}", count - 1)).await;
        // Values that are set already are compared; the guard is, if any is not.
        store.update(set(names(count), "v")).await.unwrap();
        store.update(set(names(count), &format!("v{count}"))).await.unwrap();
    }
}

#[tokio::test]
async fn an_update_that_is_too_large_for_etcd_is_refused_and_the_next_is_done() {
    let server = Server::start_with("http", &["--max-request-bytes", "100000"]);
    let (store, _events) = Etcd::open(options(&server, "agent_A"), None).await.unwrap();
    let Err(Refused::Invalid(text)) = store.update(one("k", &"x".repeat(100_001))).await else {
        panic!("done, or not for that reason");
    };
    assert!(text.contains("too large for etcd") && text.contains("max-request-bytes"), "{text}");
    store.update(one("k", &"x".repeat(90_000))).await.unwrap();
}

#[tokio::test]
async fn a_full_etcd_refuses_updates_and_takes_them_again_when_there_is_room() {
    let server = Server::start_with("http", &["--quota-backend-bytes", "2000000"]);
    let (store, mut events) = Etcd::open(options(&server, "agent_A"), None).await.unwrap();
    let large = "x".repeat(200_000);
    let fill = async {
        for number in 0.. {
            if let Err(refused) = store.update(one("large", &format!("{number}{large}"))).await {
                return refused;
            }
            until(&mut events, "large").await;
        }
        unreachable!("numbers end")
    };
    let Refused::Unavailable(text) = timeout(PATIENCE, fill).await.expect("never full") else {
        panic!("not for that reason");
    };
    assert!(text.contains("was not done") && text.contains("etcd is full"), "{text}");
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    let all = client.get("test/", Some(GetOptions::new().with_prefix())).await.unwrap();
    let revision = all.header().unwrap().revision();
    let physical = CompactionOptions::new().with_physical();
    client.compact(revision, Some(physical)).await.unwrap();
    client.defragment().await.unwrap();
    let mut member = AlarmOptions::new();
    member.with_member(all.header().unwrap().member_id());
    client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member)).await.unwrap();
    store.update(one("small", "v")).await.unwrap();
    until(&mut events, "small").await;
}

#[tokio::test]
async fn a_key_that_makes_no_sense_is_left_alone_and_can_be_written_over() {
    let server = Server::start();
    let (store, mut events) = Etcd::open(options(&server, "agent_A"), None).await.unwrap();
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    client.put("test/desired/configs/k", vec![0xff, 0xff], None).await.unwrap();
    client.put("test/who/knows", "x", None).await.unwrap();
    store.update(one("other", "v")).await.unwrap();
    until(&mut events, "other").await;
    store.update(one("k", "v")).await.unwrap();
    until(&mut events, "k").await;
    let left = client.get("test/who/knows", None).await.unwrap();
    assert_eq!(left.kvs().len(), 1);
    drop(store);
}

#[tokio::test]
async fn etcd_with_certificates_is_used_with_ours_and_not_without() {
    let own = Authority::new();
    own.issue_for("server", "127.0.0.1");
    own.issue("client");
    let [ca, cert, key] = own.files("server");
    let server = Server::start_with(
        "https",
        &["--cert-file", &cert, "--key-file", &key, "--client-cert-auth", "--trusted-ca-file", &ca],
    );
    let plain = || Options {
        endpoints: vec![format!("https://{}", server.endpoint())],
        ..options(&server, "agent_A")
    };
    let knows = || Options { ca: Some(own.path("ca.pem")), ..plain() };
    let identity = Some((own.path("client.pem"), own.path("client.key")));
    let (store, mut events) =
        Etcd::open(Options { identity: identity.clone(), ..knows() }, None).await.unwrap();
    store.update(one("k", "v")).await.unwrap();
    until(&mut events, "k").await;
    let http = vec![format!("http://{}", server.endpoint())];
    let text = refusal(Options { endpoints: http, ..knows() }).await;
    assert!(text.contains("the URL is not https"), "{text}");
    for without in [knows(), Options { identity, ..plain() }] {
        let text = refusal(without).await;
        assert!(text.contains(&server.endpoint()), "{text}");
    }
    let text = refusal(Options { ca: Some(Path::new("/no/such.pem").into()), ..plain() }).await;
    assert!(text.contains("/no/such.pem: No such file"), "{text}");
}

/// Adds `root` and a user `gate` with all rights below `test/`, and turns the check of users on.
async fn enable_users(server: &Server) {
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    for (user, role) in [("root", "root"), ("gate", "ours")] {
        client.user_add(user, "secret", None).await.unwrap();
        client.role_add(role).await.unwrap();
        client.user_grant_role(user, role).await.unwrap();
    }
    let own = Permission::read_write("test/").with_prefix();
    client.role_grant_permission("ours", own).await.unwrap();
    client.auth_enable().await.unwrap();
}

#[tokio::test]
async fn etcd_with_users_is_used_with_our_rights_and_a_wrong_password_is_told() {
    let server = Server::start();
    enable_users(&server).await;
    let with = |prefix: &str, password: &str| Options {
        prefix: prefix.to_owned(),
        user: Some(("gate".to_owned(), password.to_owned())),
        ..options(&server, "agent_A")
    };
    let (store, mut events) = Etcd::open(with("test", "secret"), None).await.unwrap();
    store.update(one("k", "v")).await.unwrap();
    until(&mut events, "k").await;
    let text = refusal(with("test", "wrong")).await;
    assert!(text.contains("invalid user ID or password"), "{text}");
    let text = refusal(with("others", "secret")).await;
    assert!(text.contains("permission denied"), "{text}");
    let text = refusal(options(&server, "agent_A")).await;
    assert!(text.contains("user name is empty"), "{text}");
}

/// An etcd with tokens that end after some seconds, and a user `gate` with all rights below `test/`.
async fn with_tokens(folder: &Path, seconds: u64) -> (Server, Client) {
    let secret = folder.join("secret");
    fs::write(&secret, "a secret").unwrap();
    let secret = secret.display();
    let token = format!("jwt,sign-method=HS256,priv-key={secret},ttl={seconds}s");
    let server = Server::start_with("http", &["--auth-token", &token]);
    enable_users(&server).await;
    let root = ConnectOptions::new().with_user("root", "secret").with_auto_token_refresh(true);
    let client = Client::connect([server.endpoint()], Some(root)).await.unwrap();
    (server, client)
}

#[tokio::test]
async fn updates_go_on_after_users_changed_and_after_the_end_of_each_token() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut root) = with_tokens(folder.path(), 2).await;
    let user = Some(("gate".to_owned(), "secret".to_owned()));
    let (store, mut events) =
        Etcd::open(Options { user, ..options(&server, "agent_A") }, None).await.unwrap();
    for round in 0..2 {
        let name = format!("k{round}");
        store.update(one(&name, "v")).await.unwrap();
        until(&mut events, &name).await;
        // Makes all tokens invalid at once.
        root.user_add(format!("other{round}"), "secret", None).await.unwrap();
        let name = format!("l{round}");
        store.update(one(&name, "v")).await.unwrap();
        until(&mut events, &name).await;
        // The end of a token is a time of etcd's, so nothing tells of it.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test]
async fn state_of_many_megabytes_is_seeded_opened_and_read_again() {
    let server = Server::start();
    // Beyond 4 MiB in one page of keys; beyond etcd's 1.5 MiB in one transaction; one item near it.
    let text: String = (0..480)
        .map(|n| format!("  k{n}: {}\n", "x".repeat(9_000)))
        .chain((0..60).map(|n| format!("  l{n}: {}\n", "y".repeat(100_000))))
        .chain([format!("  large: {}\n", "z".repeat(1_200_000))])
        .collect();
    let text = format!("apiVersion: v1\nworkloads: {{}}\nconfigs:\n{text}");
    let seed = fifogate::manifest::parse("test.yaml", &text).unwrap().updated.tree;
    let (store, mut events) = Etcd::open(options(&server, "agent_A"), Some(&seed)).await.unwrap();
    until(&mut events, "large").await;
    store.update(one("k", "v")).await.unwrap();
    let other = Options { agent: "agent_B".to_owned(), ..options(&server, "agent_A") };
    let (_other, mut events) = Etcd::open(other, None).await.unwrap();
    until(&mut events, "k").await;
}

#[test]
fn options_that_cannot_be_used_are_told_with_their_names_and_what_would_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let missing = missing.to_str().unwrap();
    let run_dir = dir.path().join("run");
    let tried = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fifogate-agent"));
        command.args(["run", "--run-dir"]).arg(&run_dir).args(options);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (options, status, told) in [
        (&["--etcd", "10.0.0.1"][..], 2, "expected HOST:PORT"),
        (&["--etcd", "a:1,b:"], 2, "'b:'"),
        (&["--etcd", "a:1", "--prefix="], 2, "--prefix"),
        (&["--etcd", "a:1", "--etcd-ca", missing], 2, "--etcd-ca"),
        (&["--etcd", "a:1", "--etcd-user", "u", "--etcd-password-file", missing], 2, missing),
        (&["--etcd", "127.0.0.1:1,127.0.0.1:2"], 1, "127.0.0.1:1: "),
        (&["--etcd", "127.0.0.1:1, 127.0.0.1:2/ ,"], 1, "127.0.0.1:2: "),
        (&["--etcd", "http://127.0.0.1:1/"], 1, "http://127.0.0.1:1: "),
        (&["--etcd", "[::1]:1"], 1, "[::1]:1: "),
        (&["--etcd", "::1:2379"], 2, "[::1]:2379"),
        (&["--etcd", "http://u:secret@h:1"], 2, "--etcd-user"),
        (&["--etcd", "http://h:1/path"], 2, "expected HOST:PORT"),
        (&["--etcd", "a b:1"], 2, "expected HOST:PORT"),
        (&["--etcd", "ftp://h:1"], 2, "expected HOST:PORT"),
        (&["--etcd", " , "], 2, "expected HOST:PORT"),
        (&["--etcd", "127.0.0.1:1"], 1, "Connection refused"),
    ] {
        let (code, text) = tried(options);
        assert!(code == status && text.contains(told), "{options:?}: {code}, {text}");
    }
}
