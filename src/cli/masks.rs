//! Masks on the command line of `get` and `watch`.
//!
//! On the control interface a mask of nothing is no error. A mask typed by hand is: one that begins with
//! no part of the state is refused, and one without a match is noted on standard error.

use std::io::{self, Write};

use log::Level;

use super::error::CliError;
use crate::{
    pb::ank_base::CompleteState,
    state::{
        Mask, Node, Tree, convert,
        reach::{begins_with_no_part, names_nothing},
    },
};

/// Refuses masks that begin with no part of the state.
pub(super) fn check(masks: &[String]) -> Result<(), CliError> {
    let faults = masks.iter().filter_map(|mask| begins_with_no_part(&Mask::parse(mask)));
    match faults.map(|why| why.to_string()).collect::<Vec<_>>() {
        faults if faults.is_empty() => Ok(()),
        faults => Err(CliError::unusable(faults.join("\n"))),
    }
}

/// Adds a hint for a workload that asked for everything.
pub(super) fn hint(error: CliError, command: &str, masks: &[String]) -> CliError {
    if !masks.iter().all(String::is_empty) {
        return error;
    }
    error.hint_if_denied(|| {
        format!(
            "without a MASK, {command} asks for everything, and the rules of this workload do not \
             allow that; name what it may read, for example: fifogate {command} \
             desiredState.configs.NAME"
        )
    })
}

/// Notes each mask without a match in the answer to all of them.
pub(super) fn note_missing(masks: &[String], answer: Option<&CompleteState>) {
    for note in missing(masks, answer) {
        put_note(&note);
    }
}

/// Prints a note for the user, unless warnings are not wanted either.
pub(super) fn put_note(note: &str) {
    if log::log_enabled!(Level::Warn) {
        // A failed write is ignored: the result of the command does not depend on it.
        let _ = writeln!(io::stderr().lock(), "note: {note}");
    }
}

fn missing(masks: &[String], answer: Option<&CompleteState>) -> Vec<String> {
    // An answer that cannot be shown is reported where it is printed.
    let Ok(tree) = answer.map_or_else(|| Ok(Tree::default()), convert::from_pb) else {
        return Vec::new();
    };
    let masks = masks.iter().map(|mask| Mask::parse(mask));
    let missing = masks.filter(|mask| !mask.text().is_empty() && !has_match(&tree, mask));
    missing
        .map(|mask| match names_nothing(&mask) {
            Some(why) => format!("nothing is at {mask}: {why}"),
            None => format!("nothing is at {mask}"),
        })
        .collect()
}

/// Whether `mask` names something in `tree`.
fn has_match(tree: &Tree, mask: &Mask) -> bool {
    fn walk(node: Option<&Node>, names: &[&str]) -> bool {
        match (node, names) {
            (None, _) => false,
            (Some(_), []) => true,
            (Some(node), ["*", rest @ ..]) => {
                node.entries().iter().any(|(_, below)| walk(Some(below), rest))
            }
            (Some(node), [name, rest @ ..]) => walk(node.get(name), rest),
        }
    }
    let names: Vec<_> = mask.text().split('.').collect();
    walk(Some(&Node::Map(tree.root().clone())), &names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::convert::{Fill, to_pb};

    #[test]
    fn mask_without_a_match_is_missing_also_beside_others_and_with_a_wildcard() {
        let config = Node::map([("a", Node::text("x")), ("l", Node::seq([Node::text("y")]))]);
        let state = Node::map([("apiVersion", Node::text("v1")), ("configs", config)]);
        let answer = to_pb(&Tree::default().with("desiredState", Some(state)), Fill::Sparse);
        let missing = |masks: &[&str]| {
            let masks: Vec<_> = masks.iter().map(|mask| (*mask).to_owned()).collect();
            missing(&masks, Some(&answer))
        };
        for there in
            ["", "*", "desiredState", "desiredState.configs.a", "desiredState.*.l", "*.configs.*"]
        {
            assert_eq!(missing(&[there]), [""; 0], "{there}");
        }
        for absent in [
            "agents",
            "desiredState.workloads.engin",
            "desiredState.configs.l.0",
            "desiredState.configs.*.b",
            "workloadStates.*.w",
        ] {
            let notes = missing(&["desiredState.configs", absent]);
            assert!(notes.len() == 1 && notes[0].starts_with(&format!("nothing is at {absent}")));
        }
        assert!(missing(&["desiredState.config"])[0].contains("has no field `config`, only"));
        assert_eq!(super::missing(&["agents".to_owned()], None).len(), 1);
    }
}
