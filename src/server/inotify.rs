//! Tells when somebody opens, reads, closes or renames a FIFO: what the kernel's readiness events do
//! not say (docs/pipes.md#watching-by-inotify).
//!
//! What is seen is a hint to look again. Reads cost the reader a little when they are watched, so
//! they are only while a port waits for one. Without inotify, or when its queue overflowed, the
//! event loop's timer has to do.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use crate::{broker::PeerId, id_map::IdMap};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::fifo::path_of;

/// What makes a name another file's, or nobody's.
const NAME: AddWatchFlags = AddWatchFlags::IN_ATTRIB.union(AddWatchFlags::IN_MOVE_SELF);
/// A reader that came or left, and the name.
const READER: AddWatchFlags =
    AddWatchFlags::IN_OPEN.union(AddWatchFlags::IN_CLOSE_NOWRITE).union(NAME);
/// A reader that left, once: whoever opens and closes without end wakes nobody by that.
const LEAVING: AddWatchFlags = AddWatchFlags::IN_CLOSE_NOWRITE.union(AddWatchFlags::IN_ONESHOT);
/// All that, and what it read.
const READS: AddWatchFlags = AddWatchFlags::IN_ACCESS.union(READER);

/// The watched FIFOs.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: Option<Inotify>,
    peers: HashMap<WatchDescriptor, PeerId>,
    by_peer: IdMap<PeerId, [Option<WatchDescriptor>; 2]>,
}

/// What was seen.
#[derive(Debug)]
pub(super) enum Seen {
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
            log::warn!("no inotify ({}): waiting readers are polled for", errno.desc());
        }
        Self { inotify: inotify.ok(), peers: HashMap::new(), by_peer: IdMap::default() }
    }

    /// The descriptor that becomes readable when something was seen.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd().as_raw_fd())
    }

    /// Watches the pair of `peer` from now on, by the descriptors from and to the workload.
    pub(super) fn watch(&mut self, peer: PeerId, (from_workload, to_workload): (RawFd, RawFd)) {
        let reader = self.add(peer, to_workload, READER);
        let writer = self.add(peer, from_workload, NAME);
        self.keep(peer, [reader, writer]);
    }

    /// Watches nothing of `peer` from now on but for the next reader that leaves; tells whether that can
    /// be.
    pub(super) fn watch_leaving(&mut self, peer: PeerId, to_workload: RawFd) -> bool {
        let reader = self.add(peer, to_workload, LEAVING);
        self.keep(peer, [reader, None]);
        reader.is_some()
    }

    /// Gives up what was watched before, after what is watched now: nothing between is missed.
    fn keep(&mut self, peer: PeerId, now: [Option<WatchDescriptor>; 2]) {
        let before = self.by_peer.insert(peer, now).into_iter().flatten().flatten();
        for watch in before.filter(|watch| !now.contains(&Some(*watch))) {
            self.forget(watch);
        }
    }

    /// Sets whether what the reader of `peer` reads is seen; tells whether that can be.
    pub(super) fn set_reads(&mut self, peer: PeerId, to_workload: RawFd, on: bool) -> bool {
        let what = if on { READS } else { READER };
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
            // It may be gone already, with the file or as it was for one event only.
            let _ = inotify.rm_watch(watch);
        }
    }

    /// One buffer of what was seen; nothing if there is no more.
    pub(super) fn read(&self) -> Vec<Seen> {
        let events = self.inotify.as_ref().and_then(|inotify| inotify.read_events().ok());
        events.into_iter().flatten().filter_map(|event| self.seen(&event)).collect()
    }

    fn seen(&self, event: &InotifyEvent) -> Option<Seen> {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Some(Seen::Overflow);
        }
        let peer = *self.peers.get(&event.wd)?;
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            return None;
        }
        Some(if event.mask.intersects(NAME) {
            Seen::Name(peer)
        } else if event.mask.contains(AddWatchFlags::IN_CLOSE_NOWRITE) {
            Seen::ReaderLeft(peer)
        } else {
            Seen::Reader(peer)
        })
    }
}
