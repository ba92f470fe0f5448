//! `fifogate set`: sends the user's changes as one update.
//!
//! The masks of the update are the given paths, so the rest of the state stays unchanged.
//! Misspelled paths are rejected here, before sending: in an update, a mask without a value means
//! removal.

use std::{fmt, io, path::Path};

use super::{
    args::SetArgs,
    client::Client,
    error::CliError,
    input::{self, NewState},
    outcome::Before,
    schema::Shape,
    stdout::Stdout,
    wait::Stop,
};
use crate::{
    limits::{MAX_NESTING, too_deep, too_large},
    pb::ank_base::{
        CompleteState, UpdateStateRequest, request::RequestContent, response::ResponseContent,
    },
    source,
    state::{Node, reach::overlap},
};

pub(super) fn set(args: SetArgs) -> Result<(), CliError> {
    let (request, removals) = match &args.file {
        Some(file) => from_file(file, &args.masks)?,
        // Without a file each removal is written as one.
        None => (from_changes(&args.changes, args.yaml)?, Vec::new()),
    };
    let mut client = Client::connect(&args.client, &Stop::never())?;
    let (paths, new) = (&request.update_mask, request.new_state.as_ref());
    let before = Before::read(&mut client, paths)?;
    before.refuse_missing(&removals)?;
    let text = if args.dry_run {
        before.forecast(&mut client, paths, new)?.print(None, args.output)
    } else {
        let update = RequestContent::UpdateStateRequest(request.clone());
        match client.ask(update)? {
            ResponseContent::UpdateStateSuccess(instances) => {
                before.effects(&mut client, paths, new).print(Some(&instances), args.output)
            }
            other => return Err(client.unexpected(&other)),
        }
    };
    // The pair is free for the next command before anything is printed: the reader may be slow.
    drop(client);
    Stdout::open()?.put(text)
}

/// The request for the masks of a file, and the masks without a value in it: they are removals.
fn from_file(file: &Path, masks: &[String]) -> Result<(UpdateStateRequest, Vec<String>), CliError> {
    let name = source::name(file);
    let text = source::open(file)
        .and_then(io::read_to_string)
        .map_err(|error| CliError::unusable(format!("{name}: {error}")))?;
    // Parsed before the session is opened: a fault in the file touches no pipe.
    let state = NewState::from_yaml(&text)
        .map_err(|fault| CliError::unusable(format!("{name}:{}: {}", fault.line, fault.what)))?;
    for mask in masks {
        let checked = Shape::at(&split(mask)?);
        checked.map_err(|what| CliError::unusable(format!("--mask {mask}: {what}")))?;
    }
    refuse_overlaps(masks)?;
    let is_missing = |mask: &&String| state.get(&mask.split('.').collect::<Vec<_>>()).is_none();
    let removals = masks.iter().filter(is_missing).cloned().collect();
    let new_state = Some(checked(&state)?);
    Ok((UpdateStateRequest { new_state, update_mask: masks.to_vec() }, removals))
}

/// One requested change.
struct Change<'a> {
    path: &'a str,
    /// The new value; `None` removes the path.
    value: Option<Node>,
}

fn from_changes(changes: &[String], yaml: bool) -> Result<UpdateStateRequest, CliError> {
    let changes =
        changes.iter().map(|change| parse(change, yaml)).collect::<Result<Vec<_>, _>>()?;
    let paths: Vec<_> = changes.iter().map(|change| change.path).collect();
    refuse_overlaps(&paths)?;
    let mut state = NewState::default();
    for change in &changes {
        if let Some(value) = &change.value {
            state.put(&change.path.split('.').collect::<Vec<_>>(), value.clone());
        }
    }
    let update_mask = paths.into_iter().map(str::to_owned).collect();
    Ok(UpdateStateRequest { new_state: Some(checked(&state)?), update_mask })
}

/// The message of a state without a value over the bound of its size.
fn checked(state: &NewState) -> Result<CompleteState, CliError> {
    match state.oversized() {
        Some((path, bytes)) => Err(CliError::unusable(too_large(&path, bytes))),
        None => Ok(state.to_pb()),
    }
}

fn parse(change: &str, yaml: bool) -> Result<Change<'_>, CliError> {
    let (path, value) = match change.split_once('=') {
        Some((path, value)) => (path, Some(value)),
        None => {
            let path = change.strip_suffix('-').ok_or_else(|| {
                CliError::unusable(format!(
                    "{change}: PATH=VALUE belongs here, PATH= for an empty text, or PATH- to remove"
                ))
            })?;
            (path, None)
        }
    };
    let at_path = |what: &dyn fmt::Display| CliError::unusable(format!("{path}: {what}"));
    let names = split(path)?;
    let shape = Shape::at(&names).map_err(|misfit| at_path(&misfit))?;
    // Before anything is built from the path: each of its names is one level.
    if input::levels_above(path) > MAX_NESTING {
        return Err(CliError::unusable(too_deep(&names[..3].join("."))));
    }
    let value = match value {
        None => None,
        // `PATH=` is an empty text with --yaml, too: an empty document has no value.
        Some(value) if yaml && !value.is_empty() => {
            Some(input::yaml(value, shape, path).map_err(|fault| at_path(&fault.what))?)
        }
        Some(value) => Some(input::plain(value, shape).map_err(|misfit| at_path(&misfit))?),
    };
    Ok(Change { path, value })
}

/// Splits a settable path into its names.
fn split(path: &str) -> Result<Vec<&str>, CliError> {
    let names: Vec<_> = path.split('.').collect();
    // fifogate refuses it as well; here the message names the path (docs/protocol.md#update-masks).
    if names.contains(&"*") {
        return Err(CliError::unusable(format!(
            "{path}: an update cannot use `*`; give each path"
        )));
    }
    match names[..] {
        ["desiredState", ..] | ["agents", _, "tags", ..] => Ok(names),
        _ => Err(CliError::unusable(format!(
            "{path}: a path begins with desiredState or agents.NAME.tags"
        ))),
    }
}

/// Rejects two paths if one contains the other: their order of application would be ambiguous.
fn refuse_overlaps(paths: &[impl AsRef<str>]) -> Result<(), CliError> {
    let Some((outer, inner)) = overlap(paths) else { return Ok(()) };
    let text = format!("{inner}: is changed by {outer} already; give one of the two");
    Err(CliError::unusable(text))
}

#[cfg(test)]
mod tests;
