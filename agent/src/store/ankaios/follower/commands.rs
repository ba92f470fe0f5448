//! What the agent wants of its server.

use fifogate::{
    internal::state::AGENTS,
    pb::ank_base::{self as pb, request::RequestContent},
};

use super::{End, Follower, OWN};
use crate::{
    apart,
    grpc_api::{AgentLoadStatus, to_server},
    store::{
        Refused,
        ankaios::{
            Asked, Command, Fetch, check, check_size,
            connection::{Connection, Trouble},
            forwarded_id, update_request,
        },
    },
};

impl Follower {
    /// Does what the agent wants; without a connection only as far as that is possible.
    pub(super) async fn on_command(
        &mut self,
        connection: Option<&Connection>,
        command: Option<Command>,
    ) -> Result<(), End> {
        match command {
            // All handles are gone: so is the agent.
            None => return Err(End::Closed(None)),
            Some(Command::Close(closed)) => return Err(End::Closed(Some(closed))),
            Some(Command::Report(mut states)) => {
                states.retain(|state| self.view.report(state));
                // Known here before anywhere else.
                self.tell().await;
                for state in states {
                    if let Some(connection) = connection {
                        self.send_state(connection, state)?;
                    }
                }
            }
            Some(Command::Status(status)) => {
                if let Some(connection) = connection {
                    let pb::AgentStatus { cpu_usage, free_memory } = status;
                    let agent_name = self.options.agent.clone();
                    let status = AgentLoadStatus { agent_name, cpu_usage, free_memory };
                    connection.send(to_server::Content::AgentLoadStatus(status))?;
                }
            }
            Some(Command::Update(asked)) => self.update(connection, *asked).await?,
            Some(Command::ServeLogs(logs)) => self.logs.logs = Some(logs),
            Some(Command::FetchLogs(fetch)) => {
                let Fetch { id, request: asked, pieces } = *fetch;
                match connection {
                    None => pieces.end("the server cannot be reached"),
                    Some(connection) => {
                        connection.request(id.clone(), RequestContent::LogsRequest(asked))?;
                        self.requests.add_logs(id, pieces);
                    }
                }
            }
            Some(Command::CancelLogs(id)) => {
                if self.requests.cancel_logs(&id)
                    && let Some(connection) = connection
                {
                    connection.cancel_logs(id)?;
                }
            }
        }
        Ok(())
    }

    async fn update(
        &mut self,
        connection: Option<&Connection>,
        asked: Asked,
    ) -> Result<(), Trouble> {
        let Asked { by, update, request_id, answer } = asked;
        let Some(connection) = connection else {
            let text = "The server cannot be reached".to_owned();
            let _ = answer.send(Err(Refused::Unavailable(text)));
            return Ok(());
        };
        let (current, own) = (self.current.clone(), update.clone());
        let work = current.work_of(&update);
        // The agent's thread does not wait for a large one; the server's messages do.
        if let Err(refused) = apart::plan(work, move || check(&current, &own)).await {
            let _ = answer.send(Err(refused));
            return Ok(());
        }
        let by = if by.is_empty() { OWN } else { &by };
        let (id, barrier) = (forwarded_id(by, &request_id), self.own_id("after"));
        let changes_tags = update.masks.is_empty()
            || update.masks.iter().any(|mask| mask.split('.').next() == Some(AGENTS));
        let content = update_request(update);
        if let Err(refused) = check_size(&id, &content) {
            let _ = answer.send(Err(refused));
            return Ok(());
        }
        connection.request(id.clone(), content)?;
        if changes_tags {
            // The server tells no event about them.
            self.read_tags(connection)?;
        }
        // Its answer comes behind all events of the update; those of configs come after the update's own.
        connection.read(barrier.clone(), &["desiredState.apiVersion"], false)?;
        self.requests.add_update(&id, &barrier, answer);
        Ok(())
    }
}
