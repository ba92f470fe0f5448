//! The reading end of a FIFO that carries frames.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::Instant,
};

use bytes::Bytes;
use fifogate::{
    frame::FrameDecoder,
    pb::control_api::{FromAnkaios, from_ankaios::FromAnkaiosEnum},
};
use nix::{libc::O_NONBLOCK, poll::PollFlags};
use prost::Message;

use crate::{is_ready, soon};

/// The result of reading.
#[derive(Debug)]
pub enum Found<M> {
    /// A whole frame.
    Message(M),
    /// End-of-file; true if it came in the middle of a frame.
    End(bool),
    /// As many bytes were read as were wanted, and they end no frame.
    Enough,
    /// Nothing came in time.
    Nothing,
}

/// Reads pieces of at most one size.
pub struct Reader {
    /// The FIFO.
    pub input: File,
    decoder: FrameDecoder,
    /// Read and not decoded yet.
    rest: Vec<u8>,
    /// Kept, as clearing a new one would take longer than reading into it.
    piece: Box<[u8]>,
    read: usize,
}

impl Reader {
    /// Opens the `input` of a pair.
    pub fn open(pair: &Path, piece: usize) -> Self {
        Self::try_open(pair, piece).unwrap()
    }

    pub(crate) fn try_open(pair: &Path, piece: usize) -> io::Result<Self> {
        let input =
            OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(pair.join("input"))?;
        Ok(Self::of(input, piece))
    }

    /// Reads from this file.
    pub fn of(input: File, piece: usize) -> Self {
        let (decoder, piece) = (FrameDecoder::new(64 << 20), vec![0; piece].into());
        Self { input, decoder, rest: Vec::new(), piece, read: 0 }
    }

    /// Whether the beginning of a frame was read.
    pub fn is_mid_frame(&self) -> bool {
        self.decoder.is_mid_frame() || !self.rest.is_empty()
    }

    /// The most bytes that it reads at once.
    pub fn piece(&self) -> usize {
        self.piece.len()
    }

    /// Reads at most `most` bytes until a frame is whole.
    pub fn next_frame(&mut self, mut most: usize, end: Instant) -> io::Result<Found<Bytes>> {
        loop {
            let mut rest = &self.rest[..];
            let frame = self.decoder.next_frame(&mut rest).map_err(io::Error::other)?;
            let used = self.rest.len() - rest.len();
            self.rest.drain(..used);
            if let Some(body) = frame {
                return Ok(Found::Message(body));
            }
            if most == 0 {
                return Ok(Found::Enough);
            }
            if !is_ready(&self.input, PollFlags::POLLIN, end)? {
                return Ok(Found::Nothing);
            }
            let len = self.piece.len().min(most);
            match self.input.read(&mut self.piece[..len]) {
                Ok(0) => {
                    let torn = self.is_mid_frame();
                    (self.decoder, self.rest) = (FrameDecoder::new(64 << 20), Vec::new());
                    return Ok(Found::End(torn));
                }
                Ok(count) => {
                    most -= count;
                    self.read += count;
                    self.rest.extend_from_slice(&self.piece[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Reader::next_frame`], with the frame decoded.
    pub fn try_next(&mut self, most: usize, end: Instant) -> io::Result<Found<FromAnkaiosEnum>> {
        Ok(match self.next_frame(most, end)? {
            Found::Message(body) => {
                let message = FromAnkaios::decode(body).map_err(io::Error::other)?;
                let content = message.from_ankaios_enum;
                Found::Message(content.ok_or_else(|| io::Error::other("an empty message"))?)
            }
            Found::End(torn) => Found::End(torn),
            Found::Enough => Found::Enough,
            Found::Nothing => Found::Nothing,
        })
    }

    /// Reads at most `most` bytes until a message is whole.
    pub fn next(&mut self, most: usize) -> Found<FromAnkaiosEnum> {
        let found = self.try_next(most, soon()).expect("torn frames");
        assert!(!matches!(found, Found::Nothing), "nothing came");
        found
    }

    /// Bytes that were read, ever.
    pub fn total(&self) -> usize {
        self.read
    }

    /// The next message, wherever it ends. End-of-file before it is passed over.
    pub fn message(&mut self) -> FromAnkaiosEnum {
        let end = soon();
        while Instant::now() < end {
            match self.next(usize::MAX) {
                Found::Message(message) => return message,
                _ => thread::yield_now(),
            }
        }
        panic!("nothing but end-of-file")
    }

    /// Reads all that is in the pipe now.
    pub fn take_all(&mut self) {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = self.input.read(&mut buffer) {
            self.rest.extend_from_slice(&buffer[..count]);
            self.read += count;
        }
    }
}
