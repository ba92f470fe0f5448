//! Port table: all ports of a loop, and the two queues of ports due for a turn.
//!
//! Kernel events, frames and timers come in and are noted as pending work of a port. Checked-out ports
//! go out, one per turn, and come back with the result.
//!
//! Invariants: a port is in the table or checked out, never both; a port is at most once in each queue.

mod entry;
mod ready_queue;
mod throttle;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    broker::{PeerId, Seq},
    id_map::IdMap,
    limits::Limits,
};
use mio::{Token, event::Event};

use super::{
    super::{
        fifo::PipePair,
        port::{FromPort, OutFrame, Pending, Port, Turn, Wait, Worth},
    },
    FIRST_READER_POLL,
    in_flight::InFlight,
};

use entry::{BLOCKED_AFTER, Effects, PortState, Times};
pub(super) use entry::{CheckedOut, FrameInHand, FrameResult, PortEntry, TurnResult};
use ready_queue::{ReadyQueue, Why};
pub(super) use throttle::Less;
use throttle::WINDOW;

/// All ports, their queues and their timers.
pub(super) struct PortTable {
    all: IdMap<PeerId, Box<PortEntry>>,
    ready: ReadyQueue,
    /// Number of ports with [`PortState::maybe_drained`].
    maybe_drained: usize,
    times: Times,
    limits: Limits,
    stopped: bool,
}

/// Below this number, asking each pipe before a write costs no more than a look at all of them. Each wait
/// of the loop has such a look above it, also for readers that never read.
const MIN_MAYBE_DRAINED: usize = 6;

/// Time without a reader and a writer until a pair counts as unused: longer than a shell needs between
/// its last write and its first read (docs/differences.md#22-connectionclosed-and-the-next-reader).
const UNUSED_AFTER: Duration = Duration::from_secs(1);

/// Reason of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Poll the reader of the port: inotify events are hints.
    PollReader,
    /// The turn takes too long: the pair is blocked.
    Blocked,
    /// Nobody may have the pair open any more.
    Unused,
    /// The throttle ends.
    Unthrottle,
    /// Watch the reads of its reader again.
    WatchReads,
    /// Watch for the next reader that leaves.
    Leave,
    /// Try to open the pair again.
    Open,
}

impl PortTable {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            all: IdMap::default(),
            ready: ReadyQueue::default(),
            maybe_drained: 0,
            times: Times::new(),
            limits: limits.clone(),
            stopped: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&PortEntry> {
        self.all.get(&peer).map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut PortEntry> {
        self.all.get_mut(&peer).map(AsMut::as_mut)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &PortEntry> {
        self.all.values().map(AsRef::as_ref)
    }

    /// Tokens of a peer's two descriptors: from the workload, to the workload.
    pub(super) fn tokens(peer: PeerId) -> (Token, Token) {
        // Two tokens for each peer, so a peer follows from either of them (`peer_of`).
        let first = usize::try_from(peer.0 * 2).unwrap_or(usize::MAX);
        (Token(first), Token(first + 1))
    }

    pub(super) fn add(&mut self, peer: PeerId, name: String, pair: Arc<PipePair>, port: Box<Port>) {
        let entry = PortEntry {
            descriptors: port.descriptors(),
            port: Some(port),
            // A pair opened during the stop is not read, like all others.
            state: PortState { reading: !self.stopped, ..PortState::default() },
            in_flight: Arc::new(InFlight::new(&self.limits)),
            peer,
            name,
            pair,
        };
        self.all.insert(peer, Box::new(entry));
        // Bytes already in the pipe may never be announced.
        self.post(peer, Why::Event, |pending| pending.readable = true);
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Box<PortEntry>> {
        let entry = self.all.remove(&peer)?;
        self.times.retain(|(_, own, _)| *own != peer);
        self.maybe_drained -= usize::from(entry.state.maybe_drained);
        Some(entry)
    }

    pub(super) fn queued(&self) -> usize {
        self.ready.len()
    }

    /// Checks out the next port for a turn, until [`PortTable::after_turn`]. The flag is true for a
    /// quarantined port: its turn is expected to sleep.
    pub(super) fn next_due(&mut self) -> Option<(CheckedOut, bool)> {
        loop {
            let (peer, why) = self.ready.pop()?;
            // A removed port stays in the queue until its turn comes.
            let Some(entry) = self.all.get_mut(&peer) else { continue };
            entry.state.queued.popped(why);
            // A checked-out port is queued again after its turn; a port from both queues has had it.
            if let Some(visit) = entry.check_out() {
                return Some((visit, entry.is_quarantined()));
            }
        }
    }

    /// Takes the next turn; true if it is one of the outbound queue and that queue is empty. The caller may use
    /// it for a multicast then. Outbound and ready ports alternate.
    pub(super) fn take_outbound_turn(&mut self) -> bool {
        self.ready.take_outbound_turn()
    }

    /// Checks out a port with one frame. Queues the frame instead if the port is checked out, has other
    /// work or is quarantined: from the queue its turn goes to a thread of its own.
    pub(super) fn send_at_once(&mut self, peer: PeerId, frame: OutFrame) -> Option<FrameInHand> {
        let entry = self.all.get_mut(&peer)?;
        match entry.check_out_to_write(frame) {
            Ok(in_hand) => Some(in_hand),
            Err(frame) => {
                entry.state.pending.frames.push_back(frame);
                self.ready.push(peer, &mut entry.state.queued, Why::Outbound);
                None
            }
        }
    }

    /// Takes a port back whose frame is written; as [`PortTable::after_turn`] for a turn without effects.
    /// Returns its duration if the pair was blocked.
    pub(super) fn after_write(
        &mut self,
        peer: PeerId,
        port: Box<Port>,
        maybe_drained: bool,
    ) -> Result<Option<Duration>, Box<Port>> {
        let Some(entry) = self.all.get_mut(&peer) else { return Err(port) };
        entry.port = Some(port);
        let state = &mut entry.state;
        let held = state.note_back(&mut self.times, peer);
        let was_unsure = std::mem::replace(&mut state.maybe_drained, maybe_drained);
        self.maybe_drained =
            self.maybe_drained + usize::from(maybe_drained) - usize::from(was_unsure);
        // A useful turn switches nothing off.
        state.throttle.count(Worth::Useful, self.limits.max_wakeups);
        if !state.pending.is_empty() {
            self.ready.push(peer, &mut entry.state.queued, Why::Event);
        }
        Ok(held)
    }

    /// True if enough pipes may be drained to ask the kernel for all of them by one call.
    pub(super) fn many_maybe_drained(&self) -> bool {
        self.maybe_drained >= MIN_MAYBE_DRAINED
    }

    /// Handles the event for free space in the pipe with this token.
    pub(super) fn on_drained(&mut self, token: Token) {
        let Some(entry) = self.all.get_mut(&peer_of(token)) else { return };
        // A checked-out port finds out in its own turn.
        if entry.state.maybe_drained
            && let Some(port) = &mut entry.port
        {
            port.on_drained();
            entry.state.maybe_drained = false;
            self.maybe_drained -= 1;
        }
    }

    /// Notes that a thread sleeps in this port's turn, or is expected to.
    pub(super) fn note_blocked(&mut self, peer: PeerId, now: Instant) {
        if let Some(entry) = self.all.get_mut(&peer) {
            entry.state.blocked_since = Some(now);
            self.times.insert((now + BLOCKED_AFTER, peer, Due::Blocked));
        }
    }

    /// Puts a port back whose turn was not begun. Its pending work waits for the next reader poll.
    pub(super) fn try_again_later(&mut self, visit: CheckedOut, now: Instant) {
        let peer = visit.peer();
        let Some(entry) = self.all.get_mut(&peer) else { return };
        entry.state.note_back(&mut self.times, peer);
        entry.reclaim(visit);
        // The poll takes up the work again: a thread may be granted by then.
        self.times.insert((now + FIRST_READER_POLL, peer, Due::PollReader));
    }

    /// Handles a readiness event.
    pub(super) fn note(&mut self, token: Token, event: &Event) {
        let peer = peer_of(token);
        if token.0.is_multiple_of(2) {
            // Any mark: end-of-file has no `readable` (docs/pipes.md#closing-of-the-last-writer).
            let gone = event.is_read_closed();
            self.post(peer, Why::Event, |pending| {
                pending.readable = true;
                pending.writers_gone |= gone;
            });
        } else {
            if event.is_error() {
                self.note_left(peer);
            }
            self.poll_reader(peer);
        }
    }

    /// Notes that a reader or all writers have left; another may be there.
    pub(super) fn note_left(&mut self, peer: PeerId) {
        let (Some(entry), now) = (self.all.get_mut(&peer), Instant::now()) else { return };
        // One timer at a time: a workload may open and close its pair thousands of times a second.
        if entry.state.left_at.replace(now).is_none() {
            self.schedule(now + UNUSED_AFTER, peer, Due::Unused);
        }
    }

    /// Has the port look whether anybody has the pair open, unless somebody has left it lately.
    pub(super) fn check_unused(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.all.get_mut(&peer) else { return };
        let due = entry.state.left_at.map(|left| left + UNUSED_AFTER);
        match due.filter(|due| *due > now) {
            Some(due) => self.schedule(due, peer, Due::Unused),
            None => {
                entry.state.left_at = None;
                self.post(peer, Why::Event, |pending| pending.check_unused = true);
            }
        }
    }

    /// Drops the ends of sessions up to this frame without a reader.
    pub(super) fn drop_closed(&mut self, peer: PeerId, up_to: Seq) {
        self.post(peer, Why::Outbound, |pending| {
            pending.drop_closed = pending.drop_closed.max(up_to);
        });
    }

    pub(super) fn poll_reader(&mut self, peer: PeerId) {
        self.post(peer, Why::Event, |pending| pending.poll_reader = true);
    }

    pub(super) fn note_reader_left(&mut self, peer: PeerId) {
        self.note_left(peer);
        self.post(peer, Why::Event, |pending| pending.reader_left = true);
    }

    pub(super) fn poll_all_readers(&mut self) {
        // A port without a wait has nothing to write, so a lost event cannot hold it up.
        let waiting = self.all().filter(|entry| entry.state.wait != Wait::No);
        let all: Vec<_> = waiting.map(|entry| entry.peer).collect();
        all.into_iter().for_each(|peer| self.poll_reader(peer));
    }

    pub(super) fn reset(&mut self, peer: PeerId) {
        self.post(peer, Why::Outbound, |pending| {
            pending.reset = true;
            // Frames of the old session; those handed to the port already are dropped in its turn.
            pending.frames.clear();
        });
    }

    pub(super) fn send(&mut self, peer: PeerId, frame: OutFrame) {
        self.post(peer, Why::Outbound, |pending| pending.frames.push_back(frame));
    }

    pub(super) fn set_reading(&mut self, peer: PeerId, on: bool) {
        // The broker does not know of a stop, and may allow reading after it.
        let on = on && !self.stopped;
        if let Some(entry) = self.all.get_mut(&peer) {
            entry.state.reading = on;
        }
        if on {
            self.read_on(peer);
        }
    }

    /// Schedules a read of bytes announced before and left in the pipe.
    pub(super) fn read_on(&mut self, peer: PeerId) {
        // Without bytes left in the pipe, the next write is an event of its own.
        let unread = self.all.get(&peer).is_some_and(|entry| entry.state.unread);
        if unread {
            self.post(peer, Why::Event, |pending| pending.readable = true);
        }
    }

    pub(super) fn stop_reading(&mut self) {
        self.stopped = true;
        for entry in self.all.values_mut() {
            entry.state.reading = false;
        }
    }

    /// True if no writable port has queued frames. Frames of a blocked pair do not count.
    pub(super) fn all_flushed(&self) -> bool {
        let flushed = |entry: &PortEntry| {
            let (state, checked_out) = (&entry.state, entry.port.is_none());
            // A quarantined turn may sleep beyond every deadline, so the stop does not wait for it.
            let waits = !state.pending.is_empty() || checked_out || state.wait != Wait::No;
            !waits || (checked_out && state.quarantine > 0)
        };
        self.all().all(flushed)
    }

    /// Records the result of a turn, and queues the next turn if there is pending work. Returns the
    /// port if its entry was removed meanwhile.
    pub(super) fn after_turn(
        &mut self,
        peer: PeerId,
        back: TurnResult,
    ) -> Result<Effects, Box<Port>> {
        let TurnResult { port, mut turn } = back;
        let Some(entry) = self.all.get_mut(&peer) else { return Err(port) };
        entry.port = Some(port);
        let events = std::mem::take(&mut turn.events);
        // No other event counts: a workload can cause end-of-file without end, at no cost for itself.
        turn.useful |= events.iter().any(|event| matches!(event, FromPort::Frame(_)));
        if events.iter().any(|event| matches!(event, FromPort::Unused)) {
            log::debug!("nobody has the pair of {} open", entry.name);
        }
        let ended = events.iter().any(|event| matches!(event, FromPort::EndOfFile));
        // From here on these messages count as in flight.
        let messages: Vec<_> =
            events.into_iter().map(|event| entry.to_worker(event, turn.written)).collect();
        let state = &mut entry.state;
        let held = state.note_back(&mut self.times, peer);
        state.unread |= turn.more;
        // Over the in-flight limit a port is not read until the worker sends `Handled`.
        if state.unread && !entry.in_flight.park() && state.reading {
            state.pending.readable = true;
        }
        let before = std::mem::replace(&mut state.wait, turn.wait);
        state.schedule_reader_poll(&mut self.times, peer);
        let was_unsure = std::mem::replace(&mut state.maybe_drained, turn.maybe_drained);
        self.maybe_drained =
            self.maybe_drained + usize::from(turn.maybe_drained) - usize::from(was_unsure);
        // While all events are off, the descriptors are registered for nothing.
        let was_off = state.throttle.is_all_off();
        let less = state.throttle.count(turn.worth(), self.limits.max_wakeups);
        let is_off = state.throttle.is_all_off();
        let waited = Some(before).filter(|before| *before != turn.wait && !was_off && !is_off);
        let due = match less {
            Less::Nothing => None,
            Less::Reads => Some(Due::WatchReads),
            Less::All => Some(Due::Unthrottle),
        };
        self.times.extend(due.map(|due| (Instant::now() + WINDOW, peer, due)));
        if !state.pending.is_empty() {
            self.ready.push(peer, &mut entry.state.queued, Why::Event);
        }
        let Turn { notices, wait, misbehaviors, .. } = turn;
        if ended {
            self.note_left(peer);
        }
        Ok(Effects { messages, notices, misbehaviors, held, waited: waited.zip(Some(wait)), less })
    }

    /// Sets a timer.
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

    fn post(&mut self, peer: PeerId, why: Why, write: impl FnOnce(&mut Pending)) {
        let Some(entry) = self.all.get_mut(&peer) else { return };
        write(&mut entry.state.pending);
        self.ready.push(peer, &mut entry.state.queued, why);
    }
}

/// Peer of a descriptor's token.
fn peer_of(token: Token) -> PeerId {
    PeerId((token.0 / 2) as u64)
}
