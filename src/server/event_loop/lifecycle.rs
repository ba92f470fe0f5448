//! Lifecycle of pairs: opening, closing, registration with the kernel, and the effects of turns.
//!
//! Commands of the worker and results of jobs come in; jobs, epoll and inotify registrations, and
//! messages for the worker go out. Misbehavior of workloads is logged here.
//!
//! Invariant: each `Open` of the worker is answered by `PairOpened`, unless the pair is removed before;
//! a deferred opening is answered early and by a second `PairOpened` only if it fails. Each `Close` is
//! answered by one `PairClosed`.

use std::{
    io, mem,
    os::fd::RawFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use log::Level;
use mio::{Interest, unix::SourceFd};

use crate::{broker::PeerId, message::Owner, state::Instance};

use super::{
    super::{
        error::PairError,
        fifo::PipePair,
        inotify::FifoEvent,
        log_limiter::Kind,
        port::{Misbehavior, Port, Wait},
        takeover,
        worker::ToWorker,
    },
    FIRST_READER_POLL, Job, LAST_READER_POLL, Loop, WATCHES,
    handoff::Work,
    jobs::{Opened, PortSettings, ToOpen},
    port_table::{CheckedOut, Due, Less, PortEntry, PortTable, TurnResult},
};

/// Pause between two watches for a leaving reader of a throttled workload.
// Two readers within this pause can share a frame (SECURITY.md#what-is-not-defended).
const LEAVE: Duration = Duration::from_millis(1);

/// A pair whose FIFOs are being opened.
pub(super) struct Opening {
    instance: Instance,
    pair: Arc<PipePair>,
    /// It was removed before its FIFOs were open.
    removed: bool,
    /// The remaining work, while a reader may be in the middle of half a frame.
    later: Option<Box<ToOpen>>,
    /// Number of attempts in vain.
    round: u32,
    /// The last attempt opened and closed the FIFO itself, so inotify reports our own descriptor.
    blind: bool,
    /// Events of its readers since the last attempt.
    seen: takeover::Seen,
}

impl Opening {
    pub(super) fn pair(&self) -> &PipePair {
        &self.pair
    }

    fn new(instance: Instance, pair: PipePair) -> Self {
        let (pair, later) = (Arc::new(pair), None);
        Self {
            instance,
            pair,
            removed: false,
            later,
            round: 0,
            blind: false,
            seen: takeover::Seen::All,
        }
    }
}

impl Loop {
    /// Makes the names of a pair, and queues the job that opens its FIFOs.
    pub(super) fn begin_open(&mut self, peer: PeerId, instance: &Instance, owner: Owner) {
        let pair = self.has_descriptors().and_then(|()| {
            let pair = self.run_dir.open_pair(instance, owner);
            pair.map_err(PairError::Unusable)
        });
        match pair {
            Ok((pair, fifos)) => {
                let (reused, window) = (pair.is_reused(), self.settings.window);
                let max_frame = self.settings.limits.max_frame;
                let settings = PortSettings { reused, max_frame, window };
                let (what, mut opening) =
                    (ToOpen::new(fifos, settings), Opening::new(instance.clone(), pair));
                // Watched before the first attempt: nobody would report a reader leaving in between.
                if what.is_in_parts() {
                    opening.seen = self.watch_leaving(peer, &what);
                }
                self.jobs.push_back(Job::Open(peer, what));
                self.opening.insert(peer, opening);
            }
            Err(why) => self.refuse(peer, instance, why),
        }
    }

    fn refuse(&mut self, peer: PeerId, instance: &Instance, why: PairError) {
        let name = instance.to_string();
        let text = format_args!("no control interface for {name}: {why}");
        self.log_limiter.log(Level::Error, Kind::Pair, &name, text);
        self.worker.tell(ToWorker::PairOpened(peer, Err(why)));
    }

    /// Rejects a workload beyond the descriptor limit: opening it would harm the pairs already served.
    fn has_descriptors(&self) -> Result<(), PairError> {
        let served = self.ports.len() + self.opening.len();
        let has_room = served < self.settings.most_pairs;
        if has_room { Ok(()) } else { Err(PairError::NoDescriptors(served)) }
    }

    pub(super) fn opened(&mut self, peer: PeerId, opened: io::Result<Opened>) {
        let Some(opening) = self.opening.remove(&peer) else { return };
        if !matches!(opened, Ok(Opened::Later(_))) {
            // Drops unread events as well: they are about the opening, not about the port.
            self.watches.remove(peer);
        }
        let Opening { instance, pair, removed, round, .. } = &opening;
        match opened {
            Ok(Opened::Port(port)) if *removed => self.jobs.push_back(Job::Close(port)),
            Ok(Opened::Later(what)) if *removed => self.jobs.push_back(Job::GiveUp(what)),
            Ok(Opened::Port(port)) => {
                if let Err(error) = self.serve(peer, instance, pair, port, *round > 0) {
                    self.refuse(peer, instance, PairError::System(error));
                }
            }
            Ok(Opened::Later(what)) => self.open_later(peer, opening, what),
            Err(_) if *removed => {}
            Err(error) => self.refuse(peer, instance, PairError::System(error)),
        }
    }

    /// Watches for the reader of half a frame to leave. Returns the knowledge about earlier events.
    fn watch_leaving(&mut self, peer: PeerId, what: &ToOpen) -> takeover::Seen {
        // A new watch: the old one may have seen our own last attempt.
        self.watches.remove(peer);
        let watched = self.watches.watch_leaving(peer, what.to_workload());
        if watched { takeover::Seen::All } else { takeover::Seen::Some }
    }

    /// Schedules another attempt. The agent gets its answer now, as a reader may take any time.
    fn open_later(&mut self, peer: PeerId, mut opening: Opening, what: Box<ToOpen>) {
        if opening.round == 0 {
            let path = opening.pair.path().display().to_string();
            let name = opening.instance.to_string();
            let text = format_args!(
                "the previous fifogate ended in the middle of a message to {name}; its pair is served \
                 when the reader of that half has left or seen end-of-file"
            );
            self.log_limiter.log(Level::Info, Kind::CutOff, &name, text);
            self.worker.tell(ToWorker::PairOpened(peer, Ok(path)));
        }
        let after =
            FIRST_READER_POLL.saturating_mul(1 << opening.round.min(10)).min(LAST_READER_POLL / 8);
        self.ports.schedule(Instant::now() + after, peer, Due::Open);
        opening.round += 1;
        if opening.blind {
            opening.seen = self.watch_leaving(peer, &what);
        }
        opening.later = Some(what);
        // The reader left while this attempt was under way: `open_again` had nothing to try then.
        let left = opening.seen == takeover::Seen::Left;
        self.opening.insert(peer, opening);
        if left {
            self.open_again(peer);
        }
    }

    /// Tries again to open a pair.
    fn open_again(&mut self, peer: PeerId) {
        let Some(opening) = self.opening.get_mut(&peer) else { return };
        if let Some(mut what) = opening.later.take() {
            what.seen = mem::take(&mut opening.seen);
            opening.blind = what.seen == takeover::Seen::Some;
            self.jobs.push_back(Job::Open(peer, what));
        }
    }

    fn serve(
        &mut self,
        peer: PeerId,
        instance: &Instance,
        pair: &Arc<PipePair>,
        port: Box<Port>,
        told: bool,
    ) -> io::Result<()> {
        let path = pair.path().display().to_string();
        log::debug!("serving {instance} at {path}");
        if let Err(error) = self.register(peer, port.descriptors()) {
            // The close takes its descriptors out of epoll, and may sleep as any other.
            self.jobs.push_back(Job::Close(port));
            return Err(error);
        }
        self.ports.add(peer, instance.to_string(), Arc::clone(pair), port);
        if !told {
            self.worker.tell(ToWorker::PairOpened(peer, Ok(path)));
        }
        Ok(())
    }

    /// Registers the descriptors of a pair for all events.
    fn register(&mut self, peer: PeerId, descriptors: (RawFd, RawFd)) -> io::Result<()> {
        let registry = self.poll.registry();
        let tokens = PortTable::tokens(peer);
        let (from_workload, to_workload) = descriptors;
        registry.register(&mut SourceFd(&from_workload), tokens.0, Interest::READABLE)?;
        // Not for writable, its state nearly always: for the error event of a reader that leaves.
        registry.register(&mut SourceFd(&to_workload), tokens.1, Interest::READABLE)?;
        self.drained.register(to_workload, tokens.1)?;
        // A refused watch is no error: the timer of the reader poll stands in for it.
        self.watches.watch(peer, descriptors);
        Ok(())
    }

    /// Deregisters the descriptors of a pair.
    fn deregister(&self, descriptors: (RawFd, RawFd)) {
        let (from_workload, to_workload) = descriptors;
        let registry = self.poll.registry();
        for forgotten in [
            registry.deregister(&mut SourceFd(&from_workload)),
            registry.deregister(&mut SourceFd(&to_workload)),
            self.drained.deregister(to_workload),
        ] {
            if let Err(error) = forgotten {
                log::error!("cannot deregister a descriptor: {error}");
            }
        }
    }

    pub(super) fn close(&mut self, peer: PeerId) {
        let pair = if let Some(opening) = self.opening.get_mut(&peer) {
            opening.removed = true;
            let pair = Arc::clone(&opening.pair);
            if let Some(what) = opening.later.take() {
                self.jobs.push_back(Job::GiveUp(what));
                self.opening.remove(&peer);
            }
            self.watches.remove(peer);
            Some(pair)
        } else if let Some(entry) = self.ports.remove(peer) {
            self.watches.remove(peer);
            // The throttle has deregistered them already; a second time fails.
            if !entry.is_throttled() {
                self.deregister(entry.descriptors());
            }
            let pair = Arc::clone(entry.pair());
            // A checked-out port is closed when it comes back.
            self.jobs.extend(entry.into_port().map(Job::Close));
            Some(pair)
        } else {
            None
        };
        // A name replaced by the workload is left alone, and must not keep its pair from ending.
        if let Some(pair) = pair
            && let Err(error) = self.run_dir.remove_pair(&pair)
        {
            let name = pair.path().display().to_string();
            self.log_limiter.log(Level::Warn, Kind::Pair, &name, format_args!("{error}"));
        }
        self.worker.tell(ToWorker::PairClosed(peer));
    }

    /// Starts a thread for a turn that is expected to sleep.
    pub(super) fn start_blocking(&mut self, visit: CheckedOut) {
        let Some(blocking_threads) = &self.blocking_threads else { return };
        let (peer, now) = (visit.peer(), Instant::now());
        self.ports.note_blocked(peer, now);
        // Taken by the new thread, or back by us if the system grants none.
        let parcel = Arc::new(Mutex::new(Some(visit)));
        let take = |parcel: &Mutex<Option<CheckedOut>>| {
            parcel.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let own = Arc::clone(&parcel);
        let job = move |buffer: &mut [u8]| take(&own).map(|own| Job::Turn(own).work(buffer));
        if let Err(error) = blocking_threads.start(job)
            && let Some(visit) = take(&parcel)
        {
            let name = self.ports.get(peer).map_or("", PortEntry::name);
            let text = format_args!("no thread for {name}: {error}");
            self.log_limiter.log(Level::Error, Kind::NoThread, name, text);
            self.ports.try_again_later(visit, now);
        }
    }

    pub(super) fn after_turn(&mut self, peer: PeerId, back: TurnResult) {
        let after = match self.ports.after_turn(peer, back) {
            Ok(after) => after,
            Err(port) => return self.jobs.push_back(Job::Close(port)),
        };
        self.worker.send_notices(peer, after.notices);
        after.messages.into_iter().for_each(|message| self.worker.tell(message));
        after.misbehaviors.into_iter().for_each(|misbehavior| self.report(peer, misbehavior));
        self.tell_held(peer, after.held);
        if let Some((before, now)) = after.waited {
            self.wait_for(peer, before, now);
        }
        self.throttle(peer, after.less);
    }

    pub(super) fn after_write(&mut self, peer: PeerId, port: Box<Port>, maybe_drained: bool) {
        match self.ports.after_write(peer, port, maybe_drained) {
            Ok(held) => self.tell_held(peer, held),
            Err(port) => self.jobs.push_back(Job::Close(port)),
        }
    }

    fn tell_held(&mut self, peer: PeerId, held: Option<Duration>) {
        let Some(held) = held else { return };
        let name = self.ports.get(peer).map_or("", PortEntry::name);
        let after = held.as_millis();
        let text = format_args!("{name} released its pipe after {after} ms");
        self.log_limiter.log(Level::Info, Kind::LetGo, name, text);
    }

    /// Switches off kernel events of a workload for a while.
    fn throttle(&mut self, peer: PeerId, less: Less) {
        let Some(descriptors) = self.ports.get(peer).map(PortEntry::descriptors) else { return };
        match less {
            Less::Nothing => {}
            Less::Reads => {
                self.watches.set_reads(peer, descriptors.1, false);
            }
            Less::All => {
                self.report(peer, Misbehavior::WakeupFlood);
                self.deregister(descriptors);
                // A frame begun for a leaving reader has to start again for the next one, also in this time.
                self.watches.watch_leaving(peer, descriptors.1);
            }
        }
    }

    /// Registers for the event needed by a port, instead of the one needed before.
    fn wait_for(&mut self, peer: PeerId, before: Wait, now: Wait) {
        let Some(entry) = self.ports.get(peer) else { return };
        let (_, to_workload) = entry.descriptors();
        match before {
            Wait::No => {}
            Wait::Edge => self.reregister(entry, Interest::READABLE),
            Wait::Reader => {
                self.watches.set_reads(peer, to_workload, false);
            }
        }
        match now {
            Wait::No => {}
            // A pipe with free space by now gives the edge at once.
            Wait::Edge => self.reregister(entry, Interest::WRITABLE),
            Wait::Reader => {
                // Set only now: each watched read costs its reader time (docs/pipes.md#events-of-a-fifo).
                // Reads before this watch were not seen, so poll once.
                if !entry.is_quiet() && self.watches.set_reads(peer, to_workload, true) {
                    self.ports.poll_reader(peer);
                }
            }
        }
    }

    fn reregister(&self, entry: &PortEntry, interest: Interest) {
        let tokens = PortTable::tokens(entry.peer());
        let (_, fd) = entry.descriptors();
        if let Err(error) = self.poll.registry().reregister(&mut SourceFd(&fd), tokens.1, interest)
        {
            log::error!("cannot wait for {}: {error}", entry.name());
        }
    }

    pub(super) fn do_what_is_due(&mut self, now: Instant) {
        for (peer, due) in self.ports.take_due(now) {
            // A pair under way has no entry in the table yet.
            if due == Due::Open {
                self.open_again(peer);
                continue;
            }
            let Some(entry) = self.ports.get_mut(peer) else { continue };
            match due {
                Due::Open => {}
                Due::PollReader => self.ports.poll_reader(peer),
                Due::Unused => self.ports.check_unused(peer, now),
                Due::Blocked => {
                    entry.quarantine();
                    self.report(peer, Misbehavior::Blocked);
                }
                Due::Unthrottle => {
                    entry.unthrottle();
                    let descriptors = entry.descriptors();
                    if let Err(error) = self.register(peer, descriptors) {
                        let name = self.ports.get(peer).map_or("", PortEntry::name);
                        log::error!("cannot wait for {name}: {error}");
                    }
                    // Nothing was reported during the throttle: neither a reader that came nor one that left.
                    self.ports.poll_reader(peer);
                    self.ports.note_left(peer);
                }
                Due::Leave => {
                    if entry.is_throttled() {
                        let (_, to_workload) = entry.descriptors();
                        // The poll behind the new watch finds a reader that came or left in the pause.
                        self.watches.watch_leaving(peer, to_workload);
                        self.ports.poll_reader(peer);
                    }
                }
                Due::WatchReads => {
                    let (_, to_workload) = entry.descriptors();
                    if entry.watch_reads() && self.watches.set_reads(peer, to_workload, true) {
                        self.ports.poll_reader(peer);
                    }
                }
            }
        }
    }

    /// Logs each misbehavior of a workload once.
    fn report(&mut self, peer: PeerId, misbehavior: Misbehavior) {
        if let Some(entry) = self.ports.get_mut(peer)
            && entry.note_misbehavior(misbehavior)
        {
            let name = entry.name();
            let text = format_args!("{name} {}; reported once", misbehavior.text());
            self.log_limiter.log(Level::Warn, Kind::Misbehavior, name, text);
        }
    }

    pub(super) fn take_watches(&mut self) {
        // One buffer a round: a workload with many events delays others by one buffer.
        let seen = self.watches.read();
        for seen in &seen {
            match seen {
                FifoEvent::Reader(peer) => self.ports.poll_reader(*peer),
                FifoEvent::ReaderLeft(peer) => self.note_reader_left(*peer),
                FifoEvent::Name(peer) => self.check_names(*peer),
                FifoEvent::Overflow => {
                    self.ports.poll_all_readers();
                    let opening = self.opening.values_mut();
                    opening.for_each(|own| own.seen = takeover::Seen::Some);
                }
            }
        }
        if !seen.is_empty() {
            self.rearm_watches();
        }
    }

    fn note_reader_left(&mut self, peer: PeerId) {
        if let Some(opening) = self.opening.get_mut(&peer) {
            opening.seen = takeover::Seen::Left;
            return self.open_again(peer);
        }
        self.ports.note_reader_left(peer);
        // The one-shot watch is used up. The pause bounds the wake-ups of a reader leaving in a loop.
        if self.ports.get(peer).is_some_and(PortEntry::is_throttled) {
            self.ports.schedule(Instant::now() + LEAVE, peer, Due::Leave);
        }
    }

    fn check_names(&mut self, peer: PeerId) {
        let Some(entry) = self.ports.get(peer) else { return };
        if !self.run_dir.has_names_of(entry.pair()) {
            self.report(peer, Misbehavior::Renamed);
        }
    }

    /// Registers the inotify descriptor again: its queue may not be empty, and an edge comes only once.
    fn rearm_watches(&self) {
        if let Some(fd) = self.watches.descriptor() {
            let registry = self.poll.registry();
            if let Err(error) = registry.reregister(&mut SourceFd(&fd), WATCHES, Interest::READABLE)
            {
                log::error!("cannot poll inotify any more: {error}");
            }
        }
    }
}
