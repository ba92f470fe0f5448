use proptest::{prelude::*, test_runner::TestRunner};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::json;

use super::*;
use crate::{
    cli::input::NewState,
    manifest,
    state::{
        DESIRED_STATE, Node, Tree,
        convert::{self, Fill},
    },
};

fn read_back(text: &str) -> Value {
    fn value(node: &Yaml<'_>) -> Value {
        match node {
            Yaml::Mapping(map) => Value::Object(
                map.iter().map(|(key, node)| (key.as_str().unwrap().into(), value(node))).collect(),
            ),
            Yaml::Sequence(nodes) => nodes.iter().map(value).collect(),
            Yaml::Value(saphyr::Scalar::String(text)) => Value::from(&**text),
            Yaml::Value(saphyr::Scalar::Integer(number)) => Value::from(*number),
            Yaml::Value(saphyr::Scalar::Null) => Value::Null,
            other => panic!("{other:?}"),
        }
    }
    let documents = Yaml::load_from_str(text).unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    value(&documents[0])
}

#[test]
fn yaml_is_what_one_would_write_by_hand() {
    let state = json!({
        "desiredState": {
            "apiVersion": "v1",
            "configs": { "hosts": ["h1", "h2"], "none": {}, "nothing": [] },
            "workloads": { "db": {
                "controlInterfaceAccess": { "allowRules": [
                    { "type": "StateRule", "operation": "Read", "filterMasks": ["*"] },
                ] },
                "runtimeConfig": "image: db:1\nports:\n  - 80\n",
                "tags": { "owner": "team_a", "port": "5432" },
            } },
        },
        "agents": { "agent_A": { "status": { "freeMemory": u64::MAX } } },
    });
    let expected = "\
desiredState:
  apiVersion: v1
  configs:
    hosts:
      - h1
      - h2
    none: {}
    nothing: []
  workloads:
    db:
      controlInterfaceAccess:
        allowRules:
          - type: StateRule
            operation: Read
            filterMasks:
              - \"*\"
      runtimeConfig: |
        image: db:1
        ports:
          - 80
      tags:
        owner: team_a
        port: \"5432\"
agents:
  agent_A:
    status:
      freeMemory: 18446744073709551615
";
    assert_eq!(document(&state, StateFormat::Yaml).unwrap(), expected);
    assert_eq!(document(&json!({}), StateFormat::Yaml).unwrap(), "{}\n");
}

#[test]
fn text_that_somebody_could_take_for_something_else_is_quoted() {
    let odd = [
        "5432",
        "0x1f",
        "0b1",
        "1_000",
        "1e3",
        "+1",
        "-1",
        ".5",
        "1:30",
        "2026-11-23",
        "~",
        "null",
        "yes",
        "No",
        "ON",
        "",
        " a",
        "a ",
        "- a",
        "a: b",
        "a #b",
        "*",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
        "2026-11-23T12:00:00Z",
        "\u{85}",
        "a\u{2028}b",
        "\u{feff}",
        "\u{7f}",
        "a\rb",
        "{a",
        "[a",
        "<<",
        "=",
        "?",
        "'a",
        "\"a",
        "|",
        ">",
    ];
    for text in odd {
        let line = document(&json!({ "k": text }), StateFormat::Yaml).unwrap();
        assert!(line.starts_with("k: \""), "{line}");
        assert_eq!(read_back(&line), json!({ "k": text }));
    }
    for text in ["team_a", "agent-A", "v1", "e715c1682148", "1.2.3-beta", "image/db"] {
        let line = document(&json!({ "k": text }), StateFormat::Yaml).unwrap();
        assert_eq!(line, format!("k: {text}\n"));
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    // Much of the difficult syntax of YAML, and arbitrary text.
    let text = prop_oneof![
        "[ \t\n\r#:'\"|>\\-.?!&*%@`{}\\[\\]a0~=,\\\\]{0,12}",
        "(---|\\.\\.\\.|  |\ta|\n| #|: )*",
        any::<String>(),
    ];
    let leaf = prop_oneof![text.clone().prop_map(Value::from), any::<u32>().prop_map(Value::from)];
    leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn yaml_reads_back_as_what_was_printed(value in any_value()) {
        let value = json!({ "value": value });
        let text = document(&value, StateFormat::Yaml).unwrap();
        prop_assert_eq!(read_back(&text), value, "{}", text);
    }

    #[test]
    fn documents_one_after_the_other_stay_apart(first in any_value(), second in any_value()) {
        let [first, second] = [first, second].map(|value| json!({ "value": value }));
        let mut text = String::new();
        for (number, value) in (0..).zip([&first, &second]) {
            text += separator(StateFormat::Yaml, number);
            text += &document(value, StateFormat::Yaml).unwrap();
        }
        let documents = Yaml::load_from_str(&text).unwrap();
        prop_assert_eq!(documents.len(), 2, "{}", text);
    }
}

/// Texts of characters with a meaning in YAML or JSON, of control characters, and of those that some
/// parsers take for ends of lines, marks or none at all.
fn odd_text() -> impl Strategy<Value = String> {
    let odd = prop_oneof![
        prop::char::range('\0', '\u{a0}'),
        prop::sample::select(vec![
            '\u{7f}',
            '\u{85}',
            '\u{2028}',
            '\u{2029}',
            '\u{d7ff}',
            '\u{e000}',
            '\u{feff}',
            '\u{fffd}',
            '\u{fffe}',
            '\u{ffff}',
            '\u{10000}',
            '\u{10ffff}',
            '\n',
            '\r',
            '\t',
            ' ',
            '"',
            '\\',
            '{',
        ]),
        any::<char>(),
    ];
    prop::collection::vec(odd, 0..12).prop_map(String::from_iter)
}

/// A desired state with these texts wherever any text can be.
fn odd_state() -> impl Strategy<Value = Node> {
    let text = || odd_text().prop_map(|text| Node::text(&text));
    let config = text().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Node::seq),
            prop::collection::btree_map("[a-z0-9_-]{1,8}", inner, 0..4).prop_map(named),
        ]
    });
    let configs = prop::collection::btree_map("[a-z0-9_-]{1,8}", config, 1..4).prop_map(named);
    let tags = prop::collection::btree_map(odd_text(), text(), 1..4).prop_map(named);
    let workload = (tags, [text(), text(), text(), text()]);
    (configs, workload).prop_map(|(configs, (tags, [runtime, config, mount_point, data]))| {
        let files = vec![Node::map([("data", data), ("mountPoint", mount_point)])];
        let workload = Node::map([
            ("agent", Node::text("agent_A")),
            ("files", Node::seq(files)),
            ("restartPolicy", Node::text("NEVER")),
            ("runtime", runtime),
            ("runtimeConfig", config),
            ("tags", tags),
        ]);
        let version = Node::text("v1");
        let workloads = Node::map([("w", workload)]);
        Node::map([("apiVersion", version), ("configs", configs), ("workloads", workloads)])
    })
}

fn named(entries: std::collections::BTreeMap<String, Node>) -> Node {
    Node::map(entries.iter().map(|(name, node)| (name.as_str(), node.clone())))
}

#[test]
fn printed_state_is_taken_by_all_other_commands() {
    let whole = (odd_state(), any::<bool>(), any::<bool>());
    // By a fixed seed: the same states each time.
    let checked = TestRunner::deterministic().run(&whole, |(desired, is_json, is_pretty)| {
        let tree = Tree::default().with(DESIRED_STATE, Some(desired.clone()));
        let message = convert::to_pb(&tree, Fill::Full);
        let printed = state(Some(&message)).unwrap();
        let text = match (is_json, is_pretty) {
            // As `jq` prints it.
            (true, true) => serde_json::to_string_pretty(&printed).unwrap(),
            (true, false) => document(&printed, StateFormat::Json).unwrap(),
            (false, _) => document(&printed, StateFormat::Yaml).unwrap(),
        };
        // `set -f` first, then `check` and `run`.
        let set = NewState::from_yaml(&text);
        let set = set.map_err(|fault| TestCaseError::fail(format!("{}: {text}", fault.what)))?;
        let set = convert::from_pb(&set.to_pb()).unwrap();
        prop_assert_eq!(set.get(&[DESIRED_STATE]), Some(&desired), "{}", text);
        let run = manifest::parse("m", &text);
        let run = run.map_err(|fault| TestCaseError::fail(format!("{fault}: {text}")))?;
        prop_assert_eq!(run.updated.tree.get(&[DESIRED_STATE]), Some(&desired), "{}", text);
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn json_is_one_line_whatever_is_in_it() {
    let line = document(&json!({ "a": "x\ny\u{2028}" }), StateFormat::Json).unwrap();
    assert_eq!(line.lines().count(), 1);
    assert!(line.ends_with('\n'));
}

#[test]
fn json_is_yaml_whatever_is_in_it() {
    let all: String = (0..=0xffff).filter_map(char::from_u32).chain(['\u{10ffff}']).collect();
    let value = json!({ "k": all, all.clone(): "v" });
    let line = document(&value, StateFormat::Json).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    let short = json!({ "k": "\u{7f}\u{85}\u{2028}\u{feff}\u{fffe}\u{ffff}" });
    assert_eq!(read_back(&document(&short, StateFormat::Json).unwrap()), short);
}

#[test]
fn event_has_all_three_lists_and_the_first_answer_none() {
    let mut response = pb::CompleteStateResponse::default();
    assert_eq!(change(&response).unwrap(), json!({ "completeState": {} }));
    response.altered_fields =
        Some(pb::AlteredFields { added_fields: vec!["a.b".to_owned()], ..Default::default() });
    let expected = json!({
        "alteredFields": { "addedFields": ["a.b"], "updatedFields": [], "removedFields": [] },
        "completeState": {},
    });
    assert_eq!(change(&response).unwrap(), expected);
}
