//! A pipe whose lock somebody holds for as long as it likes.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mio::Interest;
use nix::{
    fcntl::{OFlag, SpliceFFlags, open, splice},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::{Mode, fstat},
    unistd::gettid,
};

use super::fifo::{Edges, Fifo, capacity, unread};

const PATIENCE: Duration = Duration::from_secs(20);

const NONBLOCKING: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// A thread that was started to make one call.
struct Call {
    name: &'static str,
    thread: i32,
    handle: JoinHandle<()>,
}

impl Call {
    fn start(name: &'static str, call: impl FnOnce() + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        let handle = thread::spawn(move || {
            sender.send(gettid().as_raw()).unwrap();
            call();
        });
        Self { name, thread: receiver.recv().unwrap(), handle }
    }

    /// Waits until the thread sleeps in this state: S can be interrupted, D not even by SIGKILL.
    fn wait_until_in(&self, state: char) {
        let end = Instant::now() + PATIENCE;
        let path = format!("/proc/self/task/{}/stat", self.thread);
        let is_in = || {
            let stat = fs::read_to_string(&path).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(state))
        };
        while !is_in() {
            assert!(!self.handle.is_finished(), "{} returned", self.name);
            assert!(Instant::now() < end, "{} does not sleep", self.name);
            thread::yield_now();
        }
    }
}

/// Descriptors for the calls that take the lock of a pipe, opened before anybody holds it.
struct Calls {
    pipes: [File; 5],
    path: PathBuf,
}

impl Calls {
    fn prepare(fifo: &Fifo) -> Self {
        let pipes = std::array::from_fn(|_| fifo.open(OFlag::O_RDWR).unwrap());
        Self { pipes, path: fifo.path.clone() }
    }

    /// Makes them, each on a thread of its own.
    fn start(self) -> Vec<Call> {
        let Self { pipes: [mut reads, mut writes, asks, measures, closes], path } = self;
        vec![
            Call::start("read", move || drop(reads.read(&mut [0; 10]))),
            Call::start("write", move || drop(writes.write(&[0; 10]))),
            Call::start("FIONREAD", move || _ = unread(&asks)),
            Call::start("F_GETPIPE_SZ", move || _ = capacity(&measures)),
            Call::start("close", move || drop(closes)),
            Call::start("open", move || drop(open(&path, NONBLOCKING, Mode::empty()))),
        ]
    }
}

/// The calls that take no lock. They return, or the test hangs here.
fn free_calls(fifo: &Fifo, pipe: &File) {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    Edges::of(pipe, Interest::READABLE | Interest::WRITABLE).next();
    fstat(pipe).unwrap();
    drop(fifo.handle());
    drop(pipe.try_clone().unwrap()); // not the last of this opening
}

/// Starts `splice` and waits until it sleeps, which it does with the lock of its pipe.
fn hold(from: impl AsFd + Send + 'static, to: impl AsFd + Send + 'static) -> Call {
    let call = Call::start("splice", move || {
        splice(from, None, to, None, 4096, SpliceFFlags::empty()).unwrap();
    });
    call.wait_until_in('S');
    call
}

/// While `holder` sleeps, all `calls` sleep, others return, and another FIFO is served.
fn sleep_until(fifo: &Fifo, pipe: &File, calls: Calls, holder: Call, let_go: impl FnOnce()) {
    let calls = calls.start();
    calls.iter().for_each(|call| call.wait_until_in('D'));
    free_calls(fifo, pipe);
    let other = Fifo::new();
    let (mut reader, mut writer) = other.pair(64 << 10);
    writer.write_all(b"frame").unwrap();
    reader.read_exact(&mut [0; 5]).unwrap();
    calls.iter().for_each(|call| call.wait_until_in('D'));
    let_go();
    holder.handle.join().unwrap();
    calls.into_iter().for_each(|call| call.handle.join().unwrap());
}

#[test]
fn splice_from_an_idle_socket_makes_every_call_that_needs_the_lock_of_its_pipe_sleep() {
    let fifo = Fifo::new();
    let (pipe, calls) = (fifo.open(OFlag::O_RDWR).unwrap(), Calls::prepare(&fifo));
    let (idle, source) = UnixStream::pair().unwrap();
    let holder = hold(source, File::options().write(true).open(&fifo.path).unwrap());
    sleep_until(&fifo, &pipe, calls, holder, || drop(idle));
}

#[test]
fn splice_into_a_full_socket_makes_every_call_that_needs_the_lock_of_its_pipe_sleep() {
    let fifo = Fifo::new();
    let (mut pipe, calls) = (fifo.open(OFlag::O_RDWR).unwrap(), Calls::prepare(&fifo));
    pipe.write_all(b"frame").unwrap();
    let (mut reader, mut full) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.write(&[0; 4096]).is_ok() {}
    full.set_nonblocking(false).unwrap();
    let holder = hold(File::open(&fifo.path).unwrap(), full);
    sleep_until(&fifo, &pipe, calls, holder, || drop(reader.read_to_end(&mut Vec::new())));
}
