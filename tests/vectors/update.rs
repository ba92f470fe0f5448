//! `update.jsonl`: what an update makes of a desired state, or why it makes nothing.

use fifogate::{
    internal::state::{AGENTS, DESIRED_STATE, propose},
    pb::ank_base as pb,
    state::{
        Mask, Node, Tree, convert,
        update::{self, UpdateError},
    },
};
use serde_json::Value;

use super::rows::{Count, has_quirk, message, name, rows, same, strings};

/// Rows that are decided otherwise, by name, as their data alone does not say so.
const OTHERWISE: [(&str, &str); 3] = [
    ("trim/empty-mask", "11"),
    ("empty/agents-without-tags", "11"),
    ("other/workload-states-partial", "11"),
];

fn decision(row: &Value) -> Option<&'static str> {
    let quirks = [
        "runtimeConfig-trimmed",
        "effective-state-required",
        "partial-agent-tags",
        "agent-name-length",
    ];
    if quirks.iter().any(|quirk| has_quirk(row, quirk)) {
        return Some("11");
    }
    let masks = strings(&row["masks"]);
    if masks.iter().any(|mask| mask.split('.').any(|segment| segment == "*")) {
        return Some("11");
    }
    OTHERWISE.iter().find(|(own, _)| *own == name(row)).map(|(_, decision)| *decision)
}

fn has_template(row: &Value) -> bool {
    let holds = |state: &Value| state.to_string().contains("{{");
    holds(&row["old"]) || holds(&row["new_state"])
}

fn masks(row: &Value) -> Vec<Mask> {
    strings(&row["masks"]).iter().map(|mask| Mask::parse(mask)).collect()
}

fn apply(row: &Value) -> Result<update::Updated, String> {
    let old = convert::from_pb(&message(&row["old_pb"]).unwrap()).unwrap();
    let Some(new_state) = message(&row["new_state_pb"]) else { return Err("no new state".into()) };
    let new_state = match convert::new_state_from_pb(&new_state) {
        Ok(tree) => tree,
        Err(error) => {
            return Err(
                UpdateError::Invalid(format!("Failed to parse new state, '{error}'")).to_string()
            );
        }
    };
    update::apply(&old, &new_state, &masks(row)).map_err(|error| error.to_string())
}

#[test]
#[allow(clippy::print_stdout)] // the counts are part of what the test is for
fn updates_are_as_recorded() {
    let mut count = Count::default();
    let mut templates = 0;
    for row in rows("update") {
        if has_template(&row) {
            templates += 1;
            continue;
        }
        match decision(&row) {
            None => count.row(&row, check(&row)),
            Some(decision) => count.otherwise(&row, decision, check_otherwise(&row)),
        }
    }
    println!(
        "update.jsonl: {templates} rows hold templates (docs/differences.md#12-templates-belong-to-the-agent)"
    );
    count.finish("update.jsonl");
}

fn check(row: &Value) -> Result<(), String> {
    let ours = apply(row);
    let error = row["error"].as_str().or(row["apply_error"].as_str());
    if let Some(error) = error {
        return match ours {
            Ok(_) => Err(format!("accepted, but: {error}")),
            Err(own) => same_text(&own, error),
        };
    }
    let ours = ours.map_err(|error| format!("refused: {error}"))?;
    let theirs = message(&row["result_pb"]).unwrap();
    let desired = |state: &pb::CompleteState| {
        let tree = convert::from_pb(state).unwrap();
        tree.get(&[DESIRED_STATE]).cloned()
    };
    same("desired", &ours.tree.get(&[DESIRED_STATE]).cloned(), &desired(&theirs))?;
    let (ended, started) = ours.instances();
    let names = |instances: Vec<fifogate::state::Instance>| {
        instances.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    same("added", &names(started), &strings(&row["apply_added"]))?;
    same("deleted", &names(ended), &strings(&row["apply_deleted"]))?;
    agents(row)
}

/// The result that docs/differences.md#11-updates gives for the row.
fn check_otherwise(row: &Value) -> Result<(), String> {
    let ours = apply(row);
    if strings(&row["masks"]).iter().any(|mask| mask.contains('*')) {
        let text = ours.err().ok_or("a wildcard was accepted")?;
        return text.contains("Wildcards are not allowed").then_some(()).ok_or(text);
    }
    if has_quirk(row, "agent-name-length") {
        let text = ours.err().ok_or("a long agent name was accepted")?;
        return text.contains("Unsupported agent name").then_some(()).ok_or(text);
    }
    let ours = ours.map_err(|error| format!("refused: {error}"))?;
    if has_quirk(row, "runtimeConfig-trimmed") || name(row).starts_with("trim/") {
        return only_white_space_differs(row, &ours);
    }
    let new_state = message(&row["new_state_pb"]).unwrap();
    if strings(&row["masks"]).is_empty() {
        let wanted = convert::new_state_from_pb(&new_state).unwrap();
        let wanted = update::apply(&Tree::initial(), &wanted, &[]).unwrap();
        return same(
            "desired",
            &ours.tree.get(&[DESIRED_STATE]),
            &wanted.tree.get(&[DESIRED_STATE]),
        );
    }
    same("changes", &ours.changes.len(), &0)
}

/// Configurations are kept as given; their ids are those of the trimmed ones.
fn only_white_space_differs(row: &Value, ours: &update::Updated) -> Result<(), String> {
    let theirs = convert::from_pb(&message(&row["result_pb"]).unwrap()).unwrap();
    let trimmed = |tree: &Tree| {
        let mut state = convert::to_pb(tree, convert::Fill::Sparse).desired_state.unwrap();
        for workload in state.workloads.iter_mut().flat_map(|map| map.workloads.values_mut()) {
            workload.runtime_config =
                workload.runtime_config.take().map(|text| text.trim().to_owned());
        }
        state
    };
    same("desired", &trimmed(&ours.tree), &trimmed(&theirs))?;
    for instance in ours.instances().1 {
        let workload = ours.tree.get(&[DESIRED_STATE, "workloads", &instance.workload]).unwrap();
        let text = workload.str_at("runtimeConfig").unwrap().trim().to_owned();
        let trimmed = Node::map([("runtimeConfig", Node::text(&text))]);
        same("id", &instance.id, &fifogate::state::Instance::of("", &trimmed).id)?;
    }
    Ok(())
}

/// The agents as they are handed to the update of the tags.
fn agents(row: &Value) -> Result<(), String> {
    let old = convert::from_pb(&message(&row["old_pb"]).unwrap()).unwrap();
    let new_state = convert::new_state_from_pb(&message(&row["new_state_pb"]).unwrap()).unwrap();
    let root = propose(&old, &new_state, &masks(row)).unwrap();
    let empty = Node::map([] as [(&str, Node); 0]);
    let agents = root.get(AGENTS).cloned().unwrap_or(empty);
    // The recorded status is what the reference's own type makes of one that it ignores.
    let tags = |tree: &Tree| {
        let agents = tree.entries(&[AGENTS]).iter();
        agents.map(|(name, agent)| (name.clone(), agent.get("tags").cloned())).collect::<Vec<_>>()
    };
    let ours = Tree::default().with(AGENTS, Some(agents));
    let theirs = convert::from_pb(&message(&row["result_pb"]).unwrap()).unwrap();
    same("agents", &tags(&ours), &tags(&theirs))
}

/// Texts are the same, but for the part that quotes the reference's parser: there ours says what is
/// wrong in its own words, and names the same field.
fn same_text(ours: &str, theirs: &str) -> Result<(), String> {
    let parser = "Could not parse into CompleteState: '";
    match (ours.split_once(parser), theirs.split_once(parser)) {
        (Some((own, why)), Some((other, quoted))) if own == other => {
            let field =
                quoted.split_once("missing field `").and_then(|(_, field)| field.split('`').next());
            match field {
                Some(field) if !why.contains(&format!("missing field `{field}`")) => {
                    Err(format!("{ours} does not name {field}"))
                }
                _ => Ok(()),
            }
        }
        _ => same("text", &ours, &theirs),
    }
}
