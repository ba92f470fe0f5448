//! `fifogate watch`: a subscription, printed event by event.
//!
//! If the command ends first, it cancels the subscription, so fifogate stops collecting events for
//! it. If fifogate ends first, the command waits for its return and subscribes again.

use std::time::{Duration, Instant};

use super::{
    args::WatchArgs,
    client::{Client, Received},
    error::CliError,
    masks, output,
    stdout::Stdout,
    wait::{Stop, Woken, wait},
};
use crate::pb::ank_base::{
    CompleteStateRequest, CompleteStateResponse, EventsCancelRequest, request::RequestContent,
    response::ResponseContent,
};

/// Interval of attempts to reconnect. The kernel reports no new server: a pipe without one is
/// silent.
const RETRY: Duration = Duration::from_millis(250);
/// Longest wait for the confirmation of a cancel.
const CANCEL: Duration = Duration::from_secs(1);

pub(super) fn watch(args: WatchArgs) -> Result<(), CliError> {
    // Before the session is opened: a mistyped mask touches no pipe.
    masks::check(&args.masks)?;
    let out = Stdout::open()?;
    let stop = Stop::on_signal_or_end_of(&out)
        .map_err(|error| CliError::failed(format!("cannot watch for signals: {error}")))?;
    // After the signals: one received during the connect stops the command in order.
    let mut client = Client::connect(&args.client, &stop)?;
    let mut watch = Watch { args, stop, out, is_begun: false, documents: 0, events: 0 };
    loop {
        match watch.session(&mut client) {
            // Before the first answer there is nothing to resume: the error ends the command.
            Err(error) if error.is_away() && watch.is_begun => {
                log::warn!("{error}; waiting for fifogate");
                // Its read end may hold up the next fifogate (docs/pipes.md#end-of-file-for-every-reader).
                drop(client);
                client = watch.reconnect()?;
                log::warn!("{}: connected again", watch.args.client.dir().display());
            }
            end => return end.map_err(|error| masks::hint(error, "watch", &watch.args.masks)),
        }
    }
}

struct Watch {
    args: WatchArgs,
    stop: Stop,
    out: Stdout,
    /// Whether the state was received once.
    is_begun: bool,
    /// Documents printed.
    documents: u64,
    /// Events among them.
    events: u64,
}

impl Watch {
    /// Runs one subscription, from its request to its end.
    fn session(&mut self, client: &mut Client) -> Result<(), CliError> {
        let mut id = self.subscribe(client)?;
        let end = self.follow(client, &mut id);
        // A missing server has dropped the subscription already.
        if !end.as_ref().is_err_and(CliError::is_away) {
            cancel(client, &id);
        }
        end
    }

    fn subscribe(&self, client: &mut Client) -> Result<String, CliError> {
        let field_mask = self.args.masks.clone();
        let question = CompleteStateRequest { field_mask, subscribe_for_events: true };
        client.send(RequestContent::CompleteStateRequest(question))
    }

    /// Prints the answers under `id`, up to the requested number of events or a stop.
    fn follow(&mut self, client: &mut Client, id: &mut String) -> Result<(), CliError> {
        let mut due = Some(client.answer_due());
        loop {
            match client.response(id, due, &self.stop)? {
                Received::Response(ResponseContent::CompleteStateResponse(response)) => {
                    // Only the first answer has a deadline: events come whenever something changes.
                    let is_first = due.take().is_some();
                    self.is_begun = true;
                    self.print(&response)?;
                    if is_first {
                        masks::note_missing(&self.args.masks, response.complete_state.as_ref());
                    }
                    if self.args.count.is_some_and(|count| self.events >= count) {
                        return Ok(());
                    }
                }
                Received::Response(other) => return Err(client.unexpected(&other)),
                // An unanswered request belongs to the new session, and still gets its answer.
                Received::Restarted if due.is_some() => {}
                Received::Restarted => {
                    let dir = self.args.client.dir();
                    log::warn!(
                        "{}: another client opened a session on this pair; subscribing again",
                        dir.display()
                    );
                    *id = self.subscribe(client)?;
                    due = Some(client.answer_due());
                }
                Received::Stopped => return Ok(()),
                Received::TimedOut => return Err(client.no_answer()),
            }
        }
    }

    fn print(&mut self, response: &CompleteStateResponse) -> Result<(), CliError> {
        if self.args.no_state && response.altered_fields.is_none() {
            return Ok(());
        }
        let value = output::change(response)?;
        let document = output::document(&value, self.args.output)?;
        let separator = output::separator(self.args.output, self.documents);
        self.documents += 1;
        self.events += u64::from(response.altered_fields.is_some());
        // One write, so a reader of the pipe sees whole documents.
        self.out.put(separator.to_owned() + &document)
    }

    /// Tries to open a session until it succeeds, fails for good, or a stop.
    fn reconnect(&self) -> Result<Client, CliError> {
        let mut is_warned = false;
        loop {
            let woken = wait(&[], Some(Instant::now() + RETRY), &self.stop);
            match woken.map_err(|error| CliError::failed(error.to_string()))? {
                Woken::Stopped => return Err(CliError::quiet()),
                // No pipe is watched here, so only the time can have passed.
                Woken::Ready | Woken::TimedOut => {}
            }
            match Client::connect(&self.args.client, &self.stop) {
                // Warned of once: the user may end that command.
                Err(error) if error.is_busy() && !is_warned => {
                    log::warn!("{error}; trying again");
                    is_warned = true;
                }
                // Tried for ever: an upgrade of fifogate may take any time.
                Err(error) if error.is_away() => log::debug!("{error}"),
                end => return end,
            }
        }
    }
}

/// Cancels the subscription `id`. The command is ending anyway, so an error here is only logged.
fn cancel(client: &mut Client, id: &str) {
    let until = Instant::now() + CANCEL;
    let request = RequestContent::EventsCancelRequest(EventsCancelRequest {});
    let mut end = client.send_as(id, request).map(|()| None);
    while let Ok(None) = end {
        end = client.response(id, Some(until), &Stop::never()).map(|received| match received {
            // Events sent before the cancel was handled.
            Received::Response(ResponseContent::CompleteStateResponse(_)) => None,
            Received::Restarted => None,
            received => Some(received),
        });
    }
    match end {
        Ok(Some(Received::Response(ResponseContent::EventsCancelAccepted(_)))) => {}
        other => log::debug!("the cancel of the subscription was not confirmed: {other:?}"),
    }
}
