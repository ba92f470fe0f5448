//! A fifogate with a workload `a` whose reader is tried, and `b`, which helps.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

use fifogate::pb::{
    ank_base::{
        CompleteStateRequest, config_item::ConfigItemEnum, request::RequestContent,
        response::ResponseContent,
    },
    control_api::from_ankaios::FromAnkaiosEnum,
};
use testkit::{Found, Reader, Session, TestServer, accepted, hello_of, removal_of};

pub(crate) fn manifest() -> String {
    testkit::manifest(&["a", "b"])
}

/// A text in which each place tells where it is, so that nothing of it can be missing or twice.
pub(crate) fn value(len: usize, seed: usize) -> String {
    let text: String = (seed..).take(len / 8 + 1).map(|place| format!("{place:08}")).collect();
    text[..len].to_owned()
}

pub(crate) struct World {
    pub(crate) gate: TestServer,
    pub(crate) pair: PathBuf,
    /// `a`'s writing half. It stays when a reader leaves.
    writer: Session,
    helper: Session,
}

impl World {
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::around(TestServer::with(&manifest(), options))
    }

    pub(crate) fn around(gate: TestServer) -> Self {
        let pair = gate.pair("a");
        let (helper, writer) = (gate.connect("b"), open_writer(&pair));
        Self { gate, pair, writer, helper }
    }

    pub(crate) fn reader(&self, piece: usize) -> Reader {
        Reader::open(&self.pair, piece)
    }

    pub(crate) fn say_hello(&mut self) {
        self.writer.send(hello_of("1.0.0"));
    }

    pub(crate) fn connect(&mut self, reader: &mut Reader) {
        self.say_hello();
        assert_eq!(reader.message(), accepted());
    }

    /// Has the config `big` be a text of this length.
    pub(crate) fn set(&mut self, text: &str) {
        self.helper.set_config("u", "big", text);
        self.helper.success();
    }

    /// Asks for it in the name of `a`; gives the request's id.
    pub(crate) fn ask(&mut self) -> String {
        let field_mask = vec!["desiredState.configs.big".to_owned()];
        let read = CompleteStateRequest { field_mask, subscribe_for_events: false };
        self.writer.ask(RequestContent::CompleteStateRequest(read))
    }

    /// Removes a workload.
    pub(crate) fn remove(&mut self, workload: &str) {
        self.helper.request("remove", removal_of(workload));
        self.helper.success();
    }

    /// When this is answered, fifogate has seen all that happened before.
    pub(crate) fn sync(&mut self) {
        self.helper.read("s", &["agents"], false);
        self.helper.response();
    }

    /// `a` wakes fifogate for nothing until it is looked at less often for a while.
    pub(crate) fn be_muted(&mut self, max_wakeups: usize) {
        self.writer.output = OpenOptions::new().write(true).open("/dev/null").unwrap();
        for _ in 0..=max_wakeups {
            drop(open_output(&self.pair));
            self.sync();
        }
        self.writer.output = open_output(&self.pair);
    }

    /// Kills fifogate and starts another, for so many times.
    pub(crate) fn restart(&mut self, times: usize) {
        for _ in 0..times {
            self.gate.kill_and_restart();
        }
        self.helper = self.gate.connect("b");
    }
}

fn open_output(pair: &Path) -> File {
    OpenOptions::new().write(true).open(pair.join("output")).unwrap()
}

/// Sends for `a`; what it is sent is for the readers.
fn open_writer(pair: &Path) -> Session {
    Session::of(open_output(pair), File::open("/dev/null").unwrap())
}

/// That a message is the answer to this request, with this text.
pub(crate) fn is_answer(message: FromAnkaiosEnum, id: &str, text: &str) {
    let FromAnkaiosEnum::Response(response) = message else { panic!("no response") };
    assert_eq!(response.request_id, id);
    let Some(ResponseContent::CompleteStateResponse(told)) = response.response_content else {
        panic!("{id}: no state")
    };
    let configs = told.complete_state.unwrap().desired_state.unwrap().configs.unwrap().configs;
    let Some(ConfigItemEnum::String(found)) = &configs["big"].config_item_enum else {
        panic!("{id}: no text")
    };
    assert!(found == text, "{id}: the text is another");
}

/// Reads so many bytes, which have to be the beginning of a frame.
pub(crate) fn read_some(reader: &mut Reader, bytes: usize) {
    let found = reader.next(bytes);
    assert!(matches!(found, Found::Enough), "{found:?}");
    assert!(reader.is_mid_frame());
}
