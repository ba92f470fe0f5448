//! Who works: the worker's own thread; or the reactor's, where there is little to do and nobody is at
//! it, as waking a thread takes longer than most requests.
//!
//! What is to be done is done in the order in which it came, and what comes of it is told in the order
//! in which it was done, whoever does it: messages are taken, and sent, only by who has the worker.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Instant,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{FromReactor, ToReactor, Worker};

/// The worker, for whoever works.
pub(in super::super) struct Desk(Mutex<Worker>);

/// What came of messages that were handled at once.
pub(in super::super) struct Worked {
    /// What the reactor is told.
    pub(in super::super) told: Vec<ToReactor>,
    /// The worker's thread has something to do now, or earlier than it knows.
    pub(in super::super) more: bool,
}

impl Desk {
    pub(in super::super) fn new(worker: Worker) -> Self {
        Self(Mutex::new(worker))
    }

    /// One that serves nobody.
    #[cfg(test)]
    pub(in super::super) fn of_nobody(
        inbox: Receiver<Vec<FromReactor>>,
        reactor: crossbeam_channel::Sender<Vec<ToReactor>>,
    ) -> Self {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let broker = crate::broker::Broker::new(crate::broker::Config::default());
        let limits = crate::limits::Limits::default();
        Self::new(Worker::new(broker, limits, "".into(), inbox, reactor, waker.into()))
    }

    /// The worker's thread; works when the bell rings or something is due, until nobody can ring any
    /// more. `begun` is called when the state to begin with was handed on.
    pub(in super::super) fn run(&self, bell: &Receiver<()>, begun: impl FnOnce()) {
        let mut worker = self.lock();
        worker.hand_out();
        worker.finish();
        drop(worker);
        begun();
        loop {
            let sleep = self.lock().sleep();
            if sleep.is_some_and(|until| !wait(bell, until)) {
                return;
            }
            self.lock().work();
        }
    }

    /// Handles messages here and now. Gives them back if somebody works already, or if there is
    /// anything that came before: for the worker, or, in `inbox`, for the reactor.
    pub(in super::super) fn work_here(
        &self,
        messages: Vec<FromReactor>,
        inbox: &Receiver<Vec<ToReactor>>,
    ) -> Result<Worked, Vec<FromReactor>> {
        let mut worker = match self.0.try_lock() {
            Ok(worker) if worker.is_idle() && inbox.is_empty() => worker,
            Ok(_) | Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => {
                return Err(messages);
            }
        };
        let told = worker.work_for(messages);
        Ok(Worked { told, more: worker.oversleeps() })
    }

    /// Whether a fault of ours ended the work for good.
    pub(in super::super) fn has_failed(&self) -> bool {
        self.0.is_poisoned()
    }

    fn lock(&self) -> MutexGuard<'_, Worker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the bell; false if nobody can ring it any more.
fn wait(bell: &Receiver<()>, until: Option<Instant>) -> bool {
    match until {
        None => bell.recv().is_ok(),
        Some(until) => bell.recv_deadline(until) != Err(RecvTimeoutError::Disconnected),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use crossbeam_channel::{Sender, bounded, unbounded};

    use super::*;
    use crate::edge::worker::Troubles;

    struct Office {
        desk: Arc<Desk>,
        to_worker: Sender<Vec<FromReactor>>,
        told: Receiver<Vec<ToReactor>>,
        ring: Sender<()>,
        bell: Receiver<()>,
    }

    impl Office {
        fn new() -> Self {
            let (to_worker, from_reactor) = unbounded();
            let (to_reactor, told) = unbounded();
            let (ring, bell) = bounded(1);
            let desk = Arc::new(Desk::of_nobody(from_reactor, to_reactor));
            Self { desk, to_worker, told, ring, bell }
        }

        fn work_here(&self, client: usize) -> Result<Vec<usize>, usize> {
            let worked = self.desk.work_here(ask(client), &self.told);
            worked.map(|worked| answered(&worked.told)).map_err(|given_back| given_back.len())
        }
    }

    /// Somebody wants to know the status.
    fn ask(client: usize) -> Vec<FromReactor> {
        vec![FromReactor::Status(client, Troubles::new())]
    }

    fn answered(told: &[ToReactor]) -> Vec<usize> {
        let client = |message: &ToReactor| match message {
            ToReactor::Status(client, _) => Some(*client),
            _ => None,
        };
        told.iter().filter_map(client).collect()
    }

    #[test]
    fn what_is_handled_here_comes_back_and_wakes_nobody() {
        let office = Office::new();
        assert_eq!(office.work_here(7), Ok(vec![7]));
        assert!(office.told.is_empty() && office.bell.is_empty());
    }

    #[test]
    fn nothing_overtakes_what_came_before() {
        let office = Office::new();
        office.to_worker.send(ask(1)).unwrap();
        assert_eq!(office.work_here(2), Err(1), "the worker has not taken the first");
        office.desk.lock().work();
        assert_eq!(office.work_here(2), Err(1), "the reactor has not heard of the first");
        assert_eq!(answered(&office.told.recv().unwrap()), [1]);
        let working = office.desk.lock();
        assert_eq!(office.work_here(2), Err(1), "somebody works");
        drop(working);
        assert_eq!(office.work_here(2), Ok(vec![2]));
    }

    #[test]
    fn thread_works_when_the_bell_rings_and_ends_when_nobody_can_ring() {
        let Office { desk, to_worker, told, ring, bell } = Office::new();
        let (begun, has_begun) = bounded(1);
        let thread = thread::spawn(move || desk.run(&bell, || begun.send(()).unwrap()));
        has_begun.recv().unwrap();
        for client in 0..3 {
            to_worker.send(ask(client)).unwrap();
            let _ = ring.try_send(());
            assert_eq!(answered(&told.recv().unwrap()), [client]);
        }
        drop(ring);
        thread.join().unwrap();
    }
}
