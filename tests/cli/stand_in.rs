//! Somebody at fifogate's end of a pair who says what a test wants, also what fifogate never says.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::Instant,
};

use fifogate::{
    frame::encode,
    pb::{
        ank_base::{
            CompleteState, CompleteStateResponse, Response, request::RequestContent,
            response::ResponseContent,
        },
        control_api::{
            FromAnkaios, ToAnkaios, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum,
        },
    },
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use prost::Message;
use tempfile::TempDir;

use testkit::{Found, Reader, accepted, soon};

/// A folder with a pair of FIFOs that nobody has open.
pub(crate) fn pair() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    make_fifos(dir.path());
    dir
}

/// The same at this path.
pub(crate) fn make_pair(dir: &Path) {
    fs::create_dir(dir).unwrap();
    make_fifos(dir);
}

fn make_fifos(dir: &Path) {
    for name in ["input", "output"] {
        mkfifo(&dir.join(name), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    }
}

/// Both pipes are open for reading and writing: so nothing depends on who came first, what a test
/// wrote stays until it is read, and the other side sees end-of-file when this is dropped.
pub(crate) struct StandIn {
    from_workload: Reader,
    to_workload: File,
}

impl StandIn {
    pub(crate) fn open(dir: &Path) -> Self {
        let open = |name| OpenOptions::new().read(true).write(true).open(dir.join(name)).unwrap();
        // Byte by byte: frames that nobody heard stay in the pipe.
        Self { from_workload: Reader::of(open("output"), 1), to_workload: open("input") }
    }

    /// The next message of the workload.
    pub(crate) fn hear(&mut self) -> ToAnkaiosEnum {
        let found = self.from_workload.next_frame(usize::MAX, soon()).unwrap();
        let Found::Message(body) = found else { panic!("the workload says nothing: {found:?}") };
        ToAnkaios::decode(body).unwrap().to_ankaios_enum.unwrap()
    }

    /// Whether nothing came that was not heard.
    pub(crate) fn has_heard_all(&mut self) -> bool {
        matches!(self.from_workload.next_frame(usize::MAX, Instant::now()).unwrap(), Found::Nothing)
    }

    pub(crate) fn hear_hello(&mut self) {
        let ToAnkaiosEnum::Hello(hello) = self.hear() else { panic!("no Hello") };
        assert_eq!(hello.protocol_version, "1.0.0");
    }

    pub(crate) fn hear_request(&mut self) -> (String, RequestContent) {
        match self.hear() {
            ToAnkaiosEnum::Request(request) => {
                (request.request_id, request.request_content.unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.to_workload.write_all(bytes).unwrap();
    }

    pub(crate) fn say(&mut self, content: FromAnkaiosEnum) {
        let message = FromAnkaios { from_ankaios_enum: Some(content) };
        self.say_bytes(&encode(&message.encode_to_vec()));
    }

    pub(crate) fn accept(&mut self) {
        self.say(accepted());
    }

    pub(crate) fn respond(&mut self, id: &str, content: ResponseContent) {
        let (request_id, response_content) = (id.to_owned(), Some(content));
        self.say(FromAnkaiosEnum::Response(Response { request_id, response_content }));
    }

    /// Answers with a state that has nothing but this version.
    pub(crate) fn respond_state(&mut self, id: &str, version: &str) {
        let desired =
            fifogate::pb::ank_base::State { api_version: version.to_owned(), ..Default::default() };
        let complete_state =
            Some(CompleteState { desired_state: Some(desired), ..Default::default() });
        let response = CompleteStateResponse { complete_state, altered_fields: None };
        self.respond(id, ResponseContent::CompleteStateResponse(response));
    }
}
