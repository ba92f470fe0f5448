//! Thread handoff: a watchdog replaces the driver thread of the loop when a job sleeps in the kernel.
//!
//! A workload that splices between its FIFO and something idle holds the lock of the pipe. Any call on
//! this pipe then sleeps, non-blocking or not, for as long as the workload likes
//! (docs/pipes.md#lock-held-by-splice).
//! So all calls on FIFOs are jobs, done while the state of the loop is not locked. A blocked job costs
//! its thread and delays its own pair, nothing else. Its result comes back over a channel.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;

use super::{Loop, READ_BUFFER, jobs::Done};

/// Interval of the watchdog while there is work. A driver in the same job at two checks is replaced, so
/// other ports wait for 10 to 20 ms.
const LOOK: Duration = Duration::from_millis(10);

/// State shared by the driver, its replaced predecessors and the watchdog.
pub(super) struct Handoff {
    shared: Mutex<Loop>,
    epoch: JobEpoch,
    /// Channel for the results of replaced drivers.
    stale: Sender<Done>,
    waker: Arc<Waker>,
    ended: Sender<io::Result<()>>,
}

impl Handoff {
    /// Drives the loop built by `make`, until it ends. `make` gets the receiver of stale results and the
    /// starter of blocking threads.
    pub(super) fn run(
        waker: Arc<Waker>,
        make: impl FnOnce(Receiver<Done>, BlockingThreads) -> Loop,
    ) -> io::Result<()> {
        let (stale, returned) = unbounded();
        let (ended, end) = unbounded();
        let blocking_threads = BlockingThreads { stale: stale.clone(), waker: Arc::clone(&waker) };
        let shared = Mutex::new(make(returned, blocking_threads));
        let handoff = Arc::new(Self { shared, epoch: JobEpoch::default(), stale, waker, ended });
        let own = Arc::clone(&handoff);
        let watchdog = thread::Builder::new().name("watchdog".to_owned());
        let watchdog = watchdog.spawn(move || own.watch())?.thread().clone();
        handoff.start_driver(&watchdog)?;
        let result = end.recv().unwrap_or(Ok(()));
        handoff.epoch.stop();
        watchdog.unpark();
        handoff.lock().finish();
        result
    }

    fn start_driver(self: &Arc<Self>, watchdog: &Thread) -> io::Result<()> {
        let (handoff, watchdog) = (Arc::clone(self), watchdog.clone());
        let driver = thread::Builder::new().name("event_loop".to_owned());
        driver.spawn(move || handoff.drive(&watchdog)).map(drop)
    }

    /// Does one job after the other, until the loop ends or the watchdog replaces this thread.
    fn drive(&self, watchdog: &Thread) {
        let _guard = PanicGuard(&self.ended);
        let mut buffer = vec![0; READ_BUFFER];
        let mut done = None;
        loop {
            // One lock for the last result and the next job; dropped before the job, which may sleep.
            let next = {
                let mut shared = self.lock();
                if let Some(done) = done.take() {
                    shared.take_done(done);
                }
                shared.next()
            };
            let job = match next {
                Ok(Some(job)) => job,
                Ok(None) => return self.end(self.lock().failure()),
                Err(error) => return self.end(Err(error)),
            };
            let turn = self.epoch.begin(watchdog);
            let result = job.work(&mut buffer);
            if !self.epoch.end(turn) {
                return return_stale(&self.stale, &self.waker, result);
            }
            done = Some(result);
        }
    }

    fn end(&self, result: io::Result<()>) {
        // The receiver reads the first result only, and may be gone.
        let _ = self.ended.send(result);
    }

    /// Loop of the watchdog. It sleeps while the driver is idle.
    fn watch(self: Arc<Self>) {
        let mut last = self.epoch.now();
        while !self.epoch.is_over() {
            thread::sleep(LOOK);
            let now = self.epoch.now();
            if now == last {
                if !is_in_job(now) {
                    self.epoch.sleep_until_next(now);
                } else if self.epoch.end(now) {
                    self.replace_driver();
                }
            }
            last = self.epoch.now();
        }
    }

    /// Starts another driver. The loop stands still without one, so this retries until the system grants
    /// a thread.
    fn replace_driver(self: &Arc<Self>) {
        // Before the start: the next driver overwrites the peer of the job.
        self.lock().note_handover();
        let mut said = false;
        while let Err(error) = self.start_driver(&thread::current()) {
            if !said {
                log::error!("no thread to go on with, trying again: {error}");
            }
            said = true;
            thread::sleep(LOOK);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Loop> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the loop with an error if a driver panics. Otherwise the process would stay alive and serve
/// nobody.
struct PanicGuard<'a>(&'a Sender<io::Result<()>>);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(Err(io::Error::other("the event loop failed")));
        }
    }
}

/// Starts threads for jobs that are expected to sleep, so the driver does not begin them.
pub(super) struct BlockingThreads {
    stale: Sender<Done>,
    waker: Arc<Waker>,
}

impl BlockingThreads {
    /// Does `job` on a thread of its own. It returns nothing if the job has been reclaimed meanwhile.
    ///
    /// # Errors
    /// The system grants no thread; the job was not begun.
    pub(super) fn start(
        &self,
        job: impl FnOnce(&mut [u8]) -> Option<Done> + Send + 'static,
    ) -> io::Result<()> {
        let (stale, waker) = (self.stale.clone(), Arc::clone(&self.waker));
        let aside = thread::Builder::new().name("aside".to_owned());
        let work = move || {
            if let Some(done) = job(&mut vec![0; READ_BUFFER]) {
                return_stale(&stale, &waker, done);
            }
        };
        aside.spawn(work).map(drop)
    }
}

fn return_stale(stale: &Sender<Done>, waker: &Waker, done: Done) {
    // After the end the receiver is gone, and no loop has to be woken.
    if stale.send(done).is_ok()
        && let Err(error) = waker.wake()
    {
        log::error!("cannot wake the event loop: {error}");
    }
}

/// Counter of the driver's steps, odd during a job. The driver and the watchdog compete to end a job by
/// one compare-exchange: the winner continues the loop.
#[derive(Default)]
struct JobEpoch {
    count: AtomicU64,
    /// The watchdog is parked until the next job begins.
    dormant: AtomicBool,
    over: AtomicBool,
}

fn is_in_job(count: u64) -> bool {
    !count.is_multiple_of(2)
}

impl JobEpoch {
    fn now(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn begin(&self, watchdog: &Thread) -> u64 {
        let turn = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        // A load first: the swap would cost every job a write to a shared cache line.
        if self.dormant.load(Ordering::SeqCst) && self.dormant.swap(false, Ordering::SeqCst) {
            watchdog.unpark();
        }
        turn
    }

    /// Ends the job begun as `turn`; false if it was already ended by the other side.
    fn end(&self, turn: u64) -> bool {
        self.count.compare_exchange(turn, turn + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Parks until the count differs from `seen`.
    fn sleep_until_next(&self, seen: u64) {
        // Set before the count is read: a job begun after that read finds the flag and unparks us.
        self.dormant.store(true, Ordering::SeqCst);
        while self.now() == seen && !self.is_over() && self.dormant.load(Ordering::SeqCst) {
            thread::park();
        }
        self.dormant.store(false, Ordering::SeqCst);
    }

    fn stop(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_is_ended_once_by_whoever_is_first() {
        let epoch = JobEpoch::default();
        let turn = epoch.begin(&thread::current());
        assert!(is_in_job(epoch.now()));
        assert!(epoch.end(turn), "the watchdog replaces the driver");
        assert!(!epoch.end(turn), "the driver comes back too stale");
        let next = epoch.begin(&thread::current());
        assert!(!epoch.end(turn) && epoch.end(next));
    }

    #[test]
    fn watchdog_wakes_for_a_job_and_for_the_end() {
        let epoch = Arc::new(JobEpoch::default());
        let job = |epoch: &JobEpoch, own: &Thread| {
            epoch.begin(own);
        };
        let end = |epoch: &JobEpoch, own: &Thread| {
            epoch.stop();
            own.unpark();
        };
        for wake in [job as fn(&JobEpoch, &Thread), end] {
            let own = Arc::clone(&epoch);
            let seen = epoch.now();
            let sleeper = thread::spawn(move || own.sleep_until_next(seen));
            while !epoch.dormant.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            wake(&epoch, sleeper.thread());
            sleeper.join().unwrap();
        }
    }
}
