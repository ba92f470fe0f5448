//! Entry of the port table: one port, and its state between two turns.
//!
//! An entry collects pending work, bounds useless wake-ups, and backs off when polling for a reader.
//! Invariant: `port` is `None` exactly while a thread is in the port's turn.

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
            port::{FromPort, Misbehavior, Notices, OutFrame, Pending, Port, Turn, Wait, Written},
            worker::ToWorker,
        },
        FIRST_READER_POLL, LAST_READER_POLL,
        in_flight::InFlight,
    },
    Due,
    ready_queue::Queued,
    throttle::{Less, Throttle},
};

/// Time of a thread inside one pair until the pair counts as blocked. Other ports wait less.
pub(super) const BLOCKED_AFTER: Duration = Duration::from_millis(100);
/// Turns of a quarantined workload on threads of their own, until it is trusted again.
pub(super) const QUARANTINE: u32 = 100;

/// One port, and its state between two turns.
#[repr(C)] // fields of every turn first, in as few cache lines as possible
pub(crate) struct PortEntry {
    /// `None` while the port is checked out.
    pub(super) port: Option<Box<Port>>,
    pub(super) peer: PeerId,
    pub(super) state: PortState,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) descriptors: (RawFd, RawFd),
    pub(super) name: String,
    pub(super) pair: Arc<PipePair>,
}

#[derive(Default)]
#[repr(C)]
pub(super) struct PortState {
    /// Work for the next turn.
    pub(super) pending: Pending,
    /// Membership in the ready queue.
    pub(super) queued: Queued,
    /// Its reader may have drained the pipe.
    pub(super) maybe_drained: bool,
    /// The broker allows reading it.
    pub(super) reading: bool,
    /// Announced bytes may still be unread.
    pub(super) unread: bool,
    /// All writers had left, with some of these bytes still in the pipe.
    pub(super) writers_gone: bool,
    pub(super) wait: Wait,
    /// Turns left on threads of their own, since its last block.
    pub(super) quarantine: u32,
    /// Time at which the current turn got a thread of its own, or its driver was replaced.
    pub(super) blocked_since: Option<Instant>,
    /// Time of the next reader poll, and the number of polls in vain.
    pub(super) look: Option<(Instant, u32)>,
    pub(super) throttle: Throttle,
    /// Time since when nobody may have the pair open; its timer is set.
    pub(super) left_at: Option<Instant>,
    /// Misbehaviors reported so far.
    pub(super) reported: Vec<Misbehavior>,
}

/// Timers, by time.
pub(super) type Times = BTreeSet<(Instant, PeerId, Due)>;

impl PortState {
    /// Notes that a turn is over. Returns its duration if the pair was blocked.
    pub(super) fn note_back(&mut self, times: &mut Times, peer: PeerId) -> Option<Duration> {
        let since = self.blocked_since.take()?;
        times.remove(&(since + BLOCKED_AFTER, peer, Due::Blocked));
        let blocked = since.elapsed();
        let held = blocked >= BLOCKED_AFTER;
        self.quarantine = if held { QUARANTINE } else { self.quarantine.saturating_sub(1) };
        held.then_some(blocked)
    }

    /// Sets the timer for the next reader poll. The interval doubles with each poll in vain.
    pub(super) fn schedule_reader_poll(&mut self, times: &mut Times, peer: PeerId) {
        let before = self.look.take();
        if let Some((at, _)) = before {
            times.remove(&(at, peer, Due::PollReader));
        }
        if self.wait == Wait::Reader {
            // With its reads unwatched, polling is the only source: no back-off then.
            let round =
                if self.throttle.is_quiet() { 0 } else { before.map_or(0, |(_, round)| round + 1) };
            // After ten doublings the interval is above its bound; more would overflow the shift.
            let after = FIRST_READER_POLL.saturating_mul(1 << round.min(10)).min(LAST_READER_POLL);
            let at = Instant::now() + after;
            self.look = Some((at, round));
            times.insert((at, peer, Due::PollReader));
        }
    }
}

/// Effects of a turn, for the loop to carry out.
pub(crate) struct Effects {
    /// Messages for the worker, in order.
    pub(crate) messages: Vec<ToWorker>,
    /// Notices for the worker, sent before the messages.
    pub(crate) notices: Notices,
    /// Misbehaviors seen in the turn.
    pub(crate) misbehaviors: Vec<Misbehavior>,
    /// Duration of the turn if the pair was blocked.
    pub(crate) held: Option<Duration>,
    /// Previous and new wait, if they differ.
    pub(crate) waited: Option<(Wait, Wait)>,
    /// Kernel events to switch off until [`Due::Unthrottle`] or [`Due::WatchReads`].
    pub(crate) less: Less,
}

/// A checked-out port with its pending work.
pub(crate) struct CheckedOut {
    peer: PeerId,
    port: Box<Port>,
    pending: Pending,
    /// Number of frames to read at most.
    room: usize,
    /// Its bytes stay in the pipe, because too many of its messages are in flight.
    full: bool,
}

/// A checked-out port with one frame, and no other work.
pub(crate) struct FrameInHand {
    peer: PeerId,
    port: Box<Port>,
    frame: OutFrame,
}

impl FrameInHand {
    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Writes the frame. It sleeps for as long as the workload blocks its pipe.
    pub(crate) fn work(self, buffer: &mut [u8]) -> FrameResult {
        let Self { mut port, frame, .. } = self;
        match port.write(frame, buffer) {
            Written::Whole { maybe_drained } => FrameResult::Whole(port, maybe_drained),
            Written::Else(turn) => FrameResult::Turn(TurnResult { port, turn }),
        }
    }
}

/// A port back with its frame written, or with the result of a turn.
pub(crate) enum FrameResult {
    /// Nobody has to hear of it; whether its reader may have drained the pipe since.
    Whole(Box<Port>, bool),
    Turn(TurnResult),
}

/// A port back from its turn, with the result.
pub(crate) struct TurnResult {
    pub(super) port: Box<Port>,
    pub(super) turn: Turn,
}

impl CheckedOut {
    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Does the turn. It sleeps for as long as the workload blocks its pipe.
    pub(crate) fn work(self, buffer: &mut [u8]) -> TurnResult {
        let Self { mut port, pending, room, full, .. } = self;
        let mut turn = port.turn(pending, room, buffer);
        // The server left these bytes unread, so the wake-up is not the workload's fault.
        turn.useful |= full;
        TurnResult { port, turn }
    }
}

impl PortEntry {
    /// Name of the instance in the log.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Descriptors for reading and for writing.
    pub(crate) fn descriptors(&self) -> (RawFd, RawFd) {
        self.descriptors
    }

    pub(crate) fn pair(&self) -> &Arc<PipePair> {
        &self.pair
    }

    /// Its port with all that is to be written, unless it is checked out.
    pub(crate) fn into_port(self) -> Option<Box<Port>> {
        let mut port = self.port?;
        port.push_last(self.state.pending);
        Some(port)
    }

    /// True if its turns are expected to sleep.
    pub(super) fn is_quarantined(&self) -> bool {
        self.state.quarantine > 0
    }

    pub(crate) fn quarantine(&mut self) {
        self.state.quarantine = QUARANTINE;
    }

    pub(crate) fn is_throttled(&self) -> bool {
        self.state.throttle.is_all_off()
    }

    /// True if the reads of its reader are not watched for now.
    pub(crate) fn is_quiet(&self) -> bool {
        self.state.throttle.is_quiet()
    }

    /// Ends the pause of read events. Returns true if the port waits for its reader.
    pub(crate) fn watch_reads(&mut self) -> bool {
        self.state.throttle.watch_reads();
        self.state.wait == Wait::Reader && !self.is_throttled()
    }

    /// Ends the throttle. The wait starts afresh, as the descriptors are registered again.
    pub(crate) fn unthrottle(&mut self) {
        self.state.throttle.end();
        self.state.wait = Wait::No;
    }

    /// Records a misbehavior. Returns true if it is new.
    pub(crate) fn note_misbehavior(&mut self, misbehavior: Misbehavior) -> bool {
        let new = !self.state.reported.contains(&misbehavior);
        if new {
            self.state.reported.push(misbehavior);
        }
        new
    }

    /// Duration of its current turn if the pair is blocked, and its misbehaviors.
    pub(crate) fn port_status(&self, now: Instant) -> (Option<Duration>, Vec<Misbehavior>) {
        // A quarantined turn has a start time, too, and mostly ends at once.
        let held = self.state.blocked_since.map(|since| now.saturating_duration_since(since));
        (held.filter(|held| *held >= BLOCKED_AFTER), self.state.reported.clone())
    }

    /// Checks out its port with all pending work, unless there is none or the port is checked out.
    pub(super) fn check_out(&mut self) -> Option<CheckedOut> {
        if self.state.pending.is_empty() {
            return None;
        }
        let port = self.port.take()?;
        let pending = std::mem::take(&mut self.state.pending);
        Some(self.check_out_with(port, pending))
    }

    /// Checks out its port to write this frame alone, if the port has nothing else to do and its turn is
    /// not expected to sleep; gives the frame back otherwise.
    pub(super) fn check_out_to_write(&mut self, frame: OutFrame) -> Result<FrameInHand, OutFrame> {
        let state = &self.state;
        let has_more = !state.pending.is_empty() || state.unread || state.writers_gone;
        if has_more || state.wait != Wait::No || self.is_quarantined() {
            return Err(frame);
        }
        match self.port.take() {
            Some(port) => Ok(FrameInHand { peer: self.peer, port, frame }),
            None => Err(frame),
        }
    }

    /// Checks out `port`, moved out of this entry before, with this work.
    fn check_out_with(&mut self, port: Box<Port>, mut pending: Pending) -> CheckedOut {
        let state = &mut self.state;
        // The kernel announces bytes and end-of-file once: both are kept until a turn may read.
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

    /// Puts a port back whose turn was not begun. Its work goes before newer work.
    pub(super) fn reclaim(&mut self, visit: CheckedOut) {
        let CheckedOut { port, pending, .. } = visit;
        self.port = Some(port);
        // A reset among the newer work drops the frames of this visit (`Pending::append`).
        let meanwhile = std::mem::replace(&mut self.state.pending, pending);
        self.state.pending.append(meanwhile);
    }

    pub(crate) fn to_worker(&self, event: FromPort, written: Seq) -> ToWorker {
        let bytes = if let FromPort::Frame(body) = &event { body.len() } else { 0 };
        self.in_flight.add(bytes);
        let in_flight = Arc::clone(&self.in_flight);
        ToWorker::Port { peer: self.peer, event, written, bytes, in_flight }
    }
}
