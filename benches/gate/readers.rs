//! Many subscribers, read by one thread.

use std::{fs::File, io::ErrorKind, io::Read, os::fd::AsRawFd};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};

use testkit::PATIENCE;

use crate::{caller::set_blocking, messages::frame_len};

/// The reading ends of many pipes.
pub(crate) struct Readers {
    poll: Poll,
    events: Events,
    inputs: Vec<File>,
    left: Vec<usize>,
    buffer: Vec<u8>,
}

impl Readers {
    pub(crate) fn new(inputs: Vec<File>) -> Self {
        let poll = Poll::new().unwrap();
        for (index, input) in inputs.iter().enumerate() {
            set_blocking(input, false);
            let mut source = SourceFd(&input.as_raw_fd());
            poll.registry().register(&mut source, Token(index), Interest::READABLE).unwrap();
        }
        let left = vec![0; inputs.len()];
        Self { poll, events: Events::with_capacity(1024), inputs, left, buffer: vec![0; 4096] }
    }

    /// Reads until each has got this many bytes more.
    pub(crate) fn take_each(&mut self, bytes: usize) {
        self.left.fill(bytes);
        let mut waiting = self.inputs.len();
        while waiting > 0 {
            self.poll.poll(&mut self.events, Some(PATIENCE)).unwrap();
            assert!(!self.events.is_empty(), "{waiting} subscribers were told nothing");
            for event in &self.events {
                let Token(index) = event.token();
                let count = read_all(&mut self.inputs[index], &mut self.buffer);
                let left = &mut self.left[index];
                assert!(count <= *left, "more came than was to come");
                *left -= count;
                waiting -= usize::from(count > 0 && *left == 0);
            }
        }
    }

    /// The frame that comes to all of them: as the first one gets it.
    pub(crate) fn first_frames(&mut self) -> Vec<u8> {
        let mut frames = vec![Vec::new(); self.inputs.len()];
        while frames.iter().any(|bytes| frame_len(bytes).is_none()) {
            self.poll.poll(&mut self.events, Some(PATIENCE)).unwrap();
            assert!(!self.events.is_empty(), "not all subscribers were told");
            for event in &self.events {
                let Token(index) = event.token();
                let count = read_all(&mut self.inputs[index], &mut self.buffer);
                frames[index].extend_from_slice(&self.buffer[..count]);
            }
        }
        assert!(frames.iter().all(|bytes| *bytes == frames[0]), "they were told different things");
        frames.swap_remove(0)
    }
}

/// All that is there: a frame is shorter than the buffer, so that a short read has emptied the pipe.
fn read_all(input: &mut File, buffer: &mut [u8]) -> usize {
    match input.read(buffer) {
        Ok(count) => {
            assert!(count > 0, "the server has gone");
            assert!(count < buffer.len());
            count
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}
