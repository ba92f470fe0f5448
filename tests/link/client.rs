//! The client of the link that agents in Rust use, at a stream that does not behave.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use fifogate::{
    frame::{FrameDecoder, encode},
    link::{AgentLink, CallError, LinkError, MessageReceiver, Owner, RejectCode},
    pb::agent_link::{Ack, FromAgent, GateHello, Rejected, ToAgent, from_agent, to_agent::Content},
};
use prost::Message;

/// A stream of which each read is given in advance; at its end comes end-of-file.
struct Reads(VecDeque<io::Result<Vec<u8>>>);

impl Read for Reads {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(read) = self.0.pop_front() else { return Ok(0) };
        let bytes = read?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

fn framed(content: Content) -> Vec<u8> {
    encode(&ToAgent { content: Some(content) }.encode_to_vec()).to_vec()
}

fn hello() -> Content {
    Content::Hello(GateHello { protocol_version: "1.0.0".into(), run_dir: "/run/gate".into() })
}

fn kind_of(error: LinkError) -> io::ErrorKind {
    io::Error::from(error).kind()
}

fn error(kind: io::ErrorKind) -> io::Result<Vec<u8>> {
    Err(kind.into())
}

#[test]
fn read_that_is_interrupted_or_times_out_in_a_message_loses_nothing_of_it() {
    let frame = framed(hello());
    let (one, two) = frame.split_at(7);
    let reads = [
        Ok(one.to_vec()),
        error(io::ErrorKind::Interrupted),
        error(io::ErrorKind::WouldBlock),
        Ok(two.to_vec()),
    ];
    let mut receiver = MessageReceiver::new(Reads(reads.into()));
    assert_eq!(kind_of(receiver.recv().unwrap_err()), io::ErrorKind::WouldBlock);
    assert_eq!(receiver.recv().unwrap(), Some(hello()));
    assert_eq!(receiver.recv().unwrap(), None);
}

#[test]
fn stream_that_ends_in_a_message_is_an_error_and_one_between_two_is_none() {
    let frame = framed(hello());
    let receive = |bytes: &[u8]| {
        let mut receiver = MessageReceiver::new(bytes);
        receiver.recv().and_then(|_| receiver.recv())
    };
    assert_eq!(receive(&frame).unwrap(), None);
    let torn = [&frame[..], &frame[..3]].concat();
    assert_eq!(kind_of(receive(&torn).unwrap_err()), io::ErrorKind::UnexpectedEof);
    let greeted = AgentLink::open(&[][..], Vec::new(), "agent_A").unwrap_err();
    assert!(greeted.to_string().contains("did not greet"), "{greeted}");
}

#[test]
fn what_comes_before_the_answer_to_a_call_is_kept_in_order() {
    let other = |id| Content::Ack(Ack { id });
    let refused = Rejected { id: 2, reason: "no".into(), code: 99 };
    let said = [hello(), other(1), other(7), other(8), Content::Rejected(refused), other(9)];
    let bytes = said.map(framed).concat();
    let mut link = AgentLink::open(&bytes[..], Vec::new(), "agent_A").unwrap();
    assert_eq!(link.run_dir(), "/run/gate");
    let rejected = link.replace_state(Default::default()).unwrap_err();
    assert_eq!(rejected.to_string(), "fifogate refused: no");
    // A code of a later version.
    let CallError::Rejected(rejected) = rejected else { panic!("{rejected:?}") };
    assert_eq!(rejected.code, RejectCode::Unknown);
    assert_eq!(link.recv().unwrap(), Some(other(7)));
    let (mut receiver, _, early) = link.split();
    assert_eq!(early.collect::<Vec<_>>(), [other(8)]);
    assert_eq!(receiver.recv().unwrap(), Some(other(9)));
}

#[test]
fn fifogate_of_another_major_version_is_refused_and_of_another_minor_one_is_not() {
    let open = |version: &str| {
        let hello = GateHello { protocol_version: version.into(), run_dir: "/run/gate".into() };
        let bytes = [framed(Content::Hello(hello)), framed(Content::Ack(Ack { id: 1 }))].concat();
        AgentLink::open(&bytes[..], Vec::new(), "agent_A").map(|_| ())
    };
    for version in ["1.0.0", "1.1.0", "1.99.0"] {
        open(version).unwrap();
    }
    for version in ["2.0.0", "0.9.0", "1.0", ""] {
        let error = open(version).unwrap_err();
        assert!(matches!(&error, CallError::Link(LinkError::Version(own)) if own == version));
    }
}

#[test]
fn every_command_has_a_method_that_sends_it_under_the_next_id() {
    let ack = |id| framed(Content::Ack(Ack { id }));
    let bytes = [framed(hello()), (1..=10).flat_map(ack).collect()].concat();
    let mut written = Vec::new();
    let mut link = AgentLink::open(&bytes[..], &mut written, "agent_A").unwrap();
    let owner = Owner { uid: Some(1), gid: Some(2) };
    link.add_workload(Default::default(), Default::default(), owner).unwrap();
    link.remove_workload(Default::default()).unwrap();
    link.replace_state(Default::default()).unwrap();
    link.update_state(Default::default(), vec!["agents".to_owned()]).unwrap();
    link.update_workload_states(Vec::new()).unwrap();
    link.request(Default::default()).unwrap();
    link.respond(Default::default(), Default::default()).unwrap();
    link.report_trouble("no store".to_owned()).unwrap();
    link.shutdown().unwrap();
    assert!(matches!(link.shutdown(), Err(CallError::Link(LinkError::Closed))));
    drop(link);
    let (mut decoder, mut rest) = (FrameDecoder::new(written.len()), &written[..]);
    let bodies = std::iter::from_fn(|| decoder.next_frame(&mut rest).unwrap());
    let commands: Vec<_> = bodies.map(|body| FromAgent::decode(body).unwrap()).collect();
    assert!(commands.iter().map(|own| own.id).eq(1..=11));
    let contents: Vec<_> = commands.into_iter().map(|own| own.content.unwrap()).collect();
    use from_agent::Content as Sent;
    assert!(matches!(&contents[0], Sent::Hello(own) if own.agent_name == "agent_A"));
    assert!(
        matches!(&contents[1], Sent::AddWorkload(own) if (own.uid, own.gid) == (Some(1), Some(2)))
    );
    assert!(matches!(&contents[2], Sent::RemoveWorkload(_)));
    assert!(matches!(&contents[3], Sent::ReplaceState(own) if own.state.is_some()));
    assert!(matches!(&contents[4], Sent::UpdateState(own) if own.update_mask == ["agents"]));
    assert!(matches!(&contents[5], Sent::UpdateWorkloadStates(_)));
    assert!(matches!(&contents[6], Sent::Request(_)));
    assert!(matches!(&contents[7], Sent::Response(own) if own.response.is_some()));
    assert!(matches!(&contents[8], Sent::Trouble(own) if own.reason == "no store"));
    assert!(matches!(&contents[9..], [Sent::Shutdown(_), Sent::Shutdown(_)]));
}
