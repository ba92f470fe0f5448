//! A workload's session whose other side may go away at any time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fifogate::{
    frame::{FrameDecoder, encode},
    pb::{
        ank_base::{self as pb, request::RequestContent, response::ResponseContent},
        control_api::{
            FromAnkaios, Hello, ToAnkaios, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum,
        },
    },
    state::{Tree, convert},
};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use prost::Message;

/// What a living fifogate needs at most to answer a Hello.
const GREETING: Duration = Duration::from_secs(5);

pub(crate) struct Session {
    output: File,
    input: File,
    decoder: FrameDecoder,
    /// What was read and not looked at.
    read: Vec<u8>,
    /// Kept, as clearing a new one would take longer than reading into it.
    chunk: Box<[u8]>,
    last_id: u32,
}

impl Session {
    /// One attempt at the pair of a workload.
    pub(crate) fn open(run_dir: &Path, workload: &str) -> io::Result<Self> {
        let pair = pair_of(run_dir, workload)?;
        // Nothing blocks: whoever is to be there may have been killed.
        let flags = OFlag::O_NONBLOCK.bits();
        let output =
            OpenOptions::new().write(true).custom_flags(flags).open(pair.join("output"))?;
        let input = OpenOptions::new().read(true).custom_flags(flags).open(pair.join("input"))?;
        let decoder = FrameDecoder::new(64 << 20);
        let (read, chunk) = (Vec::new(), vec![0; 65_536].into());
        let mut session = Self { output, input, decoder, read, chunk, last_id: 0 };
        session.send(ToAnkaiosEnum::Hello(Hello { protocol_version: "1.0.0".to_owned() }))?;
        let end = Instant::now() + GREETING;
        loop {
            match session.receive(end)? {
                Some(FromAnkaiosEnum::ControlInterfaceAccepted(_)) => return Ok(session),
                Some(_) => {}
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Attempts until there is one.
    pub(crate) fn open_until(run_dir: &Path, workload: &str, end: Instant) -> Self {
        loop {
            match Self::open(run_dir, workload) {
                Ok(session) => return session,
                Err(error) => assert!(Instant::now() < end, "no session of {workload}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(&mut self, content: ToAnkaiosEnum) -> io::Result<()> {
        let message = ToAnkaios { to_ankaios_enum: Some(content) };
        self.output.write_all(&encode(&message.encode_to_vec()))
    }

    /// Asks something; gives the request's id.
    pub(crate) fn ask(&mut self, content: RequestContent) -> io::Result<String> {
        self.last_id += 1;
        let request_id = self.last_id.to_string();
        let request =
            pb::Request { request_id: request_id.clone(), request_content: Some(content) };
        self.send(ToAnkaiosEnum::Request(request))?;
        Ok(request_id)
    }

    /// The next message; `None` if none comes in time; an error if there is nobody at the other side.
    pub(crate) fn receive(&mut self, end: Instant) -> io::Result<Option<FromAnkaiosEnum>> {
        loop {
            if let Some(message) = self.next_read()? {
                return Ok(Some(message));
            }
            let left = end.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut polled = [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, left)? == 0 {
                return Ok(None);
            }
            match self.input.read(&mut self.chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.read.extend_from_slice(&self.chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn next_read(&mut self) -> io::Result<Option<FromAnkaiosEnum>> {
        let mut rest = self.read.as_slice();
        let body = self.decoder.next_frame(&mut rest).map_err(io::Error::other)?;
        let taken = self.read.len() - rest.len();
        self.read.drain(..taken);
        let Some(body) = body else { return Ok(None) };
        let message = FromAnkaios::decode(body).map_err(io::Error::other)?;
        Ok(message.from_ankaios_enum)
    }

    /// The next response.
    pub(crate) fn response(&mut self, end: Instant) -> io::Result<Option<pb::Response>> {
        match self.receive(end)? {
            Some(FromAnkaiosEnum::Response(response)) => Ok(Some(response)),
            Some(other) => Err(io::Error::other(format!("{other:?}"))),
            None => Ok(None),
        }
    }

    /// The answer to a request; what else comes meanwhile is dropped.
    pub(crate) fn answer(&mut self, id: &str, end: Instant) -> io::Result<ResponseContent> {
        loop {
            let response = self.response(end)?.ok_or(io::ErrorKind::TimedOut)?;
            if response.request_id == id {
                return response.response_content.ok_or_else(|| io::Error::other("no content"));
            }
        }
    }

    /// The state of now.
    pub(crate) fn state(&mut self, end: Instant) -> io::Result<Tree> {
        let ask = pb::CompleteStateRequest::default();
        let id = self.ask(RequestContent::CompleteStateRequest(ask))?;
        match self.answer(&id, end)? {
            ResponseContent::CompleteStateResponse(own) => {
                let state = own.complete_state.unwrap_or_default();
                convert::from_pb(&state).map_err(|error| io::Error::other(error.to_string()))
            }
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Follows masks; gives the request's id.
    pub(crate) fn subscribe(&mut self, masks: &[&str]) -> io::Result<String> {
        self.ask(RequestContent::CompleteStateRequest(pb::CompleteStateRequest {
            field_mask: masks.iter().map(|mask| (*mask).to_owned()).collect(),
            subscribe_for_events: true,
        }))
    }
}

fn pair_of(run_dir: &Path, workload: &str) -> io::Result<PathBuf> {
    let prefix = format!("{workload}.");
    for entry in fs::read_dir(run_dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(entry.path().join("control_interface"));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
