//! Shared worker: runs on its own thread, or inline on the event loop's thread.
//!
//! Waking a thread takes longer than most requests. So the event loop handles a small batch itself if
//! the worker is idle, and sends it to the worker thread otherwise.
//!
//! Invariant: messages are handled in the order of arrival, and results leave in the order of handling,
//! on either thread. Only the holder of the lock receives messages or sends results.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Instant,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{FromWorker, ToWorker, Worker};

/// The worker behind its lock.
pub(crate) struct SharedWorker(Mutex<Worker>);

/// Result of an inline run.
pub(crate) struct InlineResult {
    /// Messages for the event loop.
    pub(crate) told: Vec<FromWorker>,
    /// The worker thread has work now, or an earlier deadline than it knows.
    pub(crate) more: bool,
}

impl SharedWorker {
    pub(crate) fn new(worker: Worker) -> Self {
        Self(Mutex::new(worker))
    }

    /// A worker without peers.
    #[cfg(test)]
    pub(crate) fn for_test(
        inbox: Receiver<Vec<ToWorker>>,
        event_loop: crossbeam_channel::Sender<Vec<FromWorker>>,
    ) -> Self {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let broker = crate::broker::Broker::new(crate::broker::Config::default());
        let limits = crate::limits::Limits::default();
        Self::new(Worker::new(broker, limits, "".into(), inbox, event_loop, waker.into()))
    }

    /// Loop of the worker thread: works when notified or at a deadline, until the sender of
    /// notifications is dropped. Calls `begun` after the messages for the start state are sent.
    pub(crate) fn run(&self, notified: &Receiver<()>, begun: impl FnOnce()) {
        let mut worker = self.lock();
        // The broker was started with the initial state: its outputs open the first pairs.
        worker.hand_out();
        worker.finish();
        drop(worker);
        begun();
        loop {
            // The lock is free during the wait, so the event loop can work inline.
            let sleep = self.lock().sleep();
            if sleep.is_some_and(|until| !wait(notified, until)) {
                return;
            }
            self.lock().work();
        }
    }

    /// Handles messages on the calling thread. Returns them unhandled if the worker is busy, or if older
    /// messages wait: for the worker, or in `inbox` for the event loop.
    pub(crate) fn try_run_inline(
        &self,
        messages: Vec<ToWorker>,
        inbox: &Receiver<Vec<FromWorker>>,
    ) -> Result<InlineResult, Vec<ToWorker>> {
        // `try_lock`: waiting here would stall every port for as long as the current request takes.
        let mut worker = match self.0.try_lock() {
            Ok(worker) if worker.is_idle() && inbox.is_empty() => worker,
            Ok(_) | Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => {
                return Err(messages);
            }
        };
        let told = worker.work_for(messages);
        Ok(InlineResult { told, more: worker.oversleeps() })
    }

    /// True if a panic has ended the worker for good.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.is_poisoned()
    }

    fn lock(&self) -> MutexGuard<'_, Worker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a notification or the deadline; false if the sender is gone.
fn wait(notified: &Receiver<()>, until: Option<Instant>) -> bool {
    match until {
        None => notified.recv().is_ok(),
        Some(until) => notified.recv_deadline(until) != Err(RecvTimeoutError::Disconnected),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use crossbeam_channel::{Sender, bounded, unbounded};

    use super::*;
    use crate::server::worker::{PortStatuses, StatusClient};

    struct Office {
        shared_worker: Arc<SharedWorker>,
        to_worker: Sender<Vec<ToWorker>>,
        told: Receiver<Vec<FromWorker>>,
        notify: Sender<()>,
        notified: Receiver<()>,
    }

    impl Office {
        fn new() -> Self {
            let (to_worker, to_worker_rx) = unbounded();
            let (from_worker_tx, told) = unbounded();
            let (notify, notified) = bounded(1);
            let shared_worker = Arc::new(SharedWorker::for_test(to_worker_rx, from_worker_tx));
            Self { shared_worker, to_worker, told, notify, notified }
        }

        fn try_run_inline(&self, client: usize) -> Result<Vec<usize>, usize> {
            let worked = self.shared_worker.try_run_inline(ask(client), &self.told);
            worked.map(|worked| answered(&worked.told)).map_err(|given_back| given_back.len())
        }
    }

    /// Somebody wants to know the status.
    fn ask(client: usize) -> Vec<ToWorker> {
        vec![ToWorker::Status(StatusClient::Socket(client), PortStatuses::new())]
    }

    fn answered(told: &[FromWorker]) -> Vec<usize> {
        let client = |message: &FromWorker| match message {
            FromWorker::Status(client, _) => Some(*client),
            _ => None,
        };
        told.iter().filter_map(client).collect()
    }

    #[test]
    fn what_is_handled_here_comes_back_and_wakes_nobody() {
        let office = Office::new();
        assert_eq!(office.try_run_inline(7), Ok(vec![7]));
        assert!(office.told.is_empty() && office.notified.is_empty());
    }

    #[test]
    fn nothing_overtakes_what_came_before() {
        let office = Office::new();
        office.to_worker.send(ask(1)).unwrap();
        assert_eq!(office.try_run_inline(2), Err(1), "the worker has not drained the first");
        office.shared_worker.lock().work();
        assert_eq!(office.try_run_inline(2), Err(1), "the event loop has not heard of the first");
        assert_eq!(answered(&office.told.recv().unwrap()), [1]);
        let working = office.shared_worker.lock();
        assert_eq!(office.try_run_inline(2), Err(1), "somebody works");
        drop(working);
        assert_eq!(office.try_run_inline(2), Ok(vec![2]));
    }

    #[test]
    fn thread_works_when_the_bell_rings_and_ends_when_nobody_can_ring() {
        let Office { shared_worker, to_worker, told, notify, notified } = Office::new();
        let (begun, has_begun) = bounded(1);
        let thread =
            thread::spawn(move || shared_worker.run(&notified, || begun.send(()).unwrap()));
        has_begun.recv().unwrap();
        for client in 0..3 {
            to_worker.send(ask(client)).unwrap();
            let _ = notify.try_send(());
            assert_eq!(answered(&told.recv().unwrap()), [client]);
        }
        drop(notify);
        thread.join().unwrap();
    }
}
