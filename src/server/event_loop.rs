//! The event loop of the server: readiness events in, bounded turns of ports out.
//!
//! It reads events from epoll, inotify and the status socket, and commands from worker and handle.
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
mod old_pairs;
mod port_table;
mod stop;
mod worker_handle;

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
    vec,
};

use crossbeam_channel::{Receiver, Sender};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};

use crate::{
    broker::{Delivery, PeerId},
    limits::Limits,
    message::{Frame, ResponseBody},
};

use super::{
    FLUSH,
    agent_transport::LinkPort,
    error::{ServerError, StartError},
    fifo::RunDir,
    handle::{Control, Progress},
    inotify::Watches,
    log_limiter::LogLimiter,
    port::OutFrame,
    status_socket::StatusSocket,
    worker::FromWorker,
};

use drained::DrainWatch;
use handoff::{BlockingThreads, Driven, Handoff, JOB_BUFFER};
pub(super) use in_flight::InFlight;
use jobs::{Done, Job};
use lifecycle::Opening;
use old_pairs::OldPairs;
use port_table::{FrameInHand, FrameResult, PortTable};
use stop::Stopping;
pub(super) use worker_handle::WorkerHandle;

// Tokens of pairs count up from 0 (`PortTable::tokens`), so the loop's own ones begin at the top.
const WAKER: Token = Token(usize::MAX);
const WATCHES: Token = Token(usize::MAX - 1);
const STOP: Token = Token(usize::MAX - 2);
const STATUS: Token = Token(usize::MAX - 3);
const FROM_AGENT: Token = Token(usize::MAX - 4);
const TO_AGENT: Token = Token(usize::MAX - 5);
/// First token for connections to the status socket.
const STATUS_CLIENTS: usize = usize::MAX / 2;

/// Bounds of the back-off for polling the reader of a waiting port: inotify events are hints only.
const FIRST_READER_POLL: Duration = Duration::from_millis(20);
const LAST_READER_POLL: Duration = Duration::from_secs(2);

/// Most turns between two polls of the kernel: well under a millisecond.
const ROUND: usize = 64;

/// Settings of the loop.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) limits: Limits,
    pub(super) window: usize,
    /// Most pairs, as the limit of descriptors allows.
    pub(super) most_pairs: usize,
    /// Time for adding the workloads of pairs found at the start.
    pub(super) old_pairs_kept: Duration,
}

/// Makes the poll of the loop, and the waker for a filled inbox.
pub(super) fn poll() -> io::Result<(Poll, Arc<Waker>)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, Arc::new(waker)))
}

/// Parts of the loop made by its starter.
pub(super) struct Parts {
    pub(super) run_dir: RunDir,
    pub(super) status: StatusSocket,
    pub(super) link: Option<LinkPort>,
    /// Readable when the server has to stop.
    pub(super) stop: Option<OwnedFd>,
    /// Requests of the handle.
    pub(super) control: Receiver<Control>,
    /// Messages of the worker.
    pub(super) inbox: Receiver<Vec<FromWorker>>,
    pub(super) worker: WorkerHandle,
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
    old_pairs: OldPairs,
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
    /// Kept open for the poll.
    _stop: Option<OwnedFd>,
    control: Receiver<Control>,
    inbox: Receiver<Vec<FromWorker>>,
    /// Messages received from the inbox and not handled yet.
    batch: vec::IntoIter<FromWorker>,
    /// A multicast with its remaining deliveries. The batch continues after the last one.
    sharing: Option<(ResponseBody, vec::IntoIter<Delivery>)>,
    /// Results of jobs finished by a replaced driver or by a blocking thread.
    stale: Receiver<Done>,
    blocking_threads: Option<BlockingThreads<Done>>,
    worker: WorkerHandle,
    stopping: Option<Stopping>,
    /// The reason of a stop that nobody requested.
    failure: Option<ServerError>,
    status: Option<StatusSocket>,
    link: Option<Link>,
    buffer: Vec<u8>,
    log_limiter: LogLimiter,
}

/// The agent's port, and its state between two turns.
struct Link {
    port: LinkPort,
    due: bool,
    in_flight: Arc<InFlight>,
}

impl EventLoop {
    pub(super) fn new(
        settings: Settings,
        (poll, waker): (Poll, Arc<Waker>),
        parts: Parts,
    ) -> Result<Self, StartError> {
        let Parts { run_dir, status, link, stop, control, inbox, worker } = parts;
        let watches = Watches::new();
        if let Some(fd) = watches.descriptor() {
            poll.registry().register(&mut SourceFd(&fd), WATCHES, Interest::READABLE)?;
        }
        if let Some(stop) = &stop {
            poll.registry().register(&mut SourceFd(&stop.as_raw_fd()), STOP, Interest::READABLE)?;
        }
        let fd = status.descriptor();
        poll.registry().register(&mut SourceFd(&fd), STATUS, Interest::READABLE)?;
        let link = link
            .map(|port| agent::register(poll.registry(), port, &settings.limits))
            .transpose()?;
        let parts = Loop {
            ports: PortTable::new(&settings.limits),
            old_pairs: OldPairs::new(run_dir.pairs()),
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
            _stop: stop,
            control,
            inbox,
            batch: Vec::new().into_iter(),
            sharing: None,
            // Replaced in `spawn`: the handoff makes this channel.
            stale: crossbeam_channel::never(),
            blocking_threads: None,
            worker,
            stopping: None,
            failure: None,
            status: Some(status),
            link,
            // For turns of the agent's port; the buffers for jobs belong to their threads.
            buffer: vec![0; JOB_BUFFER],
            log_limiter: LogLimiter::default(),
        };
        Ok(Self { waker, parts })
    }

    /// Starts the threads of the loop. It runs until it is stopped and flushed, then reports its end.
    ///
    /// # Errors
    /// The system grants no thread.
    pub(super) fn spawn(self, progress: Sender<Progress>) -> io::Result<()> {
        let mut parts = self.parts;
        let make = |stale, blocking_threads| {
            parts.stale = stale;
            parts.blocking_threads = Some(blocking_threads);
            parts
        };
        // The handle may be gone.
        let on_end = move |result| drop(progress.send(Progress::Ended(result)));
        Handoff::spawn(self.waker, make, on_end)
    }
}

impl Driven for Loop {
    type Job = Job;
    type Done = Done;

    fn next(&mut self) -> Result<Option<Job>, ServerError> {
        loop {
            if let Some(job) = self.next_job() {
                // For `note_handover`: the job itself has left with its driver by then.
                self.at = job.peer();
                return Ok(Some(job));
            }
            if self.is_over() {
                return Ok(None);
            }
            // Results of an inline run are carried out first, without a poll in front of them.
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

    fn take_done(&mut self, done: Done) {
        match done {
            Done::Wrote(peer, FrameResult::Whole(port, maybe_drained)) => {
                self.after_write(peer, port, maybe_drained);
            }
            Done::Wrote(peer, FrameResult::Turn(back)) | Done::Turn(peer, back) => {
                self.after_turn(peer, back);
            }
            Done::Opened(peer, port) => self.opened(peer, port),
            Done::Closed => {}
        }
    }

    fn note_handover(&mut self) {
        // A closing job has no peer: its pair is out of the table, and nobody asks whether it is blocked.
        if let Some(peer) = self.at.take() {
            self.ports.note_blocked(peer, Instant::now());
        }
    }

    fn finish(&mut self) -> Result<(), ServerError> {
        self.close_all();
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Loop {
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
        // A batch stops at a message with a job or a multicast, and continues here after it.
        if self.batch.len() > 0 {
            self.take_inbox();
        }
        if let Some(job) = self.jobs.pop_front() {
            return Some(job);
        }
        // Outside of the round: ready workloads delay the agent by one job at most.
        self.link_turn();
        self.round = self.round.checked_sub(1)?;
        // Outbound and ready ports alternate, see [`PortTable`].
        if self.ports.take_outbound_turn()
            && let Some(in_hand) = self.share_next()
        {
            return Some(Job::Write(in_hand));
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
    fn share_next(&mut self) -> Option<FrameInHand> {
        let (body, deliveries) = self.sharing.as_mut()?;
        let in_hand = deliveries.find_map(|Delivery { peer, seq, request_id, ack }| {
            let frame = Frame::to_workload(request_id, body.clone());
            self.ports.send_at_once(peer, OutFrame { seq, frame, ack, closes: false })
        });
        if deliveries.len() == 0 {
            self.sharing = None;
        }
        in_hand
    }

    /// True if [`Loop::next_job`] may return a job later although it returned none.
    fn jobs_wait(&self) -> bool {
        let agent = self.link.as_ref().is_some_and(|link| link.due);
        let told = self.sharing.is_some() || self.batch.len() > 0 || !self.inbox.is_empty();
        agent || told || !self.jobs.is_empty() || self.ports.queued() > 0
    }

    fn take_stale(&mut self) {
        while let Ok(done) = self.stale.try_recv() {
            self.take_done(done);
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        self.worker.flush_batch(self.jobs_wait());
        if self.worker.has_failed() && self.stopping.is_none() {
            // The handle knows the message of the panic.
            self.fail(ServerError::BrokerPanicked(String::new()));
        }
        let look = self.ports.next_time();
        // The stop's deadline is a timer of its own: a blocked pair sends no event to end the wait.
        let end = self.stopping.as_ref().map(|stopping| stopping.deadline);
        let others = [end, self.old_pairs.due, self.log_limiter.due()];
        let until = look.into_iter().chain(others.into_iter().flatten()).min();
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
        let (mut other, mut woken) = (Vec::new(), false);
        for event in &self.events {
            match event.token() {
                // Only requests of the handle need this: each poll is followed by a look at all else.
                WAKER => woken = true,
                token if token.0 < STATUS_CLIENTS => self.ports.note(token, event),
                token => other.push(token),
            }
        }
        // Behind the loop: these need all of `self`, and the events are borrowed from it.
        other.into_iter().for_each(|token| self.note(token));
        if woken {
            self.take_control();
        }
        let now = Instant::now();
        self.do_what_is_due(now);
        self.remove_old_pairs(now);
        self.log_limiter.tell_left_out(now);
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
                log::error!("cannot poll for drained pipes: {error}");
                false
            }
        }
    }

    /// Handles an event of a descriptor that belongs to no workload.
    fn note(&mut self, token: Token) {
        match token {
            WATCHES => self.take_watches(),
            STOP => self.begin_stop(Instant::now() + FLUSH),
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
            FromWorker::DropClosed(peer, up_to) => self.ports.drop_closed(peer, up_to),
            FromWorker::Send(peer, frame) => self.ports.send(peer, frame),
            FromWorker::Multicast(body, deliveries) => {
                // Before the writes of a fan-out: a pipe known to be drained saves its port an `FIONREAD`.
                if self.ports.many_maybe_drained() {
                    self.on_drained();
                }
                self.sharing = Some((body, deliveries.into_iter()));
            }
            FromWorker::SendToAgent(frame) => self.send_to_agent(frame),
            FromWorker::SetReadEnabled(PeerId::AGENT, on) => self.read_agent(Some(on)),
            FromWorker::SetReadEnabled(peer, on) => self.ports.set_reading(peer, on),
            FromWorker::Handled(PeerId::AGENT) => self.read_agent(None),
            // The kernel has announced the unread bytes of a parked port already.
            FromWorker::Handled(peer) => self.ports.read_on(peer),
            FromWorker::Status(client, answer) => self.answer_status(client, answer),
            FromWorker::Ready(progress) => {
                // Without an agent all workloads are added by now, apart from their opening.
                if self.link.is_none() {
                    self.expect_old_pairs(Duration::ZERO);
                }
                // The handle may be gone.
                let _ = progress.send(Progress::Ready);
            }
            FromWorker::AgentIsThere => self.expect_old_pairs(self.settings.old_pairs_kept),
            FromWorker::Stop => self.begin_stop(Instant::now() + FLUSH),
            FromWorker::Fail(why) => self.fail(ServerError::AgentProtocol(why)),
            FromWorker::Drained => {
                if let Some(stopping) = &mut self.stopping {
                    stopping.drained = true;
                }
            }
        }
    }
}
