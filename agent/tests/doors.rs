//! One verdict at all doors: configs of odd names, values and sizes are offered wherever a value enters. What one
//! door accepts all accept, read, keep and print, and the printed text is accepted again; what one refuses
//! all refuse with its place, and no state changes.
//!
//! `SEED=7 CASES=1000 cargo test -p fifogate-agent --test doors` plays others, as `make soak` does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use fifogate::{
    internal::parts,
    limits::{MAX_NESTING, MAX_VALUE_BYTES},
    pb::{
        agent_link::{ReplaceState, UpdateState, from_agent::Content},
        ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    },
    state::{Key, Node},
};
use prost::Message;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{
    ALL_RIGHTS, Agent, BOTH, LinkAgent, Session, TestServer, fifogate, fifogate_agent,
    manifest_with, number,
};

const MASK: &str = "desiredState.configs";
/// The kernel takes no longer argument of a program.
const LONGEST_ARGUMENT: usize = 128 << 10;

/// Texts with a meaning of their own for a door, or at the end of a range.
const TEXTS: [&str; 40] = [
    "",
    " ",
    "*",
    ".",
    "a.b",
    "a.*.b",
    "-",
    "- a",
    "?",
    ": ",
    "a: b",
    "# c",
    " #",
    "~",
    "null",
    "true",
    "no",
    "0",
    "-0",
    "007",
    "0x1F",
    "1e999",
    "9223372036854775808",
    "-9223372036854775809",
    "1.7976931348623157e308",
    "4.9e-324",
    ".nan",
    "-.inf",
    "2001-01-01",
    "<<",
    "!!str x",
    "&a",
    "{",
    "'\"\\",
    "{{x}}",
    "%YAML 1.2",
    "---",
    "...",
    "\u{feff}x",
    "x\u{fffe}",
];

/// Characters that a text format escapes, folds or does not allow.
const CHARACTERS: [char; 26] = [
    '\0',
    '\u{1}',
    '\u{7}',
    '\u{8}',
    '\t',
    '\n',
    '\u{b}',
    '\r',
    '\u{1b}',
    ' ',
    '"',
    '\'',
    '\\',
    ':',
    '#',
    '\u{7f}',
    '\u{85}',
    '\u{a0}',
    '\u{2028}',
    '\u{d7ff}',
    '\u{e000}',
    '\u{feff}',
    '\u{ffff}',
    '\u{10000}',
    '\u{10ffff}',
    'x',
];

fn text(random: &mut ChaCha8Rng) -> String {
    match random.random_range(0..8) {
        0..4 => (*TEXTS.choose(random).unwrap()).to_owned(),
        4 => "k".repeat(random.random_range(1..3_000)),
        _ => {
            let length = random.random_range(1..12);
            (0..length).map(|_| *CHARACTERS.choose(random).unwrap()).collect()
        }
    }
}

/// A value of exactly so many levels.
fn value(random: &mut ChaCha8Rng, levels: usize) -> Node {
    if levels == 0 {
        return Node::text(&text(random));
    }
    let is_empty = levels == 1 && random.random_bool(0.3);
    let (mut inner, others) = (Vec::new(), random.random_range(0..3));
    if !is_empty {
        inner.push(value(random, levels - 1));
        inner.extend((0..others).map(|_| Node::text(&text(random))));
    }
    if random.random_bool(0.5) {
        return Node::seq(inner);
    }
    Node::map(inner.into_iter().map(|own| (Key::from(&*text(random)), own)).collect::<Vec<_>>())
}

/// A config, as it is offered to the doors.
struct Case {
    name: String,
    value: Node,
}

impl Case {
    fn new(random: &mut ChaCha8Rng, number: usize) -> Self {
        let levels = match random.random_range(0..4) {
            0 => MAX_NESTING,
            1 => MAX_NESTING + random.random_range(1..3),
            _ => random.random_range(0..5),
        };
        // Most names are in order: otherwise no value counts.
        let name = if random.random_bool(0.2) { text(random) } else { format!("c{number}") };
        Self { name, value: value(random, levels) }
    }

    fn json(&self) -> Value {
        json!({ self.name.clone(): json_of(&self.value) })
    }
}

/// JSON that is YAML as well: YAML does not take each character as it is.
fn escaped(value: &Value) -> String {
    let text = value.to_string();
    let escaped = |own: char| match u32::from(own) {
        number @ 0x7f..=0xffff => format!("\\u{number:04x}"),
        _ => own.to_string(),
    };
    text.chars().map(escaped).collect()
}

fn json_of(value: &Node) -> Value {
    match value {
        Node::Map(map) => map.iter().map(|(key, own)| (key.to_string(), json_of(own))).collect(),
        Node::Seq(values) => values.iter().map(json_of).collect(),
        other => other.as_str().unwrap().into(),
    }
}

fn protobuf_json_of(value: &Node) -> Value {
    match value {
        Node::Map(map) if map.is_empty() => json!({ "object": {} }),
        Node::Seq(values) if values.is_empty() => json!({ "array": {} }),
        Node::Map(map) => {
            let fields = map.iter().map(|(key, own)| (key.to_string(), protobuf_json_of(own)));
            json!({ "object": { "fields": fields.collect::<serde_json::Map<_, _>>() } })
        }
        Node::Seq(values) => {
            let values: Vec<_> = values.iter().map(protobuf_json_of).collect();
            json!({ "array": { "values": values } })
        }
        other => json!({ "String": other.as_str().unwrap() }),
    }
}

fn state(cases: &[&Case]) -> pb::CompleteState {
    let item = |case: &&Case| (case.name.clone(), parts::config_to_pb(&case.value));
    let configs = pb::ConfigMap { configs: cases.iter().map(item).collect() };
    let desired = pb::State {
        api_version: "v1".to_owned(),
        workloads: Some(pb::WorkloadMap::default()),
        configs: Some(configs),
    };
    pb::CompleteState { desired_state: Some(desired), ..Default::default() }
}

/// Acceptance, or the reason against it.
type Verdict = Result<(), String>;

fn of_session(session: &mut Session, cases: &[&Case]) -> Verdict {
    let update = pb::UpdateStateRequest {
        new_state: Some(state(cases)),
        update_mask: vec![MASK.to_owned()],
    };
    let id = session.ask(RequestContent::UpdateStateRequest(update));
    match session.answer(&id) {
        ResponseContent::UpdateStateSuccess(_) => Ok(()),
        ResponseContent::Error(error) => Err(error.message),
        other => panic!("{other:?}"),
    }
}

fn configs_of(session: &mut Session) -> Value {
    session.state().get(&["desiredState", "configs"]).map_or_else(|| json!({}), json_of)
}

fn of_command(output: &Output) -> Verdict {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1 | 2) => Err(said),
        other => panic!("{other:?}: {said}"),
    }
}

/// All doors, each open through all cases.
struct Doors {
    alone: TestServer,
    of_alone: Session,
    agent: Agent,
    of_agent: Session,
    link: LinkAgent,
    neighbour: Session,
    folder: TempDir,
}

impl Doors {
    fn new() -> Self {
        let limits = ["--max-malformed", "1000000000"];
        let alone = TestServer::with(&manifest_with("", &["ctl", "cli"], ALL_RIGHTS), &limits);
        let agent = Agent::start("", &["--state-dir", "$dir/state", "--", limits[0], limits[1]]);
        let mut link = LinkAgent::start(BOTH[0], &limits);
        link.link.replace_state(state(&[])).unwrap();
        Self {
            of_alone: alone.connect("ctl"),
            of_agent: agent.connect(),
            neighbour: link.workload("neighbour"),
            alone,
            agent,
            link,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn at_pair(&self, args: &[&str]) -> Output {
        let mut command = Command::new(fifogate());
        command.args(args).arg("-d").arg(self.alone.pair("cli"));
        command.env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
    }

    fn printed(&self, format: &str) -> String {
        let output = self.at_pair(&["get", "-o", format, MASK]);
        of_command(&output).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn set_file(&self, name: &str, text: &str) -> Verdict {
        let file = self.file(name, text);
        of_command(&self.at_pair(&["set", "-f", file.to_str().unwrap(), "--mask", MASK]))
    }

    /// The verdict of each door without a session.
    fn of_programs(&self, case: &Case) -> Vec<(&'static str, Verdict)> {
        let configs = escaped(&case.json());
        let manifest = format!("{{apiVersion: v1, configs: {configs}}}\n");
        let manifest = self.file("m.yaml", &manifest);
        let check = Command::new(fifogate()).arg("check").arg(&manifest).output().unwrap();
        let text =
            json!({ "desiredState": { "apiVersion": "v1", "configs": case.json() } }).to_string();
        let mut all =
            vec![("check", of_command(&check)), ("set -f", self.set_file("s.json", &text))];
        let argument = format!("{MASK}={configs}");
        if argument.len() < LONGEST_ARGUMENT {
            all.push(("set --yaml", of_command(&self.at_pair(&["set", "--yaml", &argument]))));
        }
        all
    }

    /// The verdict of two programs on a manifest that they refuse.
    fn of_runs(&self) -> [(&'static str, Verdict); 2] {
        let run = |name, program: &str| {
            let mut command = Command::new(program);
            command.arg("run").arg("--manifest").arg(self.folder.path().join("m.yaml"));
            command.arg("--run-dir").arg(self.folder.path().join("run")).stdin(Stdio::null());
            (name, of_command(&command.output().unwrap()))
        };
        [run("run", fifogate()), run("fifogate-agent run", fifogate_agent())]
    }

    /// The verdicts of the agent link: on the whole state and on an update.
    fn of_link(&mut self, case: &Case) -> Vec<(&'static str, Verdict)> {
        let (new_state, update_mask) = (Some(state(&[case])), vec![MASK.to_owned()]);
        let update = Content::UpdateState(UpdateState { new_state, update_mask });
        let replace = Content::ReplaceState(ReplaceState { state: Some(state(&[case])) });
        [("UpdateState", update), ("ReplaceState", replace)]
            .map(|(name, content)| (name, self.link.call(content).map_err(|why| why.reason)))
            .into()
    }

    fn read_all(&mut self) -> [Value; 3] {
        [&mut self.of_alone, &mut self.of_agent, &mut self.neighbour].map(configs_of)
    }

    fn play(&mut self, case: &Case, what: &str) -> bool {
        let before = self.read_all();
        let mut all = vec![
            ("workload of fifogate", of_session(&mut self.of_alone, &[case])),
            ("workload of the agent", of_session(&mut self.of_agent, &[case])),
        ];
        all.extend(self.of_link(case));
        all.extend(self.of_programs(case));
        let is_accepted = all[0].1.is_ok();
        if !is_accepted {
            all.extend(self.of_runs());
        }
        for (door, verdict) in &all {
            assert_eq!(verdict.is_ok(), is_accepted, "{what}, {door}: {all:?}");
            let why = verdict.as_ref().err();
            assert!(why.is_none_or(|why| has_place(why)), "{what}, {door} names no place: {why:?}");
        }
        let after = self.read_all();
        if is_accepted {
            assert_eq!(after, [(); 3].map(|()| case.json()), "{what}");
        } else {
            assert_eq!(after, before, "{what}");
        }
        is_accepted
    }

    /// The text that is printed of the state, given back.
    fn give_back(&mut self, wanted: &Value, what: &str) {
        for format in ["json", "yaml"] {
            let text = self.printed(format);
            of_session(&mut self.of_alone, &[]).unwrap();
            self.set_file("printed", &text).unwrap_or_else(|why| panic!("{what}: {why}\n{text}"));
            assert_eq!(configs_of(&mut self.of_alone), *wanted, "{what}, {format}:\n{text}");
            let printed = self.folder.path().join("printed");
            let check = Command::new(fifogate()).arg("check").arg(printed).output().unwrap();
            of_command(&check).unwrap_or_else(|why| panic!("{what}: {why}"));
        }
    }
}

fn has_place(why: &str) -> bool {
    // The words of Ankaios about a name, which is the place.
    if why.contains("config item key '") {
        return true;
    }
    why.contains(MASK) || why.contains("m.yaml:1:") || why.contains("s.json:1:")
}

/// The line of a workload's update for `encode`, and what `encode` makes of it.
fn encoded(case: &Case, folder: &TempDir) -> (Value, Output) {
    let configs = json!({ "configs": { case.name.clone(): protobuf_json_of(&case.value) } });
    let new_state = json!({ "desiredState": { "apiVersion": "v1", "configs": configs } });
    let update = json!({ "newState": new_state, "updateMask": [MASK] });
    let line = json!({ "request": { "requestId": "r", "updateStateRequest": update } });
    let lines = folder.path().join("lines");
    fs::write(&lines, format!("{line}\n")).unwrap();
    let encoded = Command::new(fifogate()).arg("encode").arg(&lines).output().unwrap();
    (line, encoded)
}

/// `encode` makes the message of a workload, without a verdict on names: that is of who gets the message.
fn assert_encodes(case: &Case, what: &str) {
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames");
    let (line, encoded) = encoded(case, &folder);
    of_command(&encoded).unwrap_or_else(|why| panic!("{what}: {why}"));
    fs::write(&frames, encoded.stdout).unwrap();
    let mut decode = Command::new(fifogate());
    decode.args(["decode", "--type", "ToAnkaios"]).arg(&frames);
    let decoded = decode.output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&decoded.stdout).unwrap(), line, "{what}");
}

/// Values of exactly so many bytes, of each kind.
fn of_size(bytes: usize) -> [Node; 3] {
    let text = |len: usize| Node::text(&"x".repeat(len));
    let kinds: [&dyn Fn(usize) -> Node; 3] =
        [&text, &|len| Node::seq(vec![text(1_000_000), text(len - 1_000_000)]), &|len| {
            Node::map([("a", Node::map([("b", text(len - 1_000))])), ("c", text(1_000))])
        }];
    kinds.map(|kind| {
        let len = |node: &Node| parts::config_to_pb(node).encoded_len();
        // What is around the text: its length takes as many bytes in both.
        let around = len(&kind(bytes - 100)) - (bytes - 100);
        let node = kind(bytes - around);
        assert_eq!(len(&node), bytes);
        node
    })
}

#[test]
fn every_door_has_the_same_verdict_on_the_size_of_a_value() {
    let mut doors = Doors::new();
    for (bytes, fits) in [(MAX_VALUE_BYTES, true), (MAX_VALUE_BYTES + 1, false)] {
        for (number, value) in of_size(bytes).into_iter().enumerate() {
            let case = Case { name: format!("c{number}"), value };
            let what = format!("{bytes} bytes, kind {number}");
            // The texts are too long for a message of a failed assertion.
            assert!(doors.play(&case, &what) == fits, "{what}");
            if fits {
                assert_encodes(&case, &what);
                doors.give_back(&case.json(), &what);
            } else {
                let refused = encoded(&case, &doors.folder).1;
                let why = of_command(&refused).unwrap_err();
                assert!(why.contains(&format!("takes {bytes} bytes")), "{what}: {why}");
            }
        }
    }
}

#[test]
fn every_door_has_the_same_verdict_and_what_is_accepted_is_read_kept_and_printed_everywhere() {
    let (seed, cases) = (number("SEED", 1), number("CASES", 60));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut doors = Doors::new();
    let mut accepted = Vec::new();
    for case in 0..cases {
        let what = format!("SEED={seed}, case {case}");
        let case = Case::new(&mut random, usize::try_from(case).unwrap());
        if doors.play(&case, &what) {
            assert_encodes(&case, &what);
            doors.give_back(&case.json(), &what);
            accepted.push(case);
        }
    }
    let all: Vec<_> = accepted.iter().collect();
    assert!(all.len() as u64 * 4 > cases, "too few are accepted: {}", all.len());
    let wanted: Value = all.iter().map(|case| (case.name.clone(), json_of(&case.value))).collect();
    of_session(&mut doors.of_alone, &all).unwrap();
    doors.give_back(&wanted, "all at once");
    of_session(&mut doors.of_agent, &all).unwrap();
    let configs = doors.printed("yaml");
    let Doors { mut agent, of_agent, .. } = doors;
    agent.kill();
    // Its FIFO would keep a Hello to nobody for the next fifogate.
    drop(of_agent);
    agent.restart();
    assert_eq!(configs_of(&mut agent.connect()), wanted, "read from the disk");
    // The printed state as the manifest of both programs.
    let configs = configs.split_once("configs:\n").unwrap().1;
    let text = format!("configs:\n{configs}");
    let head = configs.len() - configs.trim_start_matches(' ').len();
    assert!(head > 0, "{text}");
    let agent = Agent::start(&text, &[]);
    assert_eq!(configs_of(&mut agent.connect()), wanted, "from a manifest of the agent");
    let server = TestServer::with(&manifest_with(&text, &["ctl"], ALL_RIGHTS), &[]);
    assert_eq!(configs_of(&mut server.connect("ctl")), wanted, "from a manifest");
}
