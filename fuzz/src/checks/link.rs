//! Bytes as what an agent says to a core with a link, what workloads say to it, and what a client of the
//! link is sent.

use fifogate::{
    broker::{Broker, Config, Input, Output, PeerId, Tick, Updates},
    internal::parts,
    limits::Limits,
    link::MessageReceiver,
    message::{FromAgent, FromWorkload, ToAgent},
    pb::agent_link::to_agent::Content,
    state::convert::{self, Fill},
};

/// Plays `data` and checks that whatever the core sends to its agent can be decoded there, and that the
/// state can be, too.
///
/// A step is a byte that says whose it is, two bytes for a length, the last first, and that many bytes:
/// frame bodies of the agent (0) and of the first workload (1), or a stream at a client of the link (2).
///
/// # Panics
/// When a promise is broken.
pub(crate) fn fuzz_link(data: &[u8]) {
    let limits = Limits { max_subscriptions: 4, outbox_bytes: 20_000, ..Limits::default() };
    let (link, updates) = (Some("/run".to_owned()), Updates::Forward);
    let config = Config { limits: limits.clone(), link, updates, ..Config::default() };
    let mut world = World { broker: Broker::new(config), now: 0 };
    world.look();
    let mut rest = data;
    while let [whose, low, high, after @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let (body, after) = after.split_at(len.min(after.len()));
        rest = after;
        match whose % 4 {
            0 => {
                // Without its id the stream is not to be trusted any more.
                let Ok(message) = FromAgent::decode(body, &limits) else { return };
                world.step(Input::Agent(message));
            }
            1 => {
                let Some(peer) = world.broker.peers().next().map(|(peer, ..)| peer) else {
                    continue;
                };
                let message = FromWorkload::decode(&bytes::Bytes::copy_from_slice(body), &limits);
                world.step(Input::Message { peer, message, written: 0 });
            }
            2 => {
                let mut client = MessageReceiver::new(body);
                while let Ok(Some(_)) = client.recv() {}
            }
            _ => {
                world.now += 1_000;
                world.step(Input::Tick);
            }
        }
    }
    let message = convert::to_pb(world.broker.state(), Fill::Full);
    assert_eq!(parts::check_nesting(&message), Ok(()));
    convert::from_pb(&message).expect("the state converts");
}

struct World {
    broker: Broker,
    now: u64,
}

impl World {
    fn step(&mut self, input: Input) {
        self.broker.handle(Tick(self.now), input);
        self.look();
    }

    fn look(&mut self) {
        while let Some(output) = self.broker.poll_output() {
            let done = match output {
                Output::SendToAgent { seq, message, .. } => {
                    arrives(message);
                    Input::Written(PeerId::AGENT, seq)
                }
                Output::Send { peer, seq, .. } => Input::Taken(peer, seq),
                Output::OpenPair(peer, ..) => Input::PairOpened(peer, "/run/w".to_owned()),
                Output::ClosePair(peer) => Input::PairClosed(peer),
                _ => continue,
            };
            self.broker.handle(Tick(self.now), done);
        }
    }
}

/// A message to the agent is one there, and a forwarded request has all that was asked for.
fn arrives(message: ToAgent) {
    let frame = message.into_frame().to_vec();
    let arrived =
        MessageReceiver::new(&frame[..]).recv().expect("it decodes").expect("it is whole");
    if let Content::Request(forwarded) = arrived {
        let request = forwarded.request.expect("a request");
        assert!(request.request_content.is_some(), "its content does not decode");
    }
}
