//! Requests under way at the server, and where their responses go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fifogate::pb::ank_base::{self as pb, response::ResponseContent};
use tokio::sync::{mpsc, oneshot};

use crate::store::Refused;

/// Most bytes of log entries that wait for one collector. The server cannot be asked to wait.
const MOST_BYTES: usize = 8 << 20;

/// An update under way.
#[derive(Debug)]
struct Update {
    answer: oneshot::Sender<Result<pb::UpdateStateSuccess, Refused>>,
    /// The server's answer, until all events of the update have come: the answer to a later request shows it.
    success: Option<pb::UpdateStateSuccess>,
}

/// All of them, by their ids.
#[derive(Debug, Default)]
pub(super) struct Requests {
    updates: BTreeMap<String, Update>,
    /// The update that each barrier belongs to.
    barriers: BTreeMap<String, String>,
    logs: BTreeMap<String, Pieces>,
}

impl Requests {
    /// Notes an update, and the id of the request behind it.
    pub(super) fn add_update(
        &mut self,
        id: &str,
        barrier: &str,
        answer: oneshot::Sender<Result<pb::UpdateStateSuccess, Refused>>,
    ) {
        // One that reuses an id has the answer to both; the first one waits in vain, as at the server.
        self.updates.insert(id.to_owned(), Update { answer, success: None });
        self.barriers.insert(barrier.to_owned(), id.to_owned());
    }

    pub(super) fn add_logs(&mut self, id: String, pieces: Pieces) {
        self.logs.insert(id, pieces);
    }

    /// Forgets a log request; false if there was none.
    pub(super) fn cancel_logs(&mut self, id: &str) -> bool {
        self.logs.remove(id).is_some()
    }

    /// Takes the response to a request. Returns the id of a log request that the server has to end, as its
    /// collector does not keep up.
    pub(super) fn respond(&mut self, id: &str, content: ResponseContent) -> Option<String> {
        if let Some(update) = self.barriers.remove(id) {
            // An update without an answer yet has none: the server answers in order.
            if let Some(Update { answer, success: Some(success) }) = self.updates.remove(&update) {
                let _ = answer.send(Ok(success));
            }
            return None;
        }
        match (content, self.updates.get_mut(id)) {
            (ResponseContent::UpdateStateSuccess(success), Some(update)) => {
                update.success = Some(success);
            }
            (ResponseContent::Error(error), Some(_)) => {
                if let Some(update) = self.updates.remove(id) {
                    let _ = update.answer.send(Err(Refused::Invalid(error.message)));
                }
            }
            (content, _) => {
                let pieces = self.logs.get_mut(id)?;
                pieces.count(&content);
                if !pieces.add(Ok(content)) {
                    let pieces = self.logs.remove(id)?;
                    pieces.end("it is not read in time");
                    return Some(id.to_owned());
                }
                if pieces.left == Some(0) {
                    // There is nothing to cancel any more.
                    self.logs.remove(id);
                }
            }
        }
        None
    }

    /// The connection is lost, and with it everything that is under way.
    pub(super) fn lose(&mut self) {
        for update in std::mem::take(&mut self.updates).into_values() {
            let text = "The connection to the server was lost; it may have done the update";
            // What it has done is known already.
            let answer = update.success.ok_or_else(|| Refused::Unavailable(text.to_owned()));
            let _ = update.answer.send(answer);
        }
        self.barriers.clear();
        for pieces in std::mem::take(&mut self.logs).into_values() {
            pieces.end("the connection to the server was lost");
        }
    }
}

/// The way of responses to a collector of logs. It is bounded: a collector that does not keep up loses the rest.
#[derive(Debug)]
pub(super) struct Pieces {
    to: mpsc::UnboundedSender<Result<ResponseContent, String>>,
    waiting: Arc<AtomicUsize>,
    /// Logs that have not ended yet; `None` until the request is accepted.
    left: Option<usize>,
}

/// The other end of [`Pieces`].
#[derive(Debug)]
pub(super) struct PiecesOut {
    from: mpsc::UnboundedReceiver<Result<ResponseContent, String>>,
    waiting: Arc<AtomicUsize>,
}

impl Pieces {
    pub(super) fn new() -> (Self, PiecesOut) {
        let (to, from) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        (Self { to, waiting: waiting.clone(), left: None }, PiecesOut { from, waiting })
    }

    fn count(&mut self, content: &ResponseContent) {
        match content {
            ResponseContent::LogsRequestAccepted(own) => self.left = Some(own.workload_names.len()),
            ResponseContent::LogsStopResponse(_) => {
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
            ResponseContent::Error(_) => self.left = Some(0),
            _ => {}
        }
    }

    /// Adds a response; false if too much waits already.
    fn add(&self, piece: Result<ResponseContent, String>) -> bool {
        let bytes = size(&piece);
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        // One that is alone is taken, whatever its size.
        if before > 0 && before + bytes > MOST_BYTES {
            return false;
        }
        self.to.send(piece).is_ok()
    }

    /// Ends the responses, for this reason.
    pub(super) fn end(self, reason: &str) {
        let _ = self.to.send(Err(reason.to_owned()));
    }
}

impl PiecesOut {
    /// The next response, or the reason why none comes any more.
    pub(super) async fn next(&mut self) -> Result<ResponseContent, String> {
        let piece = self.from.recv().await.unwrap_or_else(|| Err("the agent ends".to_owned()));
        self.waiting
            .fetch_sub(size(&piece).min(self.waiting.load(Ordering::Relaxed)), Ordering::Relaxed);
        piece
    }
}

fn size(piece: &Result<ResponseContent, String>) -> usize {
    match piece {
        Ok(content) => content.encoded_len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: usize) -> ResponseContent {
        let entry = pb::LogEntry { workload_name: None, message: "x".repeat(bytes) };
        ResponseContent::LogEntriesResponse(pb::LogEntriesResponse { log_entries: vec![entry] })
    }

    fn success() -> ResponseContent {
        ResponseContent::UpdateStateSuccess(pb::UpdateStateSuccess::default())
    }

    #[tokio::test]
    async fn update_is_answered_when_the_request_behind_it_is_and_an_error_at_once() {
        let mut requests = Requests::default();
        let (answer, mut answered) = oneshot::channel();
        requests.add_update("w@1", "after1", answer);
        requests.respond("w@1", success());
        assert!(answered.try_recv().is_err(), "its events may still come");
        requests.respond("after1", ResponseContent::CompleteStateResponse(Default::default()));
        assert_eq!(answered.await.unwrap(), Ok(pb::UpdateStateSuccess::default()));
        let (answer, answered) = oneshot::channel();
        requests.add_update("w@2", "after2", answer);
        let message = "no".to_owned();
        requests.respond("w@2", ResponseContent::Error(pb::Error { message: message.clone() }));
        assert_eq!(answered.await.unwrap(), Err(Refused::Invalid(message)));
    }

    #[tokio::test]
    async fn lost_connection_answers_everything_with_what_is_known() {
        let mut requests = Requests::default();
        let (answers, answered): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot::channel()).unzip();
        for (n, answer) in answers.into_iter().enumerate() {
            requests.add_update(&format!("w@{n}"), &format!("after{n}"), answer);
        }
        let (pieces, mut out) = Pieces::new();
        requests.add_logs("w@l".to_owned(), pieces);
        requests.respond("w@0", success());
        requests.lose();
        let mut all = Vec::new();
        for answer in answered {
            all.push(answer.await.unwrap().is_ok());
        }
        assert_eq!(all, [true, false]);
        assert!(out.next().await.unwrap_err().contains("was lost"));
    }

    #[tokio::test]
    async fn collector_that_does_not_keep_up_loses_the_rest_and_others_nothing() {
        let mut requests = Requests::default();
        let (slow, mut slow_out) = Pieces::new();
        let (quick, mut quick_out) = Pieces::new();
        requests.add_logs("slow".to_owned(), slow);
        requests.add_logs("quick".to_owned(), quick);
        let half = MOST_BYTES / 2;
        assert_eq!(requests.respond("slow", line(half)), None);
        for _ in 0..3 {
            assert_eq!(requests.respond("quick", line(half)), None);
            quick_out.next().await.unwrap();
        }
        assert_eq!(requests.respond("slow", line(half)), Some("slow".to_owned()));
        assert!(!requests.cancel_logs("slow"));
        slow_out.next().await.unwrap();
        assert!(slow_out.next().await.unwrap_err().contains("not read in time"));
        // One that is larger than the bound, and alone.
        assert_eq!(requests.respond("quick", line(MOST_BYTES + 1)), None);
    }
}
