//! `fifogate get`: one read of the state, printed once.

use super::{
    args::GetArgs, client::Client, error::CliError, masks, output, stdout::Stdout, wait::Stop,
};
use crate::pb::ank_base::{
    CompleteStateRequest, request::RequestContent, response::ResponseContent,
};

pub(super) fn get(args: GetArgs) -> Result<(), CliError> {
    // Before the session is opened: a mistyped mask touches no pipe.
    masks::check(&args.masks)?;
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
    Stdout::open()?.put(output::document(&output::state(state.as_ref())?, args.output)?)?;
    masks::note_missing(&args.masks, state.as_ref());
    Ok(())
}
