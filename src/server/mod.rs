//! Server: the only place with descriptors, threads and clocks.
//!
//! [`Server::builder`] takes a run directory, limits, an agent transport and an initial state;
//! [`ServerBuilder::spawn`] starts the threads and returns a [`ServerHandle`]. Nothing here handles
//! signals or sets up logging, and several servers may run in one process.
//!
//! Three threads do the work: the event loop moves frames between FIFOs and channels, the worker
//! runs the broker, and the watchdog replaces the thread of the event loop when a workload blocks it.
//! The event loop runs small requests inline (`worker::SharedWorker`).
//!
//! The channel to the worker is bounded by the in-flight limits of the workloads. Beyond its limit the
//! output of a workload stays in its pipe, so the kernel slows it down.

mod agent_transport;
mod error;
mod event_loop;
mod fifo;
mod handle;
mod inotify;
mod log_limiter;
mod port;
mod rlimit;
mod status_socket;
mod takeover;
mod worker;

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc, thread, time::Duration};

use crossbeam_channel::{Sender, bounded, unbounded};

use crate::{
    broker::{self, Broker, Updates},
    limits::Limits,
    state::update::Updated,
};

pub use agent_transport::AgentTransport;
pub use error::{ServerError, StartError};
pub use handle::ServerHandle;
pub use rlimit::raise_descriptor_limit;
#[cfg(feature = "cli")]
pub(crate) use status_socket::STATUS_SOCKET;

use agent_transport::LinkPort;
use event_loop::{EventLoop, Parts, Settings, WorkerHandle};
use handle::Progress;
use status_socket::StatusSocket;
use worker::{FromWorker, SharedWorker, Worker};

/// Time to write queued messages at the end, unless the handle gives another
/// (docs/agent-link.md#end-of-the-link).
const FLUSH: Duration = Duration::from_secs(1);

/// The server of a node's control interfaces. See the module.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// A builder with default limits, without agent, and with an empty initial state.
    ///
    /// The server makes the pairs and the status socket, `status.sock`, in `run_dir`. It makes `run_dir`
    /// itself if only its parent exists.
    pub fn builder(run_dir: impl Into<PathBuf>) -> ServerBuilder {
        ServerBuilder {
            run_dir: run_dir.into(),
            broker: broker::Config::default(),
            agent: None,
            initial_state: None,
            old_pairs_kept: Duration::from_secs(60),
            stop: None,
        }
    }
}

/// Settings of a server before its start.
#[derive(Debug)]
pub struct ServerBuilder {
    run_dir: PathBuf,
    broker: broker::Config,
    agent: Option<AgentTransport>,
    initial_state: Option<Updated>,
    old_pairs_kept: Duration,
    stop: Option<OwnedFd>,
}

impl ServerBuilder {
    /// Sets the limits of one workload and of all together.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.broker.limits = limits;
        self
    }

    /// Takes commands from an agent. Without one, the pairs follow the workloads of the state.
    #[must_use]
    pub fn agent(mut self, transport: AgentTransport) -> Self {
        self.agent = Some(transport);
        self
    }

    /// Serves only the workloads of the agent `name`.
    #[must_use]
    pub fn agent_name(mut self, name: impl Into<String>) -> Self {
        self.broker.agent_name = Some(name.into());
        self
    }

    /// Sets the place where updates of workloads are applied; by default they are applied here.
    /// [`Updates::Forward`] needs an agent.
    #[must_use]
    pub fn updates(mut self, updates: Updates) -> Self {
        self.broker.updates = updates;
        self
    }

    /// Sets the time for the agent to answer a forwarded request; 30 s by default.
    #[must_use]
    pub fn forward_timeout(mut self, timeout: Duration) -> Self {
        self.broker.forward_timeout_ms = millis(timeout);
        self
    }

    /// Sets the time without events after the first answer of a subscription
    /// (docs/differences.md#19-grace-time-for-subscribers); 20 ms by default.
    #[must_use]
    pub fn subscribe_grace(mut self, time: Duration) -> Self {
        self.broker.subscribe_grace_ms = millis(time);
        self
    }

    /// Sets the time after the agent's Hello for adding the workloads of an earlier server again; 60 s by
    /// default. The pairs of the others are removed then.
    #[must_use]
    pub fn old_pairs_kept(mut self, time: Duration) -> Self {
        self.old_pairs_kept = time;
        self
    }

    /// Sets the number of messages in a workload's pipe at a time
    /// (docs/differences.md#17-one-frame-at-a-time); 1 by default, and at least 1.
    #[must_use]
    pub fn window(mut self, messages: u16) -> Self {
        self.broker.window = messages.max(1).into();
        self
    }

    /// Sets the initial state, and serves its workloads if no agent names the served ones.
    #[must_use]
    pub fn initial_state(mut self, state: Updated) -> Self {
        self.initial_state = Some(state);
        self
    }

    /// Stops the server when `descriptor` becomes readable: a pipe, a socket or an eventfd. It suits
    /// a signal handler, which can write a byte but call no [`ServerHandle::shutdown`].
    #[must_use]
    pub fn stop_when_readable(mut self, descriptor: OwnedFd) -> Self {
        self.stop = Some(descriptor);
        self
    }

    /// Opens the run directory, reaches the agent, and starts the threads of the server.
    ///
    /// # Errors
    /// Another server uses the run directory, the run directory is unusable, the agent cannot be
    /// reached, or the system has no descriptors or threads left.
    pub fn spawn(mut self) -> Result<ServerHandle, StartError> {
        let run_dir = fifo::RunDir::open(&self.run_dir)?;
        let path = run_dir.path().to_owned();
        let status = StatusSocket::open(&path)?;
        self.broker.link = self.agent.as_ref().map(|_| path.display().to_string());
        let limits = self.broker.limits.clone();
        let link = self.agent.map(|agent| LinkPort::open(agent, limits.max_link_frame));
        let (window, most_pairs) = (self.broker.window, rlimit::most_pairs());
        let old_pairs_kept = self.old_pairs_kept;
        let settings = Settings { limits: limits.clone(), window, most_pairs, old_pairs_kept };
        let mut broker = Broker::new(self.broker);
        if let Some(state) = &self.initial_state {
            broker.start(state);
        }

        // The in-flight limits of the workloads bound this channel (ARCHITECTURE.md#threads-and-channels).
        let (to_worker, to_worker_rx) = unbounded();
        let (from_worker_tx, inbox) = unbounded();
        let (notify, notified) = bounded(1);
        let (control, control_rx) = unbounded();
        let (progress_tx, progress) = unbounded();
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
        let worker = WorkerHandle::new(Arc::clone(&shared_worker), to_worker, notify);
        let parts = Parts {
            run_dir,
            status,
            link: link.transpose()?,
            stop: self.stop,
            control: control_rx,
            inbox,
            worker,
        };
        let event_loop = EventLoop::new(settings, (poll, Arc::clone(&waker)), parts)?;
        let worker = thread::Builder::new().name("worker".to_owned());
        let (wake, ready) = (Arc::clone(&waker), progress_tx.clone());
        let worker = worker.spawn(move || {
            let _wake = WakeOnPanic(Arc::clone(&wake));
            // Queued behind all messages for the initial state.
            shared_worker.run(&notified, || announce(&from_worker_tx, &wake, ready));
        })?;
        event_loop.spawn(progress_tx)?;
        Ok(ServerHandle::new(control, progress, waker, worker))
    }
}

/// Lets the event loop report readiness when it has handled all messages sent so far.
fn announce(event_loop: &Sender<Vec<FromWorker>>, waker: &mio::Waker, ready: Sender<Progress>) {
    if event_loop.send(vec![FromWorker::Ready(ready)]).is_ok()
        && let Err(error) = waker.wake()
    {
        log::error!("cannot wake the event loop: {error}");
    }
}

/// Wakes the event loop when the worker panics; the loop then ends with an error. Otherwise the process
/// would stay alive and answer nobody.
struct WakeOnPanic(Arc<mio::Waker>);

impl Drop for WakeOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            // Without this wake-up the loop notices the panic at its next event.
            let _ = self.0.wake();
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
