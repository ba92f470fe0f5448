//! One port, and what is known of it between its turns.

use std::{
    collections::BTreeSet,
    os::fd::RawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::broker::{PeerId, Seq};

use super::{
    super::{
        super::{
            fifo::PipePair,
            port::{FromPort, Misbehavior, Notices, Pending, Port, Turn, Wait, Worth},
            worker::ToWorker,
        },
        FIRST_READER_POLL, LAST_READER_POLL,
        in_flight::InFlight,
    },
    Due,
};

/// How long a thread is inside one pair before that counts as held. Others do not wait that long.
pub(super) const BLOCKED_AFTER: Duration = Duration::from_millis(100);
/// Turns of a workload that held its pipe, each on a thread of its own, until it is trusted again.
pub(super) const QUARANTINE: u32 = 100;
/// What is counted of a workload that wakes us for nothing is counted for so long.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// Turns for nothing that each useful one makes up for: readers that read on are seen to, some more
/// often than frames come of it.
pub(super) const MADE_UP: usize = 4;

/// One port, and what is known of it between its turns.
#[repr(C)] // what every turn touches comes first, in as few cache lines as it can
pub(in super::super) struct PortEntry {
    /// `None`: it is checked out, in a turn.
    pub(super) port: Option<Box<Port>>,
    pub(super) peer: PeerId,
    pub(super) state: PortState,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) descriptors: (RawFd, RawFd),
    pub(super) name: String,
    pub(super) pair: Arc<PipePair>,
}

/// Why a port wants a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Something happened to its pair.
    Event = 0,
    /// It was sent something.
    Pending = 1,
}

#[derive(Default)]
#[repr(C)]
pub(super) struct PortState {
    /// What came since the last turn.
    pub(super) pending: Pending,
    /// In which of the queues it stands.
    pub(super) queued: [bool; 2],
    /// Its reader may have taken what it was sent.
    pub(super) maybe_drained: bool,
    /// The broker wants it to be read.
    pub(super) reading: bool,
    /// There may be bytes that were announced and not read.
    pub(super) unread: bool,
    /// All writers had gone, behind some of these bytes.
    pub(super) writers_gone: bool,
    /// The kernel was told to tell nothing of it for now.
    pub(super) throttled: bool,
    pub(super) wait: Wait,
    /// Turns that it still gets on threads of their own, since it held its pipe.
    pub(super) quarantine: u32,
    /// Since when a thread sleeps in a call on its FIFOs, or may.
    pub(super) checked_out: Option<Instant>,
    /// When it is looked at next, and how often that was for nothing.
    pub(super) look: Option<(Instant, u32)>,
    /// Turns for nothing, but for those that others make up for.
    pub(super) idle: Count,
    /// Turns of which nothing came but that the reader had read on.
    pub(super) read_on: Count,
    /// Its reader reads in so small pieces that the kernel was told not to tell of each for now.
    pub(super) quiet: bool,
    /// What was reported of it.
    pub(super) reported: Vec<Misbehavior>,
}

/// Turns of one kind since a time.
#[derive(Default)]
pub(super) struct Count(Option<(Instant, usize)>);

impl Count {
    /// Counts one more; tells whether there were more than `most` in the last while.
    fn is_above(&mut self, most: usize) -> bool {
        let now = Instant::now();
        let (since, count) = match self.0 {
            Some((since, count)) if now.saturating_duration_since(since) < WINDOW => {
                (since, count + 1)
            }
            _ => (now, 1),
        };
        self.0 = Some((since, count));
        count > most
    }

    fn make_up(&mut self) {
        if let Some((_, count)) = &mut self.0 {
            *count = count.saturating_sub(MADE_UP);
        }
    }
}

/// What the kernel is to be told not to tell for now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) enum Throttle {
    #[default]
    Nothing,
    /// That something was read.
    Reads,
    /// Anything, but for a reader that leaves.
    All,
}

/// Times at which something becomes due.
pub(super) type Times = BTreeSet<(Instant, PeerId, Due)>;

impl PortState {
    /// No thread is in its turn any more; gives for how long one was, if that was too long.
    pub(super) fn note_back(&mut self, times: &mut Times, peer: PeerId) -> Option<Duration> {
        let since = self.checked_out.take()?;
        times.remove(&(since + BLOCKED_AFTER, peer, Due::Blocked));
        let checked_out = since.elapsed();
        let held = checked_out >= BLOCKED_AFTER;
        self.quarantine = if held { QUARANTINE } else { self.quarantine.saturating_sub(1) };
        held.then_some(checked_out)
    }

    /// Sets when to look at a reader that is waited for. Each look that finds nothing new is followed
    /// by a later one.
    pub(super) fn schedule_reader_poll(&mut self, times: &mut Times, peer: PeerId) {
        let before = self.look.take();
        if let Some((at, _)) = before {
            times.remove(&(at, peer, Due::PollReader));
        }
        if self.wait == Wait::Reader {
            // Nothing else tells of what is read then.
            let round = if self.quiet { 0 } else { before.map_or(0, |(_, round)| round + 1) };
            let after = FIRST_READER_POLL.saturating_mul(1 << round.min(10)).min(LAST_READER_POLL);
            let at = Instant::now() + after;
            self.look = Some((at, round));
            times.insert((at, peer, Due::PollReader));
        }
    }

    /// PortState what the kernel is to be told not to tell, and when it may again.
    pub(super) fn throttle(&mut self, times: &mut Times, peer: PeerId, less: Throttle) {
        let due = match less {
            Throttle::Nothing => return,
            Throttle::Reads => Due::WatchReads,
            Throttle::All => Due::Unthrottle,
        };
        self.quiet |= less == Throttle::Reads;
        self.throttled |= less == Throttle::All;
        times.insert((Instant::now() + WINDOW, peer, due));
    }

    /// Counts a turn; tells what there were too many of. A reader that reads on in small pieces is not
    /// to be blamed for it, and what else it does is served all the same.
    pub(super) fn count(&mut self, worth: Worth, most: usize) -> Throttle {
        match worth {
            Worth::Useful => self.idle.make_up(),
            Worth::ReadOn if !self.quiet => {
                if self.read_on.is_above(most) {
                    return Throttle::Reads;
                }
            }
            Worth::ReadOn | Worth::Nothing => {
                if self.idle.is_above(most) {
                    return Throttle::All;
                }
            }
        }
        Throttle::Nothing
    }
}

/// What follows from a turn.
pub(in super::super) struct Effects {
    /// For the worker, in order.
    pub(in super::super) messages: Vec<ToWorker>,
    /// For the worker, before these.
    pub(in super::super) notices: Notices,
    /// What the workload does that it should not.
    pub(in super::super) misbehaviors: Vec<Misbehavior>,
    /// For how long a thread was in the turn, if that was too long.
    pub(in super::super) held: Option<Duration>,
    /// What it waited for before, and what it waits for now, if that is another.
    pub(in super::super) waited: Option<(Wait, Wait)>,
    /// It had too many turns of a kind: the kernel is to tell less of it until [`Due::Unthrottle`] or
    /// [`Due::WatchReads`].
    pub(in super::super) less: Throttle,
}

/// A port on its way through a turn, with all that came for it.
pub(in super::super) struct CheckedOut {
    peer: PeerId,
    port: Box<Port>,
    pending: Pending,
    /// Frames that may be read.
    room: usize,
    /// It had something to say that is not read yet because of what it said before.
    full: bool,
}

/// A port that is back from a turn, and what that came to.
pub(in super::super) struct TurnResult {
    pub(super) port: Box<Port>,
    pub(super) turn: Turn,
}

impl CheckedOut {
    pub(in super::super) fn peer(&self) -> PeerId {
        self.peer
    }

    /// The turn. It sleeps for as long as the workload holds its pipe.
    pub(in super::super) fn work(self, buffer: &mut [u8]) -> TurnResult {
        let Self { mut port, pending, room, full, .. } = self;
        let mut turn = port.turn(pending, room, buffer);
        // That it is not read now because of what it said before is not its fault.
        turn.useful |= full;
        TurnResult { port, turn }
    }
}

impl PortEntry {
    /// The instance, as it is called in the log.
    pub(in super::super) fn name(&self) -> &str {
        &self.name
    }

    pub(in super::super) fn peer(&self) -> PeerId {
        self.peer
    }

    /// What is read, and what is written.
    pub(in super::super) fn descriptors(&self) -> (RawFd, RawFd) {
        self.descriptors
    }

    pub(in super::super) fn pair(&self) -> &Arc<PipePair> {
        &self.pair
    }

    /// Its port, unless a thread is in its turn.
    pub(in super::super) fn into_port(self) -> Option<Box<Port>> {
        self.port
    }

    /// Whether its turns are expected to sleep.
    pub(super) fn is_quarantined(&self) -> bool {
        self.state.quarantine > 0
    }

    pub(in super::super) fn quarantine(&mut self) {
        self.state.quarantine = QUARANTINE;
    }

    pub(in super::super) fn is_throttled(&self) -> bool {
        self.state.throttled
    }

    /// Whether what its reader reads is not watched for now.
    pub(in super::super) fn is_quiet(&self) -> bool {
        self.state.quiet
    }

    /// What its reader reads is watched again; tells whether the port waits for that.
    pub(in super::super) fn watch_reads(&mut self) -> bool {
        self.state.quiet = false;
        self.state.wait == Wait::Reader && !self.state.throttled
    }

    /// The kernel tells of it again, and of nothing special.
    pub(in super::super) fn unthrottle(&mut self) {
        self.state.throttled = false;
        self.state.wait = Wait::No;
    }

    /// Tells whether this is new.
    pub(in super::super) fn note_misbehavior(&mut self, misbehavior: Misbehavior) -> bool {
        let new = !self.state.reported.contains(&misbehavior);
        if new {
            self.state.reported.push(misbehavior);
        }
        new
    }

    /// For how long a thread has been in a call on its FIFOs, if that is too long; and what was
    /// reported of it.
    pub(in super::super) fn port_status(
        &self,
        now: Instant,
    ) -> (Option<Duration>, Vec<Misbehavior>) {
        let held = self.state.checked_out.map(|since| now.saturating_duration_since(since));
        (held.filter(|held| *held >= BLOCKED_AFTER), self.state.reported.clone())
    }

    /// Sends its port on a turn with all that came for it, if it is not in one and something did.
    pub(super) fn visit(&mut self) -> Option<CheckedOut> {
        if self.state.pending.is_empty() {
            return None;
        }
        let port = self.port.take()?;
        let pending = std::mem::take(&mut self.state.pending);
        Some(self.visit_with(port, pending))
    }

    /// Sends its port, which was taken out of it, on a turn with this.
    pub(super) fn visit_with(&mut self, port: Box<Port>, mut pending: Pending) -> CheckedOut {
        let state = &mut self.state;
        state.unread |= pending.readable || pending.writers_gone;
        state.writers_gone |= pending.writers_gone;
        pending.readable = state.unread;
        pending.writers_gone = state.writers_gone;
        let full = state.unread && self.in_flight.is_full();
        let may_read = state.unread && state.reading && !full;
        state.unread &= !may_read;
        state.writers_gone &= !may_read;
        let room = if may_read { self.in_flight.room() } else { 0 };
        CheckedOut { peer: self.peer, port, pending, room, full }
    }

    /// The turn was not begun.
    pub(super) fn reclaim(&mut self, visit: CheckedOut) {
        let CheckedOut { port, pending, .. } = visit;
        self.port = Some(port);
        let meanwhile = std::mem::replace(&mut self.state.pending, pending);
        self.state.pending.append(meanwhile);
    }

    pub(in super::super) fn to_worker(&self, event: FromPort, written: Seq) -> ToWorker {
        let bytes = if let FromPort::Frame(body) = &event { body.len() } else { 0 };
        self.in_flight.add(bytes);
        let in_flight = Arc::clone(&self.in_flight);
        ToWorker::Port { peer: self.peer, event, written, bytes, in_flight }
    }
}
