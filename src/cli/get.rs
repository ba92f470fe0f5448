//! `fifogate get`: one read of the state, printed once.

use super::{args::GetArgs, client::Client, error::CliError, output, stdout::Stdout, wait::Stop};
use crate::pb::ank_base::{
    CompleteStateRequest, request::RequestContent, response::ResponseContent,
};

pub(super) fn get(args: GetArgs) -> Result<(), CliError> {
    let mut client = Client::connect(&args.client.dir, args.client.timeout, &Stop::never())?;
    let question = CompleteStateRequest { field_mask: args.masks, subscribe_for_events: false };
    let state = match client.ask(RequestContent::CompleteStateRequest(question))? {
        ResponseContent::CompleteStateResponse(answer) => answer.complete_state,
        other => return Err(client.unexpected(&other)),
    };
    Stdout::open()?.put(output::document(&output::state(state.as_ref())?, args.output)?)
}
