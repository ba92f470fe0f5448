//! Who works: the worker's own thread; or the event loop's, where there is little to do and nobody is at
//! it, as waking a thread takes longer than most requests.
//!
//! What is to be done is done in the order in which it came, and what comes of it is told in the order
//! in which it was done, whoever does it: messages are taken, and sent, only by who has the worker.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Instant,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{FromWorker, ToWorker, Worker};

/// The worker, for whoever works.
pub(in super::super) struct SharedWorker(Mutex<Worker>);

/// What came of messages that were handled at once.
pub(in super::super) struct InlineResult {
    /// What the event loop is told.
    pub(in super::super) told: Vec<FromWorker>,
    /// The worker's thread has something to do now, or earlier than it knows.
    pub(in super::super) more: bool,
}

impl SharedWorker {
    pub(in super::super) fn new(worker: Worker) -> Self {
        Self(Mutex::new(worker))
    }

    /// One that serves nobody.
    #[cfg(test)]
    pub(in super::super) fn for_test(
        inbox: Receiver<Vec<ToWorker>>,
        event_loop: crossbeam_channel::Sender<Vec<FromWorker>>,
    ) -> Self {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let broker = crate::broker::Broker::new(crate::broker::Config::default());
        let limits = crate::limits::Limits::default();
        Self::new(Worker::new(broker, limits, "".into(), inbox, event_loop, waker.into()))
    }

    /// The worker's thread; works when the notified rings or something is due, until nobody can notify any
    /// more. `begun` is called when the state to begin with was handed on.
    pub(in super::super) fn run(&self, notified: &Receiver<()>, begun: impl FnOnce()) {
        let mut worker = self.lock();
        worker.hand_out();
        worker.finish();
        drop(worker);
        begun();
        loop {
            let sleep = self.lock().sleep();
            if sleep.is_some_and(|until| !wait(notified, until)) {
                return;
            }
            self.lock().work();
        }
    }

    /// Handles messages here and now. Gives them back if somebody works already, or if there is
    /// anything that came before: for the worker, or, in `inbox`, for the event loop.
    pub(in super::super) fn try_run_inline(
        &self,
        messages: Vec<ToWorker>,
        inbox: &Receiver<Vec<FromWorker>>,
    ) -> Result<InlineResult, Vec<ToWorker>> {
        let mut worker = match self.0.try_lock() {
            Ok(worker) if worker.is_idle() && inbox.is_empty() => worker,
            Ok(_) | Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => {
                return Err(messages);
            }
        };
        let told = worker.work_for(messages);
        Ok(InlineResult { told, more: worker.oversleeps() })
    }

    /// Whether a fault of ours ended the work for good.
    pub(in super::super) fn has_failed(&self) -> bool {
        self.0.is_poisoned()
    }

    fn lock(&self) -> MutexGuard<'_, Worker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the notified; false if nobody can notify it any more.
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
    use crate::server::worker::PortStatuses;

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
        vec![ToWorker::Status(client, PortStatuses::new())]
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
        assert_eq!(office.try_run_inline(2), Err(1), "the event_loop has not heard of the first");
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
