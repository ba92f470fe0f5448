//! What the worker is to be told, in batches: it is not to be woken for each message.

use std::mem;

use crossbeam_channel::Sender;

use crate::broker::{PeerId, Seq};

use super::{
    super::{port::Notices, worker::FromReactor},
    ROUND,
};

/// What was written to so many is told, even if there is more to write.
const MOST_NOTICES: usize = 4096;

pub(super) struct ToWorker {
    /// `None`: nobody is told anything any more.
    sender: Option<Sender<Vec<FromReactor>>>,
    messages: Vec<FromReactor>,
    /// What was written, as far as the worker wants to know.
    written: Vec<(PeerId, Seq)>,
    /// Somebody waits for the worker to do something about it.
    urgent: bool,
}

impl ToWorker {
    pub(super) fn new(sender: Sender<Vec<FromReactor>>) -> Self {
        Self { sender: Some(sender), messages: Vec::new(), written: Vec::new(), urgent: false }
    }

    /// It hears of it at the end of the round.
    pub(super) fn tell(&mut self, message: FromReactor) {
        self.messages.push(message);
        self.urgent = true;
        if self.messages.len() >= ROUND {
            self.flush();
        }
    }

    /// It hears of these when there is nothing else to do: many are told something at a time.
    pub(super) fn tell_notices(&mut self, peer: PeerId, notices: Notices) {
        let Notices { written, taken } = notices;
        self.written.extend(written.map(|seq| (peer, seq)));
        self.messages.extend(taken.map(|seq| FromReactor::Taken(peer, seq)));
        if self.written.len() + self.messages.len() >= MOST_NOTICES {
            self.flush();
        }
    }

    /// Tells what is to be told by the end of a round. `busy`: there is more to do.
    pub(super) fn end_round(&mut self, busy: bool) {
        let any = !self.messages.is_empty() || !self.written.is_empty();
        if self.urgent || (any && !busy) {
            self.flush();
        }
    }

    /// Tells everything now; gives whether the worker is still there.
    pub(super) fn flush(&mut self) -> bool {
        let mut messages = mem::take(&mut self.messages);
        if !self.written.is_empty() {
            messages.push(FromReactor::Written(mem::take(&mut self.written)));
        }
        self.urgent = false;
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send(messages).is_ok());
        if !sent {
            log::debug!("the worker has ended");
        }
        sent
    }

    /// It is told nothing any more, and ends.
    pub(super) fn hang_up(&mut self) {
        self.sender = None;
    }
}
