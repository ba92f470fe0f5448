//! The event loop: learns from the kernel what may have happened, gives each port bounded turns,
//! and carries frames between the ports and the worker.
//!
//! It never looks inside a frame, and never touches a FIFO: that is a job, done by the driver of the
//! loop (`handoff`) while the loop's own state is not locked.

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
/// Connections to the status socket have the tokens from here on.
const STATUS_CLIENTS: usize = usize::MAX / 2;

/// How long what is queued is flushed at the end (docs/agent-link.md).
const FLUSH: Duration = Duration::from_secs(1);

/// A waiting port is looked at now and then even if nothing is seen: watches are hints.
const FIRST_READER_POLL: Duration = Duration::from_millis(20);
const LAST_READER_POLL: Duration = Duration::from_secs(2);

/// How long the FIFOs may take to close at the end. A pair that a workload holds does not.
const CLOSE: Duration = Duration::from_millis(100);

/// Turns between two looks at what the kernel has to tell: well under a millisecond.
const ROUND: usize = 64;

/// One buffer for all reads of a thread.
const READ_BUFFER: usize = 64 << 10;

/// How the loop is to behave.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) limits: Limits,
    pub(super) window: usize,
    /// Most lifecycle, for as many descriptors as the process may have.
    pub(super) most_pairs: usize,
}

/// What the loop sleeps in, and what wakes it when something is in its inbox.
pub(super) fn poll() -> io::Result<(Poll, Arc<Waker>)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, Arc::new(waker)))
}

/// The loop, before it runs.
pub(super) struct EventLoop {
    waker: Arc<Waker>,
    parts: Loop,
}

/// What is between two jobs.
struct Loop {
    settings: Settings,
    run_dir: RunDir,
    poll: Poll,
    events: Events,
    ports: PortTable,
    /// Pairs whose FIFOs are being opened.
    opening: HashMap<PeerId, Opening>,
    /// What is to be done before any turn.
    jobs: VecDeque<Job>,
    /// Turns left before the kernel is asked again.
    round: usize,
    /// Whom the job is about that the driver is in.
    at: Option<PeerId>,
    watches: Watches,
    drained: DrainWatch,
    signals: Signals,
    inbox: Receiver<Vec<FromWorker>>,
    /// What was taken out of it and is not done yet.
    batch: vec::IntoIter<FromWorker>,
    /// Those who are told the same and have not got it yet; then the batch goes on.
    sharing: Option<(ResponseBody, vec::IntoIter<Delivery>)>,
    /// What came of jobs whose thread was replaced.
    stale: Receiver<Done>,
    blocking_threads: Option<BlockingThreads>,
    worker: WorkerHandle,
    stopping: Option<Stopping>,
    /// Why we had to stop, if nobody asked us to.
    failure: Option<String>,
    status: Option<StatusSocket>,
    link: Option<Link>,
    buffer: Vec<u8>,
    pace: LogLimiter,
}

/// The agent's port, and what is known of it between its turns.
struct Link {
    port: LinkPort,
    due: bool,
    in_flight: Arc<InFlight>,
}

/// The end has begun: nothing is read any more, what is queued goes out.
struct Stopping {
    deadline: Instant,
    /// The worker has handed out all that it will.
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

    /// Drives everything until it is told to stop and has flushed. When it returns, everything is
    /// closed but for the lifecycle that a workload holds.
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
    /// The next job that is due; waits for one. `None` at the end.
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
            // One turn for each that has one coming: whoever always has more is not to have two.
            let shared = self.sharing.as_ref().map_or(0, |(_, deliveries)| deliveries.len());
            self.round = (self.ports.queued() + shared).clamp(1, ROUND);
        }
    }

    /// Has what the worker is to be told handled by this thread, if nothing else waits for it.
    fn try_run_inline(&mut self) -> bool {
        if self.jobs_wait() {
            return false;
        }
        let Some(told) = self.worker.try_run_inline(&self.inbox) else { return false };
        // Nothing was left of the one before.
        self.batch = told.into_iter();
        true
    }

    /// The inbox is in order: what follows an opening may rely on it, so one job is done before the
    /// next message is looked at. So are all who are told the same.
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
        // They take turns with those to whom something happened, as [`PortTable`] has it.
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

    /// Sends the next of those who are told the same on its turn, without letting the frame lie about
    /// meanwhile.
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

    /// Whether [`Loop::next_job`] may have one, though it gave none.
    fn jobs_wait(&self) -> bool {
        let agent = self.link.as_ref().is_some_and(|link| link.due);
        let told = self.sharing.is_some() || self.batch.len() > 0 || !self.inbox.is_empty();
        agent || told || !self.jobs.is_empty() || self.ports.queued() > 0
    }

    /// The driver sleeps in its job; another goes on.
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

    /// Hangs up on everybody. The sockets go first: a process that a workload keeps from ending in the
    /// kernel would otherwise go on holding them (docs/pipes.md#a-held-process-does-not-end).
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
            // First their readers, if they have not run yet.
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

    /// PortState which readers have taken what they were sent; tells whether there may be more of them.
    fn on_drained(&mut self) -> bool {
        match self.drained.next() {
            Ok((tokens, more)) => {
                tokens.for_each(|token| self.ports.on_drained(token));
                more
            }
            Err(error) => {
                // Then each is asked when there is something to write.
                log::error!("cannot ask for readers: {error}");
                false
            }
        }
    }

    /// An event of something that is no workload's.
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
                // Whoever waits for it may have gone.
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

    /// Stops, and tells why in the end.
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
        // A worker that is gone has nothing more to hand out.
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
