use super::*;
use crate::state::Node;

fn faults(text: &str) -> Vec<String> {
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
        ("  v: [\n", "8:1", "this is no YAML"),
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

#[test]
fn files_that_are_no_manifest_at_all_are_told_so() {
    assert!(faults("")[0].contains("the manifest is empty"));
    assert!(faults("x")[0].contains("a mapping belongs here"));
    assert!(faults("workloads: {}\n")[0].contains("`apiVersion` is missing"));
    assert!(faults("apiVersion: v2\n")[0].contains("Received 'v2', expected 'v1'"));
    assert!(
        faults("desiredState:\n  apiVersion: v1\n")[0].contains("not wrapped in `desiredState`")
    );
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
fn aliases_may_stand_for_values_and_a_few_lines_of_them_cannot_fill_the_memory() {
    let shared = "apiVersion: v1\nconfigs:\n  a: &a [x, y]\n  b: *a\n";
    let state = desired(shared);
    assert_eq!(at(&state, "configs.a"), at(&state, "configs.b"));
    let tens = |name: &str| [name; 10].join(",");
    let lines = |line: fn(usize, &str) -> String| -> String {
        let all = (1..9).map(|n| line(n, &tens(&format!("*a{}", n - 1))));
        format!("apiVersion: v1\nconfigs:\n  a0: &a0 [{}]\n{}", tens("x"), all.collect::<String>())
    };
    let in_values = lines(|n, ten| format!("  a{n}: &a{n} [{ten}]\n"));
    assert!(faults(&in_values)[0].contains("alias expansion"), "{:?}", faults(&in_values));
    let in_keys = lines(|n, ten| format!("  a{n}: &a{n} {{? [{ten}] : y}}\n"));
    assert!(faults(&in_keys)[0].starts_with("m.yaml:4:14: a key has to be a text"));
    let key = "apiVersion: v1\nconfigs: {a: &a x, *a : y}\n";
    assert!(faults(key)[0].contains("a key has to be a text, not an alias"));
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
        let documents = yaml::load(text).unwrap();
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
