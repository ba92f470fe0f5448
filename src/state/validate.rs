//! Validation of a desired state, and its changes against the old one (docs/protocol.md#error-texts,
//! docs/protocol.md#names-and-versions, docs/protocol.md#rule-validation).
//!
//! A desired state goes in; its normal form and the changed workloads come out. Only differences from
//! the old state are visited, so a small update of a large state costs little. Unchanged values keep
//! their place in memory.

use std::collections::BTreeSet;

use super::{
    API_VERSION, Key, Map, Node, Tree, WorkloadChange, reuse::reuse, schema::Rule,
    tree::NO_ENTRIES, update::UpdateError,
};

mod fault;
mod rules;
mod shape;

#[cfg(feature = "cli")]
pub(crate) use fault::MAX_PATTERN;
pub(crate) use fault::{NameFault, RuleFault, ShapeFault};
pub(crate) use rules::check_access;
#[cfg(test)]
pub(crate) use shape::record as check_record;

/// Longest name of a workload, agent, config or alias.
pub(crate) const MAX_NAME: usize = 63;

/// The versions of a desired state; the last one is deprecated.
pub(crate) const API_VERSIONS: [&str; 2] = ["v1", "v0.1"];

/// The reference's text about an invalid name.
pub(crate) const NAME_RULE: &str = "Only a-z, A-Z, 0-9 chars, underscore (_), and hyphen (-) allowed. \
                         Maximum length is 63 characters.";

/// A valid desired state.
#[derive(Debug)]
pub(crate) struct ValidState {
    /// The desired state: defaults filled in, empty collections left out.
    pub desired: Node,
    /// The changed workloads, by name.
    pub changes: Vec<WorkloadChange>,
}

/// Checks `proposed` against the rules, given a valid `current`. Without `proposed`, nothing is
/// desired.
///
/// # Errors
/// The first broken rule, in the reference's order; workloads and configs by name.
pub(crate) fn validate(
    current: Option<&Node>,
    proposed: Option<Node>,
) -> Result<ValidState, UpdateError> {
    let proposed = proposed.or_else(|| Tree::initial().get(&[super::DESIRED_STATE]).cloned());
    let mut desired = proposed.as_ref().map(Node::entries).cloned().unwrap_or_default();
    let version = desired.get(API_VERSION).and_then(Node::as_str).ok_or_else(|| {
        UpdateError::Shape("missing field `apiVersion` in desiredState".to_owned())
    })?;

    // The shape before the version, as in docs/protocol.md#order-of-checks.
    let (workloads, changes) =
        workloads(part(current, "workloads"), part(proposed.as_ref(), "workloads"))?;
    let old_configs = part(current, "configs");
    let (configs, changed_configs) = configs(old_configs, part(proposed.as_ref(), "configs"))?;

    if !API_VERSIONS.contains(&version) {
        let text = format!("Unsupported API version. Received '{version}', expected 'v1'");
        return Err(UpdateError::Refused(text));
    }
    // The order of these checks is the reference's: it decides which error a client sees.
    for key in &changed_configs {
        if let Some(item) = configs.get(key.as_str()) {
            check_config_keys(key, item)?;
        }
    }
    let started = || changes.iter().filter_map(|change| Some((&change.name, change.new.as_ref()?)));
    for (_, workload) in started() {
        check_config_names(workload)?;
    }
    check_references(&workloads, &configs, started(), &changed_configs)?;
    for (name, workload) in started() {
        check_names(name, workload)?;
        let access = workload.get("controlInterfaceAccess");
        access.map_or(Ok(()), check_access).map_err(invalid)?;
    }
    check_cycles(&workloads, started().map(|(name, _)| name))?;

    put(&mut desired, "workloads", workloads);
    // An empty collection has no key (docs/protocol.md#fields).
    if configs.is_empty() {
        desired.remove("configs");
    } else {
        put(&mut desired, "configs", configs);
    }
    Ok(ValidState { desired: Node::Map(desired), changes })
}

// An update error has texts: they are all that its sender gets.

fn misshapen(fault: ShapeFault) -> UpdateError {
    UpdateError::Shape(fault.to_string())
}

fn invalid(fault: RuleFault) -> UpdateError {
    UpdateError::Invalid(fault.to_string())
}

/// Sets a part unless it is the same in memory: then the map keeps its shared nodes.
fn put(state: &mut Map<Node>, name: &str, part: Map<Node>) {
    let is_there = matches!(state.get(name), Some(Node::Map(own)) if own.ptr_eq(&part));
    if !is_there {
        state.insert(name, Node::Map(part));
    }
}

fn part<'a>(state: Option<&'a Node>, name: &str) -> &'a Map<Node> {
    state.and_then(|state| state.get(name)).map_or(&NO_ENTRIES, Node::entries)
}

/// The workloads of the new state, built upon the old ones, and the changed ones.
fn workloads(
    old: &Map<Node>,
    proposed: &Map<Node>,
) -> Result<(Map<Node>, Vec<WorkloadChange>), UpdateError> {
    // Collected first: a closure of `diff` cannot end the walk with an error.
    let mut changed = Vec::new();
    old.diff(proposed, |name, was, wanted| changed.push((name, was, wanted)));
    let mut all = old.clone();
    let mut changes = Vec::new();
    for (name, was, wanted) in changed {
        let new = wanted.map(|wanted| shape::workload(name, wanted)).transpose();
        let new = new.map_err(misshapen)?;
        // Normalising can undo a difference: an absent policy is `NEVER`.
        if was == new.as_ref() {
            continue;
        }
        match &new {
            Some(new) => all.insert(name.clone(), new.clone()),
            None => {
                all.remove(name.as_str());
            }
        }
        changes.push(WorkloadChange { name: name.clone(), old: was.cloned(), new });
    }
    Ok((all, changes))
}

/// The configs of the new state, with unchanged ones at their old place in memory, and the keys of the
/// changed ones.
fn configs(
    old: &Map<Node>,
    proposed: &Map<Node>,
) -> Result<(Map<Node>, BTreeSet<Key>), UpdateError> {
    // Equal configs go back to their old place first, so the comparison below skips them.
    let mut all = proposed.clone();
    reuse(old, &mut all);
    let mut changed = Vec::new();
    old.diff(&all, |key, was, wanted| {
        if was != wanted {
            changed.push((key.clone(), wanted));
        }
    });
    for (key, wanted) in &changed {
        if let Some(item) = wanted {
            shape::config(&format!("desiredState.configs.{key}"), item).map_err(misshapen)?;
        }
    }
    let changed = changed.into_iter().map(|(key, _)| key).collect();
    Ok((all, changed))
}

/// Whether `name` is 1 to 63 of `[A-Za-z0-9_-]`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && has_name_characters(name)
}

fn has_name_characters(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn check_config_keys(key: &Key, item: &Node) -> Result<(), UpdateError> {
    if !is_name(key.as_str()) {
        let text = format!("Unsupported config item key '{key}'. {NAME_RULE}");
        return Err(UpdateError::Refused(text));
    }
    match item {
        Node::Map(fields) => fields.iter().try_for_each(|(key, item)| check_config_keys(key, item)),
        // As in the reference, objects are looked into in a sequence, but not deeper sequences.
        Node::Seq(values) => values
            .iter()
            .filter_map(Node::as_map)
            .flatten()
            .try_for_each(|(key, item)| check_config_keys(key, item)),
        _ => Ok(()),
    }
}

fn check_config_names(workload: &Node) -> Result<(), UpdateError> {
    for (alias, key) in workload.get("configs").and_then(Node::as_map).into_iter().flatten() {
        let rule = Rule::ConfigReference;
        let checked = rule.check_key(alias.as_str());
        let checked = checked.and_then(|()| rule.check(key.as_str().unwrap_or_default()));
        checked.map_err(|fault| UpdateError::Refused(fault.to_string()))?;
    }
    Ok(())
}

/// Checks the references to configs. An unchanged workload can only miss a removed config.
fn check_references<'a>(
    workloads: &'a Map<Node>,
    configs: &Map<Node>,
    changed: impl Iterator<Item = (&'a Key, &'a Node)>,
    changed_configs: &BTreeSet<Key>,
) -> Result<(), UpdateError> {
    let missing = |workload: &Node| {
        let references = workload.get("configs").and_then(Node::as_map).into_iter().flatten();
        let mut keys = references.filter_map(|(_, key)| key.as_str());
        keys.find(|key| configs.get(key).is_none()).map(str::to_owned)
    };
    // Only a removed config can break a workload without a change.
    let removed = changed_configs.iter().any(|key| configs.get(key.as_str()).is_none());
    let all = removed.then(|| workloads.iter()).into_iter().flatten();
    match changed.chain(all).find_map(|(_, workload)| missing(workload)) {
        None => Ok(()),
        Some(key) => Err(UpdateError::Invalid(format!(
            "Workload references config key '{key}' that does not exist"
        ))),
    }
}

fn check_names(name: &Key, workload: &Node) -> Result<(), UpdateError> {
    if let Some(why) = workload_name_fault(name.as_str()) {
        return Err(UpdateError::Invalid(format!("Unsupported workload name '{name}'. {why}")));
    }
    let agent = workload.str_at("agent").unwrap_or_default();
    Rule::AgentName.check(agent).map_err(invalid)
}

/// The fault of a workload's name, in the reference's words.
#[must_use]
pub(crate) fn workload_name_fault(name: &str) -> Option<NameFault> {
    // In the order of the reference (docs/protocol.md#error-texts).
    if name.is_empty() {
        Some(NameFault::Empty)
    } else if !has_name_characters(name) {
        Some(NameFault::Characters)
    } else if name.len() > MAX_NAME {
        Some(NameFault::TooLong(name.len()))
    } else {
        None
    }
}

/// Finds cycles of dependencies. A new cycle leads through a changed workload, so the walk starts
/// there. It does not recurse, because a chain of dependencies may be as long as the state is large.
fn check_cycles<'a>(
    workloads: &'a Map<Node>,
    changed: impl Iterator<Item = &'a Key>,
) -> Result<(), UpdateError> {
    let dependencies = |name: &str| {
        let workload = workloads.get(name);
        let map = workload.and_then(|workload| workload.get("dependencies"));
        let names: Vec<&'a str> =
            map.and_then(Node::as_map).into_iter().flat_map(Map::keys).map(Key::as_str).collect();
        names.into_iter()
    };
    // For all starts together: a chain of dependencies below several of them is walked once.
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in changed {
        let mut way = vec![(start.as_str(), dependencies(start.as_str()))];
        let mut on_way = BTreeSet::from([start.as_str()]);
        while let Some((name, rest)) = way.last_mut() {
            let name = *name;
            match rest.next() {
                Some(next) if on_way.contains(next) => {
                    return Err(UpdateError::Cycle(next.to_owned()));
                }
                Some(next) if !done.contains(next) => {
                    on_way.insert(next);
                    way.push((next, dependencies(next)));
                }
                Some(_) => {}
                None => {
                    on_way.remove(name);
                    done.insert(name);
                    way.pop();
                }
            }
        }
    }
    Ok(())
}
