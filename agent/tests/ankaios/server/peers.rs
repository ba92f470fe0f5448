//! Whoever else is connected to the model: operators, and agents in the hands of a test.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};

use super::{
    PATIENCE,
    core::Connection,
    messages::{
        AddedWorkload, FromServer, FromServerContent, LogEntriesResponse, LogsRequest,
        LogsStopResponse, ServerHello, ToServer, ToServerContent, UpdateWorkload,
    },
    model::Shared,
};

/// An operator or a tool. Dropped, it says goodbye.
pub(crate) struct Operator {
    shared: Arc<Shared>,
    name: String,
    messages: Receiver<FromServer>,
    last: Cell<u32>,
    /// Messages that came while another one was waited for.
    aside: RefCell<VecDeque<FromServerContent>>,
}

/// Workloads, and what they have written so far.
pub(crate) type Campaign = Vec<(pb::WorkloadInstanceName, String)>;

impl Operator {
    pub(super) fn new(shared: Arc<Shared>, name: String, messages: Receiver<FromServer>) -> Self {
        Self { shared, name, messages, last: Cell::new(0), aside: RefCell::default() }
    }

    /// The part of full ids in front of the first `@`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sends a request, and returns its id.
    pub(crate) fn ask(&self, content: RequestContent) -> String {
        self.last.set(self.last.get() + 1);
        let id = format!("id-{}", self.last.get());
        self.ask_as(&id, content);
        id
    }

    /// Sends a request with this id.
    pub(crate) fn ask_as(&self, id: &str, content: RequestContent) {
        self.shared.with(|core| core.request(&format!("{}@{id}", self.name), content));
    }

    /// The next response to this request, within some time.
    pub(crate) fn response_within(&self, id: &str, patience: Duration) -> Option<ResponseContent> {
        let is_own = |content: &FromServerContent| matches!(content, FromServerContent::Response(response) if response.request_id == id);
        match self.next_where(is_own, patience)? {
            FromServerContent::Response(response) => response.response_content,
            _ => None,
        }
    }

    pub(crate) fn response(&self, id: &str) -> ResponseContent {
        self.response_within(id, PATIENCE).expect("no response came")
    }

    /// The next states that came unasked; only those like `ank` get any.
    pub(crate) fn states(&self) -> Vec<pb::WorkloadState> {
        let is_own = |content: &FromServerContent| {
            matches!(content, FromServerContent::UpdateWorkloadState(_))
        };
        match self.next_where(is_own, PATIENCE) {
            Some(FromServerContent::UpdateWorkloadState(states)) => states.workload_states,
            _ => panic!("no states came"),
        }
    }

    fn next_where(
        &self,
        is_own: impl Fn(&FromServerContent) -> bool,
        patience: Duration,
    ) -> Option<FromServerContent> {
        let mut aside = self.aside.borrow_mut();
        if let Some(at) = aside.iter().position(&is_own) {
            return aside.remove(at);
        }
        let end = std::time::Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let content = self.messages.recv_timeout(left).ok()?.content?;
            if is_own(&content) {
                return Some(content);
            }
            aside.push_back(content);
        }
    }

    pub(crate) fn update(
        &self,
        new_state: pb::CompleteState,
        masks: &[&str],
    ) -> Result<pb::UpdateStateSuccess, String> {
        let id = self.ask(RequestContent::UpdateStateRequest(pb::UpdateStateRequest {
            new_state: Some(new_state),
            update_mask: masks.iter().map(|&mask| mask.to_owned()).collect(),
        }));
        match self.response(&id) {
            ResponseContent::UpdateStateSuccess(success) => Ok(success),
            ResponseContent::Error(error) => Err(error.message),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn read(&self, masks: &[&str]) -> pb::CompleteState {
        let id = self.ask(RequestContent::CompleteStateRequest(state(masks, false)));
        self.state(&id)
    }

    /// Subscribes. Returns the id, and the first answer.
    pub(crate) fn subscribe(&self, masks: &[&str]) -> (String, pb::CompleteState) {
        let id = self.ask(RequestContent::CompleteStateRequest(state(masks, true)));
        let first = self.state(&id);
        (id, first)
    }

    fn state(&self, id: &str) -> pb::CompleteState {
        match self.response(id) {
            ResponseContent::CompleteStateResponse(response) => {
                assert_eq!(response.altered_fields, None, "an event");
                response.complete_state.unwrap_or_default()
            }
            other => panic!("{other:?}"),
        }
    }

    /// The next event of a subscription.
    pub(crate) fn event(&self, id: &str) -> (pb::AlteredFields, pb::CompleteState) {
        match self.response(id) {
            ResponseContent::CompleteStateResponse(response) => (
                response.altered_fields.expect("an event"),
                response.complete_state.unwrap_or_default(),
            ),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for logs. Returns the id, and the workloads whose logs will come.
    pub(crate) fn logs(&self, request: pb::LogsRequest) -> (String, Vec<pb::WorkloadInstanceName>) {
        let id = self.ask(RequestContent::LogsRequest(request));
        match self.response(&id) {
            ResponseContent::LogsRequestAccepted(accepted) => (id, accepted.workload_names),
            other => panic!("{other:?}"),
        }
    }

    /// Lines of a campaign, until as many workloads as were accepted have ended.
    pub(crate) fn lines_until_end(&self, id: &str, workloads: usize) -> Campaign {
        let (mut lines, mut ended) = (Campaign::new(), 0);
        while ended < workloads {
            match self.response(id) {
                ResponseContent::LogEntriesResponse(entries) => lines.extend(named(entries)),
                ResponseContent::LogsStopResponse(_) => ended += 1,
                other => panic!("{other:?}"),
            }
        }
        lines
    }

    /// The lines of the next message of a campaign.
    pub(crate) fn next_lines(&self, id: &str) -> Campaign {
        match self.response(id) {
            ResponseContent::LogEntriesResponse(entries) => named(entries),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn cancel_logs(&self, id: &str) {
        self.ask_as(id, RequestContent::LogsCancelRequest(pb::LogsCancelRequest::default()));
        // Lines may be on the way.
        while !matches!(self.response(id), ResponseContent::LogsCancelAccepted(_)) {}
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.shared.with(|core| core.goodbye(&self.name));
    }
}

fn named(entries: pb::LogEntriesResponse) -> Campaign {
    let entries = entries.log_entries.into_iter();
    entries.map(|entry| (entry.workload_name.unwrap_or_default(), entry.message)).collect()
}

fn state(masks: &[&str], subscribe_for_events: bool) -> pb::CompleteStateRequest {
    let field_mask = masks.iter().map(|&mask| mask.to_owned()).collect();
    pb::CompleteStateRequest { field_mask, subscribe_for_events }
}

/// An agent in the hands of a test, beside the one under test.
pub(crate) struct ScriptedAgent {
    shared: Arc<Shared>,
    own: Connection,
    messages: Receiver<FromServer>,
}

impl ScriptedAgent {
    pub(super) fn new(
        shared: Arc<Shared>,
        own: Connection,
        messages: Receiver<FromServer>,
    ) -> Self {
        Self { shared, own, messages }
    }

    /// Sends a message; false if the server takes it for a broken stream.
    pub(crate) fn send(&self, message: impl Into<ToServer>) -> bool {
        let message = message.into();
        self.shared.with(|core| {
            let is_fine = core.message(&self.own, message);
            if !is_fine {
                core.gone(&self.own);
            }
            is_fine
        })
    }

    /// Reports states, which [`workload_state`](super::workload_state) makes.
    pub(crate) fn report(&self, states: Vec<pb::WorkloadState>) {
        self.send(ToServer::states(states));
    }

    pub(crate) fn next(&self) -> FromServerContent {
        let message = self.messages.recv_timeout(PATIENCE).expect("no message came");
        message.content.expect("an empty message")
    }

    /// The next message, if there is one already.
    pub(crate) fn try_next(&self) -> Option<FromServerContent> {
        self.messages.try_recv().ok()?.content
    }

    /// Skips messages up to the hello of the server, and returns its workloads.
    pub(crate) fn until_hello(&self) -> Vec<AddedWorkload> {
        loop {
            if let FromServerContent::ServerHello(ServerHello { added_workloads }) = self.next() {
                return added_workloads;
            }
        }
    }

    /// Skips messages up to the next update of workloads.
    pub(crate) fn until_update(&self) -> UpdateWorkload {
        loop {
            if let FromServerContent::UpdateWorkload(update) = self.next() {
                return update;
            }
        }
    }

    /// Skips messages up to the next request for logs.
    pub(crate) fn until_logs_request(&self) -> LogsRequest {
        loop {
            if let FromServerContent::LogsRequest(request) = self.next() {
                return request;
            }
        }
    }

    /// Writes lines of a campaign.
    pub(crate) fn write_logs(&self, id: &str, log_entries: Vec<pb::LogEntry>) {
        let log_entries_response = Some(pb::LogEntriesResponse { log_entries });
        let entries = LogEntriesResponse { request_id: id.to_owned(), log_entries_response };
        self.send(ToServerContent::LogEntriesResponse(entries));
    }

    /// Ends the part of a workload in a campaign.
    pub(crate) fn stop_logs(&self, id: &str, workload: pb::WorkloadInstanceName) {
        let logs_stop_response = Some(pb::LogsStopResponse { workload_name: Some(workload) });
        let stop = LogsStopResponse { request_id: id.to_owned(), logs_stop_response };
        self.send(ToServerContent::LogsStopResponse(stop));
    }

    /// Goes away so that the server notices it.
    pub(crate) fn leave(self) {
        self.shared.with(|core| core.gone(&self.own));
    }
}
