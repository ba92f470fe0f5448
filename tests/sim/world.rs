//! A broker, its workloads and their pipes, under one virtual clock and one seed; and after every
//! step, everything that has to hold.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use fifogate::{
    broker::{AckMode, Broker, Config, Input, Output, PeerId, Seq, Tick, Updates},
    internal::WorkloadReport,
    limits::Limits,
    message::ToWorkload,
    pb::control_api::FromAnkaios,
    state::{Tree, convert, update as core_update},
};
use prost::Message;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{
    checks::check_leaves,
    counts::Counts,
    link::Agent,
    pbs,
    peer::{Batch, Expected, Habit, Moment, Peer, Place},
    server::{Frame, Seen},
    update::{self, Instance},
    words,
};

/// What the input of one step is to bring about.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) due: Vec<(PeerId, Place, Expected)>,
    pub(crate) open: BTreeMap<Instance, Option<Value>>,
    pub(crate) close: BTreeSet<PeerId>,
    /// Those to be closed, until the end of the round.
    ending: BTreeMap<PeerId, Peer>,
    pub(crate) reset: Option<PeerId>,
    /// The answer, or acknowledgement, of this step is out.
    pub(crate) answered: bool,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) step: u64,
    /// Inputs so far.
    rounds: u64,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) config: Config,
    pub(crate) broker: Broker,
    pub(crate) now: u64,
    before: u64,
    pub(crate) state: Rc<Value>,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    /// Peers that were; nothing may be said to them.
    pub(crate) gone: Vec<PeerId>,
    /// Pairs that are being made, and removed.
    pub(crate) opening: Vec<PeerId>,
    pub(crate) closing: Vec<PeerId>,
    pub(crate) agent: Option<Agent>,
    pub(crate) round: Round,
    pub(crate) counts: Counts,
    pub(crate) history: VecDeque<String>,
    next_uid: u64,
}

/// Tells how to see a failure again.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, step, now, config, .. } = self;
            eprintln!("\nseed {seed}, step {step}, at {now} ms, with {config:?}; the last steps:");
            for line in &self.history {
                eprintln!("  {line}");
            }
            eprintln!("only this one: SEEDS={seed}..{} cargo test --test sim worlds", *seed + 1);
        }
    }
}

fn config(rng: &mut ChaCha8Rng) -> Config {
    let mut choose = |of: &[usize]| *of.choose(rng).unwrap();
    let limits = Limits {
        max_masks: 8,
        max_mask_length: 100,
        max_subscriptions: choose(&[2, 4, 50]),
        outbox_bytes: choose(&[1, 300, 1_000, 4_000, 1 << 20]),
        total_bytes: choose(&[1, 2_000, 1 << 30]),
        max_versions: choose(&[0, 1, 1, 2, 16, 16]),
        max_forwarded: 3,
        ..Limits::default()
    };
    let subscribe_grace_ms = choose(&[0, 20, 20, 100]) as u64;
    let window = choose(&[1, 1, 2, 5]);
    let slice = choose(&[1, 2, 512]);
    let linked = choose(&[0, 1]) == 1;
    let forward = linked && choose(&[0, 0, 1]) == 1;
    Config {
        limits,
        subscribe_grace_ms,
        window,
        slice,
        most_at_once: Config::default().most_at_once,
        agent_name: (!linked && choose(&[0, 0, 0, 1]) == 1).then(|| "n1".to_owned()),
        link: linked.then(|| "/run/of/the/world".to_owned()),
        updates: if forward { Updates::Forward } else { Updates::Apply },
        forward_timeout_ms: 400,
    }
}

impl World {
    pub(crate) fn seeded(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let config = config(&mut rng);
        let desired = words::start(&mut rng);
        let mut world = Self {
            seed,
            step: 0,
            rounds: 0,
            rng,
            broker: Broker::new(config.clone()),
            config,
            now: 0,
            before: 0,
            state: Rc::new(words::initial()),
            peers: BTreeMap::new(),
            gone: Vec::new(),
            opening: Vec::new(),
            closing: Vec::new(),
            agent: None,
            round: Round::default(),
            counts: Counts::default(),
            history: VecDeque::new(),
            next_uid: 0,
        };
        world.start(desired);
        world
    }

    /// A new broker that starts with this desired state; what was before is gone.
    pub(crate) fn start(&mut self, desired: Value) {
        self.broker = Broker::new(self.config.clone());
        (self.now, self.before) = (0, 0);
        self.peers.clear();
        self.gone.clear();
        self.opening.clear();
        self.closing.clear();
        self.agent = self.config.link.is_some().then(Agent::default);
        let new = json!({ "desiredState": desired });
        let given = convert::from_pb(&pbs::complete_state(&new, false)).unwrap();
        let updated = core_update::apply(&Tree::initial(), &given, &[]).unwrap();
        let made = update::apply(&words::initial(), &new, &[], self.is_linked()).unwrap();
        self.broker.start(&updated);
        self.adopt(&made);
        self.finish();
        if self.is_linked() {
            self.agent_hello();
        }
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.config.link.is_some()
    }

    pub(crate) fn next_uid(&mut self) -> u64 {
        self.next_uid += 1;
        self.next_uid
    }

    pub(crate) fn due(&mut self, peer: PeerId, place: Place, expected: Expected) {
        if let Some(agent) = self.agent.as_mut().filter(|_| peer == PeerId::AGENT) {
            return agent.expect_response(expected);
        }
        self.round.due.push((peer, place, expected));
    }

    /// Makes the state of an update the state of now; pairs follow, unless an agent has them.
    pub(crate) fn adopt(&mut self, made: &update::Made) {
        let old = std::mem::replace(&mut self.state, Rc::new(made.state.clone()));
        if self.is_linked() {
            return;
        }
        for name in &made.changed {
            let instance = |state: &Value| {
                let workload = update::workloads(state).get(name.as_str()).copied()?.clone();
                Some((Instance::of(name, &workload), workload))
            };
            let served = instance(&old).and_then(|(own, _)| self.peer_of(&own));
            let wanted = instance(&made.state).filter(|(_, own)| self.serves(own));
            let wanted = wanted
                .map(|(instance, own)| (instance, own.get("controlInterfaceAccess").cloned()));
            match (served, wanted) {
                (Some(id), Some((instance, access))) if self.peers[&id].instance == instance => {
                    self.change_rules(id, access);
                }
                (served, wanted) => {
                    if let Some(id) = served {
                        self.close_pair(id);
                    }
                    self.round.open.extend(wanted);
                }
            }
        }
    }

    pub(crate) fn peer_of(&self, instance: &Instance) -> Option<PeerId> {
        let found = self.peers.values().find(|peer| peer.instance == *instance);
        found.map(|peer| peer.id)
    }

    fn serves(&self, workload: &Value) -> bool {
        let rules = workload.get("controlInterfaceAccess").and_then(|own| own.get("allowRules"));
        let ours = self.config.agent_name.as_ref().is_none_or(|own| workload["agent"] == **own);
        ours && rules.is_some()
    }

    pub(crate) fn close_pair(&mut self, id: PeerId) {
        let mut peer = self.peers.remove(&id).unwrap();
        self.gone.push(id);
        self.round.close.insert(id);
        self.forget_forwards(id);
        // Its last messages go out as far as the window takes them, but for events.
        let ended: Vec<_> = peer.subscriptions.values().map(|own| own.uid).collect();
        peer.take_back(&ended, &mut self.counts);
        let due = self.round.due.extract_if(.., |(to, ..)| *to == id);
        let due = due.map(|(_, place, expected)| (place, expected)).collect();
        peer.expected.push_back(Batch { step: self.rounds + 1, due });
        if peer.has_pair {
            self.counts.one("pairs closed");
        }
        self.round.ending.insert(id, peer);
    }

    /// Rules count at once; subscriptions that they do not allow end, and are told so.
    pub(crate) fn change_rules(&mut self, id: PeerId, access: Option<Value>) {
        let peer = self.peers.get_mut(&id).unwrap();
        let rules = super::access::Rules::of(access.as_ref());
        let mut ended = Vec::new();
        peer.access = access;
        peer.subscriptions.retain(|request_id, own| {
            let keep = rules.may_read(&own.masks.texts);
            if !keep {
                ended.push((request_id.clone(), own.uid));
            }
            keep
        });
        peer.rules = rules.clone();
        let uids: Vec<_> = ended.iter().map(|(_, uid)| *uid).collect();
        peer.take_back(&uids, &mut self.counts);
        for (request_id, _) in ended {
            self.counts.one("subscriptions lost with their rules");
            self.due(id, Place::Ended, Expected::denied(&request_id));
        }
        self.revoke_logs(id, &rules);
    }

    /// Lets the broker handle an input, and judges what comes of it.
    pub(crate) fn handle(&mut self, input: Input) {
        self.time_out();
        self.broker.handle(Tick(self.now), input);
        self.finish();
    }

    fn finish(&mut self) {
        // The report comes after the work on events, which polling does.
        let outputs: Vec<_> = std::iter::from_fn(|| self.broker.poll_output()).collect();
        assert!(!self.broker.has_work(), "work is left after the last output");
        let next = self.broker.next_deadline();
        assert!(next.is_none_or(|due| due > Tick(self.now)), "{next:?} is no later than now");
        self.rounds += 1;
        let reports = self.broker.report();
        self.observe(&reports);
        outputs.into_iter().for_each(|output| self.collect(output));
        let Round { open, close, reset, .. } = std::mem::take(&mut self.round);
        assert!(open.is_empty(), "pairs that were not opened: {open:?}");
        assert!(close.is_empty(), "pairs that were not closed: {close:?}");
        assert_eq!(reset, None, "not reset");
        self.check(&reports);
        self.before = self.now;
    }

    fn observe(&mut self, reports: &[WorkloadReport]) {
        let rounds = self.rounds;
        let budget = self.budget();
        let moment = Moment {
            step: rounds,
            state: &self.state,
            now: self.now,
            before: self.before,
            budget,
            may_resync: self.config.limits.max_versions < 16,
        };
        let mut due = std::mem::take(&mut self.round.due);
        let mut seen = BTreeSet::new();
        for report in reports {
            let instance = instance_of(report);
            let Some(id) = self.peer_of(&instance) else {
                assert!(self.round.open.contains_key(&instance), "{instance:?} is served");
                continue;
            };
            seen.insert(id);
            let peer = self.peers.get_mut(&id).unwrap();
            let mut batch = peer.observe(report, &moment, &mut self.counts);
            for (place, expected) in &batch.due {
                count_event(&mut self.counts, *place, expected);
            }
            let (own, others) = due.into_iter().partition(|(to, ..)| *to == id);
            due = others;
            let own: Vec<_> = own;
            batch.due.extend(own.into_iter().map(|(_, place, expected)| (place, expected)));
            if !batch.due.is_empty() {
                peer.expected.push_back(batch);
            }
        }
        assert!(self.peers.keys().all(|id| seen.contains(id)), "not all are served");
        assert!(due.is_empty(), "{due:?} can reach nobody");
    }

    fn collect(&mut self, output: Output) {
        match output {
            Output::OpenPair(id, instance, _) => {
                let instance = Instance {
                    workload: instance.workload,
                    agent: instance.agent,
                    id: instance.id,
                };
                let access = self.round.open.remove(&instance);
                let access = access.unwrap_or_else(|| panic!("{instance:?} is not to be served"));
                let habit = self.habit();
                assert!(!self.gone.contains(&id), "{id:?} is used again");
                let new = Peer::new(id, instance, access, habit);
                assert!(self.peers.insert(id, new).is_none(), "{id:?} is used twice");
                self.opening.push(id);
                if let Some(agent) = &mut self.agent {
                    agent.opens(id);
                }
            }
            Output::ClosePair(id) => {
                assert!(self.round.close.remove(&id), "{id:?} is not to be closed");
                self.closing.push(id);
            }
            Output::DropClosed(..) => unreachable!("no pair of this world is ever unused"),
            Output::Reset(id) => {
                assert_eq!(self.round.reset.take(), Some(id), "reset");
                let peer = self.peers.get_mut(&id).unwrap();
                peer.server.reset();
                peer.has_written(peer.handed);
            }
            Output::SetReadEnabled(id, on) => {
                // The messages in front of its closing can fill or empty its outbox.
                let ending = self.round.ending.get_mut(&id);
                let peer = ending.filter(|_| self.round.close.contains(&id));
                let Some(peer) = peer.or_else(|| self.peers.get_mut(&id)) else {
                    panic!("{id:?} is not served");
                };
                assert_ne!(peer.reading, on, "reading is {on} twice");
                peer.reading = on;
                self.counts.many("reading stopped", (!on).into());
            }
            Output::Send { peer, seq, message, ack } => self.sent(peer, seq, &message, ack),
            Output::Multicast { body, deliveries } => {
                self.counts.many("told the same as others", deliveries.len() as u64);
                for own in deliveries {
                    self.sent(own.peer, own.seq, &own.message(&body), own.ack);
                }
            }
            Output::SendToAgent { seq, message, ack } => self.told_to_agent(seq, &message, ack),
            Output::Slow(..) | Output::CaughtUp(..) | Output::Denied(..) | Output::Yield => {}
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn habit(&mut self) -> Habit {
        *[Habit::Prompt, Habit::Prompt, Habit::Slow, Habit::Slow, Habit::Never]
            .choose(&mut self.rng)
            .unwrap()
    }

    fn sent(&mut self, id: PeerId, seq: Seq, message: &ToWorkload, ack: AckMode) {
        let bytes = message.clone().into_frame().to_vec();
        let message_len = message.encoded_len();
        let message = FromAnkaios::decode_length_delimited(&*bytes).unwrap();
        assert_eq!(message_len, message.encoded_len());
        if let Some(peer) = self.round.ending.get_mut(&id) {
            assert!(self.round.close.contains(&id), "sent behind its end: {message:?}");
            assert_eq!(seq, peer.handed + 1, "sequence numbers");
            peer.handed = seq;
            peer.take_expected(&message);
            return self.counts.one("last messages of a pair");
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            panic!("{id:?} is gone and is sent {message:?}");
        };
        assert!(self.round.reset != Some(id), "sent before the reset");
        assert_eq!(seq, peer.handed + 1, "sequence numbers");
        peer.handed = seq;
        let (step, place, expected) = peer.take_expected(&message);
        let now = step == self.rounds;
        if now && place == Place::Direct {
            assert!(!self.round.answered, "an event comes after the answer: {message:?}");
        }
        self.round.answered |= now && place == Place::Answer;
        if let Seen::First(uid, _) = &expected.seen {
            if let Some(own) = peer.subscriptions.values_mut().find(|own| own.uid == *uid) {
                own.first_seq = Some(seq);
            }
            let waits = self.config.subscribe_grace_ms > 0;
            assert!(!waits || ack == AckMode::Taken, "first answer without a ack");
        }
        if matches!(&expected.seen, Seen::Event(_, event) if event.resync) {
            self.counts.one("events that resynchronise");
        }
        check_leaves(peer, &message, &expected);
        let session = peer.session;
        peer.server.send(Frame { seq, ack, seen: expected.seen, session });
    }

    /// Bytes up to which a workload is served as it comes, and from which it is not: what lies between
    /// depends on what waits for others at that moment.
    pub(crate) fn budget(&self) -> (usize, usize) {
        let most = self.config.limits.outbox_bytes;
        let is_scarce = self.config.limits.total_bytes < 1 << 30;
        (if is_scarce { 0 } else { most }, most)
    }

    pub(crate) fn note(&mut self, line: String) {
        if self.history.len() >= 12 {
            self.history.pop_front();
        }
        let cut = line.char_indices().nth(700).map_or(line.len(), |(at, _)| at);
        self.history.push_back(format!("{}: {}", self.step, &line[..cut]));
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.rng.random_bool(share)
    }
}

pub(crate) fn instance_of(report: &WorkloadReport) -> Instance {
    let own = report.instance.clone();
    Instance { workload: own.workload, agent: own.agent, id: own.id }
}

fn count_event(counts: &mut Counts, place: Place, expected: &Expected) {
    let Seen::Event(_, event) = &expected.seen else { return };
    let late = place == Place::CatchUp;
    counts.one(if late { "events after others" } else { "events at once" });
    counts.many("events with added", (!event.added.is_empty()).into());
    counts.many("events with updated", (!event.updated.is_empty()).into());
    counts.many("events with removed", (!event.removed.is_empty()).into());
}
