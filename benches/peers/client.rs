//! One client of a server, whatever they speak.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

/// The longest wait of a client that is not in a crowd yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a protocol cuts its bytes.
pub(crate) trait Wire {
    /// The length of the frame at the start of `bytes`, if all of it is there.
    fn frame_len(&self, bytes: &[u8]) -> Option<usize>;

    /// What a client has to say to a frame at once, if anything.
    fn answer(&self, _frame: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// The frame without what the protocol puts around a part of a longer message.
    fn body<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame
    }
}

/// Both directions, what is not a whole frame yet, and what is not written yet.
pub(crate) struct Client {
    pub(crate) input: File,
    pub(crate) output: File,
    pub(crate) held: Vec<u8>,
    unwritten: Vec<u8>,
    pub(crate) ended: bool,
}

impl Client {
    pub(crate) fn of(input: File, output: File) -> Self {
        Self { input, output, held: Vec::new(), unwritten: Vec::new(), ended: false }
    }

    pub(crate) fn unix(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::socket(stream.into())
    }

    pub(crate) fn tcp(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::socket(stream.into())
    }

    fn socket(socket: OwnedFd) -> Self {
        let output = socket.try_clone().unwrap();
        Self::of(socket.into(), output.into())
    }

    /// Writes as much as there is room for, and keeps the rest.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.unwritten.extend_from_slice(bytes);
        self.write_rest();
    }

    pub(crate) fn write_rest(&mut self) {
        while !self.unwritten.is_empty() && !self.ended {
            match self.output.write(&self.unwritten) {
                Ok(count) => drop(self.unwritten.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }

    /// All that is there, up to the size of the buffer; `None`: there is nothing.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.input.read(buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => return Some(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.ended = true,
        }
        None
    }

    /// Before it is in a crowd: waits for a frame that is wanted, answers to those before it.
    pub(crate) fn wait_for(&mut self, wire: &dyn Wire, wanted: impl Fn(&[u8]) -> bool) {
        loop {
            while let Some(len) = wire.frame_len(&self.held) {
                let frame: Vec<_> = self.held.drain(..len).collect();
                if let Some(answer) = wire.answer(&frame) {
                    self.say(&answer);
                }
                if wanted(&frame) {
                    return;
                }
            }
            self.read_more();
        }
    }

    /// Before it is in a crowd: waits for the end of a line.
    pub(crate) fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.held.windows(2).position(|two| two == b"\r\n") {
                let line = self.held.drain(..end + 2).collect();
                return String::from_utf8(line).unwrap();
            }
            self.read_more();
        }
    }

    fn read_more(&mut self) {
        let mut buffer = [0; 4096];
        let count = self.read(&mut buffer).expect("the server has gone, or is silent");
        self.held.extend_from_slice(&buffer[..count]);
    }
}
