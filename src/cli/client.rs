//! Client of a control interface: the workload's side of a pair, for one command.
//!
//! It opens the pipes of a folder, begins a session with a `Hello`, and sends requests; responses
//! come out in order. Every wait ends at its deadline or on a stop. Fields are named from
//! fifogate's side: the client writes `from_workload` and reads `to_workload`. Bytes of an earlier
//! session are skipped.

use std::{
    collections::VecDeque,
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    iter,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use nix::{errno::Errno, fcntl::OFlag, poll::PollFlags};
use prost::Message;

use super::{
    args::ClientArgs,
    error::CliError,
    pair_lock::PairLock,
    wait::{Stop, Woken, wait},
    writer_close::WriterClose,
};
use crate::{
    frame::{self, FrameDecoder},
    pb::{
        ank_base::{Request, request::RequestContent, response::ResponseContent},
        control_api::{
            FromAnkaios, Hello, ToAnkaios, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum,
        },
    },
};

/// Protocol version of this client, equal to the version of the SDKs.
const VERSION: &str = "1.0.0";
/// Most bytes of one answer. The server of the pipes is trusted. The bound only keeps a torn stream
/// from being read as an endless message.
const MAX_ANSWER: usize = 1 << 30;

/// An open session.
pub(super) struct Client {
    dir: PathBuf,
    timeout: Duration,
    from_workload: File,
    to_workload: File,
    /// Reports closes of the write end of `to_workload`.
    writer_close: WriterClose,
    has_departed: bool,
    decoder: FrameDecoder,
    /// Message bodies read, and not yet decoded.
    received: VecDeque<Bytes>,
    /// Prefix of our request ids, unique among processes. A process id alone is not enough: an
    /// earlier container may have had the same one, and its answers may still be in the pipe.
    id_prefix: String,
    requests: u64,
    /// Held as long as the session is used.
    _lock: Option<PairLock>,
}

/// Outcome of a wait for a response.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
pub(super) enum Received {
    Response(ResponseContent),
    /// Another process sent a `Hello` through these pipes. Requests are still accepted, but earlier
    /// subscriptions are gone.
    Restarted,
    Stopped,
    TimedOut,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
enum Incoming {
    Message(FromAnkaiosEnum),
    Stopped,
    TimedOut,
}

impl ClientArgs {
    /// The folder given by `-d`, or the default of this workload.
    pub(super) fn dir(&self) -> PathBuf {
        self.dir_and_origin().0
    }

    fn dir_and_origin(&self) -> (PathBuf, Origin) {
        dir_and_origin(self.dir.as_deref(), env::var_os("CONTROL_INTERFACE_DIR"))
    }
}

/// Origin of the name of a pair's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment,
    Default,
}

fn dir_and_origin(given: Option<&Path>, own: Option<OsString>) -> (PathBuf, Origin) {
    // Empty counts as not set, as in a shell's `${NAME:-}`.
    match (given, own.filter(|dir| !dir.is_empty())) {
        (Some(given), _) => (given.to_owned(), Origin::Flag),
        (None, Some(own)) => (own.into(), Origin::Environment),
        (None, None) => ("/run/ankaios/control_interface".into(), Origin::Default),
    }
}

impl Client {
    /// Opens the pipes named by `args`, and a session in them.
    ///
    /// # Errors
    /// `Away` if the pipes do not exist, have no server, or the `Hello` gets no answer in time;
    /// `Busy` if another command of fifogate uses them; `Quiet` on a stop.
    pub(super) fn connect(args: &ClientArgs, stop: &Stop) -> Result<Self, CliError> {
        let (dir, origin) = args.dir_and_origin();
        Self::open(&dir, args.timeout, stop).map_err(|error| match origin {
            Origin::Environment => {
                error.with_hint("the folder comes from $CONTROL_INTERFACE_DIR; -d names another")
            }
            Origin::Flag | Origin::Default => error,
        })
    }

    fn open(dir: &Path, timeout: Duration, stop: &Stop) -> Result<Self, CliError> {
        let until = Instant::now() + timeout;
        let lock = PairLock::take(dir, until, stop)?;
        // The wait for another command does not count: the deadline is for fifogate.
        let until = Instant::now() + timeout;
        // The read end first: the answer to our `Hello` needs a reader.
        let to_workload = open_fifo(dir, "input", OpenOptions::new().read(true))?;
        let from_workload = open_fifo(dir, "output", OpenOptions::new().write(true))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut client = Self {
            dir: dir.to_owned(),
            timeout,
            from_workload,
            to_workload,
            writer_close: WriterClose::none(),
            has_departed: false,
            decoder: FrameDecoder::new(MAX_ANSWER),
            received: VecDeque::new(),
            id_prefix: format!("fifogate-{}-{:x}", process::id(), now.as_nanos()),
            requests: 0,
            _lock: lock,
        };
        // From before the `Hello` on, so no end of the answering fifogate is missed.
        let writer_close = WriterClose::of(&dir.join("input"));
        client.discard_leftovers(until)?;
        client.put(ToAnkaiosEnum::Hello(Hello { protocol_version: VERSION.to_owned() }))?;
        client.await_accepted(until, stop)?;
        // A fifogate started just now has opened and closed the pipe once: not the close to wait
        // for.
        writer_close.take();
        client.writer_close = writer_close;
        Ok(client)
    }

    /// Sends a request under a new id, and returns the id.
    pub(super) fn send(&mut self, content: RequestContent) -> Result<String, CliError> {
        self.requests += 1;
        let id = format!("{}-{}", self.id_prefix, self.requests);
        self.send_as(&id, content)?;
        Ok(id)
    }

    /// Sends a request under the id of an earlier one.
    pub(super) fn send_as(&mut self, id: &str, content: RequestContent) -> Result<(), CliError> {
        let request_id = id.to_owned();
        self.put(ToAnkaiosEnum::Request(Request { request_id, request_content: Some(content) }))
    }

    /// Waits for the next response to the request `id`, and skips responses to others.
    ///
    /// # Errors
    /// The response is an error, or the session is closed.
    pub(super) fn response(
        &mut self,
        id: &str,
        until: Option<Instant>,
        stop: &Stop,
    ) -> Result<Received, CliError> {
        loop {
            let response = match self.incoming(until, stop)? {
                Incoming::Stopped => return Ok(Received::Stopped),
                Incoming::TimedOut => return Ok(Received::TimedOut),
                Incoming::Message(FromAnkaiosEnum::Response(response)) => response,
                Incoming::Message(FromAnkaiosEnum::ConnectionClosed(closed)) => {
                    return Err(self.failed(&format!("the session was closed: {}", closed.reason)));
                }
                Incoming::Message(FromAnkaiosEnum::ControlInterfaceAccepted(_)) => {
                    return Ok(Received::Restarted);
                }
            };
            match response.response_content {
                // A pair outlives its clients: the pipe may hold answers for an earlier one.
                _ if response.request_id != id => {
                    log::debug!("skipped a response to another request, {}", response.request_id);
                }
                None => log::warn!("skipped a response without content"),
                Some(ResponseContent::Error(error)) if error.message == "Access denied" => {
                    return Err(CliError::denied(format!("{}: Access denied", self.dir.display())));
                }
                Some(ResponseContent::Error(error)) => return Err(self.failed(&error.message)),
                Some(content) => return Ok(Received::Response(content)),
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) fn ask(&mut self, content: RequestContent) -> Result<ResponseContent, CliError> {
        let id = self.send(content)?;
        let due = Some(self.answer_due());
        loop {
            match self.response(&id, due, &Stop::never())? {
                Received::Response(content) => return Ok(content),
                // The request is still answered, in the new session.
                Received::Restarted => {}
                Received::Stopped | Received::TimedOut => return Err(self.no_answer()),
            }
        }
    }

    /// Deadline of the answer to a request sent now.
    pub(super) fn answer_due(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The error for a missing answer.
    pub(super) fn no_answer(&self) -> CliError {
        self.away(&format!("no answer within {} s (--timeout)", self.timeout.as_secs_f64()))
    }

    /// The error for a response of another type than requested.
    pub(super) fn unexpected(&self, content: &ResponseContent) -> CliError {
        self.failed(&format!("an answer to another question came: {content:?}"))
    }

    /// Reads and drops everything in the pipe before our `Hello`.
    ///
    /// The bytes are not decoded: a killed writer may have left part of a message. All bytes
    /// written later begin with a whole one.
    fn discard_leftovers(&mut self, until: Instant) -> Result<(), CliError> {
        let mut buffer = [0; 4096];
        while Instant::now() < until {
            match self.to_workload.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => log::debug!("skipped {len} bytes of an earlier session"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
        Ok(())
    }

    fn await_accepted(&mut self, until: Instant, stop: &Stop) -> Result<(), CliError> {
        loop {
            match self.incoming(Some(until), stop)? {
                Incoming::Message(FromAnkaiosEnum::ControlInterfaceAccepted(_)) => return Ok(()),
                Incoming::Message(FromAnkaiosEnum::ConnectionClosed(closed)) => {
                    return Err(self.failed(&format!("the Hello was refused: {}", closed.reason)));
                }
                Incoming::Message(FromAnkaiosEnum::Response(_)) => {
                    log::debug!("skipped a response of an earlier session");
                }
                Incoming::Stopped => return Err(CliError::quiet()),
                Incoming::TimedOut => {
                    let seconds = self.timeout.as_secs_f64();
                    return Err(self.away(&format!(
                        "the Hello was not answered within {seconds} s (--timeout), though the \
                         pipes are open at the other end"
                    )));
                }
            }
        }
    }

    fn incoming(&mut self, until: Option<Instant>, stop: &Stop) -> Result<Incoming, CliError> {
        loop {
            while let Some(body) = self.received.pop_front() {
                match FromAnkaios::decode(body).map(|message| message.from_ankaios_enum) {
                    Ok(Some(message)) => return Ok(Incoming::Message(message)),
                    Ok(None) => log::warn!("skipped a message without content"),
                    // The framing is intact, so the next message can be read.
                    Err(error) => log::warn!("skipped an undecodable message: {error}"),
                }
            }
            if self.has_departed {
                // The pipe still holds everything written before the close.
                if self.fill()? == 0 {
                    return Err(self.gone());
                }
                continue;
            }
            let writer_close = self.writer_close.as_fd();
            let fds = iter::once(self.to_workload.as_fd()).chain(writer_close);
            let fds: Vec<_> = fds.map(|fd| (fd, PollFlags::POLLIN)).collect();
            match wait(&fds, until, stop).map_err(|error| self.broken(&error))? {
                Woken::Ready => {
                    // Asked before the read: the read then finds everything written before the close.
                    self.has_departed = self.writer_close.take();
                    self.fill()?;
                }
                Woken::Stopped => return Ok(Incoming::Stopped),
                Woken::TimedOut => return Ok(Incoming::TimedOut),
            }
        }
    }

    /// Reads once without blocking, and returns the number of bytes.
    fn fill(&mut self) -> Result<usize, CliError> {
        let mut buffer = [0; 16 << 10];
        let len = match self.to_workload.read(&mut buffer) {
            // End of file: the only writer is gone. Without a writer so far, poll would not report
            // the pipe.
            Ok(0) => return Err(self.gone()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(self.broken(&error)),
        };
        let mut rest = &buffer[..len];
        loop {
            match self.decoder.next_frame(&mut rest) {
                Ok(Some(body)) => self.received.push_back(body),
                Ok(None) => return Ok(len),
                Err(error) => {
                    return Err(self.failed(&format!("what comes cannot be read: {error}")));
                }
            }
        }
    }

    fn put(&mut self, content: ToAnkaiosEnum) -> Result<(), CliError> {
        let until = self.answer_due();
        let message = ToAnkaios { to_ankaios_enum: Some(content) };
        let frame = frame::encode(&message.encode_to_vec());
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match self.from_workload.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let pipe = (self.from_workload.as_fd(), PollFlags::POLLOUT);
                    let woken = wait(&[pipe], Some(until), &Stop::never());
                    if woken.map_err(|error| self.broken(&error))? == Woken::TimedOut {
                        return Err(self.away("nobody reads what we write"));
                    }
                }
                // No reader of `output`: fifogate keeps its end open for as long as it lives.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(self.gone()),
                Err(error) => return Err(self.broken(&error)),
            }
        }
        Ok(())
    }

    fn gone(&self) -> CliError {
        self.away("fifogate went away")
    }

    fn broken(&self, error: &io::Error) -> CliError {
        self.failed(&error.to_string())
    }

    fn failed(&self, what: &str) -> CliError {
        CliError::failed(format!("{}: {what}", self.dir.display()))
    }

    fn away(&self, what: &str) -> CliError {
        CliError::away(format!("{}: {what}", self.dir.display()))
    }
}

/// Opens a pipe without blocking, now and in later calls.
fn open_fifo(dir: &Path, name: &str, how: &mut OpenOptions) -> Result<File, CliError> {
    let path = dir.join(name);
    let shown = path.display();
    let missing = |what| {
        CliError::away(format!(
            "{what}; -d names the folder with a workload's pipes `input` and `output`"
        ))
    };
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(match dir.is_dir() {
                true => missing(format!("{shown}: no such file")),
                false => missing(format!("{}: no such folder", dir.display())),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(shut_out(&path, &error));
        }
        Err(error) => return Err(CliError::failed(format!("{shown}: {error}"))),
    };
    // Before the open: a regular file would open for writing, and swallow the requests.
    if !found.file_type().is_fifo() {
        let why = format!("{shown} is no named pipe (FIFO), and one belongs there");
        return Err(CliError::failed(why));
    }
    // Without O_NONBLOCK, opening a FIFO sleeps until its other end is open.
    how.custom_flags(OFlag::O_NONBLOCK.bits()).open(&path).map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw) {
            // Only the write end fails so: a read end opens without a writer.
            Some(Errno::ENXIO) => CliError::away(format!(
                "{shown}: nobody serves this control interface; start fifogate, or the Ankaios \
                 agent, and have it serve this workload"
            )),
            Some(Errno::EACCES) => CliError::failed(format!(
                "{shown}: {error}; only its owner, user {}, and root may use it",
                found.uid()
            )),
            _ => CliError::failed(format!("{shown}: {error}")),
        }
    })
}

/// The error for a pipe in a folder, or below one, that this user may not enter.
fn shut_out(pipe: &Path, error: &io::Error) -> CliError {
    // The deepest folder that is still seen is the one that keeps us out.
    let folders = pipe.ancestors().skip(1);
    let named = folders.map(|dir| if dir == Path::new("") { Path::new(".") } else { dir });
    let mut seen = named.filter_map(|dir| Some((dir, fs::metadata(dir).ok()?.uid())));
    CliError::failed(match seen.next() {
        Some((dir, owner)) => format!(
            "{}: {error}; run this command as the owner of this folder, user {owner}, or as root",
            dir.display()
        ),
        None => format!("{}: {error}", pipe.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_the_given_one_or_that_of_the_environment_or_the_default() {
        let dir = |given: Option<&str>, own: Option<&str>| {
            let (dir, origin) = dir_and_origin(given.map(Path::new), own.map(OsString::from));
            (dir.display().to_string(), origin)
        };
        let default = "/run/ankaios/control_interface".to_owned();
        assert_eq!(dir(Some("/a"), Some("/b")), ("/a".to_owned(), Origin::Flag));
        assert_eq!(dir(None, Some("/b")), ("/b".to_owned(), Origin::Environment));
        assert_eq!(dir(None, Some("")), (default.clone(), Origin::Default));
        assert_eq!(dir(None, None), (default, Origin::Default));
    }
}
