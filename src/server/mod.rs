//! Server: the only place with descriptors, threads and clocks.
//!
//! Two threads do the work: the event loop moves frames between FIFOs and channels, the worker runs the
//! broker. The event loop runs small requests inline (`worker::SharedWorker`). A watchdog replaces the
//! event loop's thread when a workload blocks it.
//!
//! The channel to the worker is bounded by the in-flight limits of the workloads. Beyond its limit the
//! output of a workload stays in its pipe, so the kernel slows it down.

mod agent_transport;
mod event_loop;
mod fifo;
mod inotify;
mod log_limiter;
mod port;
mod rlimit;
mod status_socket;
mod takeover;
mod worker;

use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::{
    broker::{self, Broker},
    state::update::Updated,
};

pub use agent_transport::LinkAddress;
pub use fifo::{FifoError, PipePair, RunDir};
pub use status_socket::STATUS_SOCKET;

use agent_transport::LinkPort;

use event_loop::{EventLoop, Settings, WorkerHandle};
use worker::{FromWorker, SharedWorker, Worker};

/// Configuration of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Folder for the pairs and the status socket.
    pub run_dir: PathBuf,
    /// Configuration of the broker. Its `link` is set from the one here.
    pub broker: broker::Config,
    /// Address of the agent, if there is one.
    pub link: Option<LinkAddress>,
}

/// fifogate at work: serves the pairs until SIGTERM or SIGINT.
pub struct Server {
    event_loop: EventLoop,
    shared_worker: Arc<SharedWorker>,
    /// Wakes the worker thread.
    notified: Receiver<()>,
    from_worker_tx: Sender<Vec<FromWorker>>,
    waker: Arc<mio::Waker>,
}

impl Server {
    /// Opens the run directory and prepares everything; serves nothing yet.
    ///
    /// `start` is the initial state; its workloads are served.
    ///
    /// # Errors
    /// The run directory is not usable, or the system has no descriptors for the event loop.
    pub fn new(mut config: ServerConfig, start: Option<&Updated>) -> io::Result<Self> {
        let run_dir = RunDir::open(&config.run_dir)?;
        let path = run_dir.path().to_owned();
        config.broker.link = config.link.as_ref().map(|_| path.display().to_string());
        let (to_worker, to_worker_rx) = unbounded();
        let (from_worker_tx, from_worker) = unbounded();
        let limits = config.broker.limits.clone();
        let most_pairs = rlimit::most_pairs();
        let settings =
            Settings { limits: limits.clone(), window: config.broker.window, most_pairs };
        let link = config.link.as_ref().map(|address| {
            LinkPort::open(address, limits.max_link_frame).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot reach the agent at {address}: {error}"),
                )
            })
        });
        let mut broker = Broker::new(config.broker);
        if let Some(start) = start {
            broker.start(start);
        }
        let (notify, notified) = bounded(1);
        let (poll, waker) = event_loop::poll()?;
        let worker = Worker::new(
            broker,
            limits,
            path,
            to_worker_rx,
            from_worker_tx.clone(),
            Arc::clone(&waker),
        );
        let shared_worker = Arc::new(SharedWorker::new(worker));
        let to_worker = WorkerHandle::new(Arc::clone(&shared_worker), to_worker, notify);
        let polling = (poll, Arc::clone(&waker));
        let event_loop =
            EventLoop::new(settings, run_dir, link.transpose()?, polling, from_worker, to_worker)?;
        Ok(Self { event_loop, shared_worker, notified, from_worker_tx, waker })
    }

    /// Serves until a signal or the agent stops it. `ready` is called once, when the pairs of the
    /// initial state are open.
    ///
    /// # Errors
    /// The system refuses a thread or a poll, the worker panicked, or the agent link is broken.
    pub fn run(self, ready: impl FnOnce() + Send) -> io::Result<()> {
        let Self { event_loop, shared_worker, notified, from_worker_tx, waker } = self;
        thread::scope(|scope| {
            let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
            spawn("worker").spawn_scoped(scope, move || {
                // Queued behind all messages for the initial state.
                shared_worker.run(&notified, || announce(&from_worker_tx, &waker, ready));
            })?;
            event_loop.run() // drops the notifications, so the worker ends
        })
    }
}

/// Calls `ready` when the event loop has handled all messages sent so far.
fn announce(event_loop: &Sender<Vec<FromWorker>>, waker: &mio::Waker, ready: impl FnOnce()) {
    let (done, wait) = bounded(1);
    let asked = event_loop.send(vec![FromWorker::Sync(done)]).is_ok() && waker.wake().is_ok();
    if asked && wait.recv_timeout(Duration::from_secs(60)).is_ok() {
        ready();
    }
}
