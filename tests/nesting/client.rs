//! The client of the agent link: a message that does not decode costs that message.

use fifogate::{
    frame::encode,
    link::{AgentLink, MessageReceiver},
    pb::{
        agent_link::{Ack, ForwardedRequest, GateHello, ToAgent, to_agent::Content},
        ank_base as pb,
    },
};
use prost::Message;

use super::values::{tower, update};
use testkit::instance;

fn framed(content: Content) -> Vec<u8> {
    encode(&ToAgent { content: Some(content) }.encode_to_vec()).to_vec()
}

/// A request that is forwarded, with a config of this many levels.
fn forwarded(id: &str, mappings: usize, sequences: usize) -> Content {
    let request = pb::Request {
        request_id: id.to_owned(),
        request_content: Some(update(&tower(mappings, sequences))),
    };
    Content::Request(ForwardedRequest {
        instance_name: Some(instance("w")),
        request: Some(request),
    })
}

/// The rest of a request that does not decode.
fn head(id: &str) -> Content {
    let request = pb::Request { request_id: id.to_owned(), request_content: None };
    Content::Request(ForwardedRequest {
        instance_name: Some(instance("w")),
        request: Some(request),
    })
}

#[test]
fn request_that_does_not_decode_comes_without_content_and_the_stream_goes_on() {
    let hello = GateHello { protocol_version: "1.0.0".into(), run_dir: "/run/gate".into() };
    let ack = |id| Content::Ack(Ack { id });
    let contents =
        [Content::Hello(hello), ack(1), forwarded("a", 31, 0), forwarded("b", 0, 60), ack(5)];
    let mut bytes = contents.map(framed).concat();
    // Bytes that are no text where the content of a request is.
    let broken = [0x32, 9, 0x0a, 1, 0, 0x12, 4, 0x1a, 2, 0x0a, 0xff];
    bytes.extend(encode(&broken).iter());
    bytes.extend([forwarded("c", 200, 100), forwarded("d", 20, 0)].map(framed).concat());
    let mut link = AgentLink::open(&bytes[..], Vec::new(), "agent_A").unwrap();
    for expected in [head("a"), head("b"), ack(5), head("c"), forwarded("d", 20, 0)] {
        assert_eq!(link.recv().unwrap(), Some(expected));
    }
    assert_eq!(link.recv().unwrap(), None);
}

#[test]
fn request_whose_sender_cannot_be_read_is_skipped_and_a_broken_framing_is_the_end() {
    let mut bytes = encode(&[0x32, 2, 0x0a, 9]).to_vec();
    bytes.extend(encode(&[0xff, 0xff]).iter());
    bytes.extend(framed(Content::Ack(Ack { id: 3 })));
    bytes.extend([0xff; 10]);
    let mut receiver = MessageReceiver::new(&bytes[..]);
    assert_eq!(receiver.recv().unwrap(), Some(Content::Ack(Ack { id: 3 })));
    receiver.recv().unwrap_err();
}
