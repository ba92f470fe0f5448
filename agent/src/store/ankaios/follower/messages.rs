//! What the server says.

use fifogate::pb::ank_base::{self as pb, response::ResponseContent};

use super::{Follower, OWN, tell_faults};
use crate::{
    grpc_api::from_server,
    model::{self, states},
    store::ankaios::connection::{Connection, Trouble},
};

impl Follower {
    pub(super) async fn on_message(
        &mut self,
        connection: &Connection,
        content: from_server::Content,
    ) -> Result<(), Trouble> {
        match content {
            from_server::Content::UpdateWorkload(update) => {
                let done = self.view.order(update.added_workloads, update.deleted_workloads);
                tell_faults(&done.faults);
                for name in done.unknown {
                    connection.send_state(name, states::removed())?;
                }
            }
            from_server::Content::ServerHello(hello) => {
                tell_faults(&self.view.greet(hello.added_workloads));
            }
            from_server::Content::UpdateWorkloadState(update) => {
                self.view.hear(&update.workload_states);
            }
            from_server::Content::Response(response) => {
                return self.on_response(connection, response).await;
            }
            from_server::Content::LogsRequest(request) => {
                let wanted = |own: &_| self.view.is_ordered(own);
                let known = (self.view.given(), wanted);
                let asked = request.logs_request.unwrap_or_default();
                self.logs.begin(&connection.logs, &request.request_id, &asked, known);
            }
            from_server::Content::LogsCancelRequest(cancel) => {
                self.logs.cancel(&cancel.request_id);
            }
        }
        self.tell().await;
        Ok(())
    }

    async fn on_response(
        &mut self,
        connection: &Connection,
        response: pb::Response,
    ) -> Result<(), Trouble> {
        let pb::Response { request_id: id, response_content } = response;
        let Some(content) = response_content else { return Ok(()) };
        let own = id.strip_prefix(OWN).is_some();
        match content {
            ResponseContent::CompleteStateResponse(answer) if id == self.subscription => {
                self.on_state(connection, answer).await?;
            }
            // Of a subscription before, perhaps of another connection.
            ResponseContent::CompleteStateResponse(answer)
                if own && answer.altered_fields.is_some() =>
            {
                connection.cancel_events(id)?;
            }
            ResponseContent::CompleteStateResponse(answer) if id.contains("@tags") && own => {
                let state = answer.complete_state.unwrap_or_default();
                if let Err(error) = self.view.refresh_agents(&state) {
                    log::debug!("the tags of agents cannot be read: {error}");
                }
                self.tell().await;
            }
            content => {
                // The events of an update are queued before its answer.
                self.tell().await;
                if let Some(id) = self.requests.respond(&id, content) {
                    connection.cancel_logs(id)?;
                }
            }
        }
        Ok(())
    }

    /// The first answer to the subscription, or an event.
    async fn on_state(
        &mut self,
        connection: &Connection,
        answer: pb::CompleteStateResponse,
    ) -> Result<(), Trouble> {
        let state = answer.complete_state.unwrap_or_default();
        let Some(altered) = answer.altered_fields else {
            if let Err(error) = self.view.replace(&state) {
                log::error!("the server's state cannot be read: {error}");
            }
            for own in self.view.left_over() {
                let state = pb::WorkloadState {
                    instance_name: Some(model::instance_name(&own)),
                    execution_state: Some(states::removed()),
                };
                self.view.report(&state);
                self.send_state(connection, state)?;
            }
            self.is_subscribed = true;
            self.become_ready().await;
            return Ok(());
        };
        // Events of a subscription that is not answered yet are part of the answer.
        if self.is_subscribed {
            match self.view.change(&state, &altered) {
                Ok(()) => self.tell().await,
                Err(unclear) => {
                    log::debug!("the state is read again: {unclear}");
                    connection.cancel_events(self.subscription.clone())?;
                    self.subscribe(connection)?;
                }
            }
        }
        Ok(())
    }
}
