//! `apply` and `delete`: manifests and names become one update.

use std::collections::BTreeSet;

use fifogate::{
    internal::state::{API_VERSION, DESIRED_STATE, EFFECTIVE_STATE},
    manifest,
    pb::ank_base as pb,
    state::{
        Node, Tree,
        convert::{self, Fill},
    },
};
use serde_json::json;

use super::{
    args::{ApplyArgs, Deletable, DeleteArgs, Format},
    connect,
    outcome::carry_out,
    print::{document, put},
};
use crate::{
    cli::CliError,
    entries::{PARTS, are_same, mask, masks},
    model::{StateModel, Update},
};

pub(super) async fn apply(args: ApplyArgs) -> Result<(), CliError> {
    // Before the connection: a fault in a file touches nothing.
    let desired = read(&args)?;
    let masks = masks(&desired);
    if masks.is_empty() {
        return Err(CliError::Unusable("the manifests have no workload and no config".to_owned()));
    }
    let mut client = connect(&args.update.connect).await?;
    let wanted = if args.delete { Tree::default() } else { desired };
    let new_state = convert::to_pb(&wanted, Fill::Sparse);
    if args.dry_run {
        let current = client.read(&[DESIRED_STATE, EFFECTIVE_STATE]).await?;
        client.goodbye().await;
        let restarted = replaced(&current, new_state, &masks)?;
        return put(&forecast(&current, &wanted, (&masks, &restarted), args.update.output)?);
    }
    carry_out(client, &args.update, (new_state, masks)).await
}

/// The desired state of all manifests together.
fn read(args: &ApplyArgs) -> Result<Tree, CliError> {
    let mut all = Tree::default();
    let mut version = None;
    let mut parts = PARTS.map(|(part, _)| (part, fifogate::state::Map::new()));
    for path in &args.files {
        let read = manifest::read_or_stdin(path);
        let read = read.map_err(|error| CliError::Unusable(error.to_string()))?;
        for warning in &read.warnings {
            log::warn!("{warning}");
        }
        let tree = read.updated.tree;
        version = tree.get(&[DESIRED_STATE, API_VERSION]).cloned();
        for (part, entries) in &mut parts {
            for (name, entry) in tree.entries(&[DESIRED_STATE, part]) {
                let entry = match &args.agent {
                    Some(agent) if *part == "workloads" => of_agent(entry, agent),
                    _ => entry.clone(),
                };
                if entries.get(name.as_str()).is_some() {
                    let (name, file) = (name.as_str(), path.display());
                    let text = format!("{file}: {part}.{name} is in an earlier manifest, too");
                    return Err(CliError::Unusable(text));
                }
                entries.insert(name.clone(), entry);
            }
        }
    }
    let parts = parts.into_iter().filter(|(_, entries)| entries.iter().next().is_some());
    let parts = parts.map(|(part, entries)| (part, Node::Map(entries)));
    let version = version.map(|version| (API_VERSION, version));
    let desired = Node::map(version.into_iter().chain(parts));
    all = all.with(DESIRED_STATE, Some(desired));
    Ok(all)
}

fn of_agent(workload: &Node, agent: &str) -> Node {
    let mut fields = workload.entries().clone();
    fields.insert("agent", Node::text(agent));
    Node::Map(fields)
}

/// The masks of workloads that an update would replace, also by a config that their templates use.
///
/// # Errors
/// It would be refused.
fn replaced(
    current: &Tree,
    new_state: pb::CompleteState,
    masks: &[String],
) -> Result<BTreeSet<String>, CliError> {
    // A server of Ankaios tells of no effective state.
    if current.get(&[EFFECTIVE_STATE]).is_none() {
        return Ok(BTreeSet::new());
    }
    let update = Update { new_state, masks: masks.to_vec(), by: String::new() };
    let plan = StateModel::new(current.clone())
        .update(&update)
        .map_err(|refused| CliError::Failed(format!("the update would be refused: {refused}")))?;
    let names = |instances: Vec<String>| {
        let name = |own: String| own.split('.').next().unwrap_or_default().to_owned();
        instances.into_iter().map(name).collect::<BTreeSet<_>>()
    };
    let (added, deleted) =
        (names(plan.success.added_workloads), names(plan.success.deleted_workloads));
    Ok(added.intersection(&deleted).map(|name| mask("workloads", name)).collect())
}

/// What an update of these masks would change.
fn forecast(
    current: &Tree,
    wanted: &Tree,
    (masks, replaced): (&[String], &BTreeSet<String>),
    output: Format,
) -> Result<String, CliError> {
    let mut lines = Vec::new();
    let others = replaced.iter().filter(|own| !masks.contains(own));
    for mask in masks.iter().chain(others) {
        let path: Vec<_> = mask.split('.').collect();
        let word = match (current.get(&path), wanted.get(&path)) {
            _ if replaced.contains(mask) => "replaced",
            (None, Some(_)) => "added",
            (Some(_), None) => "deleted",
            (Some(old), Some(new)) if are_same(old, new) => "unchanged",
            (Some(_), Some(_)) => "changed",
            (None, None) => "missing",
        };
        lines.push((mask, word));
    }
    if output != Format::Text {
        let effects = lines.iter().map(|(mask, word)| ((*mask).clone(), json!(word)));
        return document(&serde_json::Value::Object(effects.collect()), output);
    }
    let line = |(mask, word): (&String, &str)| {
        let (part, name) = mask.trim_start_matches(DESIRED_STATE)[1..].split_once('.')?;
        let (_, noun) = PARTS.iter().find(|(own, _)| *own == part)?;
        let would = if matches!(word, "unchanged" | "missing") { "is" } else { "would be" };
        Some(format!("{noun} {name} {would} {word}\n"))
    };
    Ok(lines.into_iter().filter_map(line).collect())
}

pub(super) async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let (part, noun) = PARTS[usize::from(args.what == Deletable::Config)];
    let mut client = connect(&args.update.connect).await?;
    let current = client.read(&[&format!("{DESIRED_STATE}.{part}")]).await?;
    let names: BTreeSet<_> = args.names.iter().map(String::as_str).collect();
    let is_missing = |name: &&&str| current.get(&[DESIRED_STATE, part, name]).is_none();
    let missing: Vec<_> = names.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        let text = format!("there is no {noun} {}; nothing was deleted", missing.join(", "));
        return Err(CliError::Failed(text));
    }
    let masks = names.iter().map(|name| mask(part, name)).collect();
    carry_out(client, &args.update, (pb::CompleteState::default(), masks)).await
}
