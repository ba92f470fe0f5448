//! What the page shows: the differences between two states, and the subscriptions of a status, as JSON.
//!
//! It has names, paths, execution states and figures. Contents of configs, of files and of a `runtimeConfig`
//! may be secret, so they are left out.

use std::collections::BTreeSet;

use fifogate::{
    internal::state::{
        AGENTS, ChangeSet, DESIRED_STATE, EFFECTIVE_STATE, MaskSet, WORKLOAD_STATES,
    },
    state::{Node, Tree},
};
use serde_json::{Map, Value, json};

use crate::model;

/// Most paths in one message, of each kind.
const MOST_PATHS: usize = 100;
/// Most bytes of a path.
const MOST_PATH: usize = 300;
/// Most subscriptions that are shown.
const MOST_SUBSCRIPTIONS: usize = 500;

/// The message for a page that shows `old`, of which nothing is shown at the `first`. `None` if it shows the
/// same for both.
pub(super) fn change(old: &Tree, new: &Tree, first: bool) -> Option<Value> {
    let mut names = BTreeSet::new();
    for change in model::workload_changes(old, new) {
        names.insert(change.name.to_string());
    }
    model::each_changed_state(old, new, |instance, _| {
        names.insert(instance.workload);
    });
    let workloads: Map<_, _> = names.into_iter().map(|name| row(new, name)).collect();
    let mut agents = Map::new();
    old.entries(&[AGENTS]).diff(new.entries(&[AGENTS]), |name, _, now| {
        agents.insert(name.to_string(), now.map_or(Value::Null, agent));
    });
    let paths = if first { Value::Null } else { paths(old, new) };
    let is_empty = workloads.is_empty() && agents.is_empty() && paths.is_null();
    (first || !is_empty).then(
        || json!({ "first": first, "workloads": workloads, "agents": agents, "paths": paths }),
    )
}

/// A workload as it is now, by its name; null if it is gone.
fn row(tree: &Tree, name: String) -> (String, Value) {
    let effective = tree.get(&[EFFECTIVE_STATE, "workloads", &name]);
    let desired = tree.get(&[DESIRED_STATE, "workloads", &name]);
    let mut instances = Vec::new();
    for (agent, _) in tree.entries(&[WORKLOAD_STATES]).iter() {
        for (id, own) in tree.entries(&[WORKLOAD_STATES, agent.as_ref(), &name]).iter() {
            let text = |field| own.str_at(field).unwrap_or_default();
            let state = format!("{}({})", text("state"), text("subState"));
            let agent = agent.as_str();
            instances.push(json!({ "agent": agent, "id": id.as_str(), "state": state }));
        }
    }
    let Some(workload) = effective.or(desired) else {
        let gone = instances.is_empty();
        let left =
            json!({ "agent": "", "runtime": "", "dependencies": [], "instances": instances });
        return (name, if gone { Value::Null } else { left });
    };
    let text = |field| workload.str_at(field).unwrap_or_default();
    let mut dependencies = Vec::new();
    for (name, condition) in
        workload.get("dependencies").map(Node::entries).into_iter().flat_map(|all| all.iter())
    {
        dependencies.push(json!([name.as_str(), condition.as_str()]));
    }
    let row = json!({
        "agent": text("agent"), "runtime": text("runtime"), "dependencies": dependencies,
        "instances": instances,
    });
    (name, row)
}

fn agent(agent: &Node) -> Value {
    let number = |name: &str| {
        let figure = agent.get("status")?.get(name)?;
        // Each is a mapping with one number of its own name.
        match figure.get(name).unwrap_or(figure) {
            Node::Uint(number) => Some(*number),
            _ => None,
        }
    };
    json!({ "cpu": number("cpuUsage"), "free": number("freeMemory") })
}

/// The paths that differ, by how; null if there is none. The effective state follows from the desired one, and
/// figures of agents change all the time.
fn paths(old: &Tree, new: &Tree) -> Value {
    let everything = MaskSet::parse([""; 0]);
    let Some(altered) = ChangeSet::between(old, new).altered(&everything) else {
        return Value::Null;
    };
    let told: Vec<Vec<_>> = [&altered.added, &altered.removed, &altered.updated]
        .map(|all| all.iter().map(String::as_str).filter(is_told).collect())
        .into();
    let count: usize = told.iter().map(Vec::len).sum();
    if count == 0 {
        return Value::Null;
    }
    let some = |place: usize| -> Vec<_> {
        told[place].iter().take(MOST_PATHS).map(|path| shortened(path)).collect()
    };
    json!({ "added": some(0), "removed": some(1), "updated": some(2), "count": count })
}

fn is_told(path: &&str) -> bool {
    let is_figure = path.starts_with(AGENTS) && path.contains(".status");
    !path.starts_with(EFFECTIVE_STATE) && !is_figure
}

fn shortened(text: &str) -> &str {
    let end = (0..=MOST_PATH.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// The subscriptions of a status; null if fifogate did not answer.
pub(super) fn subscriptions(status: Option<&Value>) -> Value {
    let Some(status) = status else { return Value::Null };
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for workload in list(status, "workloads") {
        for own in list(&workload, "subscriptions") {
            if all.len() == MOST_SUBSCRIPTIONS {
                break;
            }
            let masks = list(&own, "masks");
            let masks = masks.iter().filter_map(Value::as_str).take(MOST_PATHS).map(shortened);
            all.push(json!({
                "workload": workload["name"], "agent": workload["agent"],
                "masks": masks.collect::<Vec<_>>(), "sent": own["events_sent"],
                "merged": own["events_merged"], "behind": own["behind"],
                "queued": workload["queued_bytes"], "idle_ms": workload["reader_idle_ms"],
            }));
        }
    }
    json!({ "all": all, "count": status["totals"]["subscriptions"] })
}
