//! `fifogate set`: what a user wants to be different, as one update.
//!
//! The update's masks are the paths that were given, so nothing else of the state is touched. What
//! is misspelled is refused here: an update may remove what it does not find.

use std::{fs, io, path::Path};

use serde_json::json;

use super::{
    args::{OutcomeFormat, SetArgs},
    client::Client,
    error::CliError,
    input::{self, NewState},
    schema::Shape,
    stdout::Stdout,
    wait::Stop,
};
use crate::{
    limits::{MAX_NESTING, too_deep},
    pb::ank_base::{
        UpdateStateRequest, UpdateStateSuccess, request::RequestContent, response::ResponseContent,
    },
    state::Node,
};

pub(super) fn set(args: SetArgs) -> Result<(), CliError> {
    let request = match &args.file {
        Some(file) => from_file(file, &args.masks)?,
        None => from_changes(&args.changes, args.yaml).map_err(CliError::unusable)?,
    };
    let mut client = Client::connect(&args.client.dir, args.client.timeout, &Stop::never())?;
    match client.ask(RequestContent::UpdateStateRequest(request))? {
        ResponseContent::UpdateStateSuccess(outcome) => {
            Stdout::open()?.put(print(&outcome, args.output))
        }
        other => Err(client.unexpected(&other)),
    }
}

fn print(outcome: &UpdateStateSuccess, format: OutcomeFormat) -> String {
    let (added, deleted) = (&outcome.added_workloads, &outcome.deleted_workloads);
    match format {
        OutcomeFormat::Json => {
            let outcome = json!({ "addedWorkloads": added, "deletedWorkloads": deleted });
            format!("{outcome}\n")
        }
        OutcomeFormat::Text => {
            let added = added.iter().map(|name| format!("added: {name}\n"));
            added.chain(deleted.iter().map(|name| format!("deleted: {name}\n"))).collect()
        }
    }
}

fn from_file(file: &Path, masks: &[String]) -> Result<UpdateStateRequest, CliError> {
    let (name, text) = match file.to_str() {
        Some("-") => ("<stdin>".to_owned(), io::read_to_string(io::stdin())),
        _ => (file.display().to_string(), fs::read_to_string(file)),
    };
    let text = text.map_err(|error| CliError::unusable(format!("{name}: {error}")))?;
    let state = NewState::from_yaml(&text)
        .map_err(|fault| CliError::unusable(format!("{name}:{}: {}", fault.line, fault.what)))?;
    for mask in masks {
        let checked = Shape::at(&split(mask).map_err(CliError::unusable)?);
        checked.map_err(|what| CliError::unusable(format!("--mask {mask}: {what}")))?;
    }
    Ok(UpdateStateRequest { new_state: Some(state.to_pb()), update_mask: masks.to_vec() })
}

/// One change that was asked for.
struct Change<'a> {
    path: &'a str,
    /// `None`: what is there is to be removed.
    value: Option<Node>,
}

fn from_changes(changes: &[String], yaml: bool) -> Result<UpdateStateRequest, String> {
    let changes =
        changes.iter().map(|change| parse(change, yaml)).collect::<Result<Vec<_>, _>>()?;
    refuse_overlaps(&changes)?;
    let mut state = NewState::default();
    // A state needs a version to be one, also where only parts of it are taken.
    const VERSION: [&str; 2] = ["desiredState", "apiVersion"];
    if !changes.iter().any(|change| VERSION.join(".").starts_with(change.path)) {
        state.put(&VERSION, Node::text("v1"));
    }
    for change in &changes {
        if let Some(value) = &change.value {
            state.put(&change.path.split('.').collect::<Vec<_>>(), value.clone());
        }
    }
    let update_mask = changes.iter().map(|change| change.path.to_owned()).collect();
    Ok(UpdateStateRequest { new_state: Some(state.to_pb()), update_mask })
}

fn parse(change: &str, yaml: bool) -> Result<Change<'_>, String> {
    let (path, value) = match change.split_once('=') {
        Some((path, value)) => (path, Some(value)),
        None => {
            let path = change.strip_suffix('-').ok_or_else(|| {
                format!(
                    "{change}: PATH=VALUE belongs here, PATH= for an empty text, or PATH- to remove"
                )
            })?;
            (path, None)
        }
    };
    let at_path = |what: String| format!("{path}: {what}");
    let names = split(path)?;
    let shape = Shape::at(&names).map_err(at_path)?;
    // Asked before anything is made of the path: it has one level for each name.
    if input::levels_above(path) > MAX_NESTING {
        return Err(too_deep(&names[..3].join(".")));
    }
    let value = match value {
        None => None,
        Some(value) if yaml && !value.is_empty() => {
            Some(input::yaml(value, shape, path).map_err(|fault| at_path(fault.what))?)
        }
        Some(value) => Some(input::plain(value, shape).map_err(at_path)?),
    };
    Ok(Change { path, value })
}

/// The names in a path that can be set.
fn split(path: &str) -> Result<Vec<&str>, String> {
    let names: Vec<_> = path.split('.').collect();
    if names.contains(&"*") {
        return Err(format!("{path}: an update cannot use `*`; give each path"));
    }
    match names[..] {
        ["desiredState", ..] | ["agents", _, "tags", ..] => Ok(names),
        _ => Err(format!("{path}: a path begins with desiredState or agents.NAME.tags")),
    }
}

/// Of two paths of which one contains the other, it is not plain which one shall count.
fn refuse_overlaps(changes: &[Change<'_>]) -> Result<(), String> {
    let mut paths: Vec<Vec<_>> =
        changes.iter().map(|change| change.path.split('.').collect()).collect();
    paths.sort();
    match paths.windows(2).find(|pair| pair[1].starts_with(&pair[0])) {
        None => Ok(()),
        Some(pair) => {
            let (outer, inner) = (pair[0].join("."), pair[1].join("."));
            Err(format!("{inner}: is changed by {outer} already; give one of the two"))
        }
    }
}

#[cfg(test)]
mod tests;
