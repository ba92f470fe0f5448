//! The stream of messages to one client.
//!
//! Responses of fifogate and changed states go in. A message counts as taken when HTTP/2 asks for it, and it
//! does so only while the client takes data: fifogate hears of it, and sends the next ones.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Sleep, sleep},
};
use tokio_stream::Stream;
use tonic::Status;

use super::{
    commanders::Numbered,
    wire::{ResponseHead, ToCommander, empty_state},
};
use crate::{grpc_api::UpdateWorkloadState, log_text::Quoted};

/// Ids of reads without an answer yet. Only streams of `ank` note them.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads(Arc<Mutex<HashSet<String>>>);

/// Quiet time between the acceptance of a log request and its first lines: the SDKs register for lines only
/// after it. It is as long as that of events (`--subscribe-grace-ms`).
const LOG_GRACE: Duration = Duration::from_millis(20);

impl Reads {
    pub(super) fn note(&self, id: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// The response as `ank` needs it: it waits in vain if a read is answered by an error.
    fn fitted(&self, head: ResponseHead, response: Bytes) -> Bytes {
        let was_read =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&head.request_id);
        match head.error {
            Some(error) if was_read => {
                let text = Quoted(&error.message);
                log::warn!("a read of a client is answered without a state: {text}");
                empty_state(head.request_id)
            }
            _ => response,
        }
    }
}

/// Messages to one client, until the stream ends.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) messages: mpsc::Receiver<Numbered>,
    /// For `ank` alone.
    pub(super) states: Option<mpsc::Receiver<UpdateWorkloadState>>,
    /// Gets the numbers of taken messages. Its end ends the stream.
    pub(super) took: mpsc::UnboundedSender<u64>,
    /// How the stream ends: without a status in order.
    pub(super) end: mpsc::Receiver<Status>,
    /// Reads of `ank` under way.
    pub(super) reads: Reads,
    /// A message that came too early.
    pub(super) held: Option<Numbered>,
    /// The end of the quiet time of a log request.
    pub(super) quiet: Option<Pin<Box<Sleep>>>,
    /// The place of this commander among all.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Outgoing {
    /// Takes a message, if it is time for it.
    fn take(&mut self, context: &mut Context<'_>) -> Poll<Numbered> {
        let message = match self.held.take() {
            Some(message) => message,
            None => match self.messages.poll_recv(context) {
                Poll::Ready(Some(message)) => message,
                // At its end the other receivers decide.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            },
        };
        if message.head.is_of_a_log()
            && let Some(quiet) = &mut self.quiet
            && quiet.as_mut().poll(context).is_pending()
        {
            self.held = Some(message);
            return Poll::Pending;
        }
        if message.head.begins_logs() {
            self.quiet = Some(Box::pin(sleep(LOG_GRACE)));
        }
        Poll::Ready(message)
    }
}

impl Stream for Outgoing {
    type Item = Result<ToCommander, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(message) = self.take(context) {
            if message.wants_took {
                // The session may have ended.
                let _ = self.took.send(message.number);
            }
            let response = Some(self.reads.fitted(message.head, message.response));
            return Poll::Ready(Some(Ok(ToCommander { response, states: None })));
        }
        // Behind all messages that are there. States without a sender end nothing.
        if let Some(states) = &mut self.states
            && let Poll::Ready(Some(states)) = states.poll_recv(context)
        {
            return Poll::Ready(Some(Ok(ToCommander { states: Some(states), response: None })));
        }
        if self.held.is_some() {
            return Poll::Pending;
        }
        self.end.poll_recv(context).map(|status| status.map(Err))
    }
}
