//! A fifogate with a workload `a` whose reader is tried, and `b`, which helps.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use fifogate::{
    frame::encode,
    pb::{
        ank_base::{
            CompleteState, CompleteStateRequest, Request, UpdateStateRequest,
            config_item::ConfigItemEnum, request::RequestContent, response::ResponseContent,
        },
        control_api::{Hello, ToAnkaios, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum},
    },
};
use prost::Message;

use super::reader::{Found, Reader};
use crate::common::{Gate, Workload};

const RIGHTS: &str = "{type: StateRule, operation: ReadWrite, filterMasks: [\"*\"]}";

pub(crate) fn manifest() -> String {
    let workload = |name| {
        format!(
            "  {name}:\n    runtime: r\n    agent: a\n    runtimeConfig: {name}\n    \
             controlInterfaceAccess: {{allowRules: [{RIGHTS}]}}\n"
        )
    };
    format!("apiVersion: v1\nworkloads:\n{}{}", workload("a"), workload("b"))
}

/// A text in which each place tells where it is, so that nothing of it can be missing or twice.
pub(crate) fn value(len: usize, seed: usize) -> String {
    let text: String = (seed..).take(len / 8 + 1).map(|place| format!("{place:08}")).collect();
    text[..len].to_owned()
}

pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) pair: PathBuf,
    /// `a`'s writing half. It stays when a reader leaves.
    output: File,
    helper: Workload,
    asked: usize,
}

impl World {
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::around(Gate::with(&manifest(), options))
    }

    pub(crate) fn around(gate: Gate) -> Self {
        let pair = gate.pair("a");
        let helper = Workload::connect(&gate.pair("b"));
        let output = open_output(&pair);
        Self { gate, pair, output, helper, asked: 0 }
    }

    pub(crate) fn reader(&self, piece: usize) -> Reader {
        Reader::open(&self.pair, piece)
    }

    fn send(&mut self, content: ToAnkaiosEnum) {
        let message = ToAnkaios { to_ankaios_enum: Some(content) };
        self.output.write_all(&encode(&message.encode_to_vec())).unwrap();
    }

    pub(crate) fn say_hello(&mut self) {
        self.send(ToAnkaiosEnum::Hello(Hello { protocol_version: "1.0.0".to_owned() }));
    }

    pub(crate) fn connect(&mut self, reader: &mut Reader) {
        self.say_hello();
        assert_eq!(reader.message(), accepted());
    }

    /// Has the config `big` be a text of this length.
    pub(crate) fn set(&mut self, text: &str) {
        self.helper.set_config("u", "big", text);
        let answer = self.helper.response();
        assert!(matches!(answer.1, ResponseContent::UpdateStateSuccess(_)), "{answer:?}");
    }

    /// Asks for it in the name of `a`; gives the request's id.
    pub(crate) fn ask(&mut self) -> String {
        self.asked += 1;
        let request_id = self.asked.to_string();
        let field_mask = vec!["desiredState.configs.big".to_owned()];
        let ask = CompleteStateRequest { field_mask, subscribe_for_events: false };
        let request_content = Some(RequestContent::CompleteStateRequest(ask));
        let request = Request { request_id: request_id.clone(), request_content };
        self.send(ToAnkaiosEnum::Request(request));
        request_id
    }

    /// Removes a workload.
    pub(crate) fn remove(&mut self, workload: &str) {
        let mask = format!("desiredState.workloads.{workload}");
        let update = UpdateStateRequest {
            new_state: Some(CompleteState::default()),
            update_mask: vec![mask],
        };
        self.helper.request("remove", RequestContent::UpdateStateRequest(update));
        let answer = self.helper.response();
        assert!(matches!(answer.1, ResponseContent::UpdateStateSuccess(_)), "{answer:?}");
    }

    /// What fifogate tells of itself.
    pub(crate) fn status(&self) -> String {
        let mut text = String::new();
        let socket = self.gate.run_dir.join("status.sock");
        UnixStream::connect(socket).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// When this is answered, fifogate has seen all that happened before.
    pub(crate) fn sync(&mut self) {
        self.helper.read("s", &["agents"], false);
        self.helper.response();
    }

    /// `a` wakes fifogate for nothing until it is looked at less often for a while.
    pub(crate) fn be_muted(&mut self, max_wakeups: usize) {
        self.output = OpenOptions::new().write(true).open("/dev/null").unwrap();
        for _ in 0..=max_wakeups {
            drop(open_output(&self.pair));
            self.sync();
        }
        self.output = open_output(&self.pair);
    }

    /// Kills fifogate and starts another, for so many times.
    pub(crate) fn restart(&mut self, times: usize) {
        for _ in 0..times {
            self.gate.kill_and_restart();
        }
        self.helper = Workload::connect(&self.gate.pair("b"));
    }
}

fn open_output(pair: &std::path::Path) -> File {
    OpenOptions::new().write(true).open(pair.join("output")).unwrap()
}

pub(crate) fn accepted() -> FromAnkaiosEnum {
    FromAnkaiosEnum::ControlInterfaceAccepted(Default::default())
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
