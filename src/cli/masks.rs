//! Masks on the command line of `get` and `watch`.
//!
//! On the control interface a mask of nothing is no error. A mask typed by hand is: one that begins with
//! no part of the state is refused, and one without a match is noted on standard error.

use std::io::{self, Write};

use log::Level;

use super::error::CliError;
use crate::{
    pb::ank_base::CompleteState,
    state::{Tree, convert, reach},
};

/// Refuses masks that begin with no part of the state.
pub(super) fn check(masks: &[String]) -> Result<(), CliError> {
    match reach::unknown_parts(masks) {
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
    // An answer that cannot be shown is reported where it is printed.
    if let Ok(tree) = answer.map_or_else(|| Ok(Tree::default()), convert::from_pb) {
        reach::without_match(masks, &tree).iter().for_each(|note| put_note(note));
    }
}

/// Prints a note for the user, unless warnings are not wanted either.
pub(super) fn put_note(note: &str) {
    if log::log_enabled!(Level::Warn) {
        // A failed write is ignored: the result of the command does not depend on it.
        let _ = writeln!(io::stderr().lock(), "note: {note}");
    }
}
