//! Values that nest up to the bound are kept and come back; what an older version kept, or an agent is sent
//! by mistake, above it costs that item or that request alone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use fifogate::{
    frame::{FrameDecoder, encode},
    internal::parts,
    limits::MAX_NESTING,
    pb::{
        agent_link::{
            Ack, ForwardedRequest, FromAgent, GateHello, ToAgent, from_agent, to_agent::Content,
        },
        ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    },
    state::{Node, Tree},
};
use fifogate_agent::{
    model::Update,
    store::{Event, Local, OpenError, Store},
};
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::{Database, TableDefinition};

use testkit::wait_for;

const LIMIT: &str = "at most 20 levels";

/// A value of so many levels, each a mapping or a sequence.
fn nested(levels: usize, mut is_mapping: impl FnMut() -> bool) -> Node {
    (0..levels).fold(Node::text("x"), |value, _| match is_mapping() {
        true => Node::map([("k", value), ("a", Node::text(""))]),
        false => Node::seq([value, Node::text("y")]),
    })
}

fn item(levels: usize) -> pb::ConfigItem {
    parts::config_to_pb(&nested(levels, || true))
}

fn state(name: &str, item: pb::ConfigItem) -> pb::CompleteState {
    let configs = Some(pb::ConfigMap { configs: [(name.to_owned(), item)].into() });
    let desired = pb::State { api_version: "v1".to_owned(), configs, ..Default::default() };
    pb::CompleteState { desired_state: Some(desired), ..Default::default() }
}

fn update(name: &str, item: pb::ConfigItem) -> Update {
    let masks = vec![format!("desiredState.configs.{name}")];
    Update { by: String::new(), new_state: state(name, item), masks }
}

fn open(dir: &Path) -> Result<(Store, Tree), OpenError> {
    let (store, mut events) = Local::open(None, Some(dir))?;
    let Ok(Event::State { tree, .. }) = events.try_recv() else { panic!("no state") };
    Ok((store, tree))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn value_within_the_bound_is_kept_on_disk_and_one_above_is_refused() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let dir = tempfile::tempdir().unwrap();
    let cases = std::env::var("NESTING_CASES").map_or(12, |text| text.parse().unwrap());
    for case in 0..cases {
        let levels = if case % 2 == 0 { MAX_NESTING } else { random.random_range(0..MAX_NESTING) };
        let mappings = [0.0, 0.5, 0.5, 1.0][case % 4];
        let value = nested(levels, || random.random_bool(mappings));
        let (store, _) = open(dir.path()).unwrap();
        block_on(store.update(update("k", parts::config_to_pb(&value)))).unwrap();
        let above = nested(MAX_NESTING + 1 + case % 30, || random.random_bool(mappings));
        let refused = block_on(store.update(update("k", parts::config_to_pb(&above))));
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("desiredState.configs.k") && why.contains(LIMIT), "{why}");
        drop(store);
        let (_store, tree) = open(dir.path()).unwrap();
        assert_eq!(tree.get(&["desiredState", "configs", "k"]), Some(&value));
    }
}

/// A file as a version without the bound may have left it, or a disk that lost some of it.
fn keep(dir: &Path, table: &str, entries: &[(&str, Vec<u8>)]) {
    let database = Database::create(dir.join("desired-state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
        let mut table = transaction.open_table(table).unwrap();
        for (name, bytes) in entries {
            table.insert(*name, &bytes[..]).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn workload(config: Option<&str>) -> Vec<u8> {
    let alias = |own: &str| [("alias".to_owned(), own.to_owned())].into();
    let own = pb::Workload {
        agent: Some("a".to_owned()),
        runtime: Some("process".to_owned()),
        runtime_config: Some("x".to_owned()),
        configs: config.map(|own| pb::ConfigMappings { configs: alias(own) }),
        ..Default::default()
    };
    own.encode_to_vec()
}

#[test]
fn state_that_was_kept_is_loaded_without_the_items_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = || b"\xff\xff".to_vec();
    keep(dir.path(), "meta", &[("apiVersion", b"v1".to_vec())]);
    let configs = [
        ("above", item(MAX_NESTING + 1).encode_to_vec()),
        ("at", item(MAX_NESTING).encode_to_vec()),
        ("broken", garbage()),
        ("far", item(40).encode_to_vec()),
        ("not a name", item(0).encode_to_vec()),
    ];
    keep(dir.path(), "configs", &configs);
    let workloads = [
        ("alone", workload(None)),
        ("broken", garbage()),
        ("of_above", workload(Some("above"))),
        ("of_at", workload(Some("at"))),
        ("of_far", workload(Some("far"))),
    ];
    keep(dir.path(), "workloads", &workloads);
    keep(dir.path(), "agents", &[("a", garbage())]);
    let names = |tree: &Tree, part: &str| -> Vec<String> {
        tree.entries(&["desiredState", part]).keys().map(ToString::to_string).collect()
    };
    let (store, tree) = open(dir.path()).unwrap();
    assert_eq!(names(&tree, "configs"), ["at"]);
    assert_eq!(names(&tree, "workloads"), ["alone", "of_at"]);
    assert!(tree.get(&["workloadStates", "a", "of_at"]).is_some());
    // A config that is set again counts, and the workloads that refer to it are there again.
    for name in ["above", "far", "broken"] {
        block_on(store.update(update(name, item(1)))).unwrap();
    }
    drop(store);
    let (_store, tree) = open(dir.path()).unwrap();
    assert_eq!(names(&tree, "configs"), ["above", "at", "broken", "far"]);
    assert_eq!(names(&tree, "workloads"), ["alone", "of_above", "of_at", "of_far"]);
}

#[test]
fn state_of_another_version_is_not_taken_for_one_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    keep(dir.path(), "meta", &[("apiVersion", b"v9".to_vec())]);
    for table in ["configs", "workloads", "agents"] {
        keep(dir.path(), table, &[]);
    }
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("Received 'v9'"), "{error}");
}

fn framed(content: Content) -> Vec<u8> {
    encode(&ToAgent { content: Some(content) }.encode_to_vec()).to_vec()
}

fn forwarded(id: &str, content: RequestContent) -> Content {
    let instance_name = Some(pb::WorkloadInstanceName {
        workload_name: "w".to_owned(),
        agent_name: "agent_A".to_owned(),
        id: "1".to_owned(),
    });
    let request = pb::Request { request_id: id.to_owned(), request_content: Some(content) };
    Content::Request(ForwardedRequest { instance_name, request: Some(request) })
}

fn forwarded_update(id: &str, levels: usize) -> Content {
    forwarded(
        id,
        RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
            new_state: Some(state("k", item(levels))),
            update_mask: vec!["desiredState.configs.k".to_owned()],
        }),
    )
}

/// Answers in what an agent said, by the id of their request.
fn answers(folder: &Path) -> Vec<(String, ResponseContent)> {
    let bytes = ["seen", "said"].map(|name| fs::read(folder.join(name)).unwrap_or_default());
    let bytes = bytes.concat();
    let (mut decoder, mut rest) = (FrameDecoder::new(64 << 20), &bytes[..]);
    let mut found = Vec::new();
    while let Ok(Some(body)) = decoder.next_frame(&mut rest) {
        let content = FromAgent::decode(body).unwrap().content;
        if let Some(from_agent::Content::Response(own)) = content {
            let response = own.response.unwrap();
            found.push((response.request_id, response.response_content.unwrap()));
        }
    }
    found
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In place of a fifogate, a program that greets and then forwards requests of which some do not decode.
#[test]
fn request_that_does_not_decode_is_answered_with_an_error_and_fifogate_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let hello = GateHello { protocol_version: "1.0.0".to_owned(), ..Default::default() };
    fs::write(file("greeting"), framed(Content::Hello(hello))).unwrap();
    let says = [
        framed(Content::Ack(Ack { id: 1 })),
        framed(forwarded_update("deep", 40)),
        encode(&[0x32, 2, 0x0a, 9]).to_vec(), // of nobody
        framed(forwarded_update("deeper", 90)),
        framed(forwarded("no", RequestContent::EventsCancelRequest(Default::default()))),
        framed(forwarded_update("above", MAX_NESTING + 1)),
        framed(forwarded_update("at", MAX_NESTING)),
    ];
    fs::write(file("says"), says.concat()).unwrap();
    let script = "#!/bin/sh\ncd \"${0%/*}\"\necho >> starts\ncat greeting\nhead -c 1 > seen\n\
                  cat says\nexec 3>&1\nexec cat > said\n"; // its end of the link stays open
    fs::write(file("gate"), script).unwrap();
    fs::set_permissions(file("gate"), fs::Permissions::from_mode(0o755)).unwrap();
    let rules = "{allowRules: [{type: StateRule, operation: Write, filterMasks: [desiredState]}]}";
    let sender =
        format!("{{agent: other, runtime: x, runtimeConfig: x, controlInterfaceAccess: {rules}}}");
    fs::write(file("m.yaml"), format!("apiVersion: v1\nworkloads: {{w: {sender}}}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fifogate-agent"));
    command.arg("run").arg("--fifogate").arg(file("gate")).arg("--manifest").arg(file("m.yaml"));
    command.arg("--run-dir").arg(file("run")).stdin(Stdio::null());
    command.stderr(fs::File::create(file("log")).unwrap());
    let agent = Killed(command.spawn().unwrap());
    let found = wait_for("five answers", || {
        let found = answers(folder.path());
        (found.len() >= 5).then_some(found)
    });
    drop(agent);
    for (id, content) in found {
        match (&id[..], content) {
            ("deep" | "deeper" | "no", ResponseContent::Error(error)) => {
                assert_eq!(error.message, "The agent cannot read this request");
            }
            ("above", ResponseContent::Error(error)) => assert!(error.message.contains(LIMIT)),
            ("at", ResponseContent::UpdateStateSuccess(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let log = fs::read_to_string(file("log")).unwrap();
    assert!(log.contains("undecodable message no. 2 of fifogate is skipped"), "{log}");
    assert_eq!(fs::read_to_string(file("starts")).unwrap(), "\n", "{log}");
}

#[test]
fn manifest_that_nests_too_deep_is_no_manifest_with_file_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.yaml");
    for levels in [21, 32, 33, 64, 100_000] {
        let config = "- ".repeat(levels);
        fs::write(&file, format!("apiVersion: v1\nconfigs:\n  k:\n    {config}x\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fifogate-agent"));
        command.arg("run").arg("--manifest").arg(&file);
        command.arg("--run-dir").arg(folder.path().join("run")).stdin(Stdio::null());
        command.stderr(fs::File::create(folder.path().join("log")).unwrap());
        let mut agent = Killed(command.spawn().unwrap());
        let status = wait_for("the end of the agent", || agent.0.try_wait().unwrap());
        let said = fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("{}:4:", file.display())) && said.contains(LIMIT), "{said}");
    }
}
