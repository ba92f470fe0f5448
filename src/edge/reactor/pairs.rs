//! Pairs that come and go, what became of their turns, and what their workloads do to them that they
//! should not.

use std::{
    io,
    os::fd::RawFd,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use mio::{Interest, unix::SourceFd};

use crate::{broker::PeerId, message::Owner, state::Instance};

use super::{
    super::{
        fifo::PipePair,
        port::{Oddity, Port, Wait},
        watch::Seen,
        worker::FromReactor,
    },
    Job, Loop, WATCHES,
    jobs::ToOpen,
    slots::{Back, Due, Slot, Slots, Visit},
};

/// A pair whose FIFOs are being opened.
pub(super) struct Opening {
    instance: Instance,
    pair: Arc<PipePair>,
    /// It was removed before they were open.
    removed: bool,
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
                self.jobs.push_back(Job::Open(peer, ToOpen { fifos, reused, max_frame, window }));
                let (instance, pair, removed) = (instance.clone(), Arc::new(pair), false);
                self.opening.insert(peer, Opening { instance, pair, removed });
            }
            Err(why) => self.refuse(peer, instance, why),
        }
    }

    fn refuse(&mut self, peer: PeerId, instance: &Instance, why: String) {
        log::error!("no control interface for {instance}: {why}");
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

    pub(super) fn opened(&mut self, peer: PeerId, port: io::Result<Box<Port>>) {
        let Some(Opening { instance, pair, removed }) = self.opening.remove(&peer) else { return };
        match port {
            Ok(port) if removed => self.jobs.push_back(Job::Close(port)),
            Ok(port) => {
                if let Err(error) = self.serve(peer, &instance, &pair, port) {
                    self.refuse(peer, &instance, error.to_string());
                }
            }
            Err(_) if removed => {}
            Err(error) => self.refuse(peer, &instance, error.to_string()),
        }
    }

    fn serve(
        &mut self,
        peer: PeerId,
        instance: &Instance,
        pair: &Arc<PipePair>,
        port: Box<Port>,
    ) -> io::Result<()> {
        let path = pair.path().display().to_string();
        log::debug!("serving {instance} at {path}");
        let descriptors = port.descriptors();
        self.slots.add(peer, instance.to_string(), Arc::clone(pair), port);
        self.register(peer, descriptors)?;
        self.worker.tell(FromReactor::PairOpened(peer, Ok(path)));
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

    fn unregister(&mut self, peer: PeerId, descriptors: (RawFd, RawFd)) {
        self.watches.remove(peer);
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
            Some(Arc::clone(&opening.pair))
        } else if let Some(slot) = self.slots.remove(peer) {
            if !slot.is_muted() {
                self.unregister(peer, slot.descriptors());
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
            log::warn!("{error}");
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
            log::error!("no thread for {name}: {error}");
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
            log::info!("{name} has let go of its pipe after {} ms", held.as_millis());
        }
        if after.wakes {
            self.report(peer, Oddity::Wakes);
            if let Some(descriptors) = self.slots.get(peer).map(Slot::descriptors) {
                self.unregister(peer, descriptors);
            }
        }
        if let Some((before, now)) = after.waited {
            self.wait_for(peer, before, now);
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
                if self.watches.set_reads(peer, to_workload, true) {
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
            let Some(slot) = self.slots.get_mut(peer) else { continue };
            match due {
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
            }
        }
    }

    /// Says once of each workload what it does that it should not.
    fn report(&mut self, peer: PeerId, oddity: Oddity) {
        if let Some(slot) = self.slots.get_mut(peer)
            && slot.note_oddity(oddity)
        {
            log::warn!("{} {}; reported once", slot.name(), oddity.text());
        }
    }

    pub(super) fn take_watches(&mut self) {
        // One buffer a round: a workload that makes many events makes others wait for one buffer.
        let seen = self.watches.read();
        for seen in &seen {
            match seen {
                Seen::Reader(peer) => self.slots.look_at(*peer),
                Seen::ReaderLeft(peer) => self.slots.note_reader_left(*peer),
                Seen::Name(peer) => self.check_names(*peer),
                Seen::Overflow => self.slots.look_at_all(),
            }
        }
        if !seen.is_empty() {
            self.rearm_watches();
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
