//! Agent transport: the agent link as a port, over a channel of this process, standard input and output,
//! or a Unix socket (docs/agent-link.md).
//!
//! Bytes become frames, and queued frames are written in any pieces: the agent is trusted to read a
//! stream, so no frame waits for its reader. Frames leave in the order of the queue.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    io::IoSlice,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use bytes::Buf;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::uio::writev,
    unistd::{dup2_stdin, dup2_stdout, read},
};

use crate::{broker::AckMode, frame::FrameDecoder};

use super::{
    error::StartError,
    port::{FromPort, Notices, OutFrame},
};

/// Most reads in one turn.
const READS_PER_TURN: usize = 16;

/// The way to the agent.
#[derive(Debug)]
#[non_exhaustive]
pub enum AgentTransport {
    /// A channel to an agent in this process, see [`AgentTransport::channel`].
    Channel(UnixStream),
    /// Standard input and output of this process. At its end the server replaces both by `/dev/null`,
    /// so the agent sees the end of the link before the end of the process.
    Stdio,
    /// A Unix socket with the agent listening.
    Unix(PathBuf),
}

impl AgentTransport {
    /// A transport to an agent in this process, and the agent's end of it.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn channel() -> io::Result<(Self, UnixStream)> {
        let (own, agent) = UnixStream::pair()?;
        Ok((Self::Channel(own), agent))
    }

    /// Descriptors for reading and writing.
    fn open(self) -> Result<(OwnedFd, OwnedFd), StartError> {
        // A descriptor for each direction, as epoll has one registration for each.
        let both = |stream: UnixStream| Ok((stream.try_clone()?.into(), stream.into()));
        match self {
            Self::Channel(stream) => both(stream),
            Self::Stdio => Ok((
                io::stdin().as_fd().try_clone_to_owned()?,
                io::stdout().as_fd().try_clone_to_owned()?,
            )),
            Self::Unix(path) => match UnixStream::connect(&path) {
                Ok(stream) => both(stream),
                Err(error) => Err(StartError::AgentUnreachable(path.display().to_string(), error)),
            },
        }
    }
}

/// Result of a turn.
#[derive(Debug)]
pub(super) enum LinkTurn {
    /// All possible reads and writes were done.
    Dry,
    /// There may be more to read.
    More,
    /// The agent has closed the link.
    Ended,
    /// The stream is invalid.
    Broken(String),
}

#[derive(Debug)]
pub(super) struct LinkPort {
    from_agent: OwnedFd,
    to_agent: OwnedFd,
    decoder: FrameDecoder,
    queue: VecDeque<OutFrame>,
    /// Number of written bytes of the first frame in the queue.
    written: usize,
    /// Reading is on.
    pub(super) reading: bool,
    /// The broker allows reading.
    pub(super) wanted: bool,
    hung_up: bool,
    stdio: bool,
}

impl LinkPort {
    pub(super) fn open(transport: AgentTransport, max_frame: usize) -> Result<Self, StartError> {
        let stdio = matches!(transport, AgentTransport::Stdio);
        let (from_agent, to_agent) = transport.open()?;
        for fd in [&from_agent, &to_agent] {
            let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(io::Error::from)?;
            let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
            fcntl(fd, FcntlArg::F_SETFL(flags)).map_err(io::Error::from)?;
        }
        Ok(Self {
            from_agent,
            to_agent,
            decoder: FrameDecoder::new(max_frame),
            queue: VecDeque::new(),
            written: 0,
            reading: true,
            wanted: true,
            hung_up: false,
            stdio,
        })
    }

    /// Descriptors to register: for reading, for writing.
    pub(super) fn descriptors(&self) -> (RawFd, RawFd) {
        (self.from_agent.as_raw_fd(), self.to_agent.as_raw_fd())
    }

    /// Closes the link, at standard input and output too. At its end the process may stay in the kernel
    /// for as long as a workload blocks a pipe, and the agent must not wait for that.
    pub(super) fn hang_up(self) {
        if self.stdio
            && let Ok(null) = File::options().read(true).write(true).open("/dev/null")
            && let Err(errno) = dup2_stdin(&null).and_then(|()| dup2_stdout(&null))
        {
            log::warn!("cannot close the agent link: {}", errno.desc());
        }
    }

    pub(super) fn push(&mut self, frame: OutFrame) {
        self.queue.push_back(frame);
    }

    /// True if no frame waits, or none can be written any more.
    pub(super) fn is_flushed(&self) -> bool {
        self.queue.is_empty() || self.hung_up
    }

    /// Writes as much as possible, and reads for one turn.
    pub(super) fn turn(
        &mut self,
        buffer: &mut [u8],
        events: &mut Vec<FromPort>,
        notices: &mut Notices,
    ) -> LinkTurn {
        if self.hung_up {
            return LinkTurn::Dry;
        }
        if !self.flush(notices) {
            self.queue.clear();
            self.written = 0;
            // Its last messages are still read, up to end-of-file; unless reading is off.
            if !self.wanted {
                self.hung_up = true;
                return LinkTurn::Ended;
            }
        }
        if !self.reading {
            return LinkTurn::Dry;
        }
        for _ in 0..READS_PER_TURN {
            match read(&self.from_agent, buffer) {
                Ok(0) => return self.end(),
                Ok(count) => {
                    if let Err(error) = self.take(&buffer[..count], events) {
                        return LinkTurn::Broken(error.to_string());
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return LinkTurn::Dry,
                // The agent is gone, with unread frames in its socket.
                Err(Errno::ECONNRESET) => return self.end(),
                Err(errno) => return LinkTurn::Broken(errno.desc().to_owned()),
            }
        }
        LinkTurn::More
    }

    fn take(
        &mut self,
        mut bytes: &[u8],
        events: &mut Vec<FromPort>,
    ) -> Result<(), crate::frame::FrameError> {
        while let Some(frame) = self.decoder.next_frame(&mut bytes)? {
            events.push(FromPort::Frame(frame));
        }
        Ok(())
    }

    fn end(&mut self) -> LinkTurn {
        self.hung_up = true;
        // An agent ending in order sends whole frames, so half a frame is a fault of its stream.
        if self.decoder.is_mid_frame() {
            return LinkTurn::Broken("it ended in the middle of a message".to_owned());
        }
        LinkTurn::Ended
    }

    /// Writes as much as possible; false if the agent has closed its end. With reading off, this is the
    /// only way to notice that.
    fn flush(&mut self, notices: &mut Notices) -> bool {
        while let Some(frame) = self.queue.front() {
            let mut head = Vec::with_capacity(frame.frame.head_len());
            frame.frame.put_head(&mut head);
            let mut whole = head.chain(&frame.frame.body()[..]);
            whole.advance(self.written);
            let slices = [IoSlice::new(whole.first_ref()), IoSlice::new(whole.last_ref())];
            match writev(&self.to_agent, &slices) {
                Ok(count) => {
                    self.written += count;
                    if self.written == frame.frame.len() {
                        if frame.ack != AckMode::None {
                            notices.written = Some(frame.seq);
                        }
                        self.queue.pop_front();
                        self.written = 0;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return true,
                Err(errno) => {
                    log::debug!("cannot write to the agent: {}", errno.desc());
                    return false;
                }
            }
        }
        true
    }
}
