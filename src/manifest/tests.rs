use super::*;
use crate::state::Node;

mod bounds;

fn faults(text: &str) -> Vec<String> {
    // An editor with the schema finds them too, as far as a schema can express them: no size.
    #[cfg(feature = "cli")]
    assert!(
        text.len() > 1 << 20
            || !json_schema::tests::compare(&json_schema::tests::validator(), text)
    );
    let error = parse("m.yaml", text).expect_err("accepted");
    error.faults.iter().map(ToString::to_string).collect()
}

fn desired(text: &str) -> Node {
    let manifest = parse("m.yaml", text).unwrap_or_else(|error| panic!("{error}"));
    manifest.updated.tree.get(&[DESIRED_STATE]).cloned().unwrap()
}

fn at<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(node, |node, name| node.get(name))
}

const WORKLOAD: &str = "apiVersion: v1\nworkloads:\n  w:\n    runtime: process\n    agent: a\n    runtimeConfig: \"\"\n";

fn workload(rest: &str) -> String {
    format!("{WORKLOAD}{rest}")
}

#[test]
fn example_of_the_protocol_becomes_the_state_that_it_says() {
    let text = r#"
apiVersion: v1
workloads:
  watcher:
    runtime: podman
    agent: agent_A
    restartPolicy: ON_FAILURE
    tags: { team: nav }
    dependencies: { db: ADD_COND_RUNNING }
    configs: { img: image_cfg }
    runtimeConfig: |
      image: {{img.name}}
    files:
      - { mountPoint: /etc/app.conf, data: "level={{img.level}}" }
      - { mountPoint: /etc/key, binaryData: QUJD }
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: ReadWrite, filterMasks: ["desiredState.configs", "workloadStates.*.db"] }
        - { type: LogRule, workloadNames: ["db*"] }
      denyRules:
        - { type: StateRule, operation: Write, filterMasks: ["desiredState.configs.locked"] }
configs:
  image_cfg: { name: "example.org/app:1", level: "debug" }
  hosts: [ "h1", "h2" ]
"#;
    let state = desired(text);
    let str_at = |path: &str| at(&state, path).and_then(Node::as_str).map(str::to_owned);
    assert_eq!(str_at("workloads.watcher.tags.team").as_deref(), Some("nav"));
    assert_eq!(str_at("workloads.watcher.dependencies.db").as_deref(), Some("ADD_COND_RUNNING"));
    assert_eq!(str_at("workloads.watcher.runtimeConfig").as_deref(), Some("image: {{img.name}}\n"));
    assert_eq!(str_at("configs.image_cfg.level").as_deref(), Some("debug"));
    let rules = at(&state, "workloads.watcher.controlInterfaceAccess.allowRules").unwrap();
    assert_eq!(rules.as_seq().unwrap().len(), 2);
    let hosts = at(&state, "configs.hosts").and_then(Node::as_seq).unwrap();
    assert_eq!(hosts, [Node::text("h1"), Node::text("h2")]);
    assert_eq!(at(&state, "workloads.watcher.files").and_then(Node::as_seq).unwrap().len(), 2);
}

#[test]
fn unknown_key_is_told_with_its_place_and_the_nearest_known_one() {
    let text = workload("    restartPolice: NEVER\nconfig: {}\n");
    let known = "agent, configs, controlInterfaceAccess, dependencies, files, restartPolicy, runtime, runtimeConfig, tags";
    assert_eq!(faults(&text), [
        format!("m.yaml:7:5: unknown key `restartPolice` in workload `w` (did you mean `restartPolicy`?); known are {known}"),
        "m.yaml:8:1: unknown key `config` in the manifest (did you mean `configs`?); known are apiVersion, configs, workloads".to_owned(),
    ]);
}

#[test]
fn every_kind_of_fault_is_told_at_its_place() {
    // text behind a workload, place, part of the message
    let table = [
        ("    tags: { port: 8080 }\n", "7:19", "a tag is a number; quote it: \"8080\""),
        ("    tags: [x]\n", "7:11", "For API version 'v1', tags must be specified as a mapping"),
        ("    restartPolicy: ALLWAYS\n", "7:20", "did you mean `ALWAYS`?"),
        (
            "    dependencies: { w: ADD_COND_RUNNING }\n",
            "7:21",
            "workload dependency 'w' is part of a cycle.",
        ),
        ("    configs: { a: missing }\n", "7:19", "config key 'missing' that does not exist"),
        ("    configs: { a.b: c }\nconfigs: { c: x }\n", "7:16", "Unsupported config alias 'a.b'."),
        ("    files: [{ mountPoint: /x }]\n", "7:13", "either `data` or `binaryData`"),
        ("configs: { k k: x }\n", "7:12", "Unsupported config item key 'k k'."),
        ("configs: { k: true }\n", "7:15", "a config is true or false; quote it: \"true\""),
        ("configs: { k: }\n", "7:13", "a config is empty, and a string belongs here"),
        (
            "    controlInterfaceAccess:\n      allowRules: [{ type: StateRule, operation: Read, filterMasks: [\"a..b\"] }]\n",
            "8:70",
            "Unsupported filter mask 'a..b'",
        ),
        (
            "    controlInterfaceAccess:\n      allowRules: [{ type: LogRule, workloadNames: [\"a*b*\"] }]\n",
            "8:53",
            "Expected at most one '*' symbol.",
        ),
        (
            "    controlInterfaceAccess:\n      allowRules: [{ operation: Read }]\n",
            "8:20",
            "a rule has no `type`",
        ),
        (
            "    controlInterfaceAccess:\n      allowRules: [{ type: StateRule, operation: Read }]\n",
            "8:20",
            "a rule has no `filterMasks`",
        ),
        (
            "  w w: { runtime: r, agent: a, runtimeConfig: x }\n",
            "7:3",
            "Unsupported workload name 'w w'.",
        ),
        (
            "  v: { runtime: r, agent: a b, runtimeConfig: x }\n",
            "7:27",
            "Unsupported agent name 'a b'.",
        ),
        ("  v: { runtime: r, agent: a }\n", "7:3", "workload `v` has no `runtimeConfig`"),
        ("  v: [\n", "7:6", "this is no YAML"),
        ("---\napiVersion: v1\n", "8:1", "a manifest is one document"),
    ];
    for (rest, place, part) in table {
        let told = faults(&workload(rest));
        let fits = told
            .iter()
            .any(|fault| fault.starts_with(&format!("m.yaml:{place}: ")) && fault.contains(part));
        assert!(fits, "{rest} tells {told:#?}, not {place}: {part}");
    }
}

/// Checks the messages of all faults, in the order of their places.
fn assert_told(text: &str, expected: &[String]) {
    let told = parse("m.yaml", text).expect_err(text).faults;
    let told: Vec<_> = told.into_iter().map(|fault| fault.message).collect();
    assert_eq!(told, expected, "{text}");
}

fn number_for(what: &str) -> String {
    format!("{what} is a number; quote it: \"5\"")
}

#[test]
fn every_fault_of_a_rule_is_told_once_whatever_else_is_faulty() {
    let rules = |rules: &str| {
        workload(&format!("    controlInterfaceAccess: {{ allowRules: [{rules}] }}\n"))
    };
    let missing = |name| format!("a rule has no `{name}`");
    let number = number_for;
    for (text, expected) in [
        (
            rules("{ type: StateRule, operation: 5 }"),
            vec![missing("filterMasks"), number("operation")],
        ),
        (
            rules("{ type: StateRule, operation: 5, filterMasks: 5 }"),
            vec![
                number("operation"),
                "filterMasks is a number, and a sequence belongs here".to_owned(),
            ],
        ),
        (
            rules(
                "{ type: StateRule, operation: 5, filterMasks: [] }, { type: StateRule, operation: Read }, { type: LogRule }",
            ),
            vec![number("operation"), missing("filterMasks"), missing("workloadNames")],
        ),
        (
            rules("{ type: StateRule, operation: Read, filterMasks: [], filterMask: [] }"),
            vec!["a rule has `filterMasks` twice, also by its former name".to_owned()],
        ),
        (
            rules("{ type: LogRule, workloadName: [] }"),
            vec![
                missing("workloadNames"),
                "unknown key `workloadName` in a rule (did you mean `workloadNames`?); known are \
                 type, workloadNames"
                    .to_owned(),
            ],
        ),
    ] {
        assert_told(&text, &expected);
    }
}

#[test]
fn every_fault_of_other_fields_is_told_once_whatever_else_is_faulty() {
    let number = number_for;
    for (text, expected) in [
        (
            workload("    files: [{ mountPoint: 5, data: 5 }, { mountPoint: 5, data: x, binaryData: 5 }]\n"),
            vec![
                number("mountPoint"),
                number("data"),
                "a file has either `data` or `binaryData`".to_owned(),
                number("mountPoint"),
                number("binaryData"),
            ],
        ),
        (
            workload("    configs: { a.b: 5 }\n"),
            vec![
                "Unsupported config alias 'a.b'. Only a-z, A-Z, 0-9 chars, underscore (_), and \
                 hyphen (-) allowed. Maximum length is 63 characters."
                    .to_owned(),
                number("a config reference"),
            ],
        ),
        (
            "apiVersion: v0.1\nworkloads: { w: { runtime: r, agent: a, runtimeConfig: x, tags: [x, \
             { key: a, value: 5 }, { key: b }] } }\n"
                .to_owned(),
            vec![
                "a tag is a string, and a mapping belongs here".to_owned(),
                number("value"),
                "a tag has no `value`".to_owned(),
            ],
        ),
    ] {
        assert_told(&text, &expected);
    }
}

#[test]
fn files_that_are_no_manifest_at_all_are_told_so() {
    assert!(faults("")[0].contains("the manifest is empty"));
    assert!(faults("x")[0].contains("a mapping belongs here"));
    assert!(faults("workloads: {}\n")[0].contains("`apiVersion` is missing"));
    assert!(faults("apiVersion: v2\n")[0].contains("Received 'v2', expected 'v1'"));
    assert!(faults(&"[".repeat(100_000))[0].contains("m.yaml:1:"));
    assert!(faults(&"[".repeat(100_000))[0].contains("at most 20 levels"));
    let blocks: String = (0..70).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert!(faults(&blocks)[0].starts_with("m.yaml:25:25: this is nested too deep"));
    let config = format!("apiVersion: v1\nconfigs: {{a: {}}}\n", "[".repeat(21) + &"]".repeat(21));
    assert!(faults(&config)[0].starts_with("m.yaml:2:34: this config is nested too deep"));
    let missing = read(Path::new("/nonexistent/m.yaml")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/m.yaml: cannot read the manifest"), "{missing}");
}

#[test]
fn scalar_may_be_repeated_as_a_key() {
    let state = desired("apiVersion: v1\nconfigs: {a: &a x, *a : y}\n");
    assert_eq!(at(&state, "configs.x"), Some(&Node::text("y")));
    let twice = "apiVersion: v1\nconfigs: {a: &a x, *a : y, x: z}\n";
    assert!(faults(twice)[0].contains("duplicated key `x`"));
    let list = "apiVersion: v1\nconfigs: {a: &a [x], *a : y}\n";
    assert!(faults(list)[0].contains("a key has to be a text, not a collection"));
}

#[test]
fn yaml_that_libyaml_reads_is_read() {
    let rules = |masks: &str| {
        workload(&format!(
            "    controlInterfaceAccess:\n      allowRules:\n        - type: StateRule\n          \
             operation: ReadWrite\n          filterMasks: {masks}"
        ))
    };
    let masks = "workloads.w.controlInterfaceAccess.allowRules";
    for text in [
        rules("[\n            \"desiredState\",\n            \"workloadStates\"\n          ]\n"),
        rules("[\n          \"desiredState\",\n          \"workloadStates\"\n          ]\n"),
        rules("[\n  \"desiredState\",\n  \"workloadStates\"\n]\n"),
        rules("[\n            desiredState,\n            workloadStates,\n          ]"),
    ] {
        let state = desired(&text);
        let rule = &at(&state, masks).and_then(Node::as_seq).unwrap()[0];
        let given = rule.get("filterMasks").and_then(Node::as_seq).unwrap();
        assert_eq!(given, [Node::text("desiredState"), Node::text("workloadStates")], "{text}");
    }
    let config = |value: &str| {
        let state = desired(&format!("apiVersion: v1\nworkloads: {{}}\nconfigs:\n  a: {value}"));
        at(&state, "configs.a").cloned().unwrap()
    };
    let pair = Node::map([("k", Node::text("v")), ("l", Node::text("w"))]);
    assert_eq!(config("{\n    k: v,\n    l: w\n  }\n"), pair);
    assert_eq!(config("{\n\n  k:\tv\t,\t# a comment\n  l:\tw\t}\n"), pair);
    let flow =
        desired("{\n\t\"apiVersion\":\t\"v1\",\n\t\"configs\":\t{\n\t\t\"a\":\t\"x\"\n\t}\n}\n");
    assert_eq!(at(&flow, "configs.a"), Some(&Node::text("x")));
    assert_eq!(config("\tx\n"), Node::text("x"));
    assert_eq!(config("\"x\n y\"\n"), Node::text("x y"));
    assert_eq!(config("\"x\ny\"\n"), Node::text("x y"));
    assert_eq!(config("\"\\ud83d\\ude00\"\n"), Node::text("😀"));
    // The end of the file is no line feed.
    assert_eq!(config("|\n   x"), Node::text("x"));
    assert_eq!(config("|\n   x\n"), Node::text("x\n"));
    assert_eq!(config("|+\n   x"), Node::text("x"));
    assert_eq!(config(">\n   x\n   y"), Node::text("x y"));
    desired("apiVersion:\tv1\nworkloads: {}\nconfigs:\n  a:\tx\n");
    desired("apiVersion: v1\t# a comment\nworkloads: {}\t\n");
    desired("apiVersion: v1\r\nworkloads: {}\r\n");
}

#[test]
fn byte_order_mark_in_front_of_a_document_is_no_part_of_it() {
    for text in [
        "\u{feff}apiVersion: v1\n",
        "---\n\u{feff}apiVersion: v1\n",
        "\u{feff}---\n\u{feff}apiVersion: v1\n",
        "# a comment\n\n---\r\n\u{feff}apiVersion: v1\n",
        "%YAML 1.2\n---\n\u{feff}{apiVersion: v1}\n",
    ] {
        desired(text);
    }
    let inside = desired("apiVersion: v1\nconfigs: { a: \"\u{feff}x\" }\n");
    assert_eq!(at(&inside, "configs.a"), Some(&Node::text("\u{feff}x")));
}

#[test]
fn hint_quotes_a_scalar_as_it_is_written() {
    for written in [
        "3.10",
        "0755",
        "123456789012345678901",
        "0x1F",
        "1e10",
        "-0",
        "+7",
        "1.",
        ".5",
        "0o17",
        ".INF",
        "-.inf",
        ".NaN",
        "True",
        "FALSE",
        "18446744073709551616",
        "1.0e+0",
    ] {
        let told = faults(&format!("apiVersion: v1\nconfigs: {{ a: {written} }}\n"));
        assert!(told[0].ends_with(&format!("; quote it: \"{written}\"")), "{written}: {told:?}");
        let quoted = desired(&format!("apiVersion: v1\nconfigs: {{ a: \"{written}\" }}\n"));
        assert_eq!(at(&quoted, "configs.a"), Some(&Node::text(written)));
        let tagged = desired(&format!("apiVersion: v1\nconfigs: {{ a: !!str {written} }}\n"));
        assert_eq!(at(&tagged, "configs.a"), Some(&Node::text(written)));
    }
    for text in ["1.2.3", "1_000", "0x", "0xG", "yes", "inf", "1:30", "e5", "--", "2001-01-01"] {
        let state = desired(&format!("apiVersion: v1\nconfigs: {{ a: {text} }}\n"));
        assert_eq!(at(&state, "configs.a"), Some(&Node::text(text)));
    }
    for bad in ["!!int x", "!!bool 1", "!!null x", "!!timestamp 2001-01-01", "!!binary QQ=="] {
        let told = faults(&format!("apiVersion: v1\nconfigs: {{ a: {bad} }}\n"));
        assert!(told[0].contains("something that cannot be used here"), "{told:?}");
    }
}

#[test]
fn state_as_it_is_printed_is_read_for_its_desired_state() {
    let text = "\
desiredState:
  apiVersion: v1
  configs: { mode: slow }
effectiveState: { apiVersion: v1, configs: { mode: other } }
workloadStates: { agent_A: { db: { abc: { state: Running, subState: Ok } } } }
agents: { agent_A: { status: { cpuUsage: 3 }, tags: { a: b } } }
";
    let state = desired(text);
    assert_eq!(at(&state, "configs.mode"), Some(&Node::text("slow")));
    let plain = desired("apiVersion: v1\nconfigs: { mode: slow }\n");
    assert_eq!(state, plain);
    let wrapped = "desiredState:\n  apiVersion: v1\n  workload: {}\nconfigs: {}\n";
    assert_eq!(
        faults(wrapped),
        [
            "m.yaml:3:3: unknown key `workload` in desiredState (did you mean `workloads`?); known are apiVersion, configs, workloads",
            "m.yaml:4:1: unknown key `configs` in the state; known are agents, desiredState, effectiveState, workloadStates",
        ]
    );
    assert!(faults("desiredState:\n")[0].contains("desiredState is empty, and a mapping belongs"));
    assert!(faults("desiredState: {}\n")[0].contains("`apiVersion` is missing"));
    assert!(faults("desiredState: {apiVersion: v2}\n")[0].contains("Received 'v2'"));
}

#[test]
fn deprecated_spellings_are_accepted_with_a_warning() {
    let text = "apiVersion: v0.1\nworkloads:\n  w:\n    runtime: r\n    agent: a\n    runtimeConfig: x\n    tags:\n      - { key: k, value: v }\n    controlInterfaceAccess:\n      allowRules:\n        - { type: StateRule, operation: Read, filterMask: [agents] }\n";
    let manifest = parse("m.yaml", text).unwrap();
    let warnings: Vec<_> = manifest.warnings.iter().map(|warning| warning.line).collect();
    assert_eq!(warnings, [1, 11]);
    let state = desired(text);
    assert_eq!(at(&state, "workloads.w.tags.k"), Some(&Node::text("v")));
    let mapping = text.replace("tags:\n      - { key: k, value: v }", "tags: { k: v }");
    assert!(
        faults(&mapping)[0]
            .contains("For API version 'v0.1', tags must be specified as a sequence")
    );
}

#[test]
fn duplicate_keys_are_refused_at_the_second() {
    let told = faults("apiVersion: v1\nworkloads: {}\nworkloads: {}\n");
    assert!(told[0].starts_with("m.yaml:3:1: this is no YAML: duplicated key"), "{told:?}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ \\-a-z:{}\\[\\]\"'&*!|>\n#?,0-9]{0,200}") {
        let _ = parse("m.yaml", &text);
        let _ = parse("m.yaml", &format!("apiVersion: v1\n{text}"));
    }
}

#[test]
fn new_row_of_the_schema_is_decoded_encoded_checked_and_read() {
    use crate::state::{convert::recode, schema::WITH_NEW_FIELD, validate::check_record};

    let fields = |priority| [("agent", Node::text("a")), ("priority", Node::text(priority))];
    let high = Node::map(fields("HIGH"));
    let bytes = [0x0a, 1, b'a', 0x18, 4];
    assert_eq!(recode(&WITH_NEW_FIELD, &bytes), Ok((high.clone(), bytes.to_vec())));
    let unknown = recode(&WITH_NEW_FIELD, &[0x18, 7]).unwrap_err();
    assert_eq!(unknown.to_string(), "unknown enumeration value 7");

    assert_eq!(check_record("x", &WITH_NEW_FIELD, &high), Ok(high.clone()));
    let without = Node::map([("agent", Node::text("a")), ("tags", Node::map::<&str>([]))]);
    assert_eq!(check_record("x", &WITH_NEW_FIELD, &without), Ok(Node::map(fields("LOW"))));

    let read = |text: &str| {
        let mut reader = Reader::default();
        let documents = yaml::load(text, &yaml::FOR_MANIFESTS).unwrap();
        let node = reader.record(&documents[0], "x", &documents[0], &WITH_NEW_FIELD);
        (node.unwrap(), reader.faults)
    };
    assert_eq!(read("{agent: a, priority: HIGH}"), (high, Vec::new()));
    let (_, faults) = read("{agent: a, priority: HIHG, prio: 1}");
    let texts: Vec<_> = faults.iter().map(|(.., text)| text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "priority is `HIHG` (did you mean `HIGH`?); it can be LOW, HIGH",
            "unknown key `prio` in x; known are agent, priority, tags",
        ]
    );
}

/// A state that was set has to be taken as a manifest, so keys are checked where an update checks them.
#[test]
fn keys_are_checked_but_for_those_below_a_sequence_in_a_sequence() {
    let parsed = |config: &str| parse("m", &format!("apiVersion: v1\nconfigs: {{c: {config}}}\n"));
    for odd in ["{a.b: x}", "[{a.b: x}]", "{k: [{k: [{a.b: x}]}]}"] {
        let refused = parsed(odd).unwrap_err().to_string();
        assert!(refused.contains("Unsupported config item key 'a.b'"), "{odd}: {refused}");
    }
    for kept in ["[[{a.b: x}]]", "[[x, {k: {a.b: [{'': x}]}}]]", "{k: [{l: [[{'*': x}]]}]}"] {
        parsed(kept).unwrap();
    }
}
