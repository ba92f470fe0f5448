//! Start and stop conditions between workloads.
//!
//! The state goes in; the permission to start or to stop a workload comes out. All functions are pure.
//! A server of Ankaios has rules of its own: any state of a name counts, and it tells with a deletion what that
//! waits for.

use std::collections::BTreeMap;

use fifogate::{
    internal::state::{EFFECTIVE_STATE, WORKLOAD_STATES},
    state::{Instance, Map, Node, Tree},
};

/// Whether all dependencies of a workload meet their conditions (`ADD_COND_*`). A missing one meets
/// none.
pub(super) fn may_start(tree: &Tree, workload: &Node) -> bool {
    let dependencies = workload.get("dependencies").and_then(Node::as_map).into_iter().flatten();
    dependencies.into_iter().all(|(name, condition)| {
        let node = tree.get(&[EFFECTIVE_STATE, "workloads", name.as_str()]);
        // Only the wanted instance counts, not a former one of the same name.
        let instance = node.map(|node| Instance::of(name.as_str(), node));
        let states = instance.as_ref().and_then(|instance| states_of(tree, instance));
        states.is_some_and(|states| fulfils(states, condition.as_str().unwrap_or_default()))
    })
}

/// As [`may_start`], by the rules of a server: one known state of each name is enough.
pub(super) fn may_start_by_name(tree: &Tree, workload: &Node) -> bool {
    let dependencies = workload.get("dependencies").and_then(Node::as_map).into_iter().flatten();
    dependencies.into_iter().all(|(name, condition)| {
        let condition = condition.as_str().unwrap_or_default();
        states_by_name(tree, name.as_str()).any(|state| fulfils(state, condition))
    })
}

fn states_by_name<'t>(tree: &'t Tree, name: &str) -> impl Iterator<Item = (&'t str, &'t str)> {
    let agents = tree.entries(&[WORKLOAD_STATES]).iter();
    let ids = agents
        .filter_map(move |(_, workloads)| workloads.get(name))
        .flat_map(|ids| ids.entries().iter());
    ids.filter_map(|(_, state)| Some((state.str_at("state")?, state.str_at("subState")?)))
}

/// What all states of a workload have to be before another one is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeleteCondition {
    /// It runs.
    Running,
    /// It neither runs nor is about to.
    NotPendingNorRunning,
}

/// The conditions for the end of each deleted workload, by the names of both.
pub(crate) type DeleteConditions = BTreeMap<String, BTreeMap<String, DeleteCondition>>;

/// What the end of a workload waits for.
#[derive(Clone, Debug)]
pub(super) enum StopCondition {
    /// These instances, in need of it, have ended.
    Dependents(Vec<Instance>),
    /// The states of these names fulfil their conditions.
    Names(BTreeMap<String, DeleteCondition>),
}

impl StopCondition {
    /// Whether the workload may end now.
    pub(super) fn is_met(&self, tree: &Tree) -> bool {
        match self {
            Self::Dependents(dependents) => may_stop(tree, dependents),
            Self::Names(names) => names.iter().all(|(name, condition)| {
                let waits = ("Pending", "WaitingToStart");
                states_by_name(tree, name).all(|state| state == waits || condition.allows(state))
            }),
        }
    }
}

impl DeleteCondition {
    fn allows(self, (state, _): (&str, &str)) -> bool {
        match self {
            Self::Running => state == "Running",
            Self::NotPendingNorRunning => !matches!(state, "Pending" | "Running"),
        }
    }
}

fn fulfils((state, sub_state): (&str, &str), condition: &str) -> bool {
    match condition {
        "ADD_COND_RUNNING" => state == "Running",
        "ADD_COND_SUCCEEDED" => state == "Succeeded",
        // One that is paused or not seen may go on.
        "ADD_COND_FAILED" => state == "Failed" && sub_state == "ExecFailed",
        _ => false,
    }
}

/// The instances in need of this workload as running: they end before it.
pub(super) fn dependents(tree: &Tree, name: &str) -> Vec<Instance> {
    let needs = |workload: &Node| {
        let condition = workload.get("dependencies").and_then(|all| all.str_at(name));
        condition == Some("ADD_COND_RUNNING")
    };
    let all = workloads(tree);
    let needing = all.iter().filter(|(_, workload)| needs(workload));
    needing.map(|(name, workload)| Instance::of(name.as_str(), workload)).collect()
}

/// Whether no dependent instance is still ending. A dependent about to stay is not waited for: it would
/// be for ever.
fn may_stop(tree: &Tree, dependents: &[Instance]) -> bool {
    dependents.iter().all(|own| {
        let node = tree.get(&[EFFECTIVE_STATE, "workloads", &own.workload]);
        let stays = node.is_some_and(|node| Instance::of(&own.workload, node) == *own);
        let state = state_of(tree, own);
        stays || !matches!(state, Some("Pending" | "Running" | "Stopping"))
    })
}

fn state_of<'t>(tree: &'t Tree, instance: &Instance) -> Option<&'t str> {
    states_of(tree, instance).map(|(state, _)| state)
}

fn states_of<'t>(tree: &'t Tree, instance: &Instance) -> Option<(&'t str, &'t str)> {
    let path = [WORKLOAD_STATES, &instance.agent, &instance.workload, &instance.id];
    let node = tree.get(&path)?;
    Some((node.str_at("state")?, node.str_at("subState").unwrap_or_default()))
}

fn workloads(tree: &Tree) -> Map<Node> {
    let all = tree.get(&[EFFECTIVE_STATE, "workloads"]).and_then(Node::as_map);
    all.cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use fifogate::internal::agent_update::set_states;

    use super::*;

    fn tree(text: &str, states: &[(&str, &str)]) -> Tree {
        let tree = fifogate::manifest::parse("t.yaml", text).unwrap().updated.tree;
        let (effective, _) = crate::render::effective(
            &Tree::initial(),
            &crate::render::ConfigIndex::default(),
            &tree,
        );
        let tree = tree.with(EFFECTIVE_STATE, Some(effective));
        let states: Vec<_> = states
            .iter()
            .map(|(name, state)| {
                let node = tree.get(&[EFFECTIVE_STATE, "workloads", name]);
                let sub_state = if *state == "Failed" { "ExecFailed" } else { "Ok" };
                let state = [("state", Node::text(state)), ("subState", Node::text(sub_state))];
                let state = Node::map(state);
                (Instance::of(name, node.unwrap()), Some(state))
            })
            .collect();
        set_states(&tree, &states)
    }

    const TEXT: &str = "apiVersion: v1\nworkloads:\n  \
        db: {agent: a, runtime: process, runtimeConfig: d}\n  \
        web: {agent: a, runtime: process, runtimeConfig: w, dependencies: {db: CONDITION}}\n";

    #[test]
    fn each_condition_waits_for_its_state_and_no_other() {
        for (condition, fulfilled) in [
            ("ADD_COND_RUNNING", "Running"),
            ("ADD_COND_SUCCEEDED", "Succeeded"),
            ("ADD_COND_FAILED", "Failed"),
        ] {
            let text = TEXT.replace("CONDITION", condition);
            for state in ["Pending", "Running", "Succeeded", "Failed", "Stopping"] {
                let tree = tree(&text, &[("db", state)]);
                let web = tree.get(&[EFFECTIVE_STATE, "workloads", "web"]).unwrap();
                assert_eq!(may_start(&tree, web), state == fulfilled, "{condition} {state}");
            }
            let paused =
                Node::map([("state", Node::text("Failed")), ("subState", Node::text("Unknown"))]);
            let running = tree(&text, &[("db", "Running")]);
            let db = running.get(&[EFFECTIVE_STATE, "workloads", "db"]).unwrap();
            let paused = set_states(&running, &[(Instance::of("db", db), Some(paused))]);
            let web = paused.get(&[EFFECTIVE_STATE, "workloads", "web"]).unwrap();
            assert!(!may_start(&paused, web), "{condition}: it may go on");
            let none = tree(&text, &[]);
            assert!(!may_start(&none, none.get(&[EFFECTIVE_STATE, "workloads", "web"]).unwrap()));
        }
    }

    #[test]
    fn who_ends_is_waited_for_and_who_stays_is_not() {
        let text = TEXT.replace("CONDITION", "ADD_COND_RUNNING");
        let before = tree(&text, &[("db", "Running"), ("web", "Running")]);
        let needing = dependents(&before, "db");
        assert_eq!(needing.len(), 1);
        assert!(may_stop(&before, &needing), "web stays");
        let gone = tree("apiVersion: v1", &[]);
        let ending = |state: &str| {
            let state = Node::map([("state", Node::text(state))]);
            set_states(&gone, &[(needing[0].clone(), Some(state))])
        };
        assert!(!may_stop(&ending("Running"), &needing));
        assert!(!may_stop(&ending("Stopping"), &needing));
        assert!(may_stop(&ending("Succeeded"), &needing));
        assert!(may_stop(&gone, &needing));
    }
}
