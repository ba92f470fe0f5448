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

use crate::server::error::ServerError;

/// Interval of the watchdog while there is work. A driver in the same job at two checks is replaced, so
/// other ports wait for 10 to 20 ms.
const LOOK: Duration = Duration::from_millis(10);

/// Size of the one buffer of a thread, lent to all its jobs.
pub(super) const JOB_BUFFER: usize = 64 << 10;

/// A loop for a changing driver thread. Its methods are called under the lock.
pub(super) trait Driven: Send + 'static {
    /// Work outside of the lock; it may sleep.
    type Job: Work<Done = Self::Done>;
    /// Result of a job.
    type Done: Send + 'static;

    /// Waits for the next due job and returns it; `None` at the end.
    fn next(&mut self) -> Result<Option<Self::Job>, ServerError>;

    /// Handles the result of the driver's last job.
    fn take_done(&mut self, done: Self::Done);

    /// Notes that the driver sleeps in its job and another thread takes over.
    fn note_handover(&mut self);

    /// Closes everything. Returns the reason of an end that nobody requested.
    fn finish(&mut self) -> Result<(), ServerError>;
}

/// A job of a [`Driven`] loop.
pub(super) trait Work {
    /// Result of the job.
    type Done;

    /// Does the job, with a buffer of [`JOB_BUFFER`] bytes.
    fn work(self, buffer: &mut [u8]) -> Self::Done;
}

/// State shared by the driver, its replaced predecessors and the watchdog.
pub(super) struct Handoff<L: Driven> {
    shared: Mutex<L>,
    epoch: JobEpoch,
    /// Channel for the results of replaced drivers.
    stale: Sender<L::Done>,
    waker: Arc<Waker>,
    /// Result of the loop; the first one counts.
    ended: Sender<Result<(), ServerError>>,
}

impl<L: Driven> Handoff<L> {
    /// Starts the threads driving the loop built by `make`. `make` gets the receiver of stale results and
    /// the starter of blocking threads. `waker` wakes the loop for a stale result. After the end of the
    /// loop the watchdog closes it, and calls `on_end`.
    ///
    /// # Errors
    /// The system grants no thread.
    pub(super) fn spawn(
        waker: Arc<Waker>,
        make: impl FnOnce(Receiver<L::Done>, BlockingThreads<L::Done>) -> L,
        on_end: impl FnOnce(Result<(), ServerError>) + Send + 'static,
    ) -> io::Result<()> {
        let (stale, returned) = unbounded();
        let (ended, end) = unbounded();
        let blocking_threads = BlockingThreads { stale: stale.clone(), waker: Arc::clone(&waker) };
        let shared = Mutex::new(make(returned, blocking_threads));
        let handoff = Arc::new(Self { shared, epoch: JobEpoch::default(), stale, waker, ended });
        let own = Arc::clone(&handoff);
        let watchdog = thread::Builder::new().name("watchdog".to_owned());
        let watchdog = watchdog.spawn(move || {
            own.watch();
            let result = end.try_recv().unwrap_or(Ok(()));
            // Closed in any case, also after an error.
            let closed = own.lock().finish();
            on_end(result.and(closed));
        })?;
        let started = handoff.start_driver(watchdog.thread());
        // Without a driver nobody else would ever end the watchdog.
        if started.is_err() {
            handoff.end(watchdog.thread(), Ok(()));
        }
        started
    }

    fn start_driver(self: &Arc<Self>, watchdog: &Thread) -> io::Result<()> {
        let (handoff, watchdog) = (Arc::clone(self), watchdog.clone());
        let driver = thread::Builder::new().name("event_loop".to_owned());
        driver.spawn(move || handoff.drive(&watchdog)).map(drop)
    }

    /// Does one job after the other, until the loop ends or the watchdog replaces this thread.
    fn drive(&self, watchdog: &Thread) {
        // Before the first lock: also a panic in `take_done` or `next` has to end the loop.
        let _guard = PanicGuard(self, watchdog);
        let mut buffer = vec![0; JOB_BUFFER];
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
                Ok(None) => return self.end(watchdog, Ok(())),
                Err(error) => return self.end(watchdog, Err(error)),
            };
            let turn = self.epoch.begin(watchdog);
            let result = job.work(&mut buffer);
            // The watchdog has ended this job: another driver has the loop, and this thread is done.
            if !self.epoch.end(turn) {
                return return_stale(&self.stale, &self.waker, result);
            }
            done = Some(result);
        }
    }

    fn end(&self, watchdog: &Thread, result: Result<(), ServerError>) {
        // The watchdog reads the first result only, and may be gone.
        let _ = self.ended.send(result);
        self.epoch.stop();
        watchdog.unpark();
    }

    /// Loop of the watchdog, until the end of the event loop. It sleeps while the driver is idle.
    fn watch(self: &Arc<Self>) {
        let mut last = self.epoch.now();
        while !self.epoch.is_over() {
            thread::sleep(LOOK);
            let now = self.epoch.now();
            if now == last {
                if !is_in_job(now) {
                    self.epoch.sleep_until_next(now);
                // A driver done with its job right now wins by its own `end`, and stays.
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
        // Before the start: the next driver forgets the job of this one.
        self.lock().note_handover();
        let mut said = false;
        while let Err(error) = self.start_driver(&thread::current()) {
            if !said {
                log::error!("cannot start another event loop thread, trying again: {error}");
            }
            said = true;
            thread::sleep(LOOK);
        }
    }

    fn lock(&self) -> MutexGuard<'_, L> {
        // After a panic `PanicGuard` ends the loop, and `finish` still has to close everything.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the loop with an error if a driver panics. Otherwise the process would stay alive and serve
/// nobody.
struct PanicGuard<'a, L: Driven>(&'a Handoff<L>, &'a Thread);

impl<L: Driven> Drop for PanicGuard<'_, L> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(self.1, Err(ServerError::EventLoopPanicked));
        }
    }
}

/// Starts threads for jobs that are expected to sleep, so the driver does not begin them.
pub(super) struct BlockingThreads<D> {
    stale: Sender<D>,
    waker: Arc<Waker>,
}

impl<D: Send + 'static> BlockingThreads<D> {
    /// Does `job` on a thread of its own. It returns nothing if the job has been reclaimed meanwhile.
    ///
    /// # Errors
    /// The system grants no thread; the job was not begun.
    pub(super) fn start(
        &self,
        job: impl FnOnce(&mut [u8]) -> Option<D> + Send + 'static,
    ) -> io::Result<()> {
        let (stale, waker) = (self.stale.clone(), Arc::clone(&self.waker));
        // No watchdog looks at this thread: it holds no lock, and only its own pair waits for it.
        let aside = thread::Builder::new().name("aside".to_owned());
        let work = move || {
            if let Some(done) = job(&mut vec![0; JOB_BUFFER]) {
                return_stale(&stale, &waker, done);
            }
        };
        aside.spawn(work).map(drop)
    }
}

fn return_stale<D>(stale: &Sender<D>, waker: &Waker, done: D) {
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
        // `SeqCst` here and in `sleep_until_next`: with weaker orders each side could miss the other's
        // store, and the watchdog would sleep through a blocked job.
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
    use std::collections::VecDeque;

    use mio::Poll;

    use super::*;

    /// A loop over a list of jobs: each sends its number, and those with a gate wait there first.
    struct Toy {
        jobs: VecDeque<(usize, Option<Receiver<()>>)>,
        poll: Poll,
        stale: Receiver<usize>,
        done: Sender<(&'static str, usize)>,
        blocked: usize,
    }

    impl Work for (usize, Option<Receiver<()>>) {
        type Done = usize;

        fn work(self, buffer: &mut [u8]) -> usize {
            assert_eq!(buffer.len(), JOB_BUFFER);
            if let Some(gate) = self.1 {
                gate.recv().unwrap();
            }
            self.0
        }
    }

    impl Driven for Toy {
        type Job = (usize, Option<Receiver<()>>);
        type Done = usize;

        fn next(&mut self) -> Result<Option<Self::Job>, ServerError> {
            loop {
                while let Ok(number) = self.stale.try_recv() {
                    self.blocked -= 1;
                    self.done.send(("stale", number)).unwrap();
                }
                if let Some(job) = self.jobs.pop_front() {
                    return Ok(Some(job));
                }
                if self.blocked == 0 {
                    return Ok(None);
                }
                self.poll.poll(&mut mio::Events::with_capacity(1), None)?;
            }
        }

        fn take_done(&mut self, number: usize) {
            self.done.send(("driver", number)).unwrap();
        }

        fn note_handover(&mut self) {
            self.blocked += 1;
        }

        fn finish(&mut self) -> Result<(), ServerError> {
            self.done.send(("end", 0)).unwrap();
            Ok(())
        }
    }

    #[test]
    fn blocked_job_is_left_to_its_thread_and_comes_back_stale() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let (done, results) = unbounded();
        let (open_gate, gate) = unbounded();
        let (ended, end) = unbounded();
        let jobs = VecDeque::from([(1, None), (2, Some(gate)), (3, None)]);
        let make = |stale, _| Toy { jobs, poll, stale, done, blocked: 0 };
        Handoff::spawn(waker, make, move |result| ended.send(result).unwrap()).unwrap();
        // The third job is done while the second one sleeps: another driver has taken over.
        let first: Vec<_> = results.iter().take(2).collect();
        assert_eq!(first, [("driver", 1), ("driver", 3)]);
        open_gate.send(()).unwrap();
        let rest: Vec<_> = results.iter().take(2).collect();
        assert_eq!(rest, [("stale", 2), ("end", 0)]);
        end.recv().unwrap().unwrap();
    }

    #[test]
    fn panicking_loop_is_closed_and_reported() {
        struct Nothing;
        struct Broken(Sender<()>);
        impl Work for Nothing {
            type Done = ();
            fn work(self, _: &mut [u8]) {}
        }
        impl Driven for Broken {
            type Job = Nothing;
            type Done = ();
            fn next(&mut self) -> Result<Option<Nothing>, ServerError> {
                // Without the hook for panics, so nothing is printed.
                std::panic::resume_unwind(Box::new(()))
            }
            fn take_done(&mut self, (): ()) {}
            fn note_handover(&mut self) {}
            fn finish(&mut self) -> Result<(), ServerError> {
                self.0.send(()).unwrap();
                Ok(())
            }
        }
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let ((closed, is_closed), (ended, end)) = (unbounded(), unbounded());
        let on_end = move |result| ended.send(result).unwrap();
        Handoff::spawn(waker, |_, _| Broken(closed), on_end).unwrap();
        assert!(matches!(end.recv().unwrap(), Err(ServerError::EventLoopPanicked)));
        is_closed.recv().unwrap();
    }

    #[test]
    fn job_is_ended_once_by_whoever_is_first() {
        let epoch = JobEpoch::default();
        let turn = epoch.begin(&thread::current());
        assert!(is_in_job(epoch.now()));
        assert!(epoch.end(turn), "the watchdog replaces the driver");
        assert!(!epoch.end(turn), "the driver comes back too late");
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
