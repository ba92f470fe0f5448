//! A client that asks the same again and again and costs next to nothing itself.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use testkit::Session;

use crate::{messages::frame_len, series::Times};

/// One client, with blocking calls.
pub(crate) struct Caller {
    output: File,
    input: File,
    pub(crate) request: Vec<u8>,
    /// The response to each request.
    pub(crate) response: Vec<u8>,
    buffer: Vec<u8>,
}

impl Caller {
    /// Over the pair of a workload whose session is open.
    pub(crate) fn over(workload: Session, request: Vec<u8>) -> Self {
        let (output, input) = (workload.output, workload.reader.input);
        set_blocking(&output, true);
        set_blocking(&input, true);
        let mut caller = Self { output, input, request, response: Vec::new(), buffer: Vec::new() };
        caller.buffer.resize(64 << 10, 0);
        caller.response = caller.learn();
        caller
    }

    /// Over the pair of a floor that will say `response`.
    pub(crate) fn at(dir: &Path, request: Vec<u8>, response: Vec<u8>) -> Self {
        let output = OpenOptions::new().write(true).open(dir.join("output")).unwrap();
        let input = File::open(dir.join("input")).unwrap();
        Self { output, input, request, response, buffer: vec![0; 64 << 10] }
    }

    /// Asks once, and gives the frame that comes.
    fn learn(&mut self) -> Vec<u8> {
        self.ask();
        let mut bytes = Vec::new();
        loop {
            let count = self.read();
            bytes.extend_from_slice(&self.buffer[..count]);
            if frame_len(&bytes) == Some(bytes.len()) {
                return bytes;
            }
        }
    }

    pub(crate) fn ask(&mut self) {
        self.output.write_all(&self.request).unwrap();
    }

    /// Reads the whole answer.
    pub(crate) fn take(&mut self) {
        let mut left = self.response.len();
        while left > 0 {
            left = left.checked_sub(self.read()).expect("more came than was asked for");
        }
    }

    fn read(&mut self) -> usize {
        let count = self.input.read(&mut self.buffer).unwrap();
        assert!(count > 0, "the server has gone");
        count
    }

    /// One round trip after the other, each timed. What comes is short, and always the same.
    pub(crate) fn round_trips(&mut self, time: Duration) -> Times {
        let mut times = Times::default();
        let end = Instant::now() + time;
        while Instant::now() < end {
            times.push(self.call());
            assert!(self.buffer.starts_with(&self.response), "something else came");
        }
        times
    }

    /// The same, with something before each that is not timed: it may change the request. Answers may
    /// differ, but not in their length.
    pub(crate) fn round_trips_after(
        &mut self,
        time: Duration,
        mut before: impl FnMut(usize, &mut [u8]),
    ) -> Times {
        let mut times = Times::default();
        let end = Instant::now() + time;
        for turn in 0.. {
            if Instant::now() >= end {
                break;
            }
            before(turn, &mut self.request);
            times.push(self.call());
        }
        times
    }

    /// How long one takes.
    pub(crate) fn call(&mut self) -> Duration {
        let begin = Instant::now();
        self.ask();
        self.take();
        begin.elapsed()
    }

    /// Keeps `window` requests under way; gives how many were answered in a second.
    pub(crate) fn pipelined(&mut self, window: usize, time: Duration) -> f64 {
        let len = self.response.len();
        let requests = self.request.repeat(window);
        let begin = Instant::now();
        let (mut asked, mut answered, mut read) = (0, 0, 0);
        loop {
            let more = if begin.elapsed() < time { window - (asked - answered) } else { 0 };
            if asked + more == answered {
                return answered as f64 / begin.elapsed().as_secs_f64();
            }
            self.output.write_all(&requests[..more * self.request.len()]).unwrap();
            asked += more;
            read += self.read();
            answered = read / len;
        }
    }
}

pub(crate) fn set_blocking(fd: &impl AsFd, blocking: bool) {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
    let mut wanted = flags - OFlag::O_NONBLOCK;
    wanted.set(OFlag::O_NONBLOCK, !blocking);
    fcntl(fd, FcntlArg::F_SETFL(wanted)).unwrap();
}
