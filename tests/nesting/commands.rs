//! The command line: what it takes is what fifogate takes, and what it prints can be given back.

use std::{fs, path::PathBuf};

use assert_cmd::Command;
use fifogate::{limits::MAX_NESTING, state::Node};
use predicates::{prelude::*, str::contains};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::values::{
    LIMIT, MASK, above, block_of, for_each, json_of, protobuf_json_of, tower, within,
};
use testkit::{PATIENCE, TestServer};

const MANIFEST: &str = "apiVersion: v1
workloads:
  ctl:
    runtime: process
    agent: agent_A
    runtimeConfig: ''
    controlInterfaceAccess:
      allowRules:
        - {type: StateRule, operation: ReadWrite, filterMasks: ['*']}
";

fn fifogate(args: &[&str]) -> Command {
    let mut command = Command::new(testkit::fifogate());
    command.args(args).env_remove("RUST_LOG").timeout(PATIENCE);
    command
}

/// A fifogate, and a folder for what its commands read.
struct Bench {
    gate: TestServer,
    pair: String,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let gate = TestServer::with(MANIFEST, &[]);
        let pair = gate.pair("ctl").to_str().unwrap().to_owned();
        Self { gate, pair, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn at_pair(&self, args: &[&str]) -> Command {
        fifogate(&[args, &["-d", &self.pair]].concat())
    }

    fn set_file(&self, file: &str) -> Command {
        self.at_pair(&["set", "-f", file, "--mask", MASK])
    }

    fn get(&self, format: &str) -> String {
        let output = self.at_pair(&["get", "-o", format, MASK]).assert().success();
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    }

    fn get_value(&self) -> Value {
        let state: Value = serde_json::from_str(&self.get("json")).unwrap();
        state["desiredState"]["configs"]["k"].clone()
    }
}

/// A state with the value as the config `k`, in JSON and in YAML.
fn files(value: &Node) -> [(&'static str, String); 2] {
    let state =
        json!({ "desiredState": { "apiVersion": "v1", "configs": { "k": json_of(value) } } });
    let block = block_of(value, 5);
    [
        ("state.json", state.to_string()),
        ("state.yaml", format!("desiredState:\n  apiVersion: v1\n  configs:\n    k:{block}")),
    ]
}

fn line_of(value: &Node) -> String {
    let new_state = json!({
        "desiredState": { "apiVersion": "v1", "configs": { "configs": { "k": protobuf_json_of(value) } } }
    });
    let update = json!({ "newState": new_state, "updateMask": [MASK] });
    json!({ "request": { "requestId": "r", "updateStateRequest": update } }).to_string()
}

fn decode(frames: Vec<u8>) -> Command {
    let mut command = fifogate(&["decode", "--type", "ToAnkaios"]);
    command.write_stdin(frames);
    command
}

#[test]
fn value_within_the_bound_is_set_printed_and_given_back_by_every_command() {
    let bench = Bench::new();
    for_each(12, within(), |value| {
        let wanted = json_of(value);
        for (name, text) in files(value) {
            bench.set_file(&bench.file(name, &text)).assert().success();
            assert_eq!(bench.get_value(), wanted);
        }
        let printed = bench.file("printed.yaml", &bench.get("yaml"));
        bench.at_pair(&["set", &format!("{MASK}-")]).assert().success();
        bench.set_file(&printed).assert().success();
        assert_eq!(bench.get_value(), wanted);
        bench.at_pair(&["set", "--yaml", &format!("{MASK}={wanted}")]).assert().success();
        assert_eq!(bench.get_value(), wanted);

        let line = line_of(value);
        let frames = fifogate(&["encode"]).write_stdin(line.clone()).assert().success();
        let lines = decode(frames.get_output().stdout.clone()).assert().success();
        let decoded: Value = serde_json::from_slice(&lines.get_output().stdout).unwrap();
        assert_eq!(decoded, serde_json::from_str::<Value>(&line).unwrap());

        let text = format!("apiVersion: v1\nconfigs:\n  k:{}", block_of(value, 3));
        fifogate(&["check", &bench.file("m.yaml", &text)]).assert().success();
    });
}

#[test]
fn value_above_the_bound_is_refused_by_every_command_with_its_place_and_status_2() {
    let mut bench = Bench::new();
    for_each(12, above(), |value| {
        for (name, text) in files(value) {
            let file = bench.file(name, &text);
            let refused = bench.set_file(&file).assert().code(2);
            refused.stderr(contains(format!("error: {file}:")).and(contains(LIMIT)));
        }
        let set = format!("{MASK}={}", json_of(value));
        let refused = bench.at_pair(&["set", "--yaml", &set]).assert().code(2);
        refused.stderr(contains(MASK).and(contains(LIMIT)));
        let stdin = format!("{{}}\n{}\n", line_of(value));
        let refused = fifogate(&["encode"]).write_stdin(stdin).assert().code(2);
        refused.stderr(contains("error: <stdin>:2: ").and(contains(LIMIT)));
        for text in [
            format!("apiVersion: v1\nconfigs:\n  k:{}", block_of(value, 3)),
            format!("apiVersion: v1\nconfigs: {{\"k\": {}}}\n", json_of(value)),
        ] {
            let file = bench.file("m.yaml", &text);
            let refused = fifogate(&["check", &file]).assert().code(2);
            refused.stderr(contains(format!("error: {file}:")).and(contains(LIMIT)));
            let run_dir = bench.folder.path().join("run");
            let run = ["run", "--manifest", &file, "--run-dir", run_dir.to_str().unwrap()];
            fifogate(&run).assert().code(2).stderr(contains(LIMIT));
        }
    });
    assert_eq!(bench.gate.process.try_wait().unwrap(), None);
}

#[test]
fn names_in_a_path_count_as_levels_of_the_value_that_they_lead_to() {
    let bench = Bench::new();
    let path = |levels: usize| format!("{MASK}{}", ".a".repeat(levels));
    bench.at_pair(&["set", &format!("{}=x", path(MAX_NESTING))]).assert().success();
    assert_eq!(bench.get_value().pointer(&"/a".repeat(MAX_NESTING)), Some(&json!("x")));
    let lists = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let set = |levels: usize, count: usize| {
        bench.at_pair(&["set", "--yaml", &format!("{}={}", path(levels), lists(count))])
    };
    for levels in [1, 10, 19] {
        bench.at_pair(&["set", &format!("{MASK}-")]).assert().success();
        set(levels, MAX_NESTING - levels).assert().success();
        set(levels, MAX_NESTING - levels + 1).assert().code(2).stderr(contains(LIMIT));
    }
    // The last is as long as one argument may be: no stack takes a level for each name.
    for levels in [MAX_NESTING + 1, 500, 60_000] {
        let refused = bench.at_pair(&["set", &format!("{}=x", path(levels))]).assert().code(2);
        refused.stderr(contains(format!("error: {MASK} is nested too deep")));
    }
}

#[test]
fn input_of_any_depth_is_refused_in_order_by_every_command_that_reads() {
    let bench = Bench::new();
    let texts = |count: usize| {
        [
            "- ".repeat(count) + "x",
            "[".repeat(count),
            "[".repeat(count) + &"]".repeat(count),
            "{\"a\":".repeat(count) + "x" + &"}".repeat(count),
            (0..count.min(2_000)).map(|at| format!("\n{}a:", " ".repeat(at + 9))).collect(),
        ]
    };
    for text in [30, 100, 1_000, 50_000].into_iter().flat_map(texts) {
        let state = format!("desiredState:\n  apiVersion: v1\n  configs:\n    k:\n      {text}\n");
        let manifest = format!("apiVersion: v1\nconfigs:\n  k:\n    {text}\n");
        let (state, manifest) = (bench.file("s.yaml", &state), bench.file("m.yaml", &manifest));
        bench.set_file(&state).assert().code(2).stderr(contains(LIMIT));
        fifogate(&["check", &manifest]).assert().code(2).stderr(contains(LIMIT));
        let json = format!("{{\"hello\":{text}}}\n");
        fifogate(&["encode"]).write_stdin(json).assert().code(2).stderr(contains("<stdin>:1: "));
    }
}

#[test]
fn decode_skips_what_is_nested_too_deep_however_deep_and_goes_on() {
    let hello = b"\x09\x0a\x07\x12\x05\x31\x2e\x30\x2e\x30";
    for levels in [20, 21, 40, 49, 60, 100, 1_000, 20_000] {
        let mut item = Vec::new();
        // From the innermost out: an array with this item, and an item with that array.
        for _ in 0..levels {
            item = field(2, field(1, item));
        }
        // A group in a group, which nobody writes any more.
        let groups = [[0x2b].repeat(levels), [0x2c].repeat(levels)].concat();
        let configs = field(1, [field(1, b"k".to_vec()), field(2, item)].concat());
        let state = field(1, field(1, field(3, configs)));
        let deep = field(3, field(2, state));
        let mut stream = hello.to_vec();
        for body in [deep, groups] {
            stream.extend(fifogate::frame::encode(&body).iter());
        }
        stream.extend(hello);
        let assert = decode(stream).assert().code(i32::from(levels > 20));
        let printed = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        let hellos = printed.lines().filter(|line| line.starts_with("{\"hello"));
        assert_eq!(hellos.count(), 2);
        if levels > 20 {
            assert.stderr(contains("byte 10: this is no ToAnkaios").and(contains(LIMIT)));
        }
    }
}

/// A field of these bytes.
fn field(number: u8, bytes: Vec<u8>) -> Vec<u8> {
    [&[number << 3 | 2][..], &fifogate::frame::encode(&bytes)].concat()
}

#[test]
fn towers_of_one_kind_are_refused_at_the_level_above_the_bound() {
    let bench = Bench::new();
    for (mappings, sequences) in [(20, 0), (0, 20), (19, 1), (1, 19)] {
        for (name, text) in files(&tower(mappings, sequences)) {
            bench.set_file(&bench.file(name, &text)).assert().success();
        }
        for (name, text) in files(&tower(mappings + 1, sequences)) {
            bench.set_file(&bench.file(name, &text)).assert().code(2).stderr(contains(LIMIT));
        }
    }
}
