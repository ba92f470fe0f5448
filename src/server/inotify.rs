//! Inotify watches: report when a FIFO is opened, read, closed or renamed. Readiness events lack this
//! (docs/pipes.md#watching-by-inotify).
//!
//! Descriptors go in, and [`FifoEvent`] events come out. Each event is a hint to check again. A watch for
//! reads costs the reader a little, so it is set only while a port waits for its reader. Without
//! inotify, or after an overflow of its queue, the timers of the event loop replace the events.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use crate::{broker::PeerId, id_map::IdMap};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::fifo::path_of;

/// Events after which a name may be another file's, or gone.
const NAME: AddWatchFlags = AddWatchFlags::IN_ATTRIB.union(AddWatchFlags::IN_MOVE_SELF);
/// Events for a reader that came or left, and for the name.
const READER: AddWatchFlags =
    AddWatchFlags::IN_OPEN.union(AddWatchFlags::IN_CLOSE_NOWRITE).union(NAME);
/// One event for a reader that left: endless opening and closing then causes no wake-ups.
const LEAVING: AddWatchFlags = AddWatchFlags::IN_CLOSE_NOWRITE.union(AddWatchFlags::IN_ONESHOT);
/// All of these events, and reads.
const READS: AddWatchFlags = AddWatchFlags::IN_ACCESS.union(READER);

/// The watched FIFOs.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: Option<Inotify>,
    peers: HashMap<WatchDescriptor, PeerId>,
    by_peer: IdMap<PeerId, [Option<WatchDescriptor>; 2]>,
}

/// An event, or the loss of events.
#[derive(Debug)]
pub(super) enum FifoEvent {
    /// The reader of this peer came, or read.
    Reader(PeerId),
    /// A reader of this peer left.
    ReaderLeft(PeerId),
    /// A name of this peer's pair may be gone.
    Name(PeerId),
    /// Some events were lost: anything may have happened anywhere.
    Overflow,
}

impl Watches {
    pub(super) fn new() -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        if let Err(errno) = &inotify {
            log::warn!("no inotify ({}): readers are polled instead", errno.desc());
        }
        Self { inotify: inotify.ok(), peers: HashMap::new(), by_peer: IdMap::default() }
    }

    /// The descriptor that becomes readable when something was seen.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd().as_raw_fd())
    }

    /// Watches the pair of `peer`, by the descriptors from and to the workload.
    pub(super) fn watch(&mut self, peer: PeerId, (from_workload, to_workload): (RawFd, RawFd)) {
        let reader = self.add(peer, to_workload, READER);
        let writer = self.add(peer, from_workload, NAME);
        self.keep(peer, [reader, writer]);
    }

    /// Watches only for the next leaving reader of `peer`. Returns false if the kernel refuses.
    pub(super) fn watch_leaving(&mut self, peer: PeerId, to_workload: RawFd) -> bool {
        let reader = self.add(peer, to_workload, LEAVING);
        self.keep(peer, [reader, None]);
        reader.is_some()
    }

    /// Removes the old watches after the new ones are set, so no event in between is lost.
    fn keep(&mut self, peer: PeerId, now: [Option<WatchDescriptor>; 2]) {
        // The kernel has one watch for each file, so the same one may stand on both sides.
        let before = self.by_peer.insert(peer, now).into_iter().flatten().flatten();
        for watch in before.filter(|watch| !now.contains(&Some(*watch))) {
            self.forget(watch);
        }
    }

    /// Switches the watch for reads by `peer` on or off. Returns false if the kernel refuses.
    pub(super) fn set_reads(&mut self, peer: PeerId, to_workload: RawFd, on: bool) -> bool {
        let what = if on { READS } else { READER };
        // A second watch on a file replaces the events of the first one.
        self.add(peer, to_workload, what).is_some()
    }

    fn add(&mut self, peer: PeerId, fd: RawFd, what: AddWatchFlags) -> Option<WatchDescriptor> {
        match self.inotify.as_ref()?.add_watch(&path_of(fd), what) {
            Ok(watch) => {
                self.peers.insert(watch, peer);
                Some(watch)
            }
            Err(errno) => {
                log::debug!("cannot watch a FIFO: {}", errno.desc());
                None
            }
        }
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        for watch in self.by_peer.remove(&peer).into_iter().flatten().flatten() {
            self.forget(watch);
        }
    }

    fn forget(&mut self, watch: WatchDescriptor) {
        self.peers.remove(&watch);
        if let Some(inotify) = &self.inotify {
            // The kernel may have removed it already: with the file, or after a one-shot event.
            let _ = inotify.rm_watch(watch);
        }
    }

    /// Reads one buffer of events; empty if there are none.
    pub(super) fn read(&self) -> Vec<FifoEvent> {
        // The usual error is an empty queue.
        let events = self.inotify.as_ref().and_then(|inotify| inotify.read_events().ok());
        events.into_iter().flatten().filter_map(|event| self.seen(&event)).collect()
    }

    fn seen(&self, event: &InotifyEvent) -> Option<FifoEvent> {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Some(FifoEvent::Overflow);
        }
        // Events of a removed watch may still stand in the queue.
        let peer = *self.peers.get(&event.wd)?;
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            return None;
        }
        Some(if event.mask.intersects(NAME) {
            FifoEvent::Name(peer)
        } else if event.mask.contains(AddWatchFlags::IN_CLOSE_NOWRITE) {
            FifoEvent::ReaderLeft(peer)
        } else {
            FifoEvent::Reader(peer)
        })
    }
}
