//! Descriptors, threads and clocks live here, and only here.
//!
//! Two threads: the event loop's moves frames between FIFOs and channels, the worker's lets the broker
//! decide; little of that the event loop's does itself (`worker::SharedWorker`). A watchdog replaces the
//! event loop's thread where a workload makes it sleep. The channel to the worker is bounded by what
//! each workload may have on its way; a workload over that is left to its pipe, and so is slowed down
//! by the kernel.

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

/// How a daemon is to be run.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where the lifecycle are.
    pub run_dir: PathBuf,
    /// How the core behaves. Its `link` is set from the one here.
    pub broker: broker::Config,
    /// The agent that says what is served, if there is one.
    pub link: Option<LinkAddress>,
}

/// fifogate at work: serves the lifecycle until SIGTERM or SIGINT.
pub struct Server {
    event_loop: EventLoop,
    shared_worker: Arc<SharedWorker>,
    /// WakeupFlood the worker's thread.
    notified: Receiver<()>,
    from_worker_tx: Sender<Vec<FromWorker>>,
    waker: Arc<mio::Waker>,
}

impl Server {
    /// Opens the run directory and gets everything ready; serves nothing yet.
    ///
    /// `start` is the state to begin with; its workloads are served.
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

    /// Serves until a signal ends it. `ready` is called once, when the lifecycle of the state to begin
    /// with are there.
    ///
    /// # Errors
    /// The system refuses what the event loop cannot do without.
    pub fn run(self, ready: impl FnOnce() + Send) -> io::Result<()> {
        let Self { event_loop, shared_worker, notified, from_worker_tx, waker } = self;
        thread::scope(|scope| {
            let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
            spawn("worker").spawn_scoped(scope, move || {
                // Behind everything that the state to begin with makes the worker say.
                shared_worker.run(&notified, || announce(&from_worker_tx, &waker, ready));
            })?;
            event_loop.run() // hangs up on the worker, which ends then
        })
    }
}

/// Calls `ready` when the event loop has done all that it was told so far.
fn announce(event_loop: &Sender<Vec<FromWorker>>, waker: &mio::Waker, ready: impl FnOnce()) {
    let (done, wait) = bounded(1);
    let asked = event_loop.send(vec![FromWorker::Sync(done)]).is_ok() && waker.wake().is_ok();
    if asked && wait.recv_timeout(Duration::from_secs(60)).is_ok() {
        ready();
    }
}
