//! A reader of `input` that reads pieces of one size, and says what it understands.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::Instant,
};

use fifogate::{
    frame::FrameDecoder,
    pb::control_api::{FromAnkaios, from_ankaios::FromAnkaiosEnum},
};
use nix::{
    libc::O_NONBLOCK,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use prost::Message;

use crate::common::PATIENCE;

/// What a reader comes to.
#[derive(Debug)]
pub(crate) enum Found {
    Message(Box<FromAnkaiosEnum>),
    /// End-of-file; whether that was in the middle of a frame.
    End(bool),
    /// So many bytes were read as were wanted.
    Enough,
}

pub(crate) struct Reader {
    input: File,
    piece: usize,
    decoder: FrameDecoder,
    /// What was read and not understood yet.
    rest: Vec<u8>,
    /// Bytes that were read, ever.
    read: usize,
}

impl Reader {
    pub(crate) fn open(pair: &Path, piece: usize) -> Self {
        let mut options = OpenOptions::new();
        let input = options.read(true).custom_flags(O_NONBLOCK).open(pair.join("input")).unwrap();
        Self { input, piece, decoder: FrameDecoder::new(64 << 20), rest: Vec::new(), read: 0 }
    }

    /// Whether it has the beginning of a frame, or less.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.decoder.is_mid_frame() || !self.rest.is_empty()
    }

    pub(crate) fn piece(&self) -> usize {
        self.piece
    }

    /// Reads at most `most` bytes, until there is something to say; tells how many were read.
    pub(crate) fn next_counted(&mut self, most: usize) -> (Found, usize) {
        let before = self.read;
        let found = self.next(most);
        (found, self.read - before)
    }

    /// Reads at most `most` bytes, until there is something to say.
    pub(crate) fn next(&mut self, mut most: usize) -> Found {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut rest = &self.rest[..];
            let frame = self.decoder.next_frame(&mut rest).expect("what is read makes no frames");
            let used = self.rest.len() - rest.len();
            self.rest.drain(..used);
            if let Some(body) = frame {
                let message = FromAnkaios::decode(body).expect("a frame is no message");
                let content = message.from_ankaios_enum.expect("a frame says nothing");
                return Found::Message(Box::new(content));
            }
            if most == 0 {
                return Found::Enough;
            }
            let mut buffer = vec![0; self.piece.min(most)];
            match self.input.read(&mut buffer) {
                Ok(0) => {
                    let torn = self.is_mid_frame();
                    (self.decoder, self.rest) = (FrameDecoder::new(64 << 20), Vec::new());
                    return Found::End(torn);
                }
                Ok(count) => {
                    most -= count;
                    self.read += count;
                    self.rest.extend_from_slice(&buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(end),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads all that is there now.
    pub(crate) fn take_all(&mut self) {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = self.input.read(&mut buffer) {
            self.rest.extend_from_slice(&buffer[..count]);
        }
    }

    fn wait(&self, end: Instant) {
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "nothing came");
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
    }

    /// The next message, wherever it ends; end-of-file before it is passed over.
    pub(crate) fn message(&mut self) -> FromAnkaiosEnum {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.next(usize::MAX) {
                Found::Message(message) => return *message,
                Found::End(_) => std::thread::yield_now(),
                Found::Enough => unreachable!(),
            }
        }
        panic!("nothing but end-of-file")
    }
}
