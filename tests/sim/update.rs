//! The naive model of updates: the whole state is spelled out, masked, cleaned up and checked
//! (docs/protocol.md#updates, docs/differences.md#11-updates).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    access::Rules,
    tree::{self, Path},
};

/// What an update makes.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) state: Value,
    /// Names of the workloads that differ.
    pub(crate) changed: BTreeSet<String>,
    pub(crate) started: Vec<Instance>,
    pub(crate) ended: Vec<Instance>,
}

/// Why an update makes nothing; where the text is fixed, with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refused {
    Text(String),
    Somehow,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    pub(crate) workload: String,
    pub(crate) agent: String,
    pub(crate) id: String,
}

impl Instance {
    pub(crate) fn of(name: &str, workload: &Value) -> Self {
        let text = |field: &str| workload[field].as_str().unwrap_or_default().to_owned();
        let id = id_of(&text("runtimeConfig"));
        Self { workload: name.to_owned(), agent: text("agent"), id }
    }

    pub(crate) fn text(&self) -> String {
        format!("{}.{}.{}", self.workload, self.id, self.agent)
    }

    fn path(&self) -> Path {
        vec![self.agent.clone(), self.workload.clone(), self.id.clone()]
    }
}

pub(crate) fn id_of(config: &str) -> String {
    Sha256::digest(config.trim()).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn workloads(state: &Value) -> BTreeMap<&str, &Value> {
    let map = state["desiredState"]["workloads"].as_object().into_iter().flatten();
    map.map(|(name, workload)| (name.as_str(), workload)).collect()
}

/// The state that an update makes of `state`. `linked`: an agent says itself how instances end.
pub(crate) fn apply(
    state: &Value,
    new: &Value,
    masks: &[String],
    linked: bool,
) -> Result<Made, Refused> {
    let proposed = propose(state, new, masks)?;
    let desired = settle(proposed.get("desiredState")).ok_or(Refused::Somehow)?;
    let mut made = state.clone();
    made["desiredState"] = desired;
    take_tags(&mut made, proposed.get("agents"));
    Ok(follow(state, made, linked))
}

/// The state that an agent replaces the whole by; a part that it does not give is empty then.
pub(crate) fn replace(given: &Value) -> Option<Value> {
    let mut made = json!({"workloadStates": {}, "agents": {}});
    for (part, node) in given.as_object().unwrap() {
        made[part] = node.clone();
    }
    made["desiredState"] = settle(given.get("desiredState"))?;
    Some(made)
}

/// The state that an agent's update makes; it may touch every part.
pub(crate) fn update_any(state: &Value, new: &Value, masks: &[String]) -> Option<Value> {
    let parts = ["desiredState", "workloadStates", "agents", "effectiveState"];
    let mut made = state.clone();
    if masks.is_empty() {
        for (part, node) in new.as_object().unwrap() {
            made[part] = node.clone();
        }
    }
    for text in masks {
        let path = tree::split(text);
        let known = path.first().is_some_and(|part| parts.contains(&part.as_str()));
        let done = known
            && !path.iter().any(|name| name == "*")
            && match find(new, &path) {
                Some(value) => set(&mut made, &path, value),
                None => unset(&mut made, &path),
            };
        if !done {
            return None;
        }
    }
    for part in ["workloadStates", "agents"] {
        made.as_object_mut().unwrap().entry(part).or_insert(json!({}));
    }
    let version = |state: &Value| state.get("apiVersion").is_some();
    if made.get("effectiveState").is_some_and(|state| !version(state)) {
        return None;
    }
    made["desiredState"] = settle(made.get("desiredState"))?;
    Some(made)
}

/// Whether a sender may let workloads refer to configs as an update does: if anything changes that
/// decides what is made of them, it has to be allowed to read each. True where nothing is proposed.
pub(crate) fn may_refer(state: &Value, new: &Value, masks: &[String], rules: &Rules) -> bool {
    let Ok(proposed) = propose(state, new, masks) else { return true };
    let part = |workload: Option<&Value>, name: &str| {
        let empty = |own: &Value| *own == json!({}) || *own == json!([]);
        workload.and_then(|own| own.get(name)).filter(|own| !empty(own)).cloned()
    };
    let new = proposed.get("desiredState").and_then(|desired| desired.get("workloads"));
    new.and_then(Value::as_object).into_iter().flatten().all(|(name, workload)| {
        let old = state["desiredState"]["workloads"].get(name);
        let shows = ["agent", "runtime", "runtimeConfig", "files", "configs"]
            .iter()
            .any(|name| part(old, name) != part(Some(workload), name));
        let configs = workload.get("configs").and_then(Value::as_object).into_iter().flatten();
        let mut names = configs.filter_map(|(_, config)| config.as_str());
        !shows || names.all(|name| rules.may_read(&[format!("desiredState.configs.{name}")]))
    })
}

fn propose(state: &Value, new: &Value, masks: &[String]) -> Result<Value, Refused> {
    if masks.is_empty() {
        let workloads = new.get("desiredState").and_then(|desired| desired.get("workloads"));
        return workloads.map(|_| new.clone()).ok_or(Refused::Somehow);
    }
    let mut draft = spelled_out(state);
    for text in masks {
        let path = tree::split(text);
        if path.iter().any(|name| name == "*") {
            let text = format!("Wildcards are not allowed in update mask {text}");
            return Err(Refused::Text(format!("Update rejected: '{text}'")));
        }
        let found = (!path.is_empty()).then(|| find(new, &path)).flatten();
        let done = match found {
            Some(value) => set(&mut draft, &path, value),
            None => unset(&mut draft, &path),
        };
        if !done {
            let text = format!("Could not find field {text}");
            return Err(Refused::Text(format!("Update rejected: '{text}'")));
        }
    }
    Ok(draft)
}

/// The state with all its collections, also empty ones; what an update cannot set is empty.
fn spelled_out(state: &Value) -> Value {
    let mut draft = state.clone();
    draft["workloadStates"] = json!({});
    draft["effectiveState"] = json!({"apiVersion": "v1", "workloads": {}});
    let desired = draft["desiredState"].as_object_mut().unwrap();
    for name in ["workloads", "configs"] {
        desired.entry(name).or_insert(json!({}));
    }
    for (_, workload) in desired["workloads"].as_object_mut().unwrap() {
        let workload = workload.as_object_mut().unwrap();
        for name in ["tags", "dependencies", "configs", "controlInterfaceAccess"] {
            workload.entry(name).or_insert(json!({}));
        }
        workload.entry("files").or_insert(json!([]));
        for name in ["allowRules", "denyRules"] {
            let access = workload["controlInterfaceAccess"].as_object_mut().unwrap();
            access.entry(name).or_insert(json!([]));
        }
    }
    for (_, agent) in draft["agents"].as_object_mut().unwrap() {
        agent.as_object_mut().unwrap().entry("tags").or_insert(json!({}));
    }
    draft
}

/// Here a decimal name reaches into a sequence.
fn find(tree: &Value, path: &[String]) -> Option<Value> {
    let found = path.iter().try_fold(tree, |node, name| match node {
        Value::Object(map) => map.get(name),
        Value::Array(values) => values.get(name.parse::<usize>().ok()?),
        _ => None,
    });
    found.cloned()
}

/// Whether every parent is a mapping, or missing where that is fine.
fn leads_somewhere(tree: &Value, path: &[String], may_be_missing: bool) -> bool {
    let Some((_, parents)) = path.split_last() else { return false };
    (0..=parents.len()).all(|len| match tree::at(tree, &parents[..len]) {
        Some(node) => node.is_object(),
        None => {
            may_be_missing
                && !(0..len).any(|len| {
                    tree::at(tree, &parents[..len]).is_some_and(|node| !node.is_object())
                })
        }
    })
}

fn set(tree: &mut Value, path: &[String], value: Value) -> bool {
    let fine = leads_somewhere(tree, path, true);
    if fine {
        tree::put(tree, path, value);
    }
    fine
}

fn unset(tree: &mut Value, path: &[String]) -> bool {
    let fine = leads_somewhere(tree, path, false);
    if fine {
        tree::remove(tree, path);
    }
    fine
}

/// The tree that the protocol makes of a new state: empty collections have no key.
pub(crate) fn as_sent(new: &Value) -> Value {
    let mut sent = new.clone();
    for part in ["desiredState", "effectiveState"] {
        let Some(state) = sent.get_mut(part).and_then(Value::as_object_mut) else { continue };
        state.entry("apiVersion").or_insert(json!(""));
        drop_empty(state, &["configs"]);
        let workloads = state.get_mut("workloads").and_then(Value::as_object_mut);
        for (_, workload) in workloads.into_iter().flatten() {
            clean(workload);
        }
    }
    for (_, agent) in sent.get_mut("agents").and_then(Value::as_object_mut).into_iter().flatten() {
        drop_empty(agent.as_object_mut().unwrap(), &["tags"]);
    }
    sent
}

fn clean(workload: &mut Value) {
    let workload = workload.as_object_mut().unwrap();
    if let Some(access) = workload.get_mut("controlInterfaceAccess").and_then(Value::as_object_mut)
    {
        drop_empty(access, &["allowRules", "denyRules"]);
    }
    drop_empty(workload, &["tags", "dependencies", "configs", "files", "controlInterfaceAccess"]);
}

fn drop_empty(map: &mut Map<String, Value>, names: &[&str]) {
    for name in names {
        if map.get(*name).is_some_and(|value| *value == json!({}) || *value == json!([])) {
            map.shift_remove(*name);
        }
    }
}

/// The desired state as it is kept; none if it breaks a rule.
fn settle(proposed: Option<&Value>) -> Option<Value> {
    let Some(proposed) = proposed else {
        return Some(json!({"apiVersion": "v1", "workloads": {}}));
    };
    let mut desired = proposed.clone();
    let state = desired.as_object_mut()?;
    state.entry("workloads").or_insert(json!({}));
    for (_, workload) in state["workloads"].as_object_mut()? {
        if !workload.is_object() {
            return None;
        }
        clean(workload);
        workload.as_object_mut()?.entry("restartPolicy").or_insert(json!("NEVER"));
    }
    drop_empty(state, &["configs"]);
    is_valid(&desired).then_some(desired)
}

fn is_valid(desired: &Value) -> bool {
    let version = desired.get("apiVersion").and_then(Value::as_str);
    let empty = Map::new();
    let configs = desired.get("configs").and_then(Value::as_object).unwrap_or(&empty);
    let workloads = desired["workloads"].as_object().unwrap();
    [Some("v1"), Some("v0.1")].contains(&version)
        && configs.iter().all(|(key, item)| holds_strings(item) && has_good_keys(key, item))
        && workloads.iter().all(|(name, own)| is_name(name) && is_valid_workload(own, configs))
        && !workloads.keys().any(|name| waits_for_itself(name, workloads))
}

fn is_name(name: &str) -> bool {
    name.len() <= 63 && is_word(name)
}

fn is_word(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.chars().all(fine)
}

fn holds_strings(item: &Value) -> bool {
    match item {
        Value::String(_) => true,
        Value::Array(values) => values.iter().all(holds_strings),
        Value::Object(map) => map.values().all(holds_strings),
        _ => false,
    }
}

/// As in the reference, a sequence in a sequence is not looked into.
fn has_good_keys(key: &str, item: &Value) -> bool {
    let fine = |map: &Map<String, Value>| map.iter().all(|(key, item)| has_good_keys(key, item));
    is_name(key)
        && match item {
            Value::Object(map) => fine(map),
            Value::Array(values) => values.iter().filter_map(Value::as_object).all(fine),
            _ => true,
        }
}

fn is_valid_workload(workload: &Value, configs: &Map<String, Value>) -> bool {
    let strings = ["agent", "runtime", "runtimeConfig"];
    let agent = workload.get("agent").and_then(Value::as_str).unwrap_or_default();
    let references = workload.get("configs").and_then(Value::as_object).into_iter().flatten();
    let files = workload.get("files").and_then(Value::as_array).into_iter().flatten();
    strings.iter().all(|name| workload.get(*name).is_some_and(Value::is_string))
        && (agent.is_empty() || is_name(agent))
        && workload.get("files").is_none_or(Value::is_array)
        && references.into_iter().all(|(alias, key)| {
            let key = key.as_str().unwrap();
            is_name(alias) && is_name(key) && configs.contains_key(key)
        })
        && files
            .into_iter()
            .all(|file| file.get("data").is_some() || file.get("binaryData").is_some())
        && has_valid_rules(workload)
}

pub(crate) fn has_valid_rules(workload: &Value) -> bool {
    let lists = workload.get("controlInterfaceAccess").and_then(Value::as_object);
    let lists = lists.into_iter().flatten().map(|(_, list)| list);
    let fine = |rule: &Value| {
        let texts = |name: &str| -> Vec<&str> {
            let texts = rule.get(name).and_then(Value::as_array).into_iter().flatten();
            texts.map(|text| text.as_str().unwrap()).collect()
        };
        rule.is_object()
            && texts("filterMasks").iter().all(|mask| {
                !mask.is_empty() && mask.split('.').all(|part| part == "*" || is_word(part))
            })
            && texts("workloadNames").iter().all(|name| is_name(&name.replacen('*', "x", 1)))
    };
    lists.into_iter().all(|list| list.as_array().is_some_and(|list| list.iter().all(fine)))
}

fn waits_for_itself(name: &str, workloads: &Map<String, Value>) -> bool {
    let dependencies = |name: &str| -> Vec<String> {
        let map = workloads.get(name).and_then(|own| own.get("dependencies"));
        map.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let mut reached = BTreeSet::new();
    let mut open = dependencies(name);
    while let Some(next) = open.pop() {
        if reached.insert(next.clone()) {
            open.extend(dependencies(&next));
        }
    }
    reached.contains(name)
}

/// An update makes no agent and removes none; those that it lists get the tags that it gives.
fn take_tags(made: &mut Value, wanted: Option<&Value>) {
    let Some(wanted) = wanted else { return };
    for (name, agent) in made["agents"].as_object_mut().unwrap() {
        let Some(wanted) = wanted.get(name) else { continue };
        let agent = agent.as_object_mut().unwrap();
        let tags = wanted.get("tags").filter(|tags| **tags != json!({}));
        if tags == agent.get("tags").filter(|tags| **tags != json!({})) {
            continue;
        }
        agent.shift_remove("tags");
        if let Some(tags) = tags {
            agent.insert("tags".to_owned(), tags.clone());
        }
    }
}

/// Which workloads differ, and what that does to the instances and their execution states.
pub(crate) fn follow(old: &Value, mut made: Value, linked: bool) -> Made {
    let (olds, news) = (workloads(old), workloads(&made));
    let names: BTreeSet<_> = olds.keys().chain(news.keys()).copied().collect();
    let (mut started, mut ended, mut changed) = (Vec::new(), Vec::new(), BTreeSet::new());
    for name in names {
        let (was, is) = (olds.get(name), news.get(name));
        if was == is {
            continue;
        }
        changed.insert(name.to_owned());
        if without_configs(was) != without_configs(is) {
            ended.extend(was.map(|own| Instance::of(name, own)));
            started.extend(is.map(|own| Instance::of(name, own)));
        }
    }
    let mut states = made["workloadStates"].take();
    for instance in &ended {
        let stays = started.contains(instance) || (linked && !instance.agent.is_empty());
        if !stays {
            forget(&mut states, &instance.path());
        }
    }
    for instance in &started {
        if tree::at(&states, &instance.path()).is_none() {
            let (state, sub) = match instance.agent.as_str() {
                "" => ("NotScheduled", "NotScheduled"),
                _ => ("Pending", "Initial"),
            };
            let state = json!({"state": state, "subState": sub, "additionalInfo": ""});
            tree::put(&mut states, &instance.path(), state);
        }
    }
    made["workloadStates"] = states;
    Made { state: made, changed, started, ended }
}

fn without_configs(workload: Option<&&Value>) -> Option<Value> {
    let mut workload = (*workload?).clone();
    workload.as_object_mut().unwrap().shift_remove("configs");
    Some(workload)
}

/// Removes an entry, and every parent that is empty then.
pub(crate) fn forget(states: &mut Value, path: &[String]) {
    for len in (1..=path.len()).rev() {
        let here = tree::at(states, &path[..len]);
        if len == path.len() || here.is_some_and(|node| *node == json!({})) {
            tree::remove(states, &path[..len]);
        }
    }
}

/// Whether a workload of this name with these rules may make this of the state
/// (docs/differences.md#16-no-rights-for-oneself). It
/// may end itself, but not change its own rules.
pub(crate) fn may_change_access(old: &Value, made: &Made, name: &str, rules: &Rules) -> bool {
    let (olds, news) = (workloads(old), workloads(&made.state));
    made.changed.iter().all(|changed| {
        let of = |all: &BTreeMap<&str, &Value>| {
            Some(all.get(changed.as_str())?.get("controlInterfaceAccess")?.clone())
        };
        let mask = format!("desiredState.workloads.{changed}.controlInterfaceAccess");
        let own = changed == name && news.contains_key(name);
        of(&olds) == of(&news) || (!own && rules.may_write(&[mask]))
    })
}
