//! Observes a fifogate from outside while it is attacked: its memory, and threads that hang
//! in the kernel.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use testkit::memory_kib;

/// Lines of `/proc/PID/status`, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) anonymous: usize,
    pub(crate) resident: usize,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        let field = |name| memory_kib(pid, name);
        Self { anonymous: field("RssAnon:"), resident: field("VmRSS:") }
    }

    /// The larger growth of the two.
    pub(crate) fn growth_to(self, peak: Self) -> usize {
        let anonymous = peak.anonymous.saturating_sub(self.anonymous);
        anonymous.max(peak.resident.saturating_sub(self.resident))
    }
}

/// The observations so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) peak: Memory,
    /// How often a thread was found that not even SIGKILL would have ended.
    pub(crate) stuck: u64,
}

pub(crate) struct Watcher {
    ended: Arc<AtomicBool>,
    stuck: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watcher {
    pub(crate) fn start(pid: u32) -> Self {
        let (ended, stuck) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (until, tell) = (Arc::clone(&ended), Arc::clone(&stuck));
        let thread = thread::spawn(move || {
            let (mut seen, mut since) = (Seen::default(), None::<Instant>);
            while !until.load(Ordering::Relaxed) {
                let now = Memory::of(pid);
                seen.peak.anonymous = seen.peak.anonymous.max(now.anonymous);
                seen.peak.resident = seen.peak.resident.max(now.resident);
                let stuck = is_stuck(pid);
                seen.stuck += u64::from(stuck);
                since = if stuck { since.or(Some(Instant::now())) } else { None };
                let long = since.is_some_and(|since| since.elapsed() >= STUCK);
                tell.fetch_or(long, Ordering::Relaxed);
                thread::sleep(EVERY);
            }
            seen
        });
        Self { ended, stuck, thread }
    }

    /// Whether for one second at least some thread hung, each time that we looked.
    pub(crate) fn saw_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    pub(crate) fn end(self) -> Seen {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Whether a thread of this process waits for a lock in the kernel. A page fault does so too, but
/// not for long.
pub(crate) fn is_stuck(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut states = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    });
    states.any(|state| state == 'D')
}

/// Between two looks. Nothing is waited for by it.
const EVERY: Duration = Duration::from_millis(5);
/// A lock that is held on purpose is held for longer than this.
const STUCK: Duration = Duration::from_secs(1);
