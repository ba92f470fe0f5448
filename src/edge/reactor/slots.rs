//! The ports of a loop, and which of them is due for a turn.

mod slot;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use crate::{broker::PeerId, limits::Limits, numbered::Numbered};
use mio::{Token, event::Event};

use super::{
    super::{
        fifo::PipePair,
        port::{FromPort, Mail, OutFrame, Port, Turn, Wait},
    },
    FIRST_LOOK,
    in_flight::InFlight,
};

use slot::{After, HELD, Notes, Times, Why};
pub(super) use slot::{Back, Less, Slot, Visit};

/// All ports.
pub(super) struct Slots {
    all: Numbered<PeerId, Box<Slot>>,
    /// Who wants a turn, by [`Why`]. They take turns, so that those who ask for something do not wait
    /// until thousands of others were told what happened.
    queues: Queues,
    /// Which of the queues is next.
    next: usize,
    /// How many readers may have taken what they were sent.
    unsure: usize,
    times: Times,
    limits: Limits,
    stopped: bool,
}

/// For fewer than so many it is no more work to ask each when there is something to write.
const LEAST_UNSURE: usize = 16;

/// What becomes due for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A look at its reader: watches are hints.
    Look,
    /// Its turn has taken too long.
    Held,
    /// The kernel may tell of it again.
    Unmute,
    /// The kernel may tell again of what its reader reads.
    Hear,
    /// The next reader that leaves may be told of.
    Leave,
    /// Its pair may be opened by now.
    Open,
}

impl Slots {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            all: Numbered::default(),
            queues: Default::default(),
            next: 0,
            unsure: 0,
            times: Times::new(),
            limits: limits.clone(),
            stopped: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Slot> {
        self.all.get(&peer).map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Slot> {
        self.all.get_mut(&peer).map(AsMut::as_mut)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.all.values().map(AsRef::as_ref)
    }

    /// The tokens of a peer's two descriptors: from the workload, to the workload.
    pub(super) fn tokens(peer: PeerId) -> (Token, Token) {
        let first = usize::try_from(peer.0 * 2).unwrap_or(usize::MAX);
        (Token(first), Token(first + 1))
    }

    pub(super) fn add(&mut self, peer: PeerId, name: String, pair: Arc<PipePair>, port: Box<Port>) {
        let slot = Slot {
            descriptors: port.descriptors(),
            port: Some(port),
            notes: Notes { reading: !self.stopped, ..Notes::default() },
            in_flight: Arc::new(InFlight::new(&self.limits)),
            peer,
            name,
            pair,
        };
        self.all.insert(peer, Box::new(slot));
        // What stands in the pipe already may never be announced.
        self.post(peer, Why::Event, |mail| mail.readable = true);
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Box<Slot>> {
        let slot = self.all.remove(&peer)?;
        self.times.retain(|(_, own, _)| *own != peer);
        self.unsure -= usize::from(slot.notes.unsure);
        Some(slot)
    }

    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// The next port for a turn, and whether that is expected to sleep. It is away until
    /// [`Slots::after_turn`].
    pub(super) fn next_due(&mut self) -> Option<(Visit, bool)> {
        loop {
            if self.queues[self.next].is_empty() {
                self.next = 1 - self.next;
            }
            let why = self.next;
            let peer = self.queues[why].pop_front()?;
            self.next = 1 - why;
            let Some(slot) = self.all.get_mut(&peer) else { continue };
            slot.notes.queued[why] = false;
            // It may be queued again when it is back, or have stood in both queues.
            if let Some(visit) = slot.visit() {
                return Some((visit, slot.is_suspect()));
            }
        }
    }

    /// Whether the next turn is one of those who are sent something, and none of them waits here. They
    /// take turns with those to whom something happened.
    pub(super) fn is_turn_of_mail(&mut self) -> bool {
        let [events, mail] =
            [Why::Event, Why::Mail].map(|why| self.queues[why as usize].is_empty());
        let next = mail && (events || self.next == Why::Mail as usize);
        if next {
            self.next = Why::Event as usize;
        }
        next
    }

    /// Sends a port on its turn with one frame; or lets the frame wait for the port's turn, if that is
    /// away, has others to send first or is expected to sleep.
    pub(super) fn send_at_once(&mut self, peer: PeerId, frame: OutFrame) -> Option<Visit> {
        let slot = self.all.get_mut(&peer)?;
        if slot.notes.mail.is_empty()
            && !slot.is_suspect()
            && let Some(port) = slot.port.take()
        {
            let mut mail = Mail::default();
            mail.frames.push_back(frame);
            return Some(slot.visit_with(port, mail));
        }
        slot.notes.mail.frames.push_back(frame);
        queue(&mut self.queues, slot, Why::Mail);
        None
    }

    /// Whether so many readers may have taken what they were sent that it is worth asking for all.
    pub(super) fn are_many_unsure(&self) -> bool {
        self.unsure >= LEAST_UNSURE
    }

    /// There is room again in the pipe with this token.
    pub(super) fn note_taken(&mut self, token: Token) {
        let Some(slot) = self.all.get_mut(&peer_of(token)) else { return };
        // A port that is away finds out itself.
        if slot.notes.unsure
            && let Some(port) = &mut slot.port
        {
            port.note_taken();
            slot.notes.unsure = false;
            self.unsure -= 1;
        }
    }

    /// A thread sleeps in this port's turn, or is expected to.
    pub(super) fn note_away(&mut self, peer: PeerId, now: Instant) {
        if let Some(slot) = self.all.get_mut(&peer) {
            slot.notes.away = Some(now);
            self.times.insert((now + HELD, peer, Due::Held));
        }
    }

    /// The turn was not begun; its mail waits.
    pub(super) fn try_again_later(&mut self, visit: Visit, now: Instant) {
        let peer = visit.peer();
        let Some(slot) = self.all.get_mut(&peer) else { return };
        slot.notes.note_back(&mut self.times, peer);
        slot.take_back(visit);
        self.times.insert((now + FIRST_LOOK, peer, Due::Look));
    }

    /// An event of the kernel.
    pub(super) fn note(&mut self, token: Token, event: &Event) {
        let peer = peer_of(token);
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
        let waiting = self.all().filter(|slot| slot.notes.wait != Wait::No);
        let all: Vec<_> = waiting.map(|slot| slot.peer).collect();
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
        if let Some(slot) = self.all.get_mut(&peer) {
            slot.notes.reading = on;
        }
        if on {
            self.read_on(peer);
        }
    }

    /// What is unread and was announced before may be read now.
    pub(super) fn read_on(&mut self, peer: PeerId) {
        let unread = self.all.get(&peer).is_some_and(|slot| slot.notes.unread);
        if unread {
            self.post(peer, Why::Event, |mail| mail.readable = true);
        }
    }

    pub(super) fn stop_reading(&mut self) {
        self.stopped = true;
        for slot in self.all.values_mut() {
            slot.notes.reading = false;
        }
    }

    /// Whether nothing that could be written waits to be. A pair that is held cannot be.
    pub(super) fn all_flushed(&self) -> bool {
        let flushed = |slot: &Slot| {
            let (notes, away) = (&slot.notes, slot.port.is_none());
            let waits = !notes.mail.is_empty() || away || notes.wait != Wait::No;
            !waits || (away && notes.probation > 0)
        };
        self.all().all(flushed)
    }

    /// Notes what came of a turn, and queues the next one if it has to follow. The port comes back if
    /// nobody wants it any more.
    pub(super) fn after_turn(&mut self, peer: PeerId, back: Back) -> Result<After, Box<Port>> {
        let Back { port, mut turn } = back;
        let Some(slot) = self.all.get_mut(&peer) else { return Err(port) };
        slot.port = Some(port);
        let events = std::mem::take(&mut turn.events);
        turn.useful |= events.iter().any(|event| matches!(event, FromPort::Frame(_)));
        // They count as on their way from here on.
        let messages: Vec<_> =
            events.into_iter().map(|event| slot.to_worker(event, turn.written)).collect();
        let notes = &mut slot.notes;
        let held = notes.note_back(&mut self.times, peer);
        notes.unread |= turn.more;
        // With too much on its way to the worker, a port waits for the worker to say so.
        if notes.unread && !slot.in_flight.park() && notes.reading {
            notes.mail.readable = true;
        }
        let before = std::mem::replace(&mut notes.wait, turn.wait);
        notes.set_look(&mut self.times, peer);
        let was_unsure = std::mem::replace(&mut notes.unsure, turn.unsure);
        self.unsure = self.unsure + usize::from(turn.unsure) - usize::from(was_unsure);
        let (mut waited, mut less) = (None, Less::Nothing);
        if !notes.muted {
            less = notes.count(turn.worth(), self.limits.max_wakeups);
            waited = Some(before).filter(|before| *before != turn.wait && less != Less::All);
        }
        notes.tell_less(&mut self.times, peer, less);
        if !notes.mail.is_empty() {
            queue(&mut self.queues, slot, Why::Event);
        }
        let Turn { notices, wait, oddities, .. } = turn;
        Ok(After { messages, notices, oddities, held, waited: waited.zip(Some(wait)), less })
    }

    /// Has something become due.
    pub(super) fn schedule(&mut self, at: Instant, peer: PeerId, due: Due) {
        self.times.insert((at, peer, due));
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
        let Some(slot) = self.all.get_mut(&peer) else { return };
        write(&mut slot.notes.mail);
        queue(&mut self.queues, slot, why);
    }
}

/// Whose descriptor has this token.
fn peer_of(token: Token) -> PeerId {
    PeerId((token.0 / 2) as u64)
}

type Queues = [VecDeque<PeerId>; 2];

fn queue(queues: &mut Queues, slot: &mut Slot, why: Why) {
    if !std::mem::replace(&mut slot.notes.queued[why as usize], true) {
        queues[why as usize].push_back(slot.peer);
    }
}
