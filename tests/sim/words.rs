//! What the worlds are made of: a small vocabulary, so that things collide, and now and then
//! something that is wrong.

use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::{pbs, tree::Path, update};

pub(crate) const WORKLOADS: [&str; 5] = ["alpha", "beta", "gamma", "delta", "omega"];
pub(crate) const AGENTS: [&str; 3] = ["n1", "n2", ""];
pub(crate) const IDS: [&str; 4] = ["r1", "r2", "@", "a-much-longer-request-id"];
const CONFIGS: [&str; 4] = ["c", "d", "o", "list"];
const KEYS: [&str; 3] = ["p", "q", "s"];
const TAGS: [&str; 4] = ["t", "u", "my.tag", "*"];
const RUNTIME_CONFIGS: [&str; 4] = ["", "rc1", " rc1\n", "rc2"];
const WORDS: [&str; 4] = ["x", "y", "some longer text, so that sizes differ", ""];
const FIELDS: [&str; 9] = [
    "agent",
    "runtime",
    "runtimeConfig",
    "restartPolicy",
    "tags",
    "dependencies",
    "configs",
    "files",
    "controlInterfaceAccess",
];

/// Masks that are odd in one way or another.
const ODD: [&str; 26] = [
    "",
    "*",
    "*.*",
    "**",
    ".",
    "foo",
    "foo.bar",
    "desiredStateX",
    "desiredState.",
    "desiredState..alpha",
    "desiredState.workloads.al*",
    "desiredState.workloads.*.tags.*",
    "desiredState.workloads.alpha.tags.my.tag",
    "desiredState.configs.list.0",
    "desiredState.configs.list.*",
    "desiredState.configs.*.0.p",
    "*.workloads",
    "*.configs",
    "*.workloads.alpha.tags",
    "*.apiVersion",
    "*.*.*.*.state",
    "*.n1.*.*.subState",
    "workloadStates.*.*.*.state",
    "workloadStates.*.*.*.*",
    "workloadStates..alpha",
    "effectiveStateful",
];

pub(crate) fn one_of<'a>(rng: &mut ChaCha8Rng, words: &[&'a str]) -> &'a str {
    words.choose(rng).unwrap()
}

fn owned(path: &[&str]) -> Path {
    path.iter().map(|name| (*name).to_owned()).collect()
}

/// A path down to a leaf that may exist.
fn path(rng: &mut ChaCha8Rng) -> Path {
    let state = if rng.random_bool(0.85) { "desiredState" } else { "effectiveState" };
    match rng.random_range(0..10) {
        0..5 => [owned(&[state, "workloads"]), workload_path(rng)].concat(),
        5..7 => {
            let (key, inner) = (one_of(rng, &CONFIGS), one_of(rng, &KEYS));
            owned(&[state, "configs", key, inner, one_of(rng, &KEYS)])
        }
        7 if rng.random_bool(0.3) => owned(&[state, "apiVersion"]),
        7 | 8 => {
            let id = update::id_of(one_of(rng, &RUNTIME_CONFIGS));
            let (agent, workload) = (one_of(rng, &AGENTS), one_of(rng, &WORKLOADS));
            let field = one_of(rng, &["state", "subState", "additionalInfo"]);
            owned(&["workloadStates", agent, workload, &id, field])
        }
        _ => match rng.random_bool(0.5) {
            true => owned(&["agents", one_of(rng, &AGENTS), "tags", one_of(rng, &TAGS)]),
            false => {
                let field = one_of(rng, &["cpuUsage", "freeMemory"]);
                owned(&["agents", one_of(rng, &AGENTS), "status", field])
            }
        },
    }
}

fn workload_path(rng: &mut ChaCha8Rng) -> Path {
    let (name, field) = (one_of(rng, &WORKLOADS), one_of(rng, &FIELDS));
    let below = match field {
        "tags" => one_of(rng, &TAGS[..2]),
        "dependencies" => one_of(rng, &WORKLOADS),
        "configs" => "alias",
        "controlInterfaceAccess" => one_of(rng, &["allowRules", "denyRules"]),
        _ => return owned(&[name, field]),
    };
    owned(&[name, field, below])
}

/// A mask of a read or a subscription.
pub(crate) fn mask(rng: &mut ChaCha8Rng) -> String {
    if rng.random_bool(0.2) {
        return one_of(rng, &ODD).to_owned();
    }
    let path = path(rng);
    wildcards(rng, path, 0.2)
}

/// A mask of an access rule; now and then one that is none.
fn rule_mask(rng: &mut ChaCha8Rng) -> String {
    match rng.random_range(0..100) {
        0 => one_of(rng, &["", "a..b", "a b", "a.**"]).to_owned(),
        1..20 => "*".to_owned(),
        20..30 => one_of(rng, &["*.*", "*.workloads", "*.*.alpha", "desiredState"]).to_owned(),
        _ => {
            let path = path(rng);
            let fine = |name: &String| !name.is_empty() && !name.contains(['.', '*']);
            let len = path.iter().take_while(|name| fine(name)).count();
            wildcards(rng, path[..len].to_vec(), 0.2)
        }
    }
}

fn wildcards(rng: &mut ChaCha8Rng, mut path: Path, share: f64) -> String {
    let some = [rng.random_range(1..=path.len()), rng.random_range(1..=path.len())];
    let len = if rng.random_bool(0.6) { some[0].max(some[1]) } else { some[0].min(some[1]) };
    path.truncate(len);
    for name in &mut path {
        if rng.random_bool(share) {
            *name = "*".to_owned();
        }
    }
    path.join(".")
}

/// A mask at or below what one of these rules names; the more likely to be allowed.
pub(crate) fn mask_within(rng: &mut ChaCha8Rng, access: Option<&Value>) -> String {
    let rules = access.and_then(|access| access["allowRules"].as_array()).into_iter().flatten();
    let masks = rules.filter_map(|rule| rule.get("filterMasks")?.as_array());
    let masks: Vec<_> =
        masks.flatten().filter_map(Value::as_str).filter(|own| *own != "*").collect();
    match masks.choose(rng) {
        None => mask(rng),
        Some(own) if rng.random_bool(0.6) => (*own).to_owned(),
        Some(own) => format!("{own}.{}", one_of(rng, &["*", "alpha", "tags", "t", "c", "p"])),
    }
}

fn state_rule(rng: &mut ChaCha8Rng) -> Value {
    let operation = one_of(rng, &["Read", "Read", "Write", "ReadWrite", "ReadWrite", "Nothing"]);
    let masks: Vec<_> = (0..rng.random_range(0..3)).map(|_| rule_mask(rng)).collect();
    json!({"type": "StateRule", "operation": operation, "filterMasks": masks})
}

fn rule(rng: &mut ChaCha8Rng) -> Value {
    match rng.random_range(0..60) {
        0 => Value::Null,
        1..8 => {
            let names: Vec<_> = (0..rng.random_range(0..3))
                .map(|_| one_of(rng, &["alpha", "*", "al*", "*a", "be*ta", "a*a*"]))
                .collect();
            json!({"type": "LogRule", "workloadNames": names})
        }
        _ => state_rule(rng),
    }
}

pub(crate) fn access(rng: &mut ChaCha8Rng) -> Value {
    let everything = json!({"type": "StateRule", "operation": "ReadWrite", "filterMasks": ["*"]});
    let mut allow = if rng.random_bool(0.5) { vec![everything] } else { Vec::new() };
    allow.extend((0..rng.random_range(0..4)).map(|_| rule(rng)));
    let deny = if rng.random_bool(0.6) { 0 } else { rng.random_range(1..3) };
    let deny: Vec<_> = (0..deny).map(|_| rule(rng)).collect();
    json!({"allowRules": allow, "denyRules": deny})
}

fn word(rng: &mut ChaCha8Rng) -> Value {
    json!(one_of(rng, &WORDS))
}

fn tags(rng: &mut ChaCha8Rng) -> Value {
    let tags = (0..rng.random_range(0..3)).map(|_| (one_of(rng, &TAGS).to_owned(), word(rng)));
    Value::Object(tags.collect())
}

pub(crate) fn workload(rng: &mut ChaCha8Rng) -> Value {
    let policy = one_of(rng, &["NEVER", "ON_FAILURE", "ALWAYS"]);
    let mut workload = json!({
        "agent": one_of(rng, &AGENTS),
        "runtime": one_of(rng, &["podman", "process"]),
        "runtimeConfig": one_of(rng, &RUNTIME_CONFIGS),
        "restartPolicy": policy,
    });
    for field in FIELDS {
        if rng.random_bool(0.3) {
            workload[field] = field_value(rng, field);
        }
    }
    if rng.random_bool(0.5) {
        workload["controlInterfaceAccess"] = access(rng);
    }
    if rng.random_bool(0.2) {
        workload.as_object_mut().unwrap().shift_remove("restartPolicy");
    }
    workload
}

fn field_value(rng: &mut ChaCha8Rng, field: &str) -> Value {
    match field {
        "agent" if rng.random_bool(0.02) => json!("no name"),
        "agent" => json!(one_of(rng, &AGENTS)),
        "runtime" => json!(one_of(rng, &["podman", "process"])),
        "runtimeConfig" => json!(one_of(rng, &RUNTIME_CONFIGS)),
        "restartPolicy" => json!(one_of(rng, &["NEVER", "ON_FAILURE", "ALWAYS"])),
        "tags" => tags(rng),
        "dependencies" => {
            let on = one_of(rng, &["alpha", "beta", "elsewhere"]);
            json!({on: one_of(rng, &["ADD_COND_RUNNING", "ADD_COND_FAILED"])})
        }
        "configs" => json!({one_of(rng, &["alias", "other"]): one_of(rng, &CONFIGS[..2])}),
        "files" => files(rng),
        _ => access(rng),
    }
}

fn files(rng: &mut ChaCha8Rng) -> Value {
    match rng.random_range(0..20) {
        0 => json!([{"mountPoint": "/nothing"}]),
        1..5 => json!([]),
        5..10 => json!([{"mountPoint": "/b", "binaryData": "QUJD"}]),
        _ => json!([{"mountPoint": "/a", "data": word(rng)}]),
    }
}

pub(crate) fn config(rng: &mut ChaCha8Rng, depth: usize) -> Value {
    match rng.random_range(0..if depth > 0 { 40 } else { 20 }) {
        0 => Value::Null,
        1..14 => word(rng),
        14..17 => json!([]),
        17..20 => json!([word(rng), word(rng)]),
        20..23 => json!([config(rng, depth - 1), [{"not looked into": word(rng)}]]),
        _ => {
            let fields = (0..rng.random_range(0..4)).map(|_| {
                let bad = rng.random_bool(0.01);
                let key = if bad { "bad key" } else { one_of(rng, &KEYS) };
                (key.to_owned(), config(rng, depth - 1))
            });
            Value::Object(fields.collect())
        }
    }
}

/// A desired state to start from: valid, and with workloads that may do something.
pub(crate) fn start(rng: &mut ChaCha8Rng) -> Value {
    loop {
        let mut workloads = Map::new();
        for name in WORKLOADS {
            if rng.random_bool(0.7) {
                workloads.insert(name.to_owned(), workload(rng));
            }
        }
        let configs: Map<_, _> =
            CONFIGS.iter().map(|key| ((*key).to_owned(), config(rng, 2))).collect();
        let desired = json!({"apiVersion": "v1", "workloads": workloads, "configs": configs});
        let new = update::as_sent(&json!({ "desiredState": desired }));
        if let Ok(made) = update::apply(&initial(), &new, &[], false) {
            return made.state["desiredState"].clone();
        }
    }
}

pub(crate) fn initial() -> Value {
    json!({"desiredState": {"apiVersion": "v1", "workloads": {}}, "workloadStates": {},
        "agents": {}})
}

/// What a workload, or an agent, wants the state to be.
pub(crate) struct Change {
    pub(crate) new: Value,
    pub(crate) masks: Vec<String>,
}

/// Some changes of the state of now, and the masks that take them over; some of it wrong.
pub(crate) fn change(rng: &mut ChaCha8Rng, state: &Value) -> Change {
    let mut new = json!({"desiredState": state["desiredState"], "agents": state["agents"]});
    let mut masks = Vec::new();
    for _ in 0..*[1, 1, 1, 2, 3].choose(rng).unwrap() {
        let path = alter(rng, &mut new);
        masks.push(around(rng, path).join("."));
    }
    match rng.random_range(0..60) {
        0 => masks.push(mask(rng)),
        1 => masks.insert(0, one_of(rng, &ODD).to_owned()),
        2 => new = json!({}),
        3 => new = json!({"desiredState": {"workloads": {}}}),
        4 => masks = vec!["desiredState".to_owned()],
        5..8 => masks.clear(),
        _ => {}
    }
    Change { new, masks }
}

/// Changes one thing; gives its place.
fn alter(rng: &mut ChaCha8Rng, new: &mut Value) -> Path {
    let desired = &mut new["desiredState"];
    let name = one_of(rng, &WORKLOADS);
    let there = desired["workloads"].get(name).is_some();
    match rng.random_range(0..20) {
        0..7 if there => {
            let field = one_of(rng, &FIELDS);
            let workload = desired["workloads"][name].as_object_mut().unwrap();
            match rng.random_bool(0.25) {
                true => workload.shift_remove(field),
                false => workload.insert(field.to_owned(), field_value(rng, field)),
            };
            owned(&["desiredState", "workloads", name, field])
        }
        7..9 if there => {
            let tag = one_of(rng, &TAGS[..2]);
            desired["workloads"][name]["tags"] = json!({tag: word(rng)});
            owned(&["desiredState", "workloads", name, "tags", tag])
        }
        9..11 if there => {
            desired["workloads"].as_object_mut().unwrap().shift_remove(name);
            owned(&["desiredState", "workloads", name])
        }
        0..12 => {
            let name = if rng.random_bool(0.03) { "no name" } else { name };
            desired["workloads"][name] = workload(rng);
            owned(&["desiredState", "workloads", name])
        }
        12 if rng.random_bool(0.3) => {
            desired["apiVersion"] = json!(one_of(rng, &["v1", "v0.1", "v0.1", "v9"]));
            owned(&["desiredState", "apiVersion"])
        }
        12 | 13 => alter_agent(rng, new),
        _ => alter_config(rng, desired),
    }
}

fn alter_agent(rng: &mut ChaCha8Rng, new: &mut Value) -> Path {
    let (name, tag) = (one_of(rng, &AGENTS), one_of(rng, &TAGS[..2]));
    match rng.random_range(0..3) {
        0 => new["agents"][name] = json!({"tags": {tag: word(rng)}}),
        1 => new["agents"][name] = json!({}),
        _ => new["agents"][name] = json!({"tags": tags(rng), "status": {"cpuUsage": 99}}),
    }
    owned(&["agents", name, "tags", tag])
}

fn alter_config(rng: &mut ChaCha8Rng, desired: &mut Value) -> Path {
    let (key, inner) = (one_of(rng, &CONFIGS), one_of(rng, &KEYS));
    if !desired["configs"].is_object() {
        desired["configs"] = json!({});
    }
    let configs = &mut desired["configs"];
    let place = owned(&["desiredState", "configs", key]);
    match rng.random_range(0..10) {
        0..2 => {
            configs.as_object_mut().unwrap().shift_remove(key);
            place
        }
        2..6 if configs.get(key).is_some_and(Value::is_object) => {
            configs[key][inner] = config(rng, 1);
            [place, owned(&[inner])].concat()
        }
        6 if configs.get(key).is_some_and(Value::is_object) => {
            configs[key].as_object_mut().unwrap().shift_remove(inner);
            [place, owned(&[inner])].concat()
        }
        _ => {
            configs[key] = config(rng, 2);
            place
        }
    }
}

/// The place, or somewhere near it.
fn around(rng: &mut ChaCha8Rng, mut path: Path) -> Path {
    match rng.random_range(0..30) {
        0..4 => {
            path.pop();
        }
        4 => path.truncate(2),
        5 => path.push(one_of(rng, &["0", "1", "p", "t"]).to_owned()),
        6 => path = self::path(rng),
        7 if rng.random_bool(0.3) => *path.last_mut().unwrap() = "*".to_owned(),
        _ => {}
    }
    path
}

/// How an instance may be doing.
pub(crate) fn execution(rng: &mut ChaCha8Rng) -> Value {
    let (state, sub) = pbs::EXECUTION.choose(rng).unwrap();
    json!({"state": state, "subState": sub, "additionalInfo": word(rng)})
}

/// An agent as the agent map has it; its name may be one that no path can spell.
pub(crate) fn agents(rng: &mut ChaCha8Rng) -> Value {
    let mut agents = Map::new();
    for name in ["n1", "n2", "n.3"] {
        if rng.random_bool(0.6) {
            let mut agent = json!({});
            if rng.random_bool(0.7) {
                agent["status"] = json!({"cpuUsage": rng.random_range(0..3),
                    "freeMemory": rng.random_range(0..3_u64)});
            }
            if rng.random_bool(0.5) {
                agent["tags"] = tags(rng);
            }
            agents.insert(name.to_owned(), agent);
        }
    }
    Value::Object(agents)
}
