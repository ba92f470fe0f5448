//! Fuzz target `requests`: bytes decoded as the acts of three workloads.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    limits::Limits,
    message::{FromWorkload, ToWorkload},
    state::{DESIRED_STATE, Node, Tree, update},
};

use super::{AckMode, Broker, Config, Input, Output, PeerId, Seq, Tick};

/// Outbox budget of a workload, in bytes.
const BUDGET: usize = 2_000;

/// Runs the steps in `data` on a broker, and checks its invariants after each step.
///
/// The entry of the fuzz target `requests`, and of a unit test over its seeds. A step is one byte for
/// its kind; a message adds one byte for its length, and its bytes.
///
/// # Panics
/// When the core breaks an invariant.
pub fn fuzz_requests(data: &[u8]) {
    let limits = Limits { outbox_bytes: BUDGET, max_subscriptions: 4, ..Limits::default() };
    let mut world = World {
        broker: Broker::new(Config {
            limits: limits.clone(),
            subscribe_grace_ms: 2,
            ..Config::default()
        }),
        now: 0,
        handed: BTreeMap::new(),
        taken: BTreeMap::new(),
    };
    start(&mut world.broker);
    world.look();
    let mut rest = data;
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        let peers: Vec<_> = world.broker.peers().map(|(id, ..)| id).collect();
        let Some(&peer) = peers.get(usize::from(step & 0x0f) % peers.len().max(1)) else { return };
        match step >> 4 {
            0 => world.step(Input::EndOfFile(peer)),
            15 => world.step(Input::Unused(peer)),
            1 => world.step(Input::Broken { peer, reason: "broken".to_owned() }),
            2 => world.pass_time(u64::from(step & 0x0f)),
            3 => world.take(peer, 1),
            4 => world.take(peer, 100),
            5 => {
                let version = "1.0.0".to_owned();
                let written = world.taken.get(&peer).copied().unwrap_or(0);
                let message = FromWorkload::Hello { version };
                world.step(Input::Message { peer, message, written });
            }
            _ => {
                let len = rest.first().map_or(0, |len| usize::from(*len));
                let body = rest.get(1..).unwrap_or_default();
                let (body, after) = body.split_at(len.min(body.len()));
                rest = after;
                let written = world.taken.get(&peer).copied().unwrap_or(0);
                let message = FromWorkload::decode(&Bytes::copy_from_slice(body), &limits);
                world.step(Input::Message { peer, message, written });
            }
        }
    }
}

struct World {
    broker: Broker,
    now: u64,
    /// The last message handed to each workload, and the last one read by it.
    handed: BTreeMap<PeerId, Seq>,
    taken: BTreeMap<PeerId, Seq>,
}

impl World {
    fn step(&mut self, input: Input) {
        self.broker.handle(Tick(self.now), input);
        self.look();
    }

    fn pass_time(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.step(Input::Tick);
        let deadline = self.broker.next_deadline();
        assert!(deadline.is_none_or(|due| due > Tick(self.now)), "a deadline has passed");
    }

    fn take(&mut self, peer: PeerId, count: Seq) {
        let handed = self.handed.get(&peer).copied().unwrap_or(0);
        let taken = self.taken.entry(peer).or_default();
        *taken = handed.min(*taken + count);
        let taken = *taken;
        self.step(Input::Taken(peer, taken));
    }

    fn sent(&mut self, peer: PeerId, seq: Seq, message: ToWorkload, ack: AckMode) {
        let last = self.handed.entry(peer).or_default();
        assert_eq!(seq, *last + 1, "a message is missing");
        *last = seq;
        let len = message.encoded_len();
        assert!(message.into_frame().to_vec().len() > len);
        let waiting = seq - self.taken.get(&peer).copied().unwrap_or(0);
        // The window and one in advance: without a notice of the second, nothing more would come.
        assert!(waiting <= 2 && (waiting < 2 || ack != AckMode::None));
    }

    fn look(&mut self) {
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Multicast { body, deliveries } => {
                    for own in deliveries {
                        self.sent(own.peer, own.seq, own.message(&body), own.ack);
                    }
                }
                Output::Send { peer, seq, message, ack } => {
                    self.sent(peer, seq, message, ack);
                }
                Output::Reset(peer) => {
                    // A reset drops all handed out: none of them is waited for any more.
                    let handed = self.handed.get(&peer).copied().unwrap_or(0);
                    self.taken.insert(peer, handed);
                }
                // Its messages are taken late here, and never dropped.
                Output::DropClosed(..) => {}
                Output::Slow(..) | Output::CaughtUp(..) | Output::Denied(..) | Output::Yield => {}
                Output::SendToAgent { .. } | Output::Stop | Output::EndLink(_) => {
                    unreachable!("there is no agent")
                }
                Output::OpenPair(..) | Output::ClosePair(_) | Output::SetReadEnabled(..) => {}
            }
        }
        assert!(!self.broker.has_work(), "work is left after the last output");
    }
}

fn start(broker: &mut Broker) {
    let rule = |operation: &str, mask: &str| {
        Node::map([
            ("type", Node::text("StateRule")),
            ("operation", Node::text(operation)),
            ("filterMasks", Node::seq([Node::text(mask)])),
        ])
    };
    let workload = |operation: &str, mask: &str| {
        let rules = Node::map([("allowRules", Node::seq([rule(operation, mask)]))]);
        let texts = [("agent", "a"), ("runtime", "r"), ("runtimeConfig", "")];
        let texts = texts.map(|(name, value)| (name, Node::text(value)));
        Node::map(texts.into_iter().chain([("controlInterfaceAccess", rules)]))
    };
    let workloads = Node::map([
        ("all", workload("ReadWrite", "*")),
        ("configs", workload("ReadWrite", "desiredState.configs")),
        ("states", workload("Read", "workloadStates.*.*")),
    ]);
    let desired = Node::map([("apiVersion", Node::text("v1")), ("workloads", workloads)]);
    let given = Tree::default().with(DESIRED_STATE, Some(desired));
    if let Ok(updated) = update::apply(&Tree::initial(), &given, &[]) {
        broker.start(&updated);
    }
}
