//! The outbox: the queue of messages to one peer.
//!
//! Messages go in with a [`Kind`], and come out numbered and in order, at most a window and one more
//! ahead of the pipe. The remaining ones wait here, counted against the memory budget, and can be
//! dropped. The server reports its last written message only with the workload's own requests, or where
//! the [`AckMode`] of a message demands it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    message::{ToAgent, ToWorkload},
    small_deque::SmallDeque,
};

use super::{AckMode, SubscriptionId, Tick};

/// Number of a message to one peer, counted from 1 over all its sessions.
pub type Seq = u64;

/// A message to a workload or to the agent.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    Workload(ToWorkload),
    Agent(ToAgent),
}

impl Outgoing {
    fn charge(&self) -> usize {
        match self {
            Self::Workload(message) => message.encoded_len(),
            Self::Agent(message) => message.charge(),
        }
    }

    /// The id of the request, if this is a response to a workload.
    fn request_id(&self) -> Option<&str> {
        match self {
            Self::Workload(ToWorkload::Response { request_id, .. }) => Some(request_id),
            Self::Workload(_) | Self::Agent(_) => None,
        }
    }
}

/// The role of a queued message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An answer; never dropped within its session.
    Answer,
    /// The first answer of a subscription. Its grace time starts when the workload has read it.
    FirstAnswer(SubscriptionId),
    /// An event; dropped if its subscription loses its rights.
    Event(SubscriptionId),
    /// Log entries; dropped if their request loses its rights.
    LogEntries,
}

#[derive(Debug)]
struct Queued {
    message: Outgoing,
    kind: Kind,
    len: usize,
}

/// A message handed to the server.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) seq: Seq,
    pub(super) message: Outgoing,
    pub(super) ack: AckMode,
}

/// Bounds of one outbox.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) bytes: usize,
    pub(super) messages: usize,
}

/// Bytes in several outboxes together.
#[derive(Clone, Debug, Default)]
pub(super) struct QueuedBytes(Arc<AtomicUsize>);

impl QueuedBytes {
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The bytes of one outbox, returned to the budget when it is dropped.
#[derive(Debug, Default)]
struct Charge {
    bytes: usize,
    total: QueuedBytes,
}

impl Charge {
    fn set(&mut self, bytes: usize) {
        // The difference may be negative: it wraps, and so does the addition.
        self.total.0.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The queue of one peer.
#[derive(Debug, Default)]
#[repr(C)] // what an event touches that need not wait comes first, close together
pub(super) struct Outbox {
    handed: Seq,
    written: Seq,
    queue: SmallDeque<Box<Queued>>,
    /// Time of the last progress in the pipe, while messages wait.
    stuck_since: Option<Tick>,
    bytes: Charge,
    /// First answers handed out and not yet read, oldest first.
    awaited: VecDeque<(Seq, SubscriptionId)>,
}

impl Outbox {
    /// An empty outbox with its bytes counted in `total` too.
    pub(super) fn new(total: QueuedBytes) -> Self {
        Self { bytes: Charge { bytes: 0, total }, ..Self::default() }
    }

    /// Bytes of the waiting messages.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Number of waiting messages without the events.
    pub(super) fn answers(&self) -> usize {
        let is_answer = |queued: &Queued| !matches!(queued.kind, Kind::Event(_));
        self.queue.iter().filter(|queued| is_answer(queued)).count()
    }

    /// Time since the last progress of the reader, if messages wait.
    pub(super) fn stuck_since(&self) -> Option<Tick> {
        self.stuck_since.filter(|_| !self.queue.is_empty())
    }

    /// True if one more message may wait. An empty outbox takes a message of any size.
    pub(super) fn has_room(&self, budget: Budget) -> bool {
        let within = self.bytes() < budget.bytes && self.queue.len() < budget.messages;
        // With the whole budget spent by others, an empty outbox still takes its event.
        self.queue.is_empty() || within
    }

    /// True if at most half of the budget is in use.
    pub(super) fn is_half_empty(&self, budget: Budget) -> bool {
        self.bytes() <= budget.bytes / 2 && self.queue.len() <= budget.messages / 2
    }

    pub(super) fn push(&mut self, message: Outgoing, kind: Kind, now: Tick) {
        if self.queue.is_empty() {
            self.stuck_since = Some(now);
        }
        let len = message.charge();
        self.bytes.set(self.bytes() + len);
        self.queue.push_back(Box::new(Queued { message, kind, len }));
    }

    /// The next message to hand out, if the window allows one.
    pub(super) fn hand(&mut self, window: usize) -> Option<Handed> {
        if !self.may_hand(window) {
            return None;
        }
        let Queued { message, kind, len } = *self.queue.pop_front()?;
        self.bytes.set(self.bytes() - len);
        let (seq, mut ack) = self.number(window);
        if let Kind::FirstAnswer(subscription) = kind {
            self.awaited.push_back((seq, subscription));
            // Writing is not enough here: the grace time begins when the reader has it.
            ack = AckMode::Taken;
        }
        Some(Handed { seq, message, ack })
    }

    /// The number of an event to hand out without queueing it, if no message waits and the window
    /// allows one.
    pub(super) fn pass(&mut self, window: usize) -> Option<(Seq, AckMode)> {
        (self.queue.is_empty() && self.may_hand(window)).then(|| self.number(window))
    }

    /// True if at most a window of messages is handed out and not yet written: one more is handed out
    /// ahead.
    fn may_hand(&self, window: usize) -> bool {
        self.handed - self.written <= window as Seq
    }

    /// The number of the next message. The last message of a window requests a notice.
    fn number(&mut self, window: usize) -> (Seq, AckMode) {
        self.handed += 1;
        let is_last = !self.may_hand(window);
        (self.handed, if is_last { AckMode::Written } else { AckMode::None })
    }

    /// The server has written all messages up to `seq` into the pipe.
    pub(super) fn note_written(&mut self, seq: Seq, now: Tick) {
        // Notices may come late or repeat: progress never goes back, nor beyond the handed out.
        let written = self.written.max(seq.min(self.handed));
        if written > self.written {
            self.stuck_since = Some(now);
        }
        self.written = written;
    }

    /// The reader has read all messages up to `seq`. Returns the subscriptions with a first answer
    /// among them.
    pub(super) fn note_taken(&mut self, seq: Seq, now: Tick) -> Vec<SubscriptionId> {
        // A message read is a message written: this notice may be the only one.
        self.note_written(seq, now);
        let taken = self.awaited.partition_point(|(own, _)| *own <= seq);
        self.awaited.drain(..taken).map(|(_, subscription)| subscription).collect()
    }

    /// Drops all messages, also those handed out and not yet written: [`Reset`](super::Output::Reset)
    /// drops them in the server.
    pub(super) fn reset(&mut self) {
        self.queue.clear();
        self.bytes.set(0);
        self.awaited.clear();
        // The numbers go on over sessions, so a late notice of the old one frees nothing.
        self.written = self.handed;
    }

    /// Drops the waiting events of a subscription.
    pub(super) fn take_back_events(&mut self, subscription: SubscriptionId) {
        // First answers stay: no answer is dropped within its session.
        let event = Kind::Event(subscription);
        self.take_back(|queued| queued.kind == event);
    }

    /// Drops the waiting log entries of a request.
    pub(super) fn take_back_log_entries(&mut self, request_id: &str) {
        self.take_back(|queued| {
            queued.kind == Kind::LogEntries && queued.message.request_id() == Some(request_id)
        });
    }

    /// Drops the waiting ends of sessions. Returns the number of the last message handed out: up to there
    /// the server may hold more of them.
    pub(super) fn take_back_closed(&mut self) -> Seq {
        self.take_back(|queued| {
            matches!(queued.message, Outgoing::Workload(ToWorkload::Closed { .. }))
        });
        self.handed
    }

    fn take_back(&mut self, is_lost: impl Fn(&Queued) -> bool) {
        let mut freed = 0;
        self.queue.retain(|queued| {
            let keep = !is_lost(queued);
            freed += if keep { 0 } else { queued.len };
            keep
        });
        self.bytes.set(self.bytes() - freed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(messages: usize) -> Outbox {
        let mut outbox = Outbox::default();
        for _ in 0..messages {
            outbox.push(Outgoing::Workload(ToWorkload::Accepted), Kind::Answer, Tick(0));
        }
        outbox
    }

    fn hand_all(outbox: &mut Outbox, window: usize) -> Vec<(Seq, AckMode)> {
        std::iter::from_fn(|| outbox.hand(window)).map(|out| (out.seq, out.ack)).collect()
    }

    #[test]
    fn window_and_one_are_handed_out_and_the_last_of_them_asks_for_a_notice() {
        let mut outbox = outbox(5);
        assert_eq!(outbox.bytes(), 10);
        assert_eq!(hand_all(&mut outbox, 1), [(1, AckMode::None), (2, AckMode::Written)]);
        assert_eq!(outbox.bytes(), 6);
        outbox.note_written(2, Tick(0));
        assert_eq!(
            hand_all(&mut outbox, 2),
            [(3, AckMode::None), (4, AckMode::None), (5, AckMode::Written)]
        );
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn what_need_not_wait_passes_and_counts_as_what_is_handed_out() {
        let mut outbox = outbox(1);
        assert_eq!(outbox.pass(1), None, "it would overtake");
        assert_eq!(hand_all(&mut outbox, 1), [(1, AckMode::None)]);
        assert_eq!(outbox.pass(1), Some((2, AckMode::Written)));
        assert_eq!(outbox.pass(1), None, "the server has no room");
        outbox.note_written(1, Tick(0));
        assert_eq!(outbox.pass(1), Some((3, AckMode::Written)));
        outbox.note_written(3, Tick(0));
        assert_eq!((outbox.pass(1), outbox.bytes()), (Some((4, AckMode::None)), 0));
    }

    #[test]
    fn bytes_are_counted_together_and_given_back_by_who_goes() {
        let total = QueuedBytes::default();
        let mut all = [Outbox::new(total.clone()), Outbox::new(total.clone())];
        for outbox in &mut all {
            outbox.push(Outgoing::Workload(ToWorkload::Accepted), Kind::Answer, Tick(0));
            outbox.push(Outgoing::Workload(ToWorkload::Accepted), Kind::Answer, Tick(0));
        }
        assert_eq!(total.bytes(), 8);
        let [mut first, second] = all;
        first.hand(1);
        assert_eq!(total.bytes(), 6);
        drop(second);
        assert_eq!(total.bytes(), 2);
        first.reset();
        assert_eq!(total.bytes(), 0);
    }

    #[test]
    fn late_notice_of_a_session_before_changes_nothing() {
        let mut outbox = outbox(3);
        hand_all(&mut outbox, 1);
        outbox.reset();
        outbox.push(Outgoing::Workload(ToWorkload::Accepted), Kind::Answer, Tick(0));
        assert_eq!(hand_all(&mut outbox, 1), [(3, AckMode::None)]);
        outbox.note_written(1, Tick(0));
        outbox.note_written(99, Tick(0));
        assert_eq!(outbox.written, 3);
    }

    #[test]
    fn first_answers_are_told_when_they_are_taken_and_events_can_be_taken_back() {
        let mut outbox = Outbox::default();
        let (one, two) = (SubscriptionId(1), SubscriptionId(2));
        outbox.push(Outgoing::Workload(ToWorkload::Accepted), Kind::FirstAnswer(one), Tick(0));
        outbox.push(Outgoing::Workload(ToWorkload::Accepted), Kind::FirstAnswer(two), Tick(0));
        outbox.push(Outgoing::Workload(ToWorkload::Accepted), Kind::Event(one), Tick(0));
        outbox.push(Outgoing::Workload(ToWorkload::Accepted), Kind::Event(two), Tick(0));
        outbox.take_back_events(one);
        assert_eq!(hand_all(&mut outbox, 9).len(), 3);
        assert_eq!(outbox.note_taken(1, Tick(0)), [one]);
        assert_eq!(outbox.note_taken(3, Tick(0)), [two]);
        assert_eq!(outbox.note_taken(3, Tick(0)), []);
    }
}
