//! The ports of a loop, and which of them is due for a turn.

mod slot;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Instant,
};

use mio::{Token, event::Event};
use rustc_hash::FxHashMap;

use crate::{broker::PeerId, limits::Limits};

use super::{
    super::{
        fifo::PipePair,
        port::{Mail, OutFrame, Port, Turn, Wait},
    },
    FIRST_LOOK,
    in_flight::InFlight,
};

pub(super) use slot::{After, Slot};
use slot::{HELD, Notes, Times, WINDOW, Why};

/// All ports.
pub(super) struct Slots {
    all: FxHashMap<PeerId, Arc<Slot>>,
    /// Who wants a turn, by [`Why`]. They take turns, so that those who ask for something do not wait
    /// until thousands of others were told what happened.
    queues: Queues,
    /// Which of the queues is next.
    next: usize,
    /// Those that were removed while they stood in a queue. We may be the last to have their FIFOs open,
    /// so they are not dropped here.
    removed: Vec<Arc<Slot>>,
    times: Times,
    limits: Limits,
    stopped: bool,
}

/// What becomes due for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A look at its reader: watches are hints.
    Look,
    /// Its turn has taken too long.
    Held,
    /// The kernel may tell of it again.
    Unmute,
}

impl Slots {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            all: FxHashMap::default(),
            queues: Default::default(),
            next: 0,
            removed: Vec::new(),
            times: Times::new(),
            limits: limits.clone(),
            stopped: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<Arc<Slot>> {
        self.all.get(&peer).cloned()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.all.values().map(AsRef::as_ref)
    }

    /// The tokens of a peer's two descriptors: from the workload, to the workload.
    pub(super) fn tokens(&self, peer: PeerId) -> (Token, Token) {
        let first = usize::try_from(peer.0 * 2).unwrap_or(usize::MAX);
        (Token(first), Token(first + 1))
    }

    pub(super) fn add(
        &mut self,
        peer: PeerId,
        name: String,
        pair: Arc<PipePair>,
        port: Port,
    ) -> Arc<Slot> {
        let slot = Arc::new(Slot {
            peer,
            name,
            descriptors: port.descriptors(),
            pair,
            port: Mutex::new(port),
            notes: Mutex::new(Notes { reading: !self.stopped, ..Notes::default() }),
            in_flight: Arc::new(InFlight::new(&self.limits)),
        });
        self.all.insert(peer, Arc::clone(&slot));
        // What stands in the pipe already may never be announced.
        self.post(peer, Why::Event, |mail| mail.readable = true);
        slot
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Arc<Slot>> {
        let slot = self.all.remove(&peer)?;
        slot.notes().removed = true;
        self.times.retain(|(_, own, _)| *own != peer);
        Some(slot)
    }

    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// The next port for a turn; it is in it until [`Slots::after_turn`].
    pub(super) fn next_due(&mut self) -> Option<Arc<Slot>> {
        loop {
            if self.queues[self.next].is_empty() {
                self.next = 1 - self.next;
            }
            let why = self.next;
            let slot = self.queues[why].pop_front()?;
            self.next = 1 - why;
            let mut notes = slot.notes();
            notes.queued[why] = false;
            if notes.removed {
                drop(notes);
                self.removed.push(slot);
                continue;
            }
            // It is queued again when its turn is over; or it stood in both queues.
            if notes.busy || notes.mail.is_empty() {
                continue;
            }
            notes.busy = true;
            drop(notes);
            return Some(slot);
        }
    }

    /// What [`Slots::next_due`] found that is nobody's any more.
    pub(super) fn take_removed(&mut self) -> impl Iterator<Item = Arc<Slot>> {
        self.removed.drain(..)
    }

    /// A thread sleeps in this port's turn, or is expected to.
    pub(super) fn note_away(&mut self, peer: PeerId, now: Instant) {
        if let Some(slot) = self.all.get(&peer) {
            slot.notes().away = Some(now);
            self.times.insert((now + HELD, peer, Due::Held));
        }
    }

    /// The turn was not begun; its mail waits.
    pub(super) fn try_again_later(&mut self, slot: &Arc<Slot>, now: Instant) {
        let mut notes = slot.notes();
        notes.note_back(&mut self.times, slot.peer);
        notes.busy = false;
        self.times.insert((now + FIRST_LOOK, slot.peer, Due::Look));
    }

    /// An event of the kernel.
    pub(super) fn note(&mut self, token: Token, event: &Event) {
        let peer = PeerId((token.0 / 2) as u64);
        if token.0.is_multiple_of(2) {
            let gone = event.is_read_closed();
            self.post(peer, Why::Event, |mail| {
                mail.readable = true;
                mail.writers_gone |= gone;
            });
        } else {
            self.look_at(peer);
        }
    }

    pub(super) fn look_at(&mut self, peer: PeerId) {
        self.post(peer, Why::Event, |mail| mail.look_at_reader = true);
    }

    pub(super) fn note_reader_left(&mut self, peer: PeerId) {
        self.post(peer, Why::Event, |mail| mail.reader_left = true);
    }

    pub(super) fn look_at_all(&mut self) {
        let waiting = |slot: &&Arc<Slot>| slot.notes().wait != Wait::No;
        let all: Vec<_> = self.all.values().filter(waiting).map(|slot| slot.peer).collect();
        all.into_iter().for_each(|peer| self.look_at(peer));
    }

    pub(super) fn reset(&mut self, peer: PeerId) {
        self.post(peer, Why::Mail, |mail| {
            mail.reset = true;
            mail.frames.clear();
        });
    }

    pub(super) fn send(&mut self, peer: PeerId, frame: OutFrame) {
        self.post(peer, Why::Mail, |mail| mail.frames.push_back(frame));
    }

    pub(super) fn set_reading(&mut self, peer: PeerId, on: bool) {
        let on = on && !self.stopped;
        if let Some(slot) = self.all.get(&peer) {
            slot.notes().reading = on;
        }
        if on {
            self.read_on(peer);
        }
    }

    /// What is unread and was announced before may be read now.
    pub(super) fn read_on(&mut self, peer: PeerId) {
        let unread = self.all.get(&peer).is_some_and(|slot| slot.notes().unread);
        if unread {
            self.post(peer, Why::Event, |mail| mail.readable = true);
        }
    }

    pub(super) fn stop_reading(&mut self) {
        self.stopped = true;
        for slot in self.all.values() {
            slot.notes().reading = false;
        }
    }

    /// Whether nothing that could be written waits to be. A pair that is held cannot be.
    pub(super) fn all_flushed(&self) -> bool {
        let flushed = |slot: &Slot| {
            let notes = slot.notes();
            let waits = !notes.mail.is_empty() || notes.busy || notes.wait != Wait::No;
            !waits || (notes.busy && notes.probation > 0)
        };
        self.all().all(flushed)
    }

    /// Notes what came of a turn, and queues the next one if it has to follow. `None` if the port was
    /// removed meanwhile.
    pub(super) fn after_turn(&mut self, slot: &Arc<Slot>, turn: &Turn) -> Option<After> {
        let mut notes = slot.notes();
        if notes.removed {
            return None;
        }
        let held = notes.note_back(&mut self.times, slot.peer);
        notes.busy = false;
        notes.unread |= turn.more;
        // With too much on its way to the worker, a port waits for the worker to say so.
        if notes.unread && !slot.in_flight.park() && notes.reading {
            notes.mail.readable = true;
        }
        if !notes.mail.is_empty() {
            queue(&mut self.queues, &mut notes, slot, Why::Event);
        }
        let before = std::mem::replace(&mut notes.wait, turn.wait);
        notes.set_look(&mut self.times, slot.peer);
        let mut after = After { held, waited: None, wakes: false };
        if !notes.muted {
            after.wakes = notes.count(turn.is_idle(), self.limits.max_wakeups);
            after.waited = Some(before).filter(|before| *before != turn.wait && !after.wakes);
        }
        if after.wakes {
            notes.muted = true;
            self.times.insert((Instant::now() + WINDOW, slot.peer, Due::Unmute));
        }
        Some(after)
    }

    pub(super) fn next_time(&self) -> Option<Instant> {
        self.times.first().map(|(at, ..)| *at)
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(PeerId, Due)> {
        let mut found = Vec::new();
        while self.times.first().is_some_and(|(at, ..)| *at <= now) {
            found.extend(self.times.pop_first().map(|(_, peer, due)| (peer, due)));
        }
        found
    }

    fn post(&mut self, peer: PeerId, why: Why, write: impl FnOnce(&mut Mail)) {
        let Some(slot) = self.all.get(&peer) else { return };
        let mut notes = slot.notes();
        write(&mut notes.mail);
        queue(&mut self.queues, &mut notes, slot, why);
    }
}

type Queues = [VecDeque<Arc<Slot>>; 2];

fn queue(queues: &mut Queues, notes: &mut Notes, slot: &Arc<Slot>, why: Why) {
    if !std::mem::replace(&mut notes.queued[why as usize], true) {
        queues[why as usize].push_back(Arc::clone(slot));
    }
}
