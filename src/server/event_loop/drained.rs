//! Drain watch: asks the kernel about many pipes at once, instead of one `FIONREAD` for each.
//!
//! A pipe of one page is full with one frame in it, and writable again after its reader has drained it.
//! The kernel collects these edges in a second epoll set. No thread waits on this set: a reader wakes
//! nobody, and a query for hundreds of pipes is one call that never sleeps on a pipe.

use std::{io, os::fd::RawFd, time::Duration};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};

/// Most pipes reported by one call.
const MOST: usize = 512;

pub(super) struct DrainWatch {
    poll: Poll,
    events: Events,
}

impl DrainWatch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(MOST) })
    }

    /// Watches a pipe for free space.
    pub(super) fn register(&self, to_workload: RawFd, token: Token) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&to_workload), token, Interest::WRITABLE)
    }

    pub(super) fn deregister(&self, to_workload: RawFd) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&to_workload))
    }

    /// Tokens of the pipes with new free space since the last call. The flag is true if there may be
    /// more.
    pub(super) fn next(&mut self) -> io::Result<(impl Iterator<Item = Token>, bool)> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
        let more = self.events.iter().count() == MOST;
        // The leaving of the last reader is an event of this set, too, and no sign of free space.
        let tokens = self.events.iter().filter(|event| event.is_writable());
        Ok((tokens.map(mio::event::Event::token), more))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        os::fd::AsRawFd,
    };

    use nix::{
        fcntl::{FcntlArg, OFlag, fcntl},
        unistd::pipe2,
    };

    use super::*;

    fn tokens(drained: &mut DrainWatch) -> Vec<usize> {
        let (tokens, more) = drained.next().unwrap();
        let mut tokens: Vec<_> = tokens.map(|Token(token)| token).collect();
        tokens.sort_unstable();
        assert_eq!(more, tokens.len() == MOST);
        tokens
    }

    #[test]
    fn those_are_told_once_whose_readers_have_read_since() {
        let mut drained = DrainWatch::new().unwrap();
        let mut pipes: Vec<(File, File)> = Vec::new();
        for token in 0..3 {
            let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
            drained.register(writer.as_raw_fd(), Token(token)).unwrap();
            pipes.push((reader.into(), writer.into()));
        }
        assert_eq!(tokens(&mut drained), [0, 1, 2], "all are empty at first");
        assert_eq!(tokens(&mut drained), [0; 0]);
        pipes.iter_mut().for_each(|(_, writer)| writer.write_all(b"frame").unwrap());
        assert_eq!(tokens(&mut drained), [0; 0]);
        let mut buffer = [0; 5];
        pipes[0].0.read_exact(&mut buffer[..3]).unwrap();
        assert_eq!(tokens(&mut drained), [0; 0], "there is something left");
        pipes[0].0.read_exact(&mut buffer[..2]).unwrap();
        pipes[2].0.read_exact(&mut buffer).unwrap();
        pipes[2].1.write_all(b"next").unwrap();
        assert_eq!(tokens(&mut drained), [0], "in the other there is the next one");
        drained.deregister(pipes[1].1.as_raw_fd()).unwrap();
        pipes[1].0.read_exact(&mut buffer).unwrap();
        assert_eq!(tokens(&mut drained), [0; 0]);
    }
}
