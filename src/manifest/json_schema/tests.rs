use std::{fs, path::PathBuf};

use jsonschema::Validator;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::manifest::{
    parse,
    yaml::{self, Data, ScalarKind, Yaml},
};

/// Faults that no schema can find: they compare two places, or count.
const BEYOND_A_SCHEMA: [&str; 6] = [
    "that does not exist",
    "is part of a cycle",
    "nested too deep",
    " bytes: a config or a workload has at most ",
    " bytes: a manifest has at most ",
    // As a key a number is a text in JSON.
    "put it in quotes",
];

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(in crate::manifest) fn validator() -> Validator {
    jsonschema::draft7::new(&schema()).unwrap()
}

/// The value as an editor's YAML library gives it to a validator.
fn json_of(node: &Yaml<'_>) -> Value {
    match &node.data {
        Data::Scalar(scalar) => match scalar.kind {
            ScalarKind::Text => (*scalar.text).into(),
            ScalarKind::Null => Value::Null,
            ScalarKind::Boolean => scalar.text.eq_ignore_ascii_case("true").into(),
            ScalarKind::Number => scalar.text.parse::<f64>().unwrap_or(1.5).into(),
        },
        Data::Sequence(items) => items.iter().map(json_of).collect(),
        Data::Mapping(entries) => {
            let key = |key: &Yaml<'_>| match &key.data {
                Data::Scalar(scalar) => scalar.text.to_string(),
                _ => String::new(),
            };
            Value::Object(entries.iter().map(|(own, value)| (key(own), json_of(value))).collect())
        }
        Data::Bad => Value::Null,
    }
}

fn loaded(text: &str) -> Option<Value> {
    let text = yaml::readable(text);
    let documents = yaml::load(&text, &yaml::FOR_MANIFESTS).ok()?;
    let [document] = &documents[..] else { return None };
    Some(json_of(document))
}

/// Compares reader and schema on a manifest: the schema accepts what the reader accepts, and refuses what
/// it refuses for a reason that a schema can express. Returns the answer of the reader.
pub(in crate::manifest) fn compare(validator: &Validator, text: &str) -> bool {
    let Some(json) = loaded(text) else { return false };
    let objections = || -> Vec<_> {
        validator
            .iter_errors(&json)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    };
    match parse("m", text) {
        Ok(_) => {
            assert!(
                validator.is_valid(&json),
                "accepted by the reader:\n{text}\n{:#?}",
                objections()
            );
            true
        }
        Err(error) => {
            let is_beyond = |fault: &str| BEYOND_A_SCHEMA.iter().any(|part| fault.contains(part));
            let expressible = error.faults.iter().any(|fault| !is_beyond(&fault.message));
            assert!(
                !expressible || !validator.is_valid(&json),
                "accepted by the schema:\n{text:.2000}\n{error}"
            );
            false
        }
    }
}

#[test]
fn checked_in_schema_is_the_printed_one() {
    let path = root("docs/manifest.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, text()).unwrap();
    }
    assert_eq!(
        fs::read_to_string(path).unwrap(),
        text(),
        "run `fifogate schema > docs/manifest.schema.json`"
    );
}

#[test]
fn schema_is_one_of_its_draft_and_describes_every_field() {
    jsonschema::draft7::meta::validate(&schema()).unwrap();
    fn look(place: &str, schema: &Value) {
        for (name, own) in schema.as_object().into_iter().flatten() {
            let place = format!("{place}.{name}");
            // A condition repeats no description.
            let is_condition = ["if", "then", "else"].contains(&&**name);
            if name == "properties" && !is_condition {
                for (field, own) in own.as_object().unwrap() {
                    let is_described =
                        own["description"].as_str().is_some_and(|own| !own.is_empty());
                    assert!(is_described, "{place}.{field}");
                }
            }
            if !is_condition {
                look(&place, own);
            }
        }
        for own in schema.as_array().into_iter().flatten() {
            look(place, own);
        }
    }
    look("", &schema());
}

/// Every YAML file, and every fenced block of YAML in a document, that names a version of manifests.
fn manifests() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let folders = ["fixtures/manifests", "demo", "docs", "docs/tutorials", "contrib", "agent", "."];
    for folder in folders {
        for path in fs::read_dir(root(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.display().to_string();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            if name.ends_with(".yaml") {
                found.push((name, text));
            } else if name.ends_with(".md") {
                let blocks = text.split("\n```yaml\n").skip(1);
                let blocks = blocks.filter_map(|block| block.split_once("\n```"));
                found.extend(blocks.map(|(block, _)| (name.clone(), format!("{block}\n"))));
            }
        }
    }
    found.retain(|(_, text)| {
        text.contains("apiVersion: v1\nworkloads") || text.contains("apiVersion: v0.1")
    });
    found
}

#[test]
fn manifests_of_the_repository_are_judged_as_the_reader_judges_them() {
    let validator = validator();
    let manifests = manifests();
    let accepted = manifests.iter().filter(|(_, text)| compare(&validator, text)).count();
    assert!(accepted >= 4, "{accepted} of {}", manifests.len());
    let refused = |name: &str| {
        let text = fs::read_to_string(root("fixtures/manifests").join(name)).unwrap();
        !validator.is_valid(&loaded(&text).unwrap())
    };
    for name in ["bad-mask.yaml", "unknown-key.yaml", "unquoted-number.yaml"] {
        assert!(refused(name), "{name}");
    }
}

/// A manifest with every field and every form of a config.
const WHOLE: &str = r#"
apiVersion: v1
workloads:
  watcher:
    runtime: podman
    agent: agent_A
    restartPolicy: ON_FAILURE
    tags: { team: nav }
    dependencies: { db: ADD_COND_RUNNING }
    configs: { img: image_cfg }
    runtimeConfig: "image: {{img.name}}"
    files:
      - { mountPoint: /etc/app.conf, data: "level={{img.level}}" }
      - { mountPoint: /etc/key, binaryData: QUJD }
    controlInterfaceAccess:
      allowRules:
        - { type: StateRule, operation: ReadWrite, filterMasks: ["desiredState.configs", "workloadStates.*.db"] }
        - { type: StateRule, operation: Read, filterMask: ["*"] }
        - { type: LogRule, workloadNames: ["db*", watcher] }
      denyRules:
        - { type: StateRule, operation: Write, filterMasks: ["desiredState.configs.locked"] }
  other: { runtime: "", agent: "{{a b}}", runtimeConfig: "" }
configs:
  image_cfg: { name: "example.org/app:1", level: "debug" }
  hosts: [ "h1", [[{ "a.b": x }]], { k: [] } ]
"#;

const OLD: &str = "apiVersion: v0.1\nworkloads: { w: { runtime: r, agent: a, runtimeConfig: x, tags: [{ key: k, value: v }] } }\n";

const PRINTED: &str = "desiredState: { apiVersion: v1, workloads: {}, configs: { a: x } }\neffectiveState: 5\nagents: {}\n";

/// Every value below `root`, by its JSON pointer.
fn pointers(root: &Value) -> Vec<String> {
    fn walk(at: &str, value: &Value, all: &mut Vec<String>) {
        all.push(at.to_owned());
        for (name, below) in value.as_object().into_iter().flatten() {
            walk(&format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), below, all);
        }
        for (index, below) in value.as_array().into_iter().flatten().enumerate() {
            walk(&format!("{at}/{index}"), below, all);
        }
    }
    let mut all = Vec::new();
    walk("", root, &mut all);
    all
}

/// Texts with a meaning somewhere, or nowhere.
const TEXTS: &str = "|v1|v0.1|a|a b|a.b|a..b|*|a*|a*b*|*.a|{{|{{x}}|NEVER|never|ADD_COND_FAILED|Read|Nothing|\
                     StateRule|LogRule|é|a\n|image_cfg|desiredState.configs";

const KEYS: &str = "apiVersion|workloads|configs|desiredState|agents|agent|runtime|runtimeConfig|restartPolicy|tags|\
                    dependencies|files|controlInterfaceAccess|allowRules|denyRules|type|operation|filterMask|\
                    filterMasks|workloadNames|data|binaryData|key|a.b";

fn one_of(random: &mut ChaCha8Rng, texts: &str) -> String {
    let texts: Vec<_> = texts.split('|').collect();
    (*texts.choose(random).unwrap()).to_owned()
}

/// Changes one value of a manifest, or one key.
fn vary(random: &mut ChaCha8Rng, document: &mut Value) {
    let text = |random: &mut ChaCha8Rng| match random.random_range(0..12) {
        0 => "x".repeat(random.random_range(62..66)),
        1 => format!("{}*", "x".repeat(random.random_range(62..66))),
        _ => one_of(random, TEXTS),
    };
    let all = pointers(document);
    let values: Vec<_> = all.iter().map(|own| document.pointer(own).unwrap().clone()).collect();
    let chosen = document.pointer_mut(all.choose(random).unwrap()).unwrap();
    match (random.random_range(0..6), &mut *chosen) {
        // Another value of the manifest, which has the right form for some other place.
        (0, _) => *chosen = values.choose(random).unwrap().clone(),
        (1, _) => {
            *chosen = match random.random_range(0..6) {
                0 => Value::Null,
                1 => json!(true),
                2 => json!(3.5),
                3 => json!([]),
                4 => json!({}),
                _ => json!([{}]),
            }
        }
        (2, Value::Object(members)) if !members.is_empty() => {
            let place = random.random_range(0..members.len());
            let name = members.keys().nth(place).unwrap().clone();
            members.shift_remove(&name);
        }
        (3, Value::Object(members)) => {
            let key = if random.random() { one_of(random, KEYS) } else { text(random) };
            members.insert(key, values.choose(random).unwrap().clone());
        }
        (4, Value::Array(items)) => items.push(values.choose(random).unwrap().clone()),
        _ => *chosen = text(random).into(),
    }
}

#[test]
fn schema_and_reader_agree_on_varied_manifests() {
    let validator = validator();
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|own| own.parse().ok()).unwrap_or(3000);
    let mut accepted = 0;
    for seed in 0..seeds {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let start = [WHOLE, WHOLE, OLD, PRINTED].choose(&mut random).unwrap();
        let mut document = loaded(start).unwrap();
        for _ in 0..random.random_range(0..4) {
            vary(&mut random, &mut document);
        }
        accepted += u64::from(compare(&validator, &document.to_string()));
    }
    // Enough of both.
    assert!((seeds / 10..seeds * 9 / 10).contains(&accepted), "{accepted} of {seeds}");
}

#[test]
fn texts_match_their_pattern_exactly_if_their_rule_accepts_them() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let rules =
        [Rule::Any, Rule::AgentName, Rule::ConfigReference, Rule::FilterMask, Rule::NamePattern];
    for rule in rules {
        let validator = jsonschema::draft7::new(&text_of(rule)).unwrap();
        for _ in 0..2000 {
            let most = if random.random_bool(0.1) { 70 } else { 6 };
            let len = random.random_range(0..=most);
            let letters: &[char] = if random.random() {
                &['a', '-']
            } else {
                &['a', 'Z', '0', '_', '-', '.', '*', '{', ' ', '\n', 'ü']
            };
            let text: String = (0..len).map(|_| *letters.choose(&mut random).unwrap()).collect();
            let is_accepted = rule.check(&text).is_ok();
            assert_eq!(validator.is_valid(&json!(text)), is_accepted, "{rule:?} {text:?}");
        }
    }
}
