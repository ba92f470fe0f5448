//! The core with frames around it, without files and threads: bytes in, bytes out.

use fifogate::{
    broker::{AckMode, Broker, Config, Input, Output, PeerId, Seq, Tick},
    frame::{FrameDecoder, encode},
    limits::Limits,
    manifest,
    message::{Frame, FromWorkload},
    pb::control_api::{Hello, ToAnkaios, to_ankaios::ToAnkaiosEnum},
};
use prost::Message;

use crate::messages;

/// The workload that changes things.
pub(crate) const PUBLISHER: usize = 0;

/// A broker and its workloads, each of which takes at once what it is told.
pub(crate) struct Core {
    broker: Broker,
    limits: Limits,
    workloads: Vec<Workload>,
    bytes: usize,
}

struct Workload {
    peer: PeerId,
    decoder: FrameDecoder,
    written: Seq,
}

impl Core {
    /// With `state` workloads in its state, and `served` more that speak.
    pub(crate) fn start(state: usize, served: usize) -> Self {
        let limits =
            Limits { max_subscriptions: 1 << 20, subscription_bytes: 1 << 30, ..Limits::default() };
        let config = Config { limits: limits.clone(), subscribe_grace_ms: 0, ..Config::default() };
        let mut broker = Broker::new(config);
        let text = messages::manifest(state, served);
        broker.start(&manifest::parse("manifest", &text).unwrap().updated);
        let mut core = Self { broker, limits, workloads: Vec::new(), bytes: 0 };
        core.hand_out();
        assert_eq!(core.workloads.len(), served);
        core
    }

    /// Opens a session.
    pub(crate) fn begin(&mut self, workload: usize) {
        let hello = ToAnkaiosEnum::Hello(Hello { protocol_version: "1.0.0".to_owned() });
        let message = ToAnkaios { to_ankaios_enum: Some(hello) };
        let told = self.say(workload, &encode(&message.encode_to_vec()));
        assert_eq!(told, 1);
    }

    /// One workload says something; gives how many messages that made.
    pub(crate) fn say(&mut self, workload: usize, mut bytes: &[u8]) -> usize {
        let Workload { peer, decoder, written } = &mut self.workloads[workload];
        let body = decoder.next_frame(&mut bytes).unwrap().unwrap();
        let message = FromWorkload::decode(&body, &self.limits);
        let input = Input::Message { peer: *peer, message, written: *written };
        self.broker.handle(Tick::default(), input);
        self.hand_out()
    }

    /// Bytes of all messages so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn hand_out(&mut self) -> usize {
        let mut told = 0;
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::OpenPair(peer, _, _) => self.open(peer),
                Output::Send { peer, seq, message, ack } => {
                    told += 1;
                    self.bytes += framed(&message.into_frame());
                    self.take(peer, seq, ack);
                }
                Output::Multicast { body, deliveries } => {
                    told += deliveries.len();
                    for own in deliveries {
                        self.bytes += framed(&Frame::to_workload(own.request_id, body.clone()));
                        self.take(own.peer, own.seq, own.ack);
                    }
                }
                Output::Reset(_)
                | Output::DropClosed(..)
                | Output::SetReadEnabled(..)
                | Output::Yield => {}
                other => panic!("{other:?}"),
            }
        }
        told
    }

    /// They come in the order of their numbers, which is that of their names in the state: it is
    /// enough that each has a place.
    fn open(&mut self, peer: PeerId) {
        let decoder = FrameDecoder::new(self.limits.max_frame);
        self.workloads.push(Workload { peer, decoder, written: 0 });
        self.broker.handle(Tick::default(), Input::PairOpened(peer, String::new()));
    }

    /// The reader has taken it.
    fn take(&mut self, peer: PeerId, seq: Seq, ack: AckMode) {
        let place = self.workloads.binary_search_by_key(&peer, |own| own.peer).unwrap();
        self.workloads[place].written = seq;
        let input = match ack {
            AckMode::None => return,
            AckMode::Written => Input::Written(peer, seq),
            AckMode::Taken => Input::Taken(peer, seq),
        };
        self.broker.handle(Tick::default(), input);
    }
}

/// Bytes of a message as the loop would write it.
fn framed(frame: &Frame) -> usize {
    let mut head = [0; 128];
    frame.put_head(&mut &mut head[..]);
    std::hint::black_box(&head);
    frame.len()
}
