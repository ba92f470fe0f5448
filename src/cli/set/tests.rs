use super::*;
use crate::state::{Tree, convert};

fn request(changes: &[&str], yaml: bool) -> Result<(Tree, Vec<String>), String> {
    let changes: Vec<_> = changes.iter().map(|change| (*change).to_owned()).collect();
    let request = from_changes(&changes, yaml).map_err(|error| error.to_string())?;
    let state = convert::from_pb(&request.new_state.unwrap()).unwrap();
    Ok((state, request.update_mask))
}

fn refusal(change: &str) -> String {
    request(&[change], false).unwrap_err()
}

#[test]
fn changes_become_a_state_and_the_masks_of_it() {
    let changes = [
        "desiredState.workloads.db.restartPolicy=ON_FAILURE",
        "desiredState.workloads.db.tags.owner=a=b-",
        "desiredState.workloads.db.tags.old-",
        "desiredState.configs.mode=",
        "agents.agent_A.tags.zone=5",
    ];
    let (state, masks) = request(&changes, false).unwrap();
    let expected = [
        (&["desiredState", "workloads", "db", "restartPolicy"][..], "ON_FAILURE"),
        (&["desiredState", "workloads", "db", "tags", "owner"], "a=b-"),
        (&["desiredState", "configs", "mode"], ""),
        // Not set: protobuf has an empty text for it, and no mask names it.
        (&["desiredState", "apiVersion"], ""),
        (&["agents", "agent_A", "tags", "zone"], "5"),
    ];
    for (path, value) in expected {
        assert_eq!(state.get(path), Some(&Node::text(value)), "{path:?}");
    }
    assert_eq!(state.leaves(), expected.len());
    let paths = [
        "desiredState.workloads.db.restartPolicy",
        "desiredState.workloads.db.tags.owner",
        "desiredState.workloads.db.tags.old",
        "desiredState.configs.mode",
        "agents.agent_A.tags.zone",
    ];
    assert_eq!(masks, paths);
}

#[test]
fn yaml_value_may_be_a_mapping_or_a_sequence() {
    let changes = [
        "desiredState.configs.node={name: a, hosts: [h1, h2]}",
        "desiredState.configs.json={\"a\": \"5\"}",
        "desiredState.workloads.db.tags={k: v}",
    ];
    let (state, _) = request(&changes, true).unwrap();
    let hosts = state.get(&["desiredState", "configs", "node", "hosts"]);
    assert_eq!(hosts, Some(&Node::seq([Node::text("h1"), Node::text("h2")])));
    let number = state.get(&["desiredState", "configs", "json", "a"]);
    assert_eq!(number, Some(&Node::text("5")));
    let tag = state.get(&["desiredState", "workloads", "db", "tags", "k"]);
    assert_eq!(tag, Some(&Node::text("v")));

    let text = request(&["desiredState.configs.node={a: b}"], false).unwrap();
    let plain = text.0.get(&["desiredState", "configs", "node"]);
    assert_eq!(plain, Some(&Node::text("{a: b}")));
}

#[test]
fn what_an_update_would_lose_or_misunderstand_is_refused() {
    let expected = [
        ("mode", "mode: PATH=VALUE belongs here, PATH= for an empty text, or PATH- to remove"),
        (
            "workloadStates.a=b",
            "workloadStates.a: a path begins with desiredState or agents.NAME.tags",
        ),
        ("agents.a-", "agents.a: a path begins with desiredState or agents.NAME.tags"),
        (
            "desiredState.workloads.*.agent=x",
            "desiredState.workloads.*.agent: an update cannot use `*`; give each path",
        ),
        (
            "desiredState.workload.x-",
            "desiredState.workload.x: desiredState has no field `workload`, only apiVersion, \
             configs, workloads",
        ),
        (
            "desiredState.workloads.x.restartPolicy=never",
            "desiredState.workloads.x.restartPolicy: `never` is not one of NEVER, ON_FAILURE, ALWAYS",
        ),
        (
            "desiredState.workloads.x.tags=a",
            "desiredState.workloads.x.tags: a mapping belongs here; give it with --yaml",
        ),
        (
            "desiredState.workloads.x.agent.y=a",
            "desiredState.workloads.x.agent.y: desiredState.workloads.x.agent is a text",
        ),
        (
            "desiredState.workloads.x.files.0=a",
            "desiredState.workloads.x.files.0: desiredState.workloads.x.files can be set as a \
             whole only",
        ),
    ];
    for (change, message) in expected {
        assert_eq!(refusal(change), message);
    }
    let overlap = request(&["desiredState.configs.a=b", "desiredState.configs-"], false);
    assert_eq!(
        overlap.unwrap_err(),
        "desiredState.configs.a: is changed by desiredState.configs already; give one of the two"
    );
    let yaml = request(&["desiredState.configs.a=5"], true).unwrap_err();
    assert!(yaml.contains("which is a text in quotes only"), "{yaml}");
}
