//! Handle of a running server: readiness, status and shutdown, from any thread.

use std::{
    any::Any,
    fmt, mem,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mio::Waker;

use super::{FLUSH, error::ServerError};

/// A request of the handle to the event loop.
pub(super) enum Control {
    /// Stop; write queued messages until this time.
    Stop(Instant),
    /// Send the status object.
    Status(Sender<Vec<u8>>),
}

/// Progress of the server, as reported to its handle.
pub(super) enum Progress {
    /// The pairs of the initial state are open.
    Ready,
    /// Everything is closed, except for pairs blocked by their workloads.
    Ended(Result<(), ServerError>),
}

/// A running server, made by [`ServerBuilder::spawn`](super::ServerBuilder::spawn).
///
/// Dropping the handle stops the server without waiting for its end.
pub struct ServerHandle {
    control: Sender<Control>,
    progress: Receiver<Progress>,
    waker: Arc<Waker>,
    worker: Option<JoinHandle<()>>,
}

impl ServerHandle {
    pub(super) fn new(
        control: Sender<Control>,
        progress: Receiver<Progress>,
        waker: Arc<Waker>,
        worker: JoinHandle<()>,
    ) -> Self {
        Self { control, progress, waker, worker: Some(worker) }
    }

    /// Waits for the pairs of the initial state to be open. Call it once, before [`Self::wait`].
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_ready(&mut self) -> Result<(), ServerError> {
        match self.progress.recv() {
            Ok(Progress::Ready) => Ok(()),
            Ok(Progress::Ended(result)) => self.ended(result),
            // Both senders are gone only after a panic.
            Err(_) => self.ended(Err(ServerError::EventLoopPanicked)),
        }
    }

    /// Waits for the end of the server: by its stop descriptor, by its agent, or by a fault.
    ///
    /// # Errors
    /// The agent broke the protocol of its link, the system refused a poll, or a thread panicked.
    pub fn wait(mut self) -> Result<(), ServerError> {
        self.wait_end()
    }

    /// Waits for the end of the server, as [`Self::wait`], but not longer than this, if a time is given. Returns
    /// `None` if the server goes on. After an end, there is nothing more to wait for.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_up_to(&mut self, time: Option<Duration>) -> Option<Result<(), ServerError>> {
        let end = time.map(|time| Instant::now() + time);
        loop {
            let progress = match end {
                Some(end) => self.progress.recv_deadline(end),
                None => self.progress.recv().map_err(RecvTimeoutError::from),
            };
            match progress {
                Ok(Progress::Ready) => {}
                Ok(Progress::Ended(result)) => return Some(self.ended(result)),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(self.ended(Err(ServerError::EventLoopPanicked)));
                }
            }
        }
    }

    /// Stops the server and waits for its end. Requests are no longer read; messages queued for
    /// workloads and agent are written for `flush` at most.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn shutdown(mut self, flush: Duration) -> Result<(), ServerError> {
        self.request(Control::Stop(Instant::now() + flush));
        self.wait_end()
    }

    /// The status object (docs/operations.md#status) as one line of JSON; `None` if the server has
    /// ended.
    #[must_use]
    pub fn status(&self) -> Option<String> {
        let (sender, status) = bounded(1);
        self.request(Control::Status(sender));
        // The sender is dropped unused if the server ends first.
        String::from_utf8(status.recv().ok()?).ok()
    }

    fn wait_end(&mut self) -> Result<(), ServerError> {
        // Without a time it waits until there is an end.
        self.wait_up_to(None).unwrap_or(Ok(()))
    }

    /// Joins the worker. Its panic is the cause of an end, and its message is known only here.
    fn ended(&mut self, result: Result<(), ServerError>) -> Result<(), ServerError> {
        match self.worker.take().map(JoinHandle::join) {
            // The loop has ended because of this panic, and its own reason says less.
            Some(Err(panic)) => Err(ServerError::BrokerPanicked(message_of(&*panic))),
            _ => result,
        }
    }

    fn request(&self, control: Control) {
        // After the end nobody receives it, and nobody has to be woken.
        if self.control.send(control).is_ok()
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake the event loop: {error}");
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        if mem::take(&mut self.worker).is_some() {
            self.request(Control::Stop(Instant::now() + FLUSH));
        }
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").finish_non_exhaustive()
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{panic, thread};

    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn panic_of_the_worker_is_the_reason_whatever_the_event_loop_says() {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let payloads: [Box<dyn Any + Send>; 2] = [Box::new("text"), Box::new("text".to_owned())];
        for payload in payloads {
            let (control, _requests) = unbounded();
            let (progress, reported) = unbounded();
            // Without the hook for panics, so nothing is printed.
            let worker = thread::spawn(move || panic::resume_unwind(payload));
            progress.send(Progress::Ready).unwrap();
            progress.send(Progress::Ended(Ok(()))).unwrap();
            let handle = ServerHandle::new(control, reported, Arc::clone(&waker), worker);
            let error = handle.wait().unwrap_err();
            assert_eq!(error.to_string(), "the broker panicked: text");
        }
    }
}
