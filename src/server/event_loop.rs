//! The event loop of the server: readiness events in, bounded turns of ports out.
//!
//! It reads events from epoll, inotify, signals and the status socket, and commands from the worker.
//! It schedules ports for turns, and carries frames between ports and worker without looking inside.
//!
//! Invariant: the loop itself makes no call on a FIFO. Such calls are jobs, done by the driver thread
//! (`handoff`) while the state of the loop is not locked.

mod agent;
mod drained;
mod handoff;
mod in_flight;
mod jobs;
mod lifecycle;
mod port_table;
mod signals;
mod worker_handle;

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
    vec,
};

use crossbeam_channel::{Receiver, bounded};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};

use crate::{
    broker::{Delivery, PeerId},
    limits::Limits,
    message::{Frame, ResponseBody},
};

use super::{
    agent_transport::LinkPort,
    fifo::RunDir,
    inotify::Watches,
    log_limiter::LogLimiter,
    port::OutFrame,
    status_socket::StatusSocket,
    worker::{FromWorker, ToWorker},
};

use drained::DrainWatch;
use handoff::{BlockingThreads, Handoff};
pub(super) use in_flight::InFlight;
use jobs::{Done, Job};
use lifecycle::Opening;
use port_table::{CheckedOut, PortTable};
use signals::Signals;
pub(super) use worker_handle::WorkerHandle;

const WAKER: Token = Token(usize::MAX);
const WATCHES: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
const STATUS: Token = Token(usize::MAX - 3);
const FROM_AGENT: Token = Token(usize::MAX - 4);
const TO_AGENT: Token = Token(usize::MAX - 5);
/// First token for connections to the status socket.
const STATUS_CLIENTS: usize = usize::MAX / 2;

/// Time to flush queued frames at the end (docs/agent-link.md).
const FLUSH: Duration = Duration::from_secs(1);

/// Bounds of the back-off for polling the reader of a waiting port: inotify events are hints only.
const FIRST_READER_POLL: Duration = Duration::from_millis(20);
const LAST_READER_POLL: Duration = Duration::from_secs(2);

/// Time to close the FIFOs at the end. The close of a blocked pair takes longer.
const CLOSE: Duration = Duration::from_millis(100);

/// Most turns between two polls of the kernel: well under a millisecond.
const ROUND: usize = 64;

/// Size of the one buffer for all reads of a thread.
const READ_BUFFER: usize = 64 << 10;

/// Settings of the loop.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) limits: Limits,
    pub(super) window: usize,
    /// Most pairs, as the limit of descriptors allows.
    pub(super) most_pairs: usize,
}

/// Makes the poll of the loop, and the waker for a filled inbox.
pub(super) fn poll() -> io::Result<(Poll, Arc<Waker>)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, Arc::new(waker)))
}

/// The loop before its start.
pub(super) struct EventLoop {
    waker: Arc<Waker>,
    parts: Loop,
}

/// State of the loop between two jobs.
struct Loop {
    settings: Settings,
    run_dir: RunDir,
    poll: Poll,
    events: Events,
    ports: PortTable,
    /// Pairs whose FIFOs are being opened.
    opening: HashMap<PeerId, Opening>,
    /// Jobs to do before any turn.
    jobs: VecDeque<Job>,
    /// Turns left until the next poll of the kernel.
    round: usize,
    /// Peer of the driver's current job.
    at: Option<PeerId>,
    watches: Watches,
    drained: DrainWatch,
    signals: Signals,
    inbox: Receiver<Vec<FromWorker>>,
    /// Messages received from the inbox and not handled yet.
    batch: vec::IntoIter<FromWorker>,
    /// A multicast with its remaining deliveries. The batch continues after the last one.
    sharing: Option<(ResponseBody, vec::IntoIter<Delivery>)>,
    /// Results of jobs finished by a replaced driver or by a blocking thread.
    stale: Receiver<Done>,
    blocking_threads: Option<BlockingThreads>,
    worker: WorkerHandle,
    stopping: Option<Stopping>,
    /// The reason of a stop that nobody requested.
    failure: Option<String>,
    status: Option<StatusSocket>,
    link: Option<Link>,
    buffer: Vec<u8>,
    pace: LogLimiter,
}

/// The agent's port, and its state between two turns.
struct Link {
    port: LinkPort,
    due: bool,
    in_flight: Arc<InFlight>,
}

/// The stop has begun: ports are no longer read, queued frames are written.
struct Stopping {
    deadline: Instant,
    /// The worker has handed out its last message.
    drained: bool,
}

impl EventLoop {
    pub(super) fn new(
        settings: Settings,
        run_dir: RunDir,
        link: Option<LinkPort>,
        (poll, waker): (Poll, Arc<Waker>),
        inbox: Receiver<Vec<FromWorker>>,
        worker: WorkerHandle,
    ) -> io::Result<Self> {
        let watches = Watches::new();
        if let Some(fd) = watches.descriptor() {
            poll.registry().register(&mut SourceFd(&fd), WATCHES, Interest::READABLE)?;
        }
        let signals = Signals::new()?;
        let fd = signals.descriptor();
        poll.registry().register(&mut SourceFd(&fd), SIGNALS, Interest::READABLE)?;
        let status = StatusSocket::open(run_dir.path())?;
        let fd = status.descriptor();
        poll.registry().register(&mut SourceFd(&fd), STATUS, Interest::READABLE)?;
        let link = link
            .map(|port| agent::register(poll.registry(), port, &settings.limits))
            .transpose()?;
        let parts = Loop {
            ports: PortTable::new(&settings.limits),
            settings,
            run_dir,
            poll,
            events: Events::with_capacity(1024),
            opening: HashMap::new(),
            jobs: VecDeque::new(),
            round: 1,
            at: None,
            watches,
            drained: DrainWatch::new()?,
            signals,
            inbox,
            batch: Vec::new().into_iter(),
            sharing: None,
            stale: crossbeam_channel::never(),
            blocking_threads: None,
            worker,
            stopping: None,
            failure: None,
            status: Some(status),
            link,
            buffer: vec![0; READ_BUFFER],
            pace: LogLimiter::default(),
        };
        Ok(Self { waker, parts })
    }

    /// Runs the loop until it is stopped and flushed. Afterwards everything is closed except for the
    /// pairs blocked by their workloads.
    pub(super) fn run(self) -> io::Result<()> {
        let mut parts = self.parts;
        Handoff::run(self.waker, |stale, blocking_threads| {
            parts.stale = stale;
            parts.blocking_threads = Some(blocking_threads);
            parts
        })
    }
}

impl Loop {
    /// Waits for the next due job and returns it; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Job>> {
        loop {
            if let Some(job) = self.next_job() {
                self.at = job.peer();
                return Ok(Some(job));
            }
            if self.is_over() {
                return Ok(None);
            }
            if !self.try_run_inline() {
                self.wait()?;
            }
            self.take_stale();
            self.take_inbox();
            // One turn for each queued port: a port with constant input must not get two in a round.
            let shared = self.sharing.as_ref().map_or(0, |(_, deliveries)| deliveries.len());
            self.round = (self.ports.queued() + shared).clamp(1, ROUND);
        }
    }

    /// Lets this thread handle the batch for the worker, if no job waits. Returns true if it did.
    fn try_run_inline(&mut self) -> bool {
        if self.jobs_wait() {
            return false;
        }
        let Some(told) = self.worker.try_run_inline(&self.inbox) else { return false };
        // The batch is empty here, otherwise `jobs_wait` had returned true: nothing is overwritten.
        self.batch = told.into_iter();
        true
    }

    /// Handles messages of the inbox, up to the first one with a job or a multicast. The inbox is in
    /// order, and a message may rely on the opening before it: so that job is done first.
    fn take_inbox(&mut self) {
        while self.jobs.is_empty() && self.sharing.is_none() {
            if let Some(message) = self.batch.next() {
                self.obey(message);
            } else if let Ok(batch) = self.inbox.try_recv() {
                self.batch = batch.into_iter();
            } else {
                return;
            }
        }
    }

    fn next_job(&mut self) -> Option<Job> {
        if self.batch.len() > 0 {
            self.take_inbox();
        }
        if let Some(job) = self.jobs.pop_front() {
            return Some(job);
        }
        self.link_turn();
        self.round = self.round.checked_sub(1)?;
        // Outbound and ready ports alternate, see [`PortTable`].
        if self.ports.is_turn_of_outbound()
            && let Some(visit) = self.share_next()
        {
            return Some(Job::Turn(visit));
        }
        let (visit, sleeps) = self.ports.next_due()?;
        if !sleeps {
            return Some(Job::Turn(visit));
        }
        self.start_blocking(visit);
        None
    }

    /// Checks out the port of the next delivery of the multicast, with the frame in hand: a frame that
    /// is written at once is never queued.
    fn share_next(&mut self) -> Option<CheckedOut> {
        let (body, deliveries) = self.sharing.as_mut()?;
        let visit = deliveries.find_map(|Delivery { peer, seq, request_id, ack }| {
            let frame = Frame::to_workload(request_id, body.clone());
            self.ports.send_at_once(peer, OutFrame { seq, frame, ack })
        });
        if deliveries.len() == 0 {
            self.sharing = None;
        }
        visit
    }

    /// True if [`Loop::next_job`] may return a job later although it returned none.
    fn jobs_wait(&self) -> bool {
        let agent = self.link.as_ref().is_some_and(|link| link.due);
        let told = self.sharing.is_some() || self.batch.len() > 0 || !self.inbox.is_empty();
        agent || told || !self.jobs.is_empty() || self.ports.queued() > 0
    }

    /// Notes that the driver sleeps in its job and another thread takes over.
    fn note_handover(&mut self) {
        if let Some(peer) = self.at.take() {
            self.ports.note_checked_out(peer, Instant::now());
        }
    }

    fn take_stale(&mut self) {
        while let Ok(done) = self.stale.try_recv() {
            self.take_done(done);
        }
    }

    fn take_done(&mut self, done: Done) {
        match done {
            Done::Turn(peer, back) => self.after_turn(peer, back),
            Done::Opened(peer, port) => self.opened(peer, port),
            Done::Closed => {}
        }
    }

    fn failure(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    /// Closes everything. The sockets go first: a process kept in the kernel by a workload would
    /// otherwise keep them open (docs/pipes.md#a-held-process-does-not-end).
    fn finish(&mut self) {
        self.status = None;
        if let Some(link) = self.link.take() {
            link.port.hang_up();
        }
        self.worker.hang_up();
        self.blocking_threads = None;
        let ports = mem::replace(&mut self.ports, PortTable::new(&self.settings.limits));
        let opening = mem::take(&mut self.opening);
        let (closed, all_closed) = bounded::<()>(0);
        let close = move || {
            drop((ports, opening));
            drop(closed);
        };
        let closer = thread::Builder::new().name("closer".to_owned()).spawn(close);
        let held = crossbeam_channel::RecvTimeoutError::Timeout;
        if closer.is_ok() && all_closed.recv_timeout(CLOSE) == Err(held) {
            log::warn!("a workload holds its pipe: the process ends when it lets go");
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        self.worker.flush_batch(self.jobs_wait());
        if self.worker.has_failed() && self.stopping.is_none() {
            self.fail("the core failed".to_owned());
        }
        let look = self.ports.next_time();
        let end = self.stopping.as_ref().map(|stopping| stopping.deadline);
        let until = look.into_iter().chain(end).min();
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        let busy = self.jobs_wait();
        let mut looks = false;
        if !busy && self.ports.many_maybe_drained() {
            // Lets readers run first: a reader that has not run yet has drained nothing.
            thread::yield_now();
            looks = self.on_drained();
        }
        let timeout = if busy || looks { Some(Duration::ZERO) } else { timeout };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let mut other = Vec::new();
        for event in &self.events {
            match event.token() {
                WAKER => {}
                token if token.0 < STATUS_CLIENTS => self.ports.note(token, event),
                token => other.push(token),
            }
        }
        other.into_iter().for_each(|token| self.note(token));
        self.do_what_is_due(Instant::now());
        Ok(())
    }

    /// Updates the ports of drained pipes. Returns true if there may be more of them.
    fn on_drained(&mut self) -> bool {
        match self.drained.next() {
            Ok((tokens, more)) => {
                tokens.for_each(|token| self.ports.on_drained(token));
                more
            }
            Err(error) => {
                // Without this watch each writer asks the kernel before its next frame.
                log::error!("cannot ask for readers: {error}");
                false
            }
        }
    }

    /// Handles an event of a descriptor that belongs to no workload.
    fn note(&mut self, token: Token) {
        match token {
            WATCHES => self.take_watches(),
            SIGNALS => {
                if self.signals.stop_wanted() {
                    self.begin_stop();
                }
            }
            FROM_AGENT | TO_AGENT => {
                if let Some(link) = &mut self.link {
                    link.due = true;
                }
            }
            STATUS => self.take_status_clients(),
            Token(client) => {
                if let Some(status) = &mut self.status {
                    status.write_on(client - STATUS_CLIENTS);
                }
            }
        }
    }

    fn obey(&mut self, message: FromWorker) {
        match message {
            FromWorker::Open(peer, instance, owner) => self.begin_open(peer, &instance, owner),
            FromWorker::Close(peer) => self.close(peer),
            FromWorker::Reset(peer) => self.ports.reset(peer),
            FromWorker::Send(peer, frame) => self.ports.send(peer, frame),
            FromWorker::Multicast(body, deliveries) => {
                if self.ports.many_maybe_drained() {
                    self.on_drained();
                }
                self.sharing = Some((body, deliveries.into_iter()));
            }
            FromWorker::SendToAgent(frame) => self.send_to_agent(frame),
            FromWorker::SetReadEnabled(PeerId::AGENT, on) => self.read_agent(Some(on)),
            FromWorker::SetReadEnabled(peer, on) => self.ports.set_reading(peer, on),
            FromWorker::Handled(PeerId::AGENT) => self.read_agent(None),
            FromWorker::Handled(peer) => self.ports.read_on(peer),
            FromWorker::Status(client, answer) => self.answer_status(client, answer),
            FromWorker::Sync(reply) => {
                // The receiver may have given up waiting.
                let _ = reply.send(());
            }
            FromWorker::Stop => self.begin_stop(),
            FromWorker::Fail(why) => self.fail(why),
            FromWorker::Drained => {
                if let Some(stopping) = &mut self.stopping {
                    stopping.drained = true;
                }
            }
        }
    }

    /// Stops the loop. [`Loop::failure`] returns the reason in the end.
    fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
        self.begin_stop();
    }

    fn begin_stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        log::info!("stopping");
        self.ports.stop_reading();
        self.read_agent(Some(false));
        let deadline = Instant::now() + FLUSH;
        self.stopping = Some(Stopping { deadline, drained: false });
        self.worker.tell(ToWorker::Stop);
        // A failed worker has nothing more to hand out.
        let drained = !self.worker.flush();
        if let Some(stopping) = &mut self.stopping {
            stopping.drained = drained;
        }
    }

    fn is_over(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| {
            let told = self.link.as_ref().is_none_or(|link| link.port.is_flushed());
            let flushed = stopping.drained && self.ports.all_flushed() && told;
            flushed || stopping.deadline <= Instant::now()
        })
    }
}
