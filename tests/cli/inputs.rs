//! Inputs as other tools write and read them: YAML, JSON, standard input, and the answers to odd usage.

use std::{
    fs::{self, OpenOptions},
    process::Stdio,
};

use predicates::{prelude::*, str::contains};
use serde_json::{Value, json};
use testkit::TestServer;

use crate::fifogate;

/// A manifest with one workload that may do everything.
const MANIFEST: &str = "\
apiVersion: v1
workloads:
  all:
    runtime: process
    agent: agent_A
    runtimeConfig: x
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: ReadWrite, filterMasks: [\"*\"] }
configs: { mode: slow }
";

/// The message that `encode` makes of the JSON, as `decode` prints it; or its fault.
fn coded(message_type: &str, json: &str) -> Result<Value, String> {
    let args = ["encode", "--type", message_type];
    let output = fifogate(&args).write_stdin(json).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let args = ["decode", "--type", message_type];
    let lines = fifogate(&args).write_stdin(output.stdout).assert().success();
    Ok(serde_json::from_slice(&lines.get_output().stdout).unwrap())
}

/// `freeMemory` of a state as `encode` reads it.
fn free_memory(number: &str) -> Result<Value, String> {
    let json = r#"{"response":{"completeStateResponse":{"completeState":{"agents":{"agents":{"a":{
        "status":{"freeMemory":{"freeMemory":N}}}}}}}}}"#;
    let json = json.replace(['\n', ' '], "").replace('N', number);
    let message = coded("FromAnkaios", &json)?;
    let path = "/response/completeStateResponse/completeState/agents/agents/a/status/freeMemory";
    Ok(message.pointer(path).unwrap()["freeMemory"].clone())
}

/// `tail` of a request for logs as `encode` reads it.
fn tail(number: &str) -> Result<Value, String> {
    let json = format!(r#"{{"request":{{"logsRequest":{{"tail":{number}}}}}}}"#);
    Ok(coded("ToAnkaios", &json)?["request"]["logsRequest"]["tail"].clone())
}

#[test]
fn integer_that_a_field_has_no_room_for_is_refused() {
    for text in [
        "18446744073709551616",
        "1.8446744073709552e19",
        "1e400",
        "-1",
        "-1e0",
        "0.5",
        "9007199254740993.0",
        "\"18446744073709551616\"",
        "\"1e20\"",
        "\"-1\"",
        "\"0.5\"",
        "\"\"",
        "\" 1\"",
        "\"inf\"",
        "\"0x1\"",
        "true",
    ] {
        let fault = free_memory(text).expect_err(text);
        assert!(fault.contains("<stdin>:1: "), "{text}: {fault}");
    }
    for text in ["2147483648", "-2147483649", "2e9000", "\"3e9\"", "1.5", "\"-1.5\""] {
        assert!(tail(text).is_err(), "{text}");
    }
}

#[test]
fn number_is_the_same_in_each_form_and_in_quotes() {
    for (text, number) in [
        ("18446744073709551615", "18446744073709551615"),
        ("\"18446744073709551615\"", "18446744073709551615"),
        ("1e1", "10"),
        ("\"1e1\"", "10"),
        ("\"1.50E+2\"", "150"),
        ("9007199254740992.0", "9007199254740992"),
    ] {
        assert_eq!(free_memory(text), Ok(json!(number)), "{text}");
    }
    // Zero is the default, which is not printed.
    for text in ["-0", "0.0", "\"0\"", "\"-0.0\"", "0e99"] {
        assert_eq!(free_memory(text), Ok(Value::Null), "{text}");
    }
    for (text, number) in [("\"1e1\"", 10), ("-1e0", -1), ("\"-2147483648\"", -2_147_483_648i64)] {
        assert_eq!(tail(text), Ok(json!(number)), "{text}");
    }
    // A text that looks like a number stays the text.
    let hello = |version: &str| format!(r#"{{"hello":{{"protocolVersion":"{version}"}}}}"#);
    let message = coded("ToAnkaios", &hello("1e1")).unwrap();
    assert_eq!(message["hello"]["protocolVersion"], "1e1");
}

#[test]
fn key_that_occurs_twice_in_an_object_is_refused() {
    let tags = |tags: &str| {
        format!(
            r#"{{"request":{{"updateStateRequest":{{"newState":{{"desiredState":{{"workloads":{{
            "workloads":{{"w":{{"tags":{{"tags":{{{tags}}}}}}}}}}}}}}}}}}}}}"#
        )
        .replace(['\n', ' '], "")
    };
    for json in [
        r#"{"hello":{"protocolVersion":"1"},"hello":{"protocolVersion":"2"}}"#,
        r#"{"hello":{"protocolVersion":"1","protocolVersion":"1"}}"#,
        r#"{"hello":{"protocolVersion":"1","protocol_version":"1"}}"#,
        r#"{"request":{"requestId":null,"requestId":"1"}}"#,
        &tags(r#""a":"1","a":"2""#),
        &tags(r#""a":"1","\u0061":"2""#),
    ] {
        let fault = coded("ToAnkaios", json).expect_err(json);
        assert!(fault.contains("duplicate key"), "{json}: {fault}");
    }
    // Names of the author are no fields: they have one spelling.
    coded("ToAnkaios", &tags(r#""a_b":"1","aB":"2","ab":"3""#)).unwrap();
}

#[test]
fn byte_order_mark_is_no_part_of_a_line() {
    let line = "{\"hello\":{\"protocolVersion\":\"1.0.0\"}}\n";
    let twice = format!("\u{feff}{line}\u{feff}{line}\u{feff}\n");
    let plain = fifogate(&["encode"]).write_stdin(format!("{line}{line}")).output().unwrap();
    fifogate(&["encode"]).write_stdin(twice).assert().success().stdout(plain.stdout);
}

#[test]
fn minus_is_standard_input_wherever_a_file_is_taken() {
    let checked = fifogate(&["check", "-"]).write_stdin(MANIFEST).assert().success();
    checked.stdout("<stdin>: ok (1 workload, 1 with a control interface)\n");
    let twice = fifogate(&["check", "-", "-"]).write_stdin(MANIFEST).assert().code(2);
    twice.stdout("").stderr("error: `-` is given twice; standard input can be read once\n");
    let faulty = fifogate(&["check", "-"]).write_stdin("apiVersion: v2\n").assert().code(2);
    faulty.stderr(contains("error: <stdin>:1:13: Unsupported API version"));
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let run = ["run", "--run-dir", run_dir.to_str().unwrap(), "--manifest", "-"];
    fifogate(&run).write_stdin("x: y").assert().code(2).stderr(contains("error: <stdin>:1:1: "));
    let both = fifogate(&[&run[..], &["--agent-link", "stdio"]].concat()).assert().code(2);
    both.stderr(contains("both read standard input"));

    let line = "{\"hello\":{\"protocolVersion\":\"1.0.0\"}}\n";
    let frame = fifogate(&["encode", "-"]).write_stdin(line).output().unwrap().stdout;
    fifogate(&["decode", "--type=ToAnkaios", "-"]).write_stdin(&*frame).assert().stdout(line);
    let file = dir.path().join("frames");
    fs::write(&file, [&frame[..], b"\x02"].concat()).unwrap();
    let path = file.to_str().unwrap();
    let decoded = fifogate(&["decode", "--type=ToAnkaios", path]).assert().code(1).stdout(line);
    decoded.stderr(contains(format!("{path}: byte 10: the input ends at byte 11")));
    fs::write(&file, line).unwrap();
    fifogate(&["encode", path]).assert().success().stdout(frame);
    let missing = fifogate(&["encode", "/nonexistent"]).assert().code(2);
    missing.stderr(contains("error: /nonexistent: No such file"));
}

#[test]
fn folder_in_the_place_of_a_file_is_a_file_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().to_str().unwrap();
    for args in [
        &["encode", name][..],
        &["decode", name],
        &["check", name],
        &["run", "--manifest", name, "--run-dir", name],
        &["set", "-f", name, "--mask", "desiredState"],
    ] {
        let said = fifogate(args).assert().code(2).stdout("");
        said.stderr(contains(name).and(contains("Is a directory")));
    }
    for command in ["encode", "decode"] {
        let output = std::process::Command::new(testkit::fifogate())
            .arg(command)
            .stdin(fs::File::open(dir.path()).unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}");
    }
}

#[test]
fn manifest_and_printed_state_are_taken_in_each_others_place() {
    let gate = TestServer::with(MANIFEST, &[]);
    let pair = gate.pair("all");
    let pair = ["--dir", pair.to_str().unwrap()];
    let get = |args: &[&str]| {
        let args = [&["get"], args, &pair].concat();
        String::from_utf8(fifogate(&args).output().unwrap().stdout).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    let path = file.to_str().unwrap();
    let ok = format!("{path}: ok (1 workload, 1 with a control interface)\n");
    for printed in [get(&["desiredState"]), get(&[]), get(&["--output", "json"])] {
        fs::write(&file, &printed).unwrap();
        fifogate(&["check", path]).assert().success().stdout(ok.clone()).stderr("");
        let other = TestServer::with(&printed, &[]);
        let pair = other.pair("all");
        fifogate(&["get", "desiredState", "--dir", pair.to_str().unwrap()])
            .assert()
            .success()
            .stdout(get(&["desiredState"]));
    }

    let set = |text: &str, mask: &str| {
        let args = [&["set", "-f", "-", "--mask", mask], &pair[..]].concat();
        fifogate(&args).write_stdin(text).assert()
    };
    set(&MANIFEST.replace("slow", "fast"), "desiredState.configs").success().stderr("");
    assert!(get(&["desiredState.configs"]).contains("mode: fast"));
    set("configs: { mode: steady }\napiVersion: v1\n", "desiredState.configs.mode").success();
    assert!(get(&["desiredState.configs"]).contains("mode: steady"));
    let wrong = set("apiVersion: v1\nconfig: {}\n", "desiredState.configs").code(2);
    wrong.stderr(contains("<stdin>:2: desiredState has no field `config`, only apiVersion"));
    let mixed = set("apiVersion: v1\nagents: {}\n", "desiredState.configs").code(2);
    mixed.stderr(contains("<stdin>:1: a state has no field `apiVersion`, only agents"));
}

#[test]
fn json_is_read_with_its_surrogate_pairs_and_long_keys() {
    let gate = TestServer::with(MANIFEST, &[]);
    let pair = gate.pair("all");
    let pair = ["--dir", pair.to_str().unwrap()];
    let config = |name: &str| {
        let args = ["get", "--output=json", "desiredState.configs"];
        let output = fifogate(&[&args[..], &pair].concat()).output().unwrap().stdout;
        let state: Value = serde_json::from_slice(&output).unwrap();
        state["desiredState"]["configs"][name].clone()
    };
    let set = |change: &str| fifogate(&[&["set", "--yaml", change], &pair[..]].concat()).assert();
    for (text, value) in [
        (r#""\ud83d\ude00""#, json!("😀")),
        (r#""a\/b\t\u0041\ud834\udd1e\ud83d\ude00""#, json!("a/b\tA𝄞😀")),
        (r#"["\ud83d\ude00",{"k":"\ud83d\ude00"}]"#, json!(["😀", { "k": "😀" }])),
        ("[\t\"a\",\n\t\"b\"\n]", json!(["a", "b"])),
        ("{\"k\"\n:\"v\"}", json!({ "k": "v" })),
        ("{\"k\":\"\u{7f}\u{80}\u{9f}\"}", json!({ "k": "\u{7f}\u{80}\u{9f}" })),
        (
            " [\"\u{7f}\u{feff}\u{2028}\u{ffff}\", \"\\u007f\"]",
            json!(["\u{7f}\u{feff}\u{2028}\u{ffff}", "\u{7f}"]),
        ),
    ] {
        set(&format!("desiredState.configs.e={text}")).success().stderr("");
        assert_eq!(config("e"), value, "{text}");
    }
    for text in
        [r#""\ud83d""#, r#""\ud83d\u0041""#, r#""\ude00""#, "\u{7f}", "[\u{7f}]", "'\u{7f}'"]
    {
        set(&format!("desiredState.configs.e={text}")).code(2);
    }
    let state = r#"{"desiredState":{"apiVersion":"v1","configs":{"j":"\ud83d\ude00"}}}"#;
    let args = [&["set", "-f", "-", "--mask", "desiredState.configs.j"], &pair[..]].concat();
    fifogate(&args).write_stdin(state).assert().success();
    assert_eq!(config("j"), "😀");

    let long = "k".repeat(5_000);
    let state = format!(
        r#"{{"desiredState":{{"apiVersion":"v1","workloads":{{"all":{{"tags":{{"{long}":"v"}}}}}}}}}}"#
    );
    let mask = "desiredState.workloads.all.tags";
    let args = [&["set", "-f", "-", "--mask", mask], &pair[..]].concat();
    fifogate(&args).write_stdin(state).assert().success().stderr("");
}

#[test]
fn each_fault_of_a_manifest_is_an_error_of_its_own() {
    let text = "apiVersion: v2\nworkload: {}\n\"a\\nb\": {}\n";
    let said = fifogate(&["check", "-"]).write_stdin(text).assert().code(2).get_output().clone();
    let said = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.lines().all(|line| line.starts_with("error: <stdin>:")), "{said}");
    let many: String = (0..30).map(|n| format!("x{n}: {{}}\n")).collect();
    let run = fifogate(&["run", "--manifest", "-", "--run-dir", "/nonexistent/run"]);
    let said = { run }.write_stdin(many).assert().code(2).get_output().clone();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.lines().count() > 20 && said.lines().all(|line| line.starts_with("error: ")));
}

#[test]
fn values_of_options_are_known_in_any_case() {
    let accepted = "{\"controlInterfaceAccepted\":{}}\n";
    for name in ["FromAnkaios", "fromankaios", "FROMANKAIOS"] {
        let mut decode = fifogate(&["decode", "--type", name]);
        decode.write_stdin(&b"\x02\x22\x00"[..]).assert().success().stdout(accepted);
    }
    fifogate(&["encode", "--type", "toankaios"]).write_stdin("{}").assert().success();
    fifogate(&["completions", "BASH"]).assert().success();
    let missing = ["get", "--output", "JSON", "-d", "/nonexistent"];
    fifogate(&missing).assert().code(1).stderr(contains("no such folder"));
    fifogate(&["status", "--output", "Prometheus", "--run-dir", "/nonexistent"]).assert().code(1);
}

#[test]
fn run_without_a_source_or_with_a_bare_file_says_which_option_is_missing() {
    let none = fifogate(&["run"]).assert().code(2);
    none.stderr(contains("--manifest <FILE>").and(contains("--agent-link <ADDRESS>")));
    for args in [&["run", "node.yaml"][..], &["run", "--agent-link", "stdio", "node.yaml"]] {
        let bare = fifogate(args).assert().code(2);
        bare.stderr(contains("tip: ").and(contains("'--manifest node.yaml'")));
    }
    let other = fifogate(&["man", "node.yaml"]).assert().code(2);
    other.stderr(contains("--manifest").not());
    let flag = fifogate(&["run", "--manifes", "node.yaml"]).assert().code(2);
    flag.stderr(contains("'--manifest'"));
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for args in [&["--help"][..], &["-h"], &["run", "--help"], &["--version"], &["help", "set"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = std::process::Command::new(testkit::fifogate())
            .args(args)
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("error: cannot write to standard output: "), "{said}");
        // A reader that closes the pipe has read enough.
        assert_eq!(crate::into_closed_pipe(args, b""), (Some(0), String::new()), "{args:?}");
    }
}
