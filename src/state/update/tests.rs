use super::*;
use crate::state::{AGENTS, DESIRED_STATE, Node};

fn workload(tags: &[(&str, &str)]) -> Node {
    let mut fields = vec![
        ("agent", Node::text("agent_A")),
        ("runtime", Node::text("podman")),
        ("runtimeConfig", Node::text("image: x")),
        ("restartPolicy", Node::text("NEVER")),
    ];
    if !tags.is_empty() {
        let tags = tags.iter().map(|(key, value)| (*key, Node::text(value)));
        fields.push(("tags", Node::map(tags)));
    }
    Node::map(fields)
}

fn desired(workloads: &[(&str, Node)]) -> Tree {
    let workloads = Node::map(workloads.iter().cloned());
    let state = Node::map([("apiVersion", Node::text("v1")), ("workloads", workloads)]);
    Tree::initial().with(DESIRED_STATE, Some(state))
}

fn masks(texts: &[&str]) -> Vec<Mask> {
    texts.iter().map(|text| Mask::parse(text)).collect()
}

#[test]
fn untouched_workloads_stay_where_they_are_in_memory() {
    let many: Vec<_> = (0..100).map(|n| (format!("w{n:03}"), workload(&[]))).collect();
    let many: Vec<_> = many.iter().map(|(name, node)| (name.as_str(), node.clone())).collect();
    let current = desired(&many);
    let same = desired(&many);
    let updated = apply(&current, &same, &masks(&["desiredState"])).unwrap();
    assert!(updated.changes.is_empty());
    let workloads = |tree: &Tree| {
        tree.get(&[DESIRED_STATE, "workloads"]).and_then(Node::as_map).cloned().unwrap()
    };
    assert!(workloads(&current).ptr_eq(&workloads(&updated.tree)));
}

#[test]
fn tag_of_an_existing_workload_without_tags_is_set_and_removed_and_leaves_nothing() {
    let current = desired(&[("w", workload(&[]))]);
    let mask = masks(&["desiredState.workloads.w.tags.k"]);
    let with = apply(&current, &desired(&[("w", workload(&[("k", "v")]))]), &mask).unwrap().tree;
    let tag = with.get(&[DESIRED_STATE, "workloads", "w", "tags", "k"]);
    assert_eq!(tag.and_then(Node::as_str), Some("v"));
    let without = apply(&with, &desired(&[]), &mask).unwrap().tree;
    assert_eq!(without, current);
    let removed_again = apply(&without, &desired(&[]), &mask).unwrap();
    assert!(removed_again.changes.is_empty());
}

#[test]
fn wildcard_in_an_update_mask_is_refused_with_its_name() {
    let error = apply(&desired(&[]), &desired(&[]), &masks(&["desiredState.workloads.*"]));
    let text = error.unwrap_err().to_string();
    let expected =
        "Update rejected: 'Wildcards are not allowed in update mask desiredState.workloads.*'";
    assert_eq!(text, expected);
}

fn with_agent(tags: &[(&str, &str)]) -> Tree {
    let tags = Node::map(tags.iter().map(|(key, value)| (*key, Node::text(value))));
    let agent = Node::map([("tags", tags)]);
    desired(&[]).with(AGENTS, Some(Node::map([("A", agent)])))
}

#[test]
fn agent_tags_are_set_and_removed_one_by_one_and_only_of_known_agents() {
    let current = with_agent(&[("a", "1")]);
    let tags = |tree: &Tree| {
        tree.entries(&[AGENTS, "A", "tags"])
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    let set = apply(&current, &with_agent(&[("b", "2")]), &masks(&["agents.A.tags.b"])).unwrap();
    assert_eq!(tags(&set.tree), ["a=1", "b=2"]);
    let gone = apply(&set.tree, &desired(&[]), &masks(&["agents.A.tags.a"])).unwrap();
    assert_eq!(tags(&gone.tree), ["b=2"]);
    let none = apply(&gone.tree, &desired(&[]), &masks(&["agents.A.tags", "agents.A"])).unwrap();
    assert_eq!(tags(&none.tree), ["b=2"], "an agent is not the update's to remove");
    let other = apply(&desired(&[]), &current, &masks(&["agents"])).unwrap();
    assert_eq!(other.tree, desired(&[]));
}

#[test]
fn long_chain_of_dependencies_is_walked_without_recursion_and_its_cycle_found() {
    let named = |n: usize| format!("w{n}");
    let with_dependency = |on: String| {
        let mut fields = workload(&[]).as_map().cloned().unwrap();
        let dependency = Node::map([(on, Node::text("ADD_COND_RUNNING"))]);
        fields.insert("dependencies", dependency);
        Node::Map(fields)
    };
    let count = 20_000;
    let chain = |last: usize| {
        let workloads = (0..count).map(|n| (named(n), with_dependency(named(n + 1))));
        let mut workloads: Vec<_> = workloads.collect();
        workloads.push((named(count), with_dependency(named(last))));
        let state = [("apiVersion", Node::text("v1")), ("workloads", Node::map(workloads))];
        Tree::initial().with(DESIRED_STATE, Some(Node::map(state)))
    };
    let current = Tree::initial();
    assert!(apply(&current, &chain(count + 7), &[]).is_ok());
    assert!(matches!(apply(&current, &chain(5), &[]), Err(UpdateError::Cycle(_))));
}
