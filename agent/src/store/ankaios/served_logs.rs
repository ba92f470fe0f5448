//! Logs that the server asks for: each request is a campaign, as of a workload.

use std::collections::BTreeMap;

use fifogate::{
    pb::ank_base::{self as pb, response::ResponseContent},
    state::Instance,
};
use tokio::{sync::mpsc, task::AbortHandle};

use super::{connection::LogPiece, given::GivenIds};
use crate::{
    logs::{self, Collector, Logs},
    model,
};

/// The campaigns of the server, by the ids of their requests.
#[derive(Debug, Default)]
pub(super) struct ServedLogs {
    /// Until the agent has them, nothing was written.
    pub(super) logs: Option<Logs>,
    running: BTreeMap<String, AbortHandle>,
}

impl ServedLogs {
    /// Starts to send the logs of the instances in a request; `known` says which of them are there.
    pub(super) fn begin(
        &mut self,
        to: &mpsc::Sender<LogPiece>,
        id: &str,
        request: &pb::LogsRequest,
        (given, is_wanted): (&GivenIds, impl Fn(&Instance) -> bool),
    ) {
        self.cancel(id);
        self.running.retain(|_, task| !task.is_finished());
        let all = request.workload_names.iter().map(model::instance);
        // An instance that is not there has a log without lines, which has ended: silence would be waited for.
        let (here, ended): (Vec<_>, Vec<_>) =
            all.map(|named| (given.back(&named), named)).partition(|(own, _)| is_wanted(own));
        for (_, named) in ended {
            let stop = pb::LogsStopResponse { workload_name: Some(model::instance_name(&named)) };
            let (to, piece) =
                (to.clone(), (id.to_owned(), ResponseContent::LogsStopResponse(stop)));
            tokio::spawn(async move { to.send(piece).await });
        }
        let Some(logs) = &self.logs else { return };
        let instances = here.into_iter().map(|(own, _)| own).collect();
        match logs::serve(logs, &Collector::of_queue(to.clone(), id), request, instances) {
            Ok(task) => {
                self.running.insert(id.to_owned(), task);
            }
            Err(reason) => log::warn!("a log request of the server is of no use: {reason}"),
        }
    }

    /// Ends a campaign without a further message.
    pub(super) fn cancel(&mut self, id: &str) {
        if let Some(task) = self.running.remove(id) {
            task.abort();
        }
    }

    /// Ends all: nobody reads them any more.
    pub(super) fn clear(&mut self) {
        std::mem::take(&mut self.running).into_values().for_each(|task| task.abort());
    }
}
