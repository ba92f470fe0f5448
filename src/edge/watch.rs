//! Tells when somebody opens, reads or closes a FIFO that a port waits for: what the kernel's
//! readiness events do not say (FIFO-FACTS 2.3, 3.2 and 3.3).
//!
//! A watch is a hint to look again, and costs the reader a little, so it stands only while a port
//! waits. Without inotify, or when its queue overflowed, the reactor's timer has to do.

use std::{collections::HashMap, os::fd::AsFd, os::fd::AsRawFd, os::fd::RawFd, path::Path};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::broker::PeerId;

/// The watched FIFOs.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: Option<Inotify>,
    peers: HashMap<WatchDescriptor, PeerId>,
    by_peer: HashMap<PeerId, WatchDescriptor>,
}

/// What was seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// Something happened at the FIFO of this peer.
    At(PeerId),
    /// Some events were lost: it may have happened at any.
    Overflow,
}

impl Watches {
    pub(super) fn new() -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        if let Err(errno) = &inotify {
            log::warn!("no inotify ({}): waiting readers are polled for", errno.desc());
        }
        Self { inotify: inotify.ok(), peers: HashMap::new(), by_peer: HashMap::new() }
    }

    /// The descriptor that becomes readable when something was seen.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd().as_raw_fd())
    }

    /// Watches the FIFO of `peer` at `path`; tells whether the watch is new, so that one more look
    /// is due: what happened before it was not seen.
    pub(super) fn add(&mut self, peer: PeerId, path: &Path) -> bool {
        let Some(inotify) = self.inotify.as_ref().filter(|_| !self.by_peer.contains_key(&peer))
        else {
            return false;
        };
        let what = AddWatchFlags::IN_OPEN | AddWatchFlags::IN_ACCESS | AddWatchFlags::IN_CLOSE;
        match inotify.add_watch(path, what) {
            Ok(watch) => {
                self.peers.insert(watch, peer);
                self.by_peer.insert(peer, watch);
                true
            }
            Err(errno) => {
                log::debug!("cannot watch {}: {}", path.display(), errno.desc());
                false
            }
        }
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        if let Some(watch) = self.by_peer.remove(&peer) {
            self.peers.remove(&watch);
            if let Some(inotify) = &self.inotify {
                // It may be gone already, with the file.
                let _ = inotify.rm_watch(watch);
            }
        }
    }

    /// One buffer of what was seen; nothing if there is no more.
    pub(super) fn read(&self) -> Vec<Seen> {
        let events = self.inotify.as_ref().and_then(|inotify| inotify.read_events().ok());
        let seen = |event: nix::sys::inotify::InotifyEvent| {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                return Some(Seen::Overflow);
            }
            self.peers.get(&event.wd).copied().map(Seen::At)
        };
        events.into_iter().flatten().filter_map(seen).collect()
    }
}
