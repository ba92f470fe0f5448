//! The ports of a loop, and which of them is due for a turn.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    os::fd::RawFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use mio::{Token, event::Event};

use crate::broker::{PeerId, Seq};

use super::{
    super::{
        port::{FromPort, Mail, OutFrame, Port, Turn, Wait},
        worker::FromReactor,
    },
    FIRST_LOOK, LAST_LOOK,
};

/// Most messages of one workload that wait for the worker; more are left in its pipe.
const MOST_IN_FLIGHT: usize = 64;
/// Most bytes of them, but for one message.
const MOST_BYTES_IN_FLIGHT: usize = 1 << 20;

/// What one workload has on its way to the worker, given back when it was handled.
#[derive(Debug, Default)]
pub(in super::super) struct InFlight {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Reading has stopped, and goes on when there is room.
    parked: AtomicBool,
}

impl InFlight {
    pub(super) fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that reading stops for now, if there is too much on its way. The worker says once that
    /// it may go on, so the order matters: first the flag is set, then there is one more look.
    pub(super) fn park(&self) -> bool {
        if !self.is_full() {
            return false;
        }
        self.parked.store(true, Ordering::Release);
        if self.is_full() {
            return true;
        }
        self.parked.store(false, Ordering::Release);
        false
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.load(Ordering::Relaxed) >= MOST_IN_FLIGHT
            || self.bytes.load(Ordering::Relaxed) >= MOST_BYTES_IN_FLIGHT
    }

    /// Gives one message back; tells whether reading may go on that had stopped.
    pub(in super::super) fn handled(&self, bytes: usize) -> bool {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let half = self.messages.load(Ordering::Relaxed) <= MOST_IN_FLIGHT / 2
            && self.bytes.load(Ordering::Relaxed) <= MOST_BYTES_IN_FLIGHT / 2;
        half && self.parked.swap(false, Ordering::AcqRel)
    }
}

/// One port, and what is known of it between its turns.
pub(super) struct Slot {
    peer: PeerId,
    to_workload: RawFd,
    watch_path: PathBuf,
    port: Mutex<Port>,
    mail: Mutex<Mail>,
    /// What must not be looked at under the port's lock.
    notes: Mutex<Notes>,
    in_flight: Arc<InFlight>,
}

#[derive(Default)]
struct Notes {
    /// It stands in the queue for a turn.
    due: bool,
    /// The broker wants it to be read.
    reading: bool,
    /// There may be bytes that were announced and not read.
    unread: bool,
    /// All writers had gone, behind some of these bytes.
    writers_gone: bool,
    /// The kernel tells when the pipe has room.
    armed: bool,
    wait: Wait,
    look: Option<(Instant, u32)>,
}

impl Slot {
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(super) fn to_workload(&self) -> RawFd {
        self.to_workload
    }

    pub(super) fn watch_path(&self) -> &Path {
        &self.watch_path
    }

    pub(super) fn port(&self) -> MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One turn of the port with all that came for it.
    pub(super) fn turn(&self, buffer: &mut [u8]) -> Turn {
        let mut mail = std::mem::take(&mut *self.mail());
        let may_read = {
            let mut notes = self.notes();
            notes.unread |= mail.readable || mail.writers_gone;
            notes.writers_gone |= mail.writers_gone;
            mail.readable = notes.unread;
            mail.writers_gone = notes.writers_gone;
            let may_read = notes.reading && !self.in_flight.is_full();
            notes.unread &= !may_read;
            notes.writers_gone &= !may_read;
            may_read
        };
        self.port().turn(mail, may_read, buffer)
    }

    pub(super) fn to_worker(&self, event: FromPort, written: Seq) -> FromReactor {
        let bytes = if let FromPort::Frame(body) = &event { body.len() } else { 0 };
        self.in_flight.add(bytes);
        let in_flight = Arc::clone(&self.in_flight);
        FromReactor::Port { peer: self.peer, event, written, bytes, in_flight }
    }

    /// Notes whether the kernel is asked for the edge; tells whether it was already.
    pub(super) fn set_armed(&self, armed: bool) -> bool {
        std::mem::replace(&mut self.notes().armed, armed)
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All ports.
#[derive(Default)]
pub(super) struct Slots {
    all: HashMap<PeerId, Arc<Slot>>,
    due: VecDeque<Arc<Slot>>,
    looks: BTreeSet<(Instant, PeerId)>,
    stopped: bool,
}

impl Slots {
    /// The tokens of a peer's two descriptors: from the workload, to the workload.
    pub(super) fn tokens(&self, peer: PeerId) -> (Token, Token) {
        let first = usize::try_from(peer.0 * 2).unwrap_or(usize::MAX);
        (Token(first), Token(first + 1))
    }

    pub(super) fn add(&mut self, peer: PeerId, port: Port) {
        let slot = Slot {
            peer,
            to_workload: port.descriptors().1,
            watch_path: port.pair().to_workload_path(),
            port: Mutex::new(port),
            mail: Mutex::default(),
            notes: Mutex::new(Notes { reading: !self.stopped, ..Notes::default() }),
            in_flight: Arc::default(),
        };
        self.all.insert(peer, Arc::new(slot));
        // What stands in the pipe already may never be announced.
        self.post(peer, |mail| mail.readable = true);
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Arc<Slot>> {
        let slot = self.all.remove(&peer)?;
        if let Some((at, _)) = slot.notes().look.take() {
            self.looks.remove(&(at, peer));
        }
        Some(slot)
    }

    pub(super) fn next_due(&mut self) -> Option<Arc<Slot>> {
        loop {
            let slot = self.due.pop_front()?;
            slot.notes().due = false;
            // It may have been removed while it stood here.
            if self.all.contains_key(&slot.peer) {
                return Some(slot);
            }
        }
    }

    /// An event of the kernel.
    pub(super) fn note(&mut self, token: Token, event: &Event) {
        let peer = PeerId((token.0 / 2) as u64);
        if token.0.is_multiple_of(2) {
            let gone = event.is_read_closed();
            self.post(peer, |mail| {
                mail.readable = true;
                mail.writers_gone |= gone;
            });
        } else {
            self.look_at(peer);
        }
    }

    pub(super) fn look_at(&mut self, peer: PeerId) {
        self.post(peer, |mail| mail.look_at_reader = true);
    }

    pub(super) fn look_at_all(&mut self) {
        let waiting = |slot: &&Arc<Slot>| slot.notes().wait != Wait::No;
        let all: Vec<_> = self.all.values().filter(waiting).map(|slot| slot.peer).collect();
        all.into_iter().for_each(|peer| self.look_at(peer));
    }

    pub(super) fn reset(&mut self, peer: PeerId) {
        self.post(peer, |mail| {
            mail.reset = true;
            mail.frames.clear();
        });
    }

    pub(super) fn send(&mut self, peer: PeerId, frame: OutFrame) {
        self.post(peer, |mail| mail.frames.push(frame));
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
            self.post(peer, |mail| mail.readable = true);
        }
    }

    pub(super) fn stop_reading(&mut self) {
        self.stopped = true;
        for slot in self.all.values() {
            slot.notes().reading = false;
        }
    }

    /// Whether nothing that could be written waits to be.
    pub(super) fn all_flushed(&self) -> bool {
        self.due.is_empty() && self.all.values().all(|slot| slot.notes().wait == Wait::No)
    }

    pub(super) fn after_turn(&mut self, slot: &Arc<Slot>, more: bool, wait: Wait, now: Instant) {
        if !self.all.contains_key(&slot.peer) {
            return;
        }
        let look = {
            let mut notes = slot.notes();
            notes.wait = wait;
            notes.unread |= more;
            let before = notes.look.take();
            if let Some((at, _)) = before {
                self.looks.remove(&(at, slot.peer));
            }
            // Each look that finds nothing new is followed by a later one.
            let round = before.map_or(0, |(_, round)| round + 1);
            let after = FIRST_LOOK.saturating_mul(1 << round.min(10)).min(LAST_LOOK);
            notes.look = (wait == Wait::Reader).then_some((now + after, round));
            notes.look
        };
        if let Some((at, _)) = look {
            self.looks.insert((at, slot.peer));
        }
        self.park_or_read_on(slot);
    }

    /// With too much on its way to the worker, a port waits for the worker to say so.
    fn park_or_read_on(&mut self, slot: &Arc<Slot>) {
        if slot.notes().unread && !slot.in_flight.park() && slot.notes().reading {
            self.post(slot.peer, |mail| mail.readable = true);
        }
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.looks.first().map(|(at, _)| *at)
    }

    pub(super) fn look_at_waiting(&mut self, now: Instant) {
        while let Some(&(at, peer)) = self.looks.first()
            && at <= now
        {
            self.looks.pop_first();
            self.look_at(peer);
        }
    }

    fn post(&mut self, peer: PeerId, write: impl FnOnce(&mut Mail)) {
        let Some(slot) = self.all.get(&peer) else { return };
        write(&mut slot.mail());
        if !std::mem::replace(&mut slot.notes().due, true) {
            self.due.push_back(Arc::clone(slot));
        }
    }
}
