//! Pairs that come and go, what became of their turns, and what their workloads do to them that they
//! should not.

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
        fifo::PipePair,
        pace::Kind,
        port::{Oddity, Port, Wait},
        watch::Seen,
        worker::FromReactor,
    },
    FIRST_LOOK, Job, LAST_LOOK, Loop, WATCHES,
    jobs::{Opened, PortSettings, ToOpen},
    slots::{Back, Due, Less, Slot, Slots, Visit},
};

/// How soon the next leaving of a reader is seen whose workload wakes us for nothing.
const LEAVE: Duration = Duration::from_millis(1);

/// A pair whose FIFOs are being opened.
pub(super) struct Opening {
    instance: Instance,
    pair: Arc<PipePair>,
    /// It was removed before they were open.
    removed: bool,
    /// What is opened later, when nobody can be in the middle of half a frame any more.
    later: Option<Box<ToOpen>>,
    /// How often that was looked at for nothing.
    round: u32,
    /// A reader was seen to leave since the last look.
    reader_left: bool,
}

impl Opening {
    fn new(instance: Instance, pair: PipePair) -> Self {
        let (pair, later) = (Arc::new(pair), None);
        Self { instance, pair, removed: false, later, round: 0, reader_left: false }
    }
}

impl Loop {
    /// Makes the names of a pair, and has its FIFOs opened.
    pub(super) fn begin_open(&mut self, peer: PeerId, instance: &Instance, owner: Owner) {
        let pair = self.has_descriptors().and_then(|()| {
            let pair = self.run_dir.open_pair(instance, owner);
            pair.map_err(|error| error.to_string())
        });
        match pair {
            Ok((pair, fifos)) => {
                let (reused, window) = (pair.is_reused(), self.settings.window);
                let max_frame = self.settings.limits.max_frame;
                let settings = PortSettings { reused, max_frame, window };
                self.jobs.push_back(Job::Open(peer, ToOpen::new(fifos, settings)));
                self.opening.insert(peer, Opening::new(instance.clone(), pair));
            }
            Err(why) => self.refuse(peer, instance, why),
        }
    }

    fn refuse(&mut self, peer: PeerId, instance: &Instance, why: String) {
        let name = instance.to_string();
        let text = format_args!("no control interface for {name}: {why}");
        self.pace.say(Level::Error, Kind::Pair, &name, text);
        self.worker.tell(FromReactor::PairOpened(peer, Err(why)));
    }

    /// A workload too many is refused, before those that are served get into trouble.
    fn has_descriptors(&self) -> Result<(), String> {
        let pairs = self.slots.len() + self.opening.len();
        if pairs < self.settings.most_pairs {
            return Ok(());
        }
        Err(format!(
            "{pairs} workloads are served, and the process may have no more descriptors \
             (RLIMIT_NOFILE)"
        ))
    }

    pub(super) fn opened(&mut self, peer: PeerId, opened: io::Result<Opened>) {
        let Some(opening) = self.opening.remove(&peer) else { return };
        let Opening { instance, pair, removed, round, .. } = &opening;
        match opened {
            Ok(Opened::Port(port)) if *removed => self.jobs.push_back(Job::Close(port)),
            Ok(Opened::Later(what)) if *removed => self.jobs.push_back(Job::GiveUp(what)),
            Ok(Opened::Port(port)) => {
                let told = *round > 0;
                if told {
                    self.watches.remove(peer);
                }
                if let Err(error) = self.serve(peer, instance, pair, port, told) {
                    self.refuse(peer, instance, error.to_string());
                }
            }
            Ok(Opened::Later(what)) => self.open_later(peer, opening, what),
            Err(_) if *removed => {}
            Err(error) => self.refuse(peer, instance, error.to_string()),
        }
    }

    /// The agent need not wait for a reader, of which nobody knows when it reads.
    fn open_later(&mut self, peer: PeerId, mut opening: Opening, what: Box<ToOpen>) {
        if opening.round == 0 {
            let path = opening.pair.path().display().to_string();
            let name = opening.instance.to_string();
            let text = format_args!(
                "a message to {name} was cut off when the fifogate before ended; it is served when \
                 its reader has seen the end"
            );
            self.pace.say(Level::Info, Kind::CutOff, &name, text);
            self.watches.watch_leaving(peer, what.to_workload());
            self.worker.tell(FromReactor::PairOpened(peer, Ok(path)));
        }
        let after = FIRST_LOOK.saturating_mul(1 << opening.round.min(10)).min(LAST_LOOK / 8);
        self.slots.schedule(Instant::now() + after, peer, Due::Open);
        opening.round += 1;
        opening.later = Some(what);
        let left = opening.reader_left;
        self.opening.insert(peer, opening);
        if left {
            self.open_again(peer);
        }
    }

    /// Looks again whether a pair may be opened.
    fn open_again(&mut self, peer: PeerId) {
        let Some(opening) = self.opening.get_mut(&peer) else { return };
        if let Some(mut what) = opening.later.take() {
            what.reader_left = mem::take(&mut opening.reader_left);
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
        let descriptors = port.descriptors();
        self.slots.add(peer, instance.to_string(), Arc::clone(pair), port);
        self.register(peer, descriptors)?;
        if !told {
            self.worker.tell(FromReactor::PairOpened(peer, Ok(path)));
        }
        Ok(())
    }

    /// Has the kernel tell of everything that happens at a pair.
    fn register(&mut self, peer: PeerId, descriptors: (RawFd, RawFd)) -> io::Result<()> {
        let registry = self.poll.registry();
        let tokens = Slots::tokens(peer);
        let (from_workload, to_workload) = descriptors;
        registry.register(&mut SourceFd(&from_workload), tokens.0, Interest::READABLE)?;
        // Not for being writable, which it nearly always is: for the reader's leaving.
        registry.register(&mut SourceFd(&to_workload), tokens.1, Interest::READABLE)?;
        self.taken.register(to_workload, tokens.1)?;
        self.watches.watch(peer, descriptors);
        Ok(())
    }

    /// Events of a pair's descriptors are of no interest any more.
    fn deregister(&self, descriptors: (RawFd, RawFd)) {
        let (from_workload, to_workload) = descriptors;
        let registry = self.poll.registry();
        for forgotten in [
            registry.deregister(&mut SourceFd(&from_workload)),
            registry.deregister(&mut SourceFd(&to_workload)),
            self.taken.deregister(to_workload),
        ] {
            if let Err(error) = forgotten {
                log::error!("cannot forget a descriptor: {error}");
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
        } else if let Some(slot) = self.slots.remove(peer) {
            self.watches.remove(peer);
            if !slot.is_muted() {
                self.deregister(slot.descriptors());
            }
            let pair = Arc::clone(slot.pair());
            // One that is away is closed when it comes back.
            self.jobs.extend(slot.into_port().map(Job::Close));
            Some(pair)
        } else {
            None
        };
        if let Some(pair) = pair
            && let Err(error) = self.run_dir.remove_pair(&pair)
        {
            let name = pair.path().display().to_string();
            self.pace.say(Level::Warn, Kind::Pair, &name, format_args!("{error}"));
        }
        self.worker.tell(FromReactor::PairClosed(peer));
    }

    /// A turn that is expected to sleep.
    pub(super) fn start_aside(&mut self, visit: Visit) {
        let Some(asides) = &self.asides else { return };
        let (peer, now) = (visit.peer(), Instant::now());
        self.slots.note_away(peer, now);
        // It is taken by the thread, or by us if there is none.
        let parcel = Arc::new(Mutex::new(Some(visit)));
        let take = |parcel: &Mutex<Option<Visit>>| {
            parcel.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let own = Arc::clone(&parcel);
        let job = move |buffer: &mut [u8]| take(&own).map(|own| Job::Turn(own).work(buffer));
        if let Err(error) = asides.start(job)
            && let Some(visit) = take(&parcel)
        {
            let name = self.slots.get(peer).map_or("", Slot::name);
            let text = format_args!("no thread for {name}: {error}");
            self.pace.say(Level::Error, Kind::NoThread, name, text);
            self.slots.try_again_later(visit, now);
        }
    }

    pub(super) fn after_turn(&mut self, peer: PeerId, back: Back) {
        let after = match self.slots.after_turn(peer, back) {
            Ok(after) => after,
            Err(port) => return self.jobs.push_back(Job::Close(port)),
        };
        self.worker.tell_notices(peer, after.notices);
        after.messages.into_iter().for_each(|message| self.worker.tell(message));
        after.oddities.into_iter().for_each(|oddity| self.report(peer, oddity));
        if let Some(held) = after.held {
            let name = self.slots.get(peer).map_or("", Slot::name);
            let after = held.as_millis();
            let text = format_args!("{name} has let go of its pipe after {after} ms");
            self.pace.say(Level::Info, Kind::LetGo, name, text);
        }
        if let Some((before, now)) = after.waited {
            self.wait_for(peer, before, now);
        }
        self.tell_less(peer, after.less);
    }

    /// Has the kernel tell less of a workload for a while.
    fn tell_less(&mut self, peer: PeerId, less: Less) {
        let Some(descriptors) = self.slots.get(peer).map(Slot::descriptors) else { return };
        match less {
            Less::Nothing => {}
            Less::Reads => {
                self.watches.set_reads(peer, descriptors.1, false);
            }
            Less::All => {
                self.report(peer, Oddity::Wakes);
                self.deregister(descriptors);
                self.watches.watch_leaving(peer, descriptors.1);
            }
        }
    }

    /// Has the kernel tell what a port waits for, and no more what it waited for before.
    fn wait_for(&mut self, peer: PeerId, before: Wait, now: Wait) {
        let Some(slot) = self.slots.get(peer) else { return };
        let (_, to_workload) = slot.descriptors();
        match before {
            Wait::No => {}
            Wait::Edge => self.reregister(slot, Interest::READABLE),
            Wait::Reader => {
                self.watches.set_reads(peer, to_workload, false);
            }
        }
        match now {
            Wait::No => {}
            // If the pipe has room by now, the edge comes at once.
            Wait::Edge => self.reregister(slot, Interest::WRITABLE),
            Wait::Reader => {
                // What was read before that was not seen.
                if !slot.is_quiet() && self.watches.set_reads(peer, to_workload, true) {
                    self.slots.look_at(peer);
                }
            }
        }
    }

    fn reregister(&self, slot: &Slot, interest: Interest) {
        let tokens = Slots::tokens(slot.peer());
        let (_, fd) = slot.descriptors();
        if let Err(error) = self.poll.registry().reregister(&mut SourceFd(&fd), tokens.1, interest)
        {
            log::error!("cannot wait for {}: {error}", slot.name());
        }
    }

    pub(super) fn do_what_is_due(&mut self, now: Instant) {
        for (peer, due) in self.slots.take_due(now) {
            if due == Due::Open {
                self.open_again(peer);
                continue;
            }
            let Some(slot) = self.slots.get_mut(peer) else { continue };
            match due {
                Due::Open => {}
                Due::Look => self.slots.look_at(peer),
                Due::Held => {
                    slot.set_suspect();
                    self.report(peer, Oddity::Held);
                }
                Due::Unmute => {
                    slot.unmute();
                    let descriptors = slot.descriptors();
                    if let Err(error) = self.register(peer, descriptors) {
                        let name = self.slots.get(peer).map_or("", Slot::name);
                        log::error!("cannot wait for {name}: {error}");
                    }
                    self.slots.look_at(peer);
                }
                Due::Leave => {
                    if slot.is_muted() {
                        let (_, to_workload) = slot.descriptors();
                        self.watches.watch_leaving(peer, to_workload);
                        self.slots.look_at(peer);
                    }
                }
                Due::Hear => {
                    let (_, to_workload) = slot.descriptors();
                    if slot.hear() && self.watches.set_reads(peer, to_workload, true) {
                        self.slots.look_at(peer);
                    }
                }
            }
        }
    }

    /// Says once of each workload what it does that it should not.
    fn report(&mut self, peer: PeerId, oddity: Oddity) {
        if let Some(slot) = self.slots.get_mut(peer)
            && slot.note_oddity(oddity)
        {
            let name = slot.name();
            let text = format_args!("{name} {}; reported once", oddity.text());
            self.pace.say(Level::Warn, Kind::Oddity, name, text);
        }
    }

    pub(super) fn take_watches(&mut self) {
        // One buffer a round: a workload that makes many events makes others wait for one buffer.
        let seen = self.watches.read();
        for seen in &seen {
            match seen {
                Seen::Reader(peer) => self.slots.look_at(*peer),
                Seen::ReaderLeft(peer) => self.note_reader_left(*peer),
                Seen::Name(peer) => self.check_names(*peer),
                Seen::Overflow => self.slots.look_at_all(),
            }
        }
        if !seen.is_empty() {
            self.rearm_watches();
        }
    }

    fn note_reader_left(&mut self, peer: PeerId) {
        if let Some(opening) = self.opening.get_mut(&peer) {
            opening.reader_left = true;
            return self.open_again(peer);
        }
        self.slots.note_reader_left(peer);
        if self.slots.get(peer).is_some_and(Slot::is_muted) {
            self.slots.schedule(Instant::now() + LEAVE, peer, Due::Leave);
        }
    }

    fn check_names(&mut self, peer: PeerId) {
        let Some(slot) = self.slots.get(peer) else { return };
        if !self.run_dir.has_names_of(slot.pair()) {
            self.report(peer, Oddity::Renamed);
        }
    }

    /// More may be in the queue than was read, and an edge comes only once.
    fn rearm_watches(&self) {
        if let Some(fd) = self.watches.descriptor() {
            let registry = self.poll.registry();
            if let Err(error) = registry.reregister(&mut SourceFd(&fd), WATCHES, Interest::READABLE)
            {
                log::error!("cannot watch readers any more: {error}");
            }
        }
    }
}
