//! One update that one subscription of very many matches.

use std::time::Duration;

use testkit::Session;

use crate::{
    messages,
    pin::Cores,
    report::{Picture, Row, Section},
    series::number,
    world::{Publisher, Subscribers, World},
};

use super::{Contestant, Latency, Settings, fan_out::rounds};

/// Requests written before their answers are read: as many as go into two pipes.
const AT_ONCE: usize = 64;

/// A fifogate with one subscriber, a publisher, and maybe a workload that has subscribed to much else.
struct Follower {
    world: World,
    publisher: Publisher,
    subscriber: Subscribers,
    event_len: usize,
    _crowd: Option<Session>,
    latency: Latency,
}

impl Follower {
    fn new(state: usize, subscriptions: usize) -> Self {
        let most = subscriptions.max(1).to_string();
        let bytes = ((subscriptions + 10_000) << 12).to_string();
        let options = ["--subscribe-grace-ms", "0", "--window", "64", "--max-subscriptions", &most];
        let options = [&options[..], &["--subscription-bytes", &bytes]].concat();
        let world = World::start(state - 3, 3, &options);
        let mut publisher = Publisher::new(&world, 0);
        let mut subscriber = world.subscribers(1..2);
        let readers = (subscriptions > 0).then(|| subscribe_to_much(&world, subscriptions));
        publisher.update();
        let event_len = subscriber.readers.first_frames().len();
        publisher.take_answer();
        let latency = Latency::default();
        Self { world, publisher, subscriber, event_len, _crowd: readers, latency }
    }
}

impl Contestant for Follower {
    fn measure(&mut self, settings: &Settings, time: Duration) {
        settings.cpus.pin(Cores::One, self.world.pid());
        let readers = &mut self.subscriber.readers;
        self.latency.add(rounds(time, &mut self.publisher, readers, self.event_len));
    }

    fn end_run(&mut self) {
        self.latency.end_run();
    }
}

fn subscribe_to_much(world: &World, subscriptions: usize) -> Session {
    let mut readers = world.workload(2);
    for first in (0..subscriptions).step_by(AT_ONCE) {
        let some = first..subscriptions.min(first + AT_ONCE);
        let requests = some.clone().flat_map(|index| {
            let mask = format!("desiredState.configs.other-{index}");
            messages::read(&format!("s{index}"), &[&mask], true)
        });
        readers.write(&requests.collect::<Vec<_>>());
        for _ in some {
            readers.response();
        }
    }
    readers
}

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("One update, until its one subscriber has read it");
    let many = settings.unrelated;
    let worlds = settings.states.iter().flat_map(|state| [(*state, 0), (*state, many)]);
    let mut all: Vec<_> = worlds.map(|(state, others)| Follower::new(state, others)).collect();
    settings.in_turn(&mut all);
    settings.cpus.free();
    let few = all[1].latency.p50.clone();
    for (pair, state) in all.chunks(2).zip(&settings.states) {
        let [none, among] = [&pair[0].latency.p50, &pair[1].latency.p50];
        section.point(
            Picture::State,
            format!("update among {} subscriptions", number(many as f64)),
            *state,
            among,
        );
        let what = format!("one core, among {}, workloads: {state}", number(many as f64));
        let row = Row::new(&what, "us", among.clone()).against("among none", none.clone());
        section.rows.push(row.at_most_times(1.15));
        if *state != settings.states[0] {
            let row = Row::new(what, "us", among.clone());
            let row = row.against(format!("with {}", settings.states[0]), few.clone());
            section.rows.push(row.at_most_times(1.15));
        }
    }
    section
}
