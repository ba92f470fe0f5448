//! The stream of messages to one client.
//!
//! Responses of fifogate and changed states go in. A message counts as taken when HTTP/2 asks for it, and it
//! does so only while the client takes data: fifogate hears of it, and sends the next ones.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tonic::Status;

use super::{
    api::UpdateWorkloadState,
    commanders::Numbered,
    wire::{ResponseHead, ToCommander, empty_state},
};
use crate::log_text::Quoted;

/// Ids of reads without an answer yet. Only streams of `ank` note them.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads(Arc<Mutex<HashSet<String>>>);

/// Longest response looked into: an error is short.
const LONGEST_ERROR: usize = 16 << 10;

impl Reads {
    pub(super) fn note(&self, id: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// The response as `ank` needs it: it waits in vain if a read is answered by an error.
    fn fitted(&self, response: Bytes) -> Bytes {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.is_empty() {
            return response;
        }
        if response.len() > LONGEST_ERROR {
            // The id alone: it is the first field.
            if let Some(id) = id_of(&response) {
                reads.remove(id);
            }
            return response;
        }
        let Ok(head) = ResponseHead::decode(response.clone()) else { return response };
        let was_read = reads.remove(&head.request_id);
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

/// The id of a response, without decoding its content.
fn id_of(response: &[u8]) -> Option<&str> {
    // Field 1, length-delimited. fifogate writes it first.
    let mut rest = response.strip_prefix(&[1 << 3 | 2])?;
    let len = prost::encoding::decode_varint(&mut rest).ok()?;
    std::str::from_utf8(rest.get(..usize::try_from(len).ok()?)?).ok()
}

/// Messages to one client, until the stream ends.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) messages: mpsc::Receiver<Numbered>,
    pub(super) states: mpsc::Receiver<UpdateWorkloadState>,
    /// Gets the numbers of taken messages. Its end ends the stream.
    pub(super) took: mpsc::UnboundedSender<u64>,
    /// How the stream ends: without a status in order.
    pub(super) end: mpsc::Receiver<Status>,
    /// Reads of `ank` under way.
    pub(super) reads: Reads,
    /// The place of this commander among all.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Stream for Outgoing {
    type Item = Result<ToCommander, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(Some(message)) = self.messages.poll_recv(context) {
            if message.wants_took {
                // The session may have ended.
                let _ = self.took.send(message.number);
            }
            let response = Some(self.reads.fitted(message.response));
            return Poll::Ready(Some(Ok(ToCommander { response, states: None })));
        }
        // Behind all messages that are there. A state without sender means that nobody looks at states.
        if let Poll::Ready(Some(states)) = self.states.poll_recv(context) {
            return Poll::Ready(Some(Ok(ToCommander { states: Some(states), response: None })));
        }
        self.end.poll_recv(context).map(|status| status.map(Err))
    }
}
