//! Printer of states and events for the commands, with their errors.

use serde_json::Value;

use super::{args::StateFormat, error::CliError};
use crate::{pb::ank_base as pb, printed};

/// The tree of a state; a missing state is an empty tree.
pub(super) fn state(state: Option<&pb::CompleteState>) -> Result<Value, CliError> {
    printed::state(state)
        .map_err(|error| CliError::failed(format!("the answer cannot be shown: {error}")))
}

/// The document of a subscription's first answer, or of one of its events.
pub(super) fn change(response: &pb::CompleteStateResponse) -> Result<Value, CliError> {
    printed::change(response)
        .map_err(|error| CliError::failed(format!("the answer cannot be shown: {error}")))
}

/// The text of one document, ending with a line feed.
pub(super) fn document(value: &Value, format: StateFormat) -> Result<String, CliError> {
    match format {
        StateFormat::Json => Ok(printed::json_line(value)),
        StateFormat::Yaml => printed::yaml(value)
            .map_err(|error| CliError::failed(format!("cannot print as YAML: {error}"))),
    }
}

/// The separator in front of a document, after `before` earlier ones.
pub(super) fn separator(format: StateFormat, before: u64) -> &'static str {
    match format {
        StateFormat::Yaml if before > 0 => "---\n",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
