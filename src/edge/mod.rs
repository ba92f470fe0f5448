//! Descriptors, threads and clocks live here, and only here.
//!
//! Two threads: the reactor's moves frames between FIFOs and channels, the worker's lets the broker
//! decide; little of that the reactor's does itself (`worker::Desk`). A watchdog replaces the
//! reactor's thread where a workload makes it sleep. The channel to the worker is bounded by what
//! each workload may have on its way; a workload over that is left to its pipe, and so is slowed down
//! by the kernel.

mod descriptors;
mod fifo;
mod link;
mod pace;
mod port;
mod reactor;
mod status;
mod takeover;
mod watch;
mod worker;

use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::{
    broker::{self, Broker},
    state::update::Updated,
};

pub use fifo::{FifoError, PipePair, RunDir};
pub use link::LinkAddress;
pub use status::STATUS_SOCKET;

use link::LinkPort;

use reactor::{Reactor, Settings, ToWorker};
use worker::{Desk, ToReactor, Worker};

/// How a daemon is to be run.
#[derive(Debug, Clone)]
pub struct DaemonConfig {
    /// Where the pairs are.
    pub run_dir: PathBuf,
    /// How the core behaves. Its `link` is set from the one here.
    pub broker: broker::Config,
    /// The agent that says what is served, if there is one.
    pub link: Option<LinkAddress>,
}

/// fifogate at work: serves the pairs until SIGTERM or SIGINT.
pub struct Daemon {
    reactor: Reactor,
    desk: Arc<Desk>,
    /// Wakes the worker's thread.
    bell: Receiver<()>,
    to_reactor: Sender<Vec<ToReactor>>,
    waker: Arc<mio::Waker>,
}

impl Daemon {
    /// Opens the run directory and gets everything ready; serves nothing yet.
    ///
    /// `start` is the state to begin with; its workloads are served.
    ///
    /// # Errors
    /// The run directory is not usable, or the system has no descriptors for the event loop.
    pub fn new(mut config: DaemonConfig, start: Option<&Updated>) -> io::Result<Self> {
        let run_dir = RunDir::open(&config.run_dir)?;
        let path = run_dir.path().to_owned();
        config.broker.link = config.link.as_ref().map(|_| path.display().to_string());
        let (to_worker, from_reactor) = unbounded();
        let (to_reactor, from_worker) = unbounded();
        let limits = config.broker.limits.clone();
        let most_pairs = descriptors::most_pairs();
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
        let (ring, bell) = bounded(1);
        let (poll, waker) = reactor::poll()?;
        let worker =
            Worker::new(broker, limits, path, from_reactor, to_reactor.clone(), Arc::clone(&waker));
        let desk = Arc::new(Desk::new(worker));
        let to_worker = ToWorker::new(Arc::clone(&desk), to_worker, ring);
        let polling = (poll, Arc::clone(&waker));
        let reactor =
            Reactor::new(settings, run_dir, link.transpose()?, polling, from_worker, to_worker)?;
        Ok(Self { reactor, desk, bell, to_reactor, waker })
    }

    /// Serves until a signal ends it. `ready` is called once, when the pairs of the state to begin
    /// with are there.
    ///
    /// # Errors
    /// The system refuses what the event loop cannot do without.
    pub fn run(self, ready: impl FnOnce() + Send) -> io::Result<()> {
        let Self { reactor, desk, bell, to_reactor, waker } = self;
        thread::scope(|scope| {
            let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
            spawn("worker").spawn_scoped(scope, move || {
                // Behind everything that the state to begin with makes the worker say.
                desk.run(&bell, || announce(&to_reactor, &waker, ready));
            })?;
            reactor.run() // hangs up on the worker, which ends then
        })
    }
}

/// Calls `ready` when the reactor has done all that it was told so far.
fn announce(reactor: &Sender<Vec<ToReactor>>, waker: &mio::Waker, ready: impl FnOnce()) {
    let (done, wait) = bounded(1);
    let asked = reactor.send(vec![ToReactor::Sync(done)]).is_ok() && waker.wake().is_ok();
    if asked && wait.recv_timeout(Duration::from_secs(60)).is_ok() {
        ready();
    }
}
