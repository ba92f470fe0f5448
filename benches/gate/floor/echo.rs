//! One client, one answer to each request.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::fd::AsRawFd,
    path::Path,
    sync::Arc,
    thread,
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use nix::fcntl::{FcntlArg, fcntl};

use super::{Hops, ends};
use crate::caller::set_blocking;

const REQUESTS: Token = Token(0);
const WAKER: Token = Token(1);

pub(super) fn serve(hops: Hops, dir: &Path, request_len: usize, pipe: usize) {
    let response = fs::read(dir.join("response")).unwrap();
    let (output, input) = ends(dir);
    if pipe > 0 {
        let size = i32::try_from(pipe).unwrap();
        fcntl(&input, FcntlArg::F_SETPIPE_SZ(size)).unwrap();
    }
    let server =
        Server { output, input, response, request_len, unanswered: 0, buffer: vec![0; 64 << 10] };
    match hops {
        Hops::Blocking => server.blocking(),
        Hops::Mio => server.mio(),
        Hops::Worker => server.with_worker(),
    }
}

struct Server {
    output: File,
    input: File,
    response: Vec<u8>,
    request_len: usize,
    /// Bytes of requests that were not answered.
    unanswered: usize,
    buffer: Vec<u8>,
}

impl Server {
    fn blocking(mut self) {
        while self.read() {
            self.answer_all();
        }
    }

    fn mio(mut self) {
        let (mut poll, mut events) = self.register();
        loop {
            poll.poll(&mut events, None).unwrap();
            if !self.read() {
                return;
            }
            self.answer_all();
        }
    }

    fn with_worker(mut self) {
        let (mut poll, mut events) = self.register();
        let waker = Waker::new(poll.registry(), WAKER).unwrap();
        let (to_worker, inbox) = unbounded();
        let (outbox, from_worker) = unbounded();
        let worker = thread::spawn(move || work(&inbox, &outbox, &Arc::new(waker)));
        loop {
            poll.poll(&mut events, None).unwrap();
            for event in &events {
                if event.token() == WAKER {
                    from_worker.try_iter().for_each(|()| self.answer());
                } else if !self.read() {
                    drop(to_worker);
                    return worker.join().unwrap();
                }
            }
            while self.unanswered >= self.request_len {
                self.unanswered -= self.request_len;
                to_worker.send(()).unwrap();
            }
        }
    }

    fn register(&self) -> (Poll, Events) {
        set_blocking(&self.output, false);
        let poll = Poll::new().unwrap();
        let mut source = SourceFd(&self.output.as_raw_fd());
        poll.registry().register(&mut source, REQUESTS, Interest::READABLE).unwrap();
        (poll, Events::with_capacity(1024))
    }

    /// Reads all that is there; `false` when the client has gone. A short read has emptied the pipe,
    /// and there is never as much in it as the buffer holds.
    fn read(&mut self) -> bool {
        match self.output.read(&mut self.buffer) {
            Ok(0) => false,
            Ok(count) => {
                assert!(count < self.buffer.len());
                self.unanswered += count;
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => panic!("{error}"),
        }
    }

    fn answer_all(&mut self) {
        while self.unanswered >= self.request_len {
            self.unanswered -= self.request_len;
            self.answer();
        }
    }

    /// One call for one frame, as fifogate promises (docs/differences.md#17-one-frame-at-a-time).
    fn answer(&mut self) {
        if let Err(error) = self.input.write_all(&self.response) {
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        }
    }
}

fn work(inbox: &Receiver<()>, outbox: &Sender<()>, waker: &Waker) {
    while let Ok(()) = inbox.recv() {
        for () in std::iter::once(()).chain(inbox.try_iter()) {
            outbox.send(()).unwrap();
        }
        waker.wake().unwrap();
    }
}
