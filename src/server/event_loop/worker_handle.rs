//! Worker handle: a batching sender from the event loop to the worker.
//!
//! Messages and notices go in one by one and leave as batches, so the worker thread is not woken for
//! each of them. A small batch is handled inline, without waking any thread.
//!
//! Invariant: messages reach the worker in the order of the calls; notices may be later than messages.

use std::{mem, sync::Arc};

use crossbeam_channel::{Receiver, Sender};

use crate::broker::{PeerId, Seq};

use super::{
    super::{
        port::Notices,
        worker::{FromWorker, SharedWorker, ToWorker},
    },
    ROUND,
};

/// Most notices kept back while there is more to write.
const MOST_NOTICES: usize = 4096;

/// Limits for an inline run, in messages and in bytes. Beyond them the two threads work in parallel.
const FEW: usize = 8;
const FEW_BYTES: usize = 16 << 10;

pub(crate) struct WorkerHandle {
    shared_worker: Arc<SharedWorker>,
    sender: Sender<Vec<ToWorker>>,
    /// Wakes the worker thread. `None` after the handle has hung up.
    notified: Option<Sender<()>>,
    messages: Vec<ToWorker>,
    /// Estimated cost of handling the messages, in bytes.
    weight: usize,
    /// Notices of written frames, for the peers with such a request.
    written: Vec<(PeerId, Seq)>,
    /// A message waits for the worker's answer, so the batch leaves at the end of the round.
    urgent: bool,
}

impl WorkerHandle {
    pub(crate) fn new(
        shared_worker: Arc<SharedWorker>,
        sender: Sender<Vec<ToWorker>>,
        notified: Sender<()>,
    ) -> Self {
        let (messages, written) = (Vec::new(), Vec::new());
        Self {
            shared_worker,
            sender,
            notified: Some(notified),
            messages,
            weight: 0,
            written,
            urgent: false,
        }
    }

    /// Queues a message. It is sent at the end of the round.
    pub(super) fn tell(&mut self, message: ToWorker) {
        self.weight = self.weight.saturating_add(match &message {
            ToWorker::Port { bytes, .. } => *bytes,
            // The status walks through all peers.
            ToWorker::Status(..) => usize::MAX,
            _ => 0,
        });
        self.messages.push(message);
        self.urgent = true;
        if self.messages.len() >= ROUND {
            self.flush();
        }
    }

    /// Queues notices. They are sent when there is nothing else to do: a fan-out causes many at a time.
    pub(super) fn send_notices(&mut self, peer: PeerId, notices: Notices) {
        let Notices { written, drained } = notices;
        self.written.extend(written.map(|seq| (peer, seq)));
        // Not urgent, unlike `tell`: no answer of the worker is awaited for a notice.
        self.messages.extend(drained.map(|seq| ToWorker::Taken(peer, seq)));
        if self.written.len() + self.messages.len() >= MOST_NOTICES {
            self.flush();
        }
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.written.is_empty()
    }

    /// Lets this thread handle a small batch, if the worker is idle and `inbox` is empty, and returns
    /// the resulting messages. A small batch is sent if the worker is busy; a larger one stays queued.
    pub(super) fn try_run_inline(
        &mut self,
        inbox: &Receiver<Vec<FromWorker>>,
    ) -> Option<Vec<FromWorker>> {
        let little = self.messages.len() <= FEW && self.weight <= FEW_BYTES;
        if self.is_empty() || !little || self.notified.is_none() {
            return None;
        }
        let messages = self.take();
        match self.shared_worker.try_run_inline(messages, inbox) {
            Ok(worked) => {
                if worked.more {
                    self.notify();
                }
                Some(worked.told)
            }
            Err(messages) => {
                self.send(messages);
                None
            }
        }
    }

    /// Ends a round: sends the batch if it is urgent, or if the loop is not `busy`.
    pub(super) fn flush_batch(&mut self, busy: bool) {
        if self.urgent || (!busy && !self.is_empty()) {
            self.flush();
        }
    }

    /// Sends everything now. Returns false if the worker has ended.
    pub(super) fn flush(&mut self) -> bool {
        let messages = self.take();
        self.send(messages)
    }

    fn take(&mut self) -> Vec<ToWorker> {
        let mut messages = mem::take(&mut self.messages);
        if !self.written.is_empty() {
            messages.push(ToWorker::Written(mem::take(&mut self.written)));
        }
        (self.weight, self.urgent) = (0, false);
        messages
    }

    fn send(&self, messages: Vec<ToWorker>) -> bool {
        // The channel itself outlives a panic: the poisoned worker still holds its receiver.
        let there = !self.shared_worker.has_failed() && self.notified.is_some();
        let sent = there && self.sender.send(messages).is_ok();
        if sent {
            self.notify();
        } else {
            // `Loop::wait` reports a failed worker; after an ordered end nobody needs these messages.
            log::debug!("the worker has ended");
        }
        sent
    }

    fn notify(&self) {
        // A full channel holds a notification already.
        let _ = self.notified.as_ref().map(|notified| notified.try_send(()));
    }

    /// True if a panic has ended the worker for good.
    pub(super) fn has_failed(&self) -> bool {
        self.shared_worker.has_failed()
    }

    /// Drops the notification channel, so the worker thread ends.
    pub(super) fn hang_up(&mut self) {
        self.notified = None;
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{bounded, unbounded};

    use super::*;
    use crate::{
        limits::Limits,
        server::{event_loop::InFlight, port::FromPort},
    };

    /// Tells so many messages, one of them with so many bytes; gives whether they were handled here,
    /// and how many went to the worker's thread.
    fn tell(count: usize, bytes: usize) -> (bool, usize) {
        let (sender, to_worker_rx) = unbounded();
        let (from_worker_tx, inbox) = unbounded();
        let (notified, _rung) = bounded(1);
        let shared_worker = Arc::new(SharedWorker::for_test(to_worker_rx.clone(), from_worker_tx));
        let mut worker = WorkerHandle::new(shared_worker, sender, notified);
        let in_flight = Arc::new(InFlight::new(&Limits::default()));
        in_flight.add(bytes);
        let (peer, event, written) = (PeerId(7), FromPort::EndOfFile, 0);
        worker.tell(ToWorker::Port { peer, event, written, bytes, in_flight });
        (1..count).for_each(|seq| worker.tell(ToWorker::Taken(peer, seq as Seq)));
        let here = worker.try_run_inline(&inbox).is_some();
        worker.flush_batch(true);
        (here, to_worker_rx.try_iter().map(|batch| batch.len()).sum())
    }

    #[test]
    fn little_is_handled_here_and_more_than_that_is_left_to_the_thread() {
        assert_eq!(tell(FEW, FEW_BYTES), (true, 0));
        assert_eq!(tell(FEW + 1, FEW_BYTES), (false, FEW + 1));
        assert_eq!(tell(FEW, FEW_BYTES + 1), (false, FEW));
    }
}
