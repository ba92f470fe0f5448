//! Many subscribers and a publisher, in one thread.

use std::{
    io::ErrorKind,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use testkit::PATIENCE;

use crate::{
    caller::set_blocking,
    client::{Client, Wire},
    peer::Peer,
};

/// Before the number of an event, at the start of its payload.
const MARK: &[u8] = b"seq=";
const DIGITS: usize = 16;
/// The shortest payload: a number alone.
pub(crate) const SMALLEST: usize = MARK.len() + DIGITS;
const TIMER: Token = Token(usize::MAX);

static STOPPED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// SIGINT and SIGTERM end this program by a panic, so that the servers end too.
pub(crate) fn end_by_signal() {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, STOPPED.clone()).unwrap();
    }
}

/// The payload of an event: its number, and as much behind it as is missing.
pub(crate) fn payload(seq: u64, len: usize) -> String {
    let head = format!("seq={seq:0DIGITS$}");
    format!("{head}{}", ".".repeat(len - head.len()))
}

/// Where an event of a peer has its number: counted from its end.
#[derive(Clone, Copy)]
struct Shape {
    from_end: usize,
    frame_len: usize,
}

/// All clients of one server.
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    /// The publisher is the last one.
    clients: Vec<Client>,
    wire: &'static dyn Wire,
    shape: Option<Shape>,
    payload_len: usize,
    buffer: Vec<u8>,
    /// Of whom all bytes are kept, without what is around parts of messages.
    recorded: Option<(usize, Vec<u8>)>,
    timer: Option<TimerFd>,
}

impl Crowd {
    /// Subscribes them all.
    pub(crate) fn new(peer: &mut dyn Peer, subscribers: usize, payload_len: usize) -> Self {
        let mut clients: Vec<_> = (0..subscribers).map(|index| peer.subscriber(index)).collect();
        clients.push(peer.publisher());
        let crowd = Self {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(1024),
            clients,
            wire: peer.wire(),
            shape: None,
            payload_len,
            buffer: vec![0; 256 << 10],
            recorded: None,
            timer: None,
        };
        for index in 0..crowd.clients.len() {
            set_blocking(&crowd.clients[index].input, false);
            set_blocking(&crowd.clients[index].output, false);
            crowd.listen(index);
        }
        crowd
    }

    /// How many subscribers there are.
    pub(crate) fn len(&self) -> usize {
        self.clients.len() - 1
    }

    fn listen(&self, index: usize) {
        let fd = self.clients[index].input.as_raw_fd();
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&fd), Token(index), Interest::READABLE).unwrap();
    }

    /// This subscriber reads no more.
    pub(crate) fn deafen(&mut self, index: usize) {
        let fd = self.clients[index].input.as_raw_fd();
        self.poll.registry().deregister(&mut SourceFd(&fd)).unwrap();
    }

    /// It reads again, and all that it gets is kept.
    pub(crate) fn hear(&mut self, index: usize) {
        self.recorded = Some((index, std::mem::take(&mut self.clients[index].held)));
        self.listen(index);
    }

    /// The numbers of the events that it got since, and whether its connection has ended.
    pub(crate) fn heard(&mut self) -> (Vec<u64>, bool) {
        let (index, bytes) = self.recorded.take().unwrap();
        let mut numbers = Vec::new();
        all_numbers(&bytes, &mut |seq| numbers.push(seq));
        (numbers, self.clients[index].ended)
    }

    /// Wakes the thread at these intervals, or no more.
    pub(crate) fn wake_each(&mut self, interval: Option<Duration>) {
        self.timer = interval.map(|interval| {
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK).unwrap();
            let every = Expiration::Interval(interval.into());
            timer.set(every, TimerSetTimeFlags::empty()).unwrap();
            let fd = timer.as_fd().as_raw_fd();
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&fd), TIMER, Interest::READABLE).unwrap();
            timer
        });
    }

    /// The publisher says an event.
    pub(crate) fn publish(&mut self, bytes: &[u8]) {
        self.clients.last_mut().unwrap().say(bytes);
    }

    /// Tells them one event, and waits until all of them have got it.
    pub(crate) fn tell_all(&mut self, peer: &mut dyn Peer, seq: u64) {
        let bytes = peer.event(&payload(seq, self.payload_len));
        self.publish(&bytes);
        self.take_each(seq);
    }

    /// Waits until all of them have got this event.
    pub(crate) fn take_each(&mut self, seq: u64) {
        let mut left = self.len();
        while left > 0 {
            let woken = self.turn(PATIENCE, &mut |_, got| left -= usize::from(got == seq));
            assert!(woken, "{left} subscribers were told nothing");
        }
    }

    /// Waits for bytes and reads them; says the number of each event, with who got it. `false`: there were none.
    pub(crate) fn turn(&mut self, wait: Duration, seen: &mut dyn FnMut(usize, u64)) -> bool {
        if let Err(error) = self.poll.poll(&mut self.events, Some(wait)) {
            assert!(error.kind() == ErrorKind::Interrupted, "{error}");
        }
        assert!(!STOPPED.load(Ordering::Relaxed), "ended by a signal");
        let mut woken = false;
        let events: Vec<_> = self.events.iter().map(|event| event.token()).collect();
        for token in events {
            woken = true;
            if token == TIMER {
                self.rearm();
            } else {
                self.read(token.0, seen);
            }
        }
        self.clients.last_mut().unwrap().write_rest();
        woken
    }

    /// Its expiration is read, so that the next one is told too.
    fn rearm(&self) {
        if let Some(timer) = &self.timer {
            let _ = nix::unistd::read(timer, &mut [0; 8]);
        }
    }

    fn read(&mut self, index: usize, seen: &mut dyn FnMut(usize, u64)) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(count) = self.clients[index].read(&mut buffer) {
            self.take(index, &buffer[..count], seen);
            if count < buffer.len() {
                break;
            }
        }
        self.buffer = buffer;
        self.clients[index].write_rest();
    }

    fn take(&mut self, index: usize, bytes: &[u8], seen: &mut dyn FnMut(usize, u64)) {
        if self.clients[index].held.is_empty() {
            let taken = self.frames(index, bytes, seen);
            self.clients[index].held.extend_from_slice(&bytes[taken..]);
        } else {
            let mut held = std::mem::take(&mut self.clients[index].held);
            held.extend_from_slice(bytes);
            let taken = self.frames(index, &held, seen);
            held.drain(..taken);
            self.clients[index].held = held;
        }
    }

    /// Goes through whole frames; gives where the rest begins.
    fn frames(&mut self, index: usize, bytes: &[u8], seen: &mut dyn FnMut(usize, u64)) -> usize {
        let mut at = 0;
        while let Some(len) = self.wire.frame_len(&bytes[at..]) {
            let frame = &bytes[at..at + len];
            at += len;
            if let Some(answer) = self.wire.answer(frame) {
                self.clients[index].say(&answer);
            }
            match &mut self.recorded {
                Some((own, kept)) if *own == index => {
                    kept.extend_from_slice(self.wire.body(frame));
                }
                _ if index < self.clients.len() - 1 => {
                    self.numbers(frame, &mut |seq| seen(index, seq))
                }
                _ => {}
            }
        }
        at
    }

    /// The number at its place; a longer frame may have several events.
    fn numbers(&mut self, frame: &[u8], seen: &mut dyn FnMut(u64)) {
        let Some(shape) = self.shape else {
            if let Some(at) = frame.windows(MARK.len()).position(|bytes| bytes == MARK) {
                self.shape = Some(Shape { from_end: frame.len() - at, frame_len: frame.len() });
                seen(number(&frame[at + MARK.len()..]));
            }
            return;
        };
        if frame.len() > shape.frame_len + shape.frame_len / 2 {
            all_numbers(frame, seen);
        } else if let Some(at) = frame.len().checked_sub(shape.from_end)
            && frame[at..].starts_with(MARK)
        {
            seen(number(&frame[at + MARK.len()..]));
        }
    }
}

fn number(digits: &[u8]) -> u64 {
    digits[..DIGITS].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// Searched for, wherever they are.
fn all_numbers(bytes: &[u8], seen: &mut dyn FnMut(u64)) {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(MARK.len()).position(|bytes| bytes == MARK) {
        at += found + MARK.len();
        if bytes.len() - at >= DIGITS && bytes[at..at + DIGITS].iter().all(u8::is_ascii_digit) {
            seen(number(&bytes[at..]));
        }
    }
}
