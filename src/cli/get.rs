//! `fifogate get`: one read of the state, printed once.

use serde_json::Value;

use super::{
    args::{GetArgs, ReadFormat, StateFormat},
    client::Client,
    error::CliError,
    masks, output,
    stdout::Stdout,
    wait::Stop,
};
use crate::pb::ank_base::{
    CompleteStateRequest, request::RequestContent, response::ResponseContent,
};

pub(super) fn get(args: GetArgs) -> Result<(), CliError> {
    // Before the session is opened: a mistyped mask touches no pipe.
    masks::check(&args.masks)?;
    if args.output == ReadFormat::Value && args.masks.len() != 1 {
        let text =
            "--output value prints one value: give one MASK, such as desiredState.configs.NAME";
        return Err(CliError::unusable(text));
    }
    let mut client = Client::connect(&args.client, &Stop::never())?;
    let field_mask = args.masks.clone();
    let question = CompleteStateRequest { field_mask, subscribe_for_events: false };
    let answer = client.ask(RequestContent::CompleteStateRequest(question));
    let state = match answer.map_err(|error| masks::hint(error, "get", &args.masks))? {
        ResponseContent::CompleteStateResponse(answer) => answer.complete_state,
        other => return Err(client.unexpected(&other)),
    };
    // The pair is free for the next command before anything is printed: the reader may be slow.
    drop(client);
    let shown = output::state(state.as_ref())?;
    let text = match (args.output, &args.masks[..]) {
        (ReadFormat::Value, [mask]) => value_at(&shown, mask)?,
        (ReadFormat::Json, _) => output::document(&shown, StateFormat::Json)?,
        (ReadFormat::Yaml | ReadFormat::Value, _) => output::document(&shown, StateFormat::Yaml)?,
    };
    Stdout::open()?.put(text)?;
    masks::note_missing(&args.masks, state.as_ref());
    Ok(())
}

/// The text of the one value at `mask`, with a line feed.
fn value_at(state: &Value, mask: &str) -> Result<String, CliError> {
    let mut at = state;
    for name in mask.split('.') {
        let below = match at.as_object() {
            Some(entries) if name != "*" => entries.get(name),
            Some(entries) if entries.len() > 1 => {
                let text = format!("{mask} has {} values: name one", entries.len());
                return Err(CliError::failed(text));
            }
            Some(entries) => entries.values().next(),
            None => None,
        };
        at = below.ok_or_else(|| CliError::failed(format!("there is no value at {mask}")))?;
    }
    match at {
        Value::String(text) => Ok(format!("{text}\n")),
        Value::Number(_) | Value::Bool(_) => Ok(format!("{at}\n")),
        Value::Object(_) | Value::Array(_) | Value::Null => {
            Err(CliError::failed(format!("{mask} is no single value: print it as YAML or JSON")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn value_is_the_bare_text_of_one_scalar() {
        let state =
            json!({"desiredState": {"configs": {"a": "1.50", "b": {"c": ["x"]}, "d": {"e": 7}}}});
        let at = |mask: &str| value_at(&state, mask).map_err(|error| error.to_string());
        assert_eq!(at("desiredState.configs.a"), Ok("1.50\n".to_owned()));
        assert_eq!(at("desiredState.configs.d.*"), Ok("7\n".to_owned()));
        for (mask, expected) in [
            ("desiredState.configs.x", "there is no value at desiredState.configs.x"),
            ("desiredState.configs.a.b", "there is no value at desiredState.configs.a.b"),
            ("desiredState.configs.b", "is no single value"),
            ("desiredState.configs.b.c", "is no single value"),
            ("desiredState.configs.*", "has 3 values: name one"),
        ] {
            let error = at(mask).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
