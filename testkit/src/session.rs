//! A workload's end of its pair.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use fifogate::{
    frame::encode,
    pb::{
        ank_base::{self as pb, request::RequestContent, response::ResponseContent},
        control_api::{Hello, ToAnkaios, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum},
    },
    state::{Tree, convert},
};
use nix::{libc::O_NONBLOCK, poll::PollFlags};
use prost::Message;

use crate::{Found, PATIENCE, Reader, is_ready, soon, state_of};

/// A living fifogate answers a Hello within this time.
const GREETING: Duration = Duration::from_secs(15);
const PIECE: usize = 65_536;

/// A workload with a pair. Unread messages stay in the pipe: a test that does not receive is a slow reader.
pub struct Session {
    /// The FIFO to fifogate.
    pub output: File,
    /// The FIFO from fifogate.
    pub reader: Reader,
    last_id: u32,
}

impl Session {
    /// Opens a pair and sends nothing.
    pub fn open(pair: &Path) -> Self {
        Self::try_open(pair).unwrap()
    }

    /// As [`Session::open`]; an error if nobody has the pair open at the other side.
    pub fn try_open(pair: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let output = options.write(true).custom_flags(O_NONBLOCK).open(pair.join("output"))?;
        Ok(Self { output, reader: Reader::try_open(pair, PIECE)?, last_id: 0 })
    }

    /// Over two files that do not have to be named anywhere.
    pub fn of(output: File, input: File) -> Self {
        Self { output, reader: Reader::of(input, PIECE), last_id: 0 }
    }

    /// Opens the pair and a session.
    pub fn connect(pair: &Path) -> Self {
        let mut session = Self::open(pair);
        session.hello();
        session
    }

    /// Opens the pair and a session behind a reader that died: fifogate first sends the rest of its messages.
    pub fn take_over(pair: &Path) -> Self {
        let mut session = Self::open(pair);
        session.hello_again();
        session
    }

    /// One attempt to open the pair of a workload and a session.
    pub fn try_connect(run_dir: &Path, workload: &str) -> io::Result<Self> {
        let pair = pair_of(run_dir, workload).ok_or(io::ErrorKind::NotFound)?;
        let mut session = Self::try_open(&pair)?;
        session.try_send(hello_of("1.0.0"))?;
        let end = Instant::now() + GREETING;
        while session.try_receive(end)?.ok_or(io::ErrorKind::TimedOut)? != accepted() {}
        Ok(session)
    }

    /// Attempts until there is a session.
    pub fn connect_until(run_dir: &Path, workload: &str) -> Self {
        let end = soon();
        loop {
            match Self::try_connect(run_dir, workload) {
                Ok(session) => return session,
                Err(error) => assert!(Instant::now() < end, "no session of {workload}: {error}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Begins a session where nothing else is to be received.
    pub fn hello(&mut self) {
        self.send(hello_of("1.0.0"));
        assert_eq!(self.receive(), accepted());
    }

    /// Begins a session anew, and drops the messages of the one before.
    pub fn hello_again(&mut self) {
        self.send(hello_of("1.0.0"));
        while self.receive() != accepted() {}
    }

    /// A Hello whose version is refused; waits for the refusal.
    pub fn refused_hello(&mut self, version: &str) {
        self.send(hello_of(version));
        while !matches!(self.receive(), FromAnkaiosEnum::ConnectionClosed(_)) {}
    }

    /// Writes these bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).expect("fifogate does not read");
    }

    /// Writes these bytes.
    pub fn try_write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let end = soon();
        while !bytes.is_empty() {
            match self.output.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !is_ready(&self.output, PollFlags::POLLOUT, end)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a message.
    pub fn send(&mut self, content: ToAnkaiosEnum) {
        self.try_send(content).unwrap();
    }

    /// Sends a message.
    pub fn try_send(&mut self, content: ToAnkaiosEnum) -> io::Result<()> {
        self.try_write(&frame_of(content))
    }

    /// Sends a request of this id.
    pub fn request(&mut self, id: &str, content: RequestContent) {
        self.send(request_of(id, content));
    }

    /// Sends a request; gives its id.
    pub fn ask(&mut self, content: RequestContent) -> String {
        self.try_ask(content).unwrap()
    }

    /// Sends a request; gives its id.
    pub fn try_ask(&mut self, content: RequestContent) -> io::Result<String> {
        self.last_id += 1;
        let id = self.last_id.to_string();
        self.try_send(request_of(&id, content))?;
        Ok(id)
    }

    /// Reads the state, or subscribes to it.
    pub fn read(&mut self, id: &str, masks: &[&str], subscribe: bool) {
        self.request(id, read_of(masks, subscribe));
    }

    /// Subscribes to masks; gives the request's id.
    pub fn subscribe(&mut self, masks: &[&str]) -> String {
        self.ask(read_of(masks, true))
    }

    /// Subscribes to masks; gives the request's id.
    pub fn try_subscribe(&mut self, masks: &[&str]) -> io::Result<String> {
        self.try_ask(read_of(masks, true))
    }

    /// Sets a config, the text of a custom event.
    pub fn set_config(&mut self, id: &str, key: &str, value: &str) {
        self.set_or_remove_config(id, key, Some(value.to_owned()));
    }

    /// Sets a config, or removes it.
    pub fn set_or_remove_config(&mut self, id: &str, key: &str, value: Option<String>) {
        self.request(id, config_update(key, value));
    }

    /// Sets a config and then removes a workload, by two requests that are written at once.
    pub fn set_config_and_remove(&mut self, key: &str, value: &str, workload: &str) {
        let removal = frame_of(request_of("half", removal_of(workload)));
        self.write(&[Self::frame_of_config(key, value), removal].concat());
    }

    /// The frame of a request to set a config.
    pub fn frame_of_config(key: &str, value: &str) -> Vec<u8> {
        frame_of(request_of("half", config_update(key, Some(value.to_owned()))))
    }

    /// The next message; `None` if none comes before `end`; an error at end-of-file.
    pub fn try_receive(&mut self, end: Instant) -> io::Result<Option<FromAnkaiosEnum>> {
        match self.reader.try_next(usize::MAX, end)? {
            Found::Message(message) => Ok(Some(message)),
            Found::End(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Found::Enough | Found::Nothing => Ok(None),
        }
    }

    /// The next message, if one comes in this time; `None` also at end-of-file.
    pub fn receive_within(&mut self, time: Duration) -> Option<FromAnkaiosEnum> {
        match self.try_receive(Instant::now() + time) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            message => message.unwrap(),
        }
    }

    /// Waits for end-of-file; a message before it fails the test, and so does silence.
    pub fn end_of_file(&mut self) {
        match self.try_receive(Instant::now() + PATIENCE) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            other => panic!("no end-of-file, but {other:?}"),
        }
    }

    /// The next message.
    pub fn receive(&mut self) -> FromAnkaiosEnum {
        self.receive_within(PATIENCE).expect("nothing came")
    }

    /// The next response; `None` if none comes before `end`.
    pub fn try_response(&mut self, end: Instant) -> io::Result<Option<pb::Response>> {
        match self.try_receive(end)? {
            Some(FromAnkaiosEnum::Response(response)) => Ok(Some(response)),
            Some(other) => Err(io::Error::other(format!("{other:?}"))),
            None => Ok(None),
        }
    }

    /// The next response, with its request's id; `None` if none comes in this time, or at end-of-file.
    pub fn response_within(&mut self, time: Duration) -> Option<(String, ResponseContent)> {
        match self.receive_within(time)? {
            FromAnkaiosEnum::Response(own) => Some((own.request_id, own.response_content.unwrap())),
            other => panic!("{other:?}"),
        }
    }

    /// The next response, with its request's id.
    pub fn response(&mut self) -> (String, ResponseContent) {
        self.response_within(PATIENCE).expect("nothing came")
    }

    /// The id and the text of the next message, an error.
    pub fn error(&mut self) -> (String, String) {
        match self.response() {
            (id, ResponseContent::Error(error)) => (id, error.message),
            other => panic!("{other:?}"),
        }
    }

    /// The next message, an answer to a read or an event.
    pub fn state_response(&mut self) -> pb::CompleteStateResponse {
        match self.response() {
            (_, ResponseContent::CompleteStateResponse(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    /// The next message, by which fifogate accepts an update.
    pub fn success(&mut self) -> pb::UpdateStateSuccess {
        match self.response() {
            (_, ResponseContent::UpdateStateSuccess(success)) => success,
            other => panic!("{other:?}"),
        }
    }

    /// The reason for which fifogate closes the session next.
    pub fn closed(&mut self) -> String {
        match self.receive() {
            FromAnkaiosEnum::ConnectionClosed(closed) => closed.reason,
            other => panic!("{other:?}"),
        }
    }

    /// The answer to a request; messages before it are dropped.
    pub fn answer(&mut self, id: &str) -> ResponseContent {
        self.try_answer(id, soon()).unwrap()
    }

    /// The answer to a request; messages before it are dropped.
    pub fn try_answer(&mut self, id: &str, end: Instant) -> io::Result<ResponseContent> {
        loop {
            let response = self.try_response(end)?.ok_or(io::ErrorKind::TimedOut)?;
            if response.request_id == id {
                return response.response_content.ok_or_else(|| io::Error::other("no content"));
            }
        }
    }

    /// The state of now.
    pub fn state(&mut self) -> Tree {
        let id = self.ask(read_of(&[], false));
        match self.answer(&id) {
            ResponseContent::CompleteStateResponse(own) => {
                convert::from_pb(&own.complete_state.unwrap()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Asks for the state until it is as wanted.
    pub fn until<T>(&mut self, what: &str, look: impl Fn(&Tree) -> Option<T>) -> T {
        let end = soon();
        loop {
            let state = self.state();
            if let Some(found) = look(&state) {
                return found;
            }
            let states = state.get(&["workloadStates"]);
            assert!(Instant::now() < end, "{what} did not come: {states:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a workload of agent_A is in a state, such as `Running(Ok)`; gives its id.
    pub fn until_state(&mut self, workload: &str, wanted: &str) -> String {
        self.until(&format!("{workload} {wanted}"), |tree| {
            let (id, state, _) = state_of(tree, workload)?;
            (state == wanted).then_some(id)
        })
    }

    /// Removes a workload from the desired state.
    pub fn remove_workload(&mut self, workload: &str) {
        let id = self.ask(removal_of(workload));
        let answer = self.answer(&id);
        assert!(matches!(answer, ResponseContent::UpdateStateSuccess(_)), "{answer:?}");
    }

    /// Asks for an update from the YAML of a desired state.
    #[cfg(feature = "manifest")]
    pub fn update(
        &mut self,
        desired: &str,
        masks: &[&str],
    ) -> Result<pb::UpdateStateSuccess, String> {
        let id = self.ask(update(desired, masks));
        match self.answer(&id) {
            ResponseContent::UpdateStateSuccess(success) => Ok(success),
            ResponseContent::Error(error) => Err(error.message),
            other => panic!("{other:?}"),
        }
    }
}

/// The folder of a workload's pair.
pub(crate) fn pair_of(run_dir: &Path, workload: &str) -> Option<PathBuf> {
    let prefix = format!("{workload}.");
    let mut entries = fs::read_dir(run_dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_own = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix);
    Some(entries.find(is_own)?.join("control_interface"))
}

/// A Hello of this version.
pub fn hello_of(version: &str) -> ToAnkaiosEnum {
    ToAnkaiosEnum::Hello(Hello { protocol_version: version.to_owned() })
}

/// The answer to a good Hello.
pub fn accepted() -> FromAnkaiosEnum {
    FromAnkaiosEnum::ControlInterfaceAccepted(Default::default())
}

/// The request that takes masks from a desired state in YAML.
#[cfg(feature = "manifest")]
pub fn update(desired: &str, masks: &[&str]) -> RequestContent {
    let text = format!("apiVersion: v1\n{desired}");
    let tree = fifogate::manifest::parse("update", &text).unwrap().updated.tree;
    update_of(convert::to_pb(&tree, convert::Fill::Sparse), masks)
}

/// The request that removes a workload.
pub fn removal_of(workload: &str) -> RequestContent {
    update_of(pb::CompleteState::default(), &[&format!("desiredState.workloads.{workload}")])
}

fn config_update(key: &str, value: Option<String>) -> RequestContent {
    let text = value.map(pb::config_item::ConfigItemEnum::String);
    let item = text.map(|text| pb::ConfigItem { config_item_enum: Some(text) });
    let configs = item.into_iter().map(|item| (key.to_owned(), item)).collect();
    let configs = Some(pb::ConfigMap { configs });
    let desired = pb::State { api_version: "v1".to_owned(), configs, ..Default::default() };
    let state = pb::CompleteState { desired_state: Some(desired), ..Default::default() };
    update_of(state, &[&format!("desiredState.configs.{key}")])
}

fn update_of(new_state: pb::CompleteState, masks: &[&str]) -> RequestContent {
    let update_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
    let new_state = Some(new_state);
    RequestContent::UpdateStateRequest(pb::UpdateStateRequest { new_state, update_mask })
}

fn read_of(masks: &[&str], subscribe_for_events: bool) -> RequestContent {
    let field_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
    let read = pb::CompleteStateRequest { field_mask, subscribe_for_events };
    RequestContent::CompleteStateRequest(read)
}

fn request_of(id: &str, content: RequestContent) -> ToAnkaiosEnum {
    let request_content = Some(content);
    ToAnkaiosEnum::Request(pb::Request { request_id: id.to_owned(), request_content })
}

/// The frame of a message.
pub fn frame_of(content: ToAnkaiosEnum) -> Vec<u8> {
    let message = ToAnkaios { to_ankaios_enum: Some(content) };
    encode(&message.encode_to_vec()).to_vec()
}
