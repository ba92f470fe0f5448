//! The event loop: learns from the kernel what may have happened, gives each port bounded turns,
//! and carries frames between the ports and the worker.
//!
//! It never looks inside a frame. What touches a FIFO happens in a port's turn, behind that port's
//! own lock and no other: the loop's own state is locked only between turns.

mod agent;
mod signals;
mod slots;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};

use crate::{broker::PeerId, message::Owner, state::Instance};

use super::{
    fifo::RunDir,
    link::LinkPort,
    port::{Port, Turn, Wait},
    status::StatusSocket,
    watch::{Seen, Watches},
    worker::{FromReactor, ToReactor},
};

use signals::Signals;
pub(super) use slots::InFlight;
use slots::{Slot, Slots};

const WAKER: Token = Token(usize::MAX);
const WATCHES: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
const STATUS: Token = Token(usize::MAX - 3);
const FROM_AGENT: Token = Token(usize::MAX - 4);
const TO_AGENT: Token = Token(usize::MAX - 5);
/// Connections to the status socket have the tokens from here on.
const STATUS_CLIENTS: usize = usize::MAX / 2;

/// How long what is queued is flushed at the end (CONTRACT section 4).
const FLUSH: Duration = Duration::from_secs(1);

/// A waiting port is looked at now and then even if nothing is seen: watches are hints.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// One buffer for all reads of the loop.
const READ_BUFFER: usize = 64 << 10;

/// How the loop is to behave.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) max_frame: usize,
    pub(super) window: usize,
}

/// The loop and everything that it drives.
pub(super) struct Reactor {
    shared: Arc<Mutex<Loop>>,
}

/// What is between two turns.
struct Loop {
    settings: Settings,
    run_dir: RunDir,
    poll: Poll,
    events: Events,
    slots: Slots,
    watches: Watches,
    signals: Signals,
    inbox: Receiver<ToReactor>,
    worker: Sender<FromReactor>,
    stopping: Option<Stopping>,
    /// Why we had to stop, if nobody asked us to.
    failure: Option<String>,
    status: StatusSocket,
    link: Option<Link>,
    buffer: Vec<u8>,
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

/// What to do next.
enum Next {
    Turn(Arc<Slot>),
    Stop,
}

impl Reactor {
    /// The waker is for the worker: it rings when it has put something into the inbox.
    pub(super) fn new(
        settings: Settings,
        run_dir: RunDir,
        link: Option<LinkPort>,
        inbox: Receiver<ToReactor>,
        worker: Sender<FromReactor>,
    ) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
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
        let link = link.map(|port| agent::register(poll.registry(), port)).transpose()?;
        let shared = Loop {
            settings,
            run_dir,
            poll,
            events: Events::with_capacity(1024),
            slots: Slots::default(),
            watches,
            signals,
            inbox,
            worker,
            stopping: None,
            failure: None,
            status,
            link,
            buffer: vec![0; READ_BUFFER],
        };
        Ok((Self { shared: Arc::new(Mutex::new(shared)) }, waker))
    }

    /// Drives everything until it is told to stop and has flushed.
    pub(super) fn run(&self) -> io::Result<()> {
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            let next = self.lock().next()?;
            let Next::Turn(slot) = next else {
                return self.lock().failure.take().map_or(Ok(()), |why| Err(io::Error::other(why)));
            };
            let turn = slot.turn(&mut buffer);
            self.lock().after_turn(&slot, turn);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Loop> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loop {
    /// The next turn that is due; waits for one.
    fn next(&mut self) -> io::Result<Next> {
        loop {
            self.take_inbox();
            self.link_turn();
            if let Some(slot) = self.slots.next_due() {
                return Ok(Next::Turn(slot));
            }
            if self.is_over() {
                return Ok(Next::Stop);
            }
            self.wait()?;
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let look = self.slots.next_look();
        let end = self.stopping.as_ref().map(|stopping| stopping.deadline);
        let until = look.into_iter().chain(end).min();
        let busy = self.link.as_ref().is_some_and(|link| link.due);
        let until = if busy { Some(Instant::now()) } else { until };
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let mut other = Vec::new();
        for event in &self.events {
            match event.token() {
                WAKER => {}
                token if token.0 < STATUS_CLIENTS => self.slots.note(token, event),
                token => other.push(token),
            }
        }
        other.into_iter().for_each(|token| self.note(token));
        self.slots.look_at_waiting(Instant::now());
        Ok(())
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
                self.status.write_on(client - STATUS_CLIENTS);
            }
        }
    }

    fn take_watches(&mut self) {
        // One buffer a round: a workload that makes many events makes others wait for one buffer.
        let seen = self.watches.read();
        for seen in &seen {
            match seen {
                Seen::At(peer) => self.slots.look_at(*peer),
                Seen::Overflow => self.slots.look_at_all(),
            }
        }
        if !seen.is_empty() {
            self.rearm_watches();
        }
    }

    /// More may be in the queue than was read, and an edge comes only once.
    fn rearm_watches(&self) {
        if let Some(fd) = self.watches.descriptor() {
            let registry = self.poll.registry();
            if let Err(error) = registry.reregister(&mut SourceFd(&fd), WATCHES, Interest::READABLE)
            {
                log::error!("cannot watch readers any more: {error}");
            }
        }
    }

    fn take_inbox(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            self.obey(message);
        }
    }

    fn obey(&mut self, message: ToReactor) {
        match message {
            ToReactor::Open(peer, instance, owner) => {
                let opened = self.open(peer, &instance, owner);
                if let Err(error) = &opened {
                    log::error!("no control interface for {instance}: {error}");
                }
                let result = opened.map_err(|error| error.to_string());
                self.tell_worker(FromReactor::PairOpened(peer, result));
            }
            ToReactor::Close(peer) => {
                self.close(peer);
                self.tell_worker(FromReactor::PairClosed(peer));
            }
            ToReactor::Reset(peer) => self.slots.reset(peer),
            ToReactor::Send(peer, frame) => self.slots.send(peer, frame),
            ToReactor::Tell(frame) => self.send_to_agent(frame),
            ToReactor::Reading(PeerId::AGENT, on) => self.read_agent(Some(on)),
            ToReactor::Reading(peer, on) => self.slots.set_reading(peer, on),
            ToReactor::Handled(PeerId::AGENT) => self.read_agent(None),
            ToReactor::Handled(peer) => self.slots.read_on(peer),
            ToReactor::Status(client, answer) => self.answer_status(client, answer),
            ToReactor::Sync(reply) => {
                // Whoever waits for it may have gone.
                let _ = reply.send(());
            }
            ToReactor::Stop => self.begin_stop(),
            ToReactor::Fail(why) => self.fail(why),
            ToReactor::Drained => {
                if let Some(stopping) = &mut self.stopping {
                    stopping.drained = true;
                }
            }
        }
    }

    fn tell_worker(&self, message: FromReactor) {
        if self.worker.send(message).is_err() {
            log::debug!("the worker has ended");
        }
    }

    /// Stops, and tells why in the end.
    fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
        self.begin_stop();
    }

    fn open(&mut self, peer: PeerId, instance: &Instance, owner: Owner) -> io::Result<String> {
        let pair = self.run_dir.open_pair(instance, owner)?;
        let path = pair.path().display().to_string();
        let mut port = Port::open(pair, self.settings.max_frame, self.settings.window)?;
        port.take_over();
        let registry = self.poll.registry();
        let (from_workload, to_workload) = port.descriptors();
        let tokens = self.slots.tokens(peer);
        registry.register(&mut SourceFd(&from_workload), tokens.0, Interest::READABLE)?;
        // Not for being writable, which it nearly always is: for the reader's leaving.
        registry.register(&mut SourceFd(&to_workload), tokens.1, Interest::READABLE)?;
        log::debug!("serving {instance} at {path}");
        self.slots.add(peer, port);
        Ok(path)
    }

    fn close(&mut self, peer: PeerId) {
        let Some(slot) = self.slots.remove(peer) else { return };
        self.watches.remove(peer);
        let registry = self.poll.registry();
        let port = slot.port();
        let (from_workload, to_workload) = port.descriptors();
        for fd in [from_workload, to_workload] {
            if let Err(error) = registry.deregister(&mut SourceFd(&fd)) {
                log::error!("cannot forget a descriptor: {error}");
            }
        }
        if let Err(error) = self.run_dir.remove_pair(port.pair()) {
            log::warn!("{error}");
        }
    }

    fn after_turn(&mut self, slot: &Arc<Slot>, turn: Turn) {
        let peer = slot.peer();
        let (wait, more) = (turn.wait, turn.more);
        for event in turn.events {
            self.tell_worker(slot.to_worker(event, turn.written));
        }
        self.slots.after_turn(slot, more, wait, Instant::now());
        match wait {
            Wait::No => {
                self.watches.remove(peer);
                if slot.set_armed(false) {
                    self.reregister(slot, Interest::READABLE);
                }
            }
            Wait::Edge => self.arm(slot),
            Wait::Reader => {
                if self.watches.add(peer, slot.watch_path()) {
                    self.slots.look_at(peer);
                }
            }
        }
    }

    /// Asks for the edge of a pipe that gets room. If it has room by now, it comes at once.
    fn arm(&mut self, slot: &Arc<Slot>) {
        if slot.set_armed(true) {
            return;
        }
        self.reregister(slot, Interest::WRITABLE);
    }

    fn reregister(&self, slot: &Arc<Slot>, interest: Interest) {
        let tokens = self.slots.tokens(slot.peer());
        let fd = slot.to_workload();
        if let Err(error) = self.poll.registry().reregister(&mut SourceFd(&fd), tokens.1, interest)
        {
            log::error!("cannot wait for a workload: {error}");
        }
    }

    fn begin_stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        log::info!("stopping");
        self.slots.stop_reading();
        self.read_agent(Some(false));
        let deadline = Instant::now() + FLUSH;
        self.stopping = Some(Stopping { deadline, drained: false });
        // A worker that is gone has nothing more to hand out.
        let gone = self.worker.send(FromReactor::Stop).is_err();
        if let Some(stopping) = &mut self.stopping {
            stopping.drained = gone;
        }
    }

    fn is_over(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| {
            let told = self.link.as_ref().is_none_or(|link| link.port.is_flushed());
            let flushed = stopping.drained && self.slots.all_flushed() && told;
            flushed || stopping.deadline <= Instant::now()
        })
    }
}
