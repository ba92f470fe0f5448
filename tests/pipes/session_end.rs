//! The end of a session waits for its reader, and for no other
//! (docs/differences.md#22-connectionclosed-and-the-next-reader).

use std::{
    fs::{self, OpenOptions},
    io::Write,
};

use fifogate::pb::{
    ank_base::{self as pb, request::RequestContent},
    control_api::to_ankaios::ToAnkaiosEnum,
};
use testkit::{TestServer, accepted, frame_of, hello_of, manifest, wait_for};

use super::super::is_served;

/// No length of a frame.
const GARBAGE: [u8; 10] = [0xff; 10];

/// Its log tells when nobody has a pair open.
fn gate() -> TestServer {
    TestServer::with(&manifest(&["a", "b"]), &["-v"])
}

fn wait_until_unused(gate: &TestServer, workload: &str) {
    let line = format!("nobody has the pair of {workload}.");
    wait_for("an unused pair", || gate.log().contains(&line).then_some(()));
}

fn wait_until_refused(gate: &TestServer, workload: &str, times: u64) {
    let malformed = || gate.status_of(workload)["malformed"] == times;
    wait_for("the refusal", || malformed().then_some(()));
}

#[test]
fn end_of_a_session_does_not_outlive_its_reader() {
    let gate = gate();
    fs::write(gate.pair("a").join("output"), GARBAGE).unwrap();
    // Its reader was there, and has left the end of its session in the pipe.
    let mut refused = gate.open("b");
    refused.send(hello_of("9.0.0"));
    wait_until_refused(&gate, "b", 1);
    drop(refused);
    for workload in ["a", "b"] {
        wait_until_unused(&gate, workload);
        let mut next = gate.open(workload);
        // Whatever waits for a reader would be there before the answer to this.
        next.hello();
        is_served(&mut next);
    }
}

#[test]
fn end_of_a_session_waits_for_a_reader_that_comes_soon_or_beside_a_writer() {
    let gate = gate();
    let pair = gate.pair("a");
    fs::write(pair.join("output"), GARBAGE).unwrap();
    let mut late = gate.open("a");
    assert_eq!(late.closed(), "Frame length is not a varint of at most 64 bits");
    drop(late);
    // A writer that stays keeps it: a shell with an open descriptor, say.
    let mut writer = OpenOptions::new().write(true).open(pair.join("output")).unwrap();
    writer.write_all(&frame_of(hello_of("9.0.0"))).unwrap();
    wait_until_refused(&gate, "a", 2);
    drop(gate.connect("b"));
    // As long as it takes for a pair without a writer.
    wait_until_unused(&gate, "b");
    let reason = "Unsupported protocol version '9.0.0'. Currently supported '1'";
    assert_eq!(gate.open("a").closed(), reason);
}

#[test]
fn answers_owed_to_a_session_that_ended_wait_on_without_its_end() {
    let gate = gate();
    let field_mask = vec!["agents".to_owned()];
    let ask = pb::CompleteStateRequest { field_mask, subscribe_for_events: false };
    let request_content = Some(RequestContent::CompleteStateRequest(ask));
    let request = pb::Request { request_id: "r".to_owned(), request_content };
    let read = frame_of(ToAnkaiosEnum::Request(request));
    let bytes = [frame_of(hello_of("1.0.0")), read, GARBAGE.to_vec()].concat();
    fs::write(gate.pair("a").join("output"), bytes).unwrap();
    wait_until_unused(&gate, "a");
    let mut late = gate.open("a");
    assert_eq!(late.receive(), accepted());
    assert_eq!(late.response().0, "r");
    late.hello();
    is_served(&mut late);
}
