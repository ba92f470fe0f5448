//! One port, and what is known of it between its turns.

use std::{
    collections::BTreeSet,
    os::fd::RawFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::broker::{PeerId, Seq};

use super::{
    super::{
        super::{
            fifo::PipePair,
            port::{FromPort, Mail, Oddity, Port, Turn, Wait},
            worker::FromReactor,
        },
        FIRST_LOOK, LAST_LOOK,
        in_flight::InFlight,
    },
    Due,
};

/// How long a thread is inside one pair before that counts as held. Others do not wait that long.
pub(super) const HELD: Duration = Duration::from_millis(100);
/// Turns of a workload that held its pipe, each on a thread of its own, until it is trusted again.
pub(super) const PROBATION: u32 = 100;
/// What is counted of a workload that wakes us for nothing is counted for so long.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// Turns for nothing that each useful one makes up for: readers that read on are seen to, some more
/// often than frames come of it.
pub(super) const MADE_UP: usize = 4;

/// One port, and what is known of it between its turns.
pub(in super::super) struct Slot {
    pub(super) peer: PeerId,
    pub(super) name: String,
    pub(super) descriptors: (RawFd, RawFd),
    pub(super) pair: Arc<PipePair>,
    pub(super) port: Mutex<Port>,
    /// Not locked while a turn lasts, as the port is.
    pub(super) notes: Mutex<Notes>,
    pub(super) in_flight: Arc<InFlight>,
}

/// Why a port wants a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Something happened to its pair.
    Event = 0,
    /// It was sent something.
    Mail = 1,
}

#[derive(Default)]
pub(super) struct Notes {
    /// What came since the last turn.
    pub(super) mail: Mail,
    /// In which of the queues it stands.
    pub(super) queued: [bool; 2],
    /// It is in a turn.
    pub(super) busy: bool,
    /// It is nobody's any more.
    pub(super) removed: bool,
    /// The broker wants it to be read.
    pub(super) reading: bool,
    /// There may be bytes that were announced and not read.
    pub(super) unread: bool,
    /// All writers had gone, behind some of these bytes.
    pub(super) writers_gone: bool,
    pub(super) wait: Wait,
    /// When it is looked at next, and how often that was for nothing.
    pub(super) look: Option<(Instant, u32)>,
    /// Since when a thread sleeps in a call on its FIFOs, or may.
    pub(super) away: Option<Instant>,
    /// Turns that it still gets on threads of their own, since it held its pipe.
    pub(super) probation: u32,
    /// Turns for nothing since this time, but for those that others make up for.
    pub(super) idle: Option<(Instant, usize)>,
    /// The kernel was told to tell nothing of it for now.
    pub(super) muted: bool,
    /// What was reported of it.
    pub(super) reported: Vec<Oddity>,
}

/// Times at which something becomes due.
pub(super) type Times = BTreeSet<(Instant, PeerId, Due)>;

impl Notes {
    /// No thread is in its turn any more; gives for how long one was, if that was too long.
    pub(super) fn note_back(&mut self, times: &mut Times, peer: PeerId) -> Option<Duration> {
        let since = self.away.take()?;
        times.remove(&(since + HELD, peer, Due::Held));
        let away = since.elapsed();
        let held = away >= HELD;
        self.probation = if held { PROBATION } else { self.probation.saturating_sub(1) };
        held.then_some(away)
    }

    /// Sets when to look at a reader that is waited for. Each look that finds nothing new is followed
    /// by a later one.
    pub(super) fn set_look(&mut self, times: &mut Times, peer: PeerId) {
        let before = self.look.take();
        if let Some((at, _)) = before {
            times.remove(&(at, peer, Due::Look));
        }
        if self.wait == Wait::Reader {
            let round = before.map_or(0, |(_, round)| round + 1);
            let after = FIRST_LOOK.saturating_mul(1 << round.min(10)).min(LAST_LOOK);
            let at = Instant::now() + after;
            self.look = Some((at, round));
            times.insert((at, peer, Due::Look));
        }
    }

    /// Counts a turn for nothing, or one of which something came; tells whether there were more of the
    /// first kind than `most`.
    pub(super) fn count(&mut self, idle: bool, most: usize) -> bool {
        if !idle {
            if let Some((_, count)) = &mut self.idle {
                *count = count.saturating_sub(MADE_UP);
            }
            return false;
        }
        let now = Instant::now();
        let (since, count) = match self.idle {
            Some((since, count)) if now.saturating_duration_since(since) < WINDOW => {
                (since, count + 1)
            }
            _ => (now, 1),
        };
        self.idle = Some((since, count));
        count > most
    }
}

/// What follows from a turn.
pub(in super::super) struct After {
    /// For how long a thread was in the turn, if that was too long.
    pub(in super::super) held: Option<Duration>,
    /// What it waited for before, if that is another now.
    pub(in super::super) waited: Option<Wait>,
    /// It had too many turns for nothing: the kernel is to tell nothing more of it until
    /// [`Due::Unmute`].
    pub(in super::super) wakes: bool,
}

impl Slot {
    pub(in super::super) fn peer(&self) -> PeerId {
        self.peer
    }

    /// The instance, as it is called in the log.
    pub(in super::super) fn name(&self) -> &str {
        &self.name
    }

    /// What is read, and what is written.
    pub(in super::super) fn descriptors(&self) -> (RawFd, RawFd) {
        self.descriptors
    }

    pub(in super::super) fn pair(&self) -> &Arc<PipePair> {
        &self.pair
    }

    /// Whether its turns are expected to sleep.
    pub(in super::super) fn is_suspect(&self) -> bool {
        self.notes().probation > 0
    }

    pub(in super::super) fn set_suspect(&self) {
        self.notes().probation = PROBATION;
    }

    pub(in super::super) fn is_muted(&self) -> bool {
        self.notes().muted
    }

    /// The kernel tells of it again, and of nothing special.
    pub(in super::super) fn unmute(&self) {
        let mut notes = self.notes();
        notes.muted = false;
        notes.wait = Wait::No;
    }

    /// Tells whether this is new.
    pub(in super::super) fn note_oddity(&self, oddity: Oddity) -> bool {
        let mut notes = self.notes();
        let new = !notes.reported.contains(&oddity);
        if new {
            notes.reported.push(oddity);
        }
        new
    }

    /// For how long a thread has been in a call on its FIFOs, if that is too long; and what was
    /// reported of it.
    pub(in super::super) fn trouble(&self, now: Instant) -> (Option<Duration>, Vec<Oddity>) {
        let notes = self.notes();
        let held = notes.away.map(|since| now.saturating_duration_since(since));
        (held.filter(|held| *held >= HELD), notes.reported.clone())
    }

    /// One turn of the port with all that came for it.
    pub(in super::super) fn turn(&self, buffer: &mut [u8]) -> Turn {
        let mut notes = self.notes();
        let mut mail = std::mem::take(&mut notes.mail);
        notes.unread |= mail.readable || mail.writers_gone;
        notes.writers_gone |= mail.writers_gone;
        mail.readable = notes.unread;
        mail.writers_gone = notes.writers_gone;
        // That it is not read now because of what it said before is not its fault.
        let full = notes.unread && self.in_flight.is_full();
        let may_read = notes.unread && notes.reading && !full;
        notes.unread &= !may_read;
        notes.writers_gone &= !may_read;
        drop(notes);
        let room = if may_read { self.in_flight.room() } else { 0 };
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turn = port.turn(mail, room, buffer);
        turn.useful |= full;
        turn
    }

    pub(in super::super) fn to_worker(&self, event: FromPort, written: Seq) -> FromReactor {
        let bytes = if let FromPort::Frame(body) = &event { body.len() } else { 0 };
        self.in_flight.add(bytes);
        let in_flight = Arc::clone(&self.in_flight);
        FromReactor::Port { peer: self.peer, event, written, bytes, in_flight }
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
