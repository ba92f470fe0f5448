//! One update that one subscription of very many matches.

use crate::{
    common::Workload,
    messages,
    pin::Cores,
    report::{Row, Section},
    world::{Publisher, Subscribers, World},
};

use super::{Latency, Settings, fan_out::rounds};

/// Requests written before their answers are read: as many as go into two pipes.
const AT_ONCE: usize = 64;

/// A fifogate with one subscriber, a publisher, and maybe a workload that has subscribed to much else.
struct Contestant {
    world: World,
    publisher: Publisher,
    subscriber: Subscribers,
    event_len: usize,
    _crowd: Option<Workload>,
    latency: Latency,
}

impl Contestant {
    fn new(state: usize, subscriptions: usize) -> Self {
        let most = subscriptions.max(1).to_string();
        let options = ["--settle", "0", "--window", "64", "--max-subscriptions", &most];
        let world = World::start(state - 3, 3, &options);
        let mut publisher = Publisher::new(&world, 0);
        let mut subscriber = world.subscribers(1..2);
        let crowd = (subscriptions > 0).then(|| subscribe_to_much(&world, subscriptions));
        publisher.update();
        let event_len = subscriber.crowd.first_frames().len();
        publisher.take_answer();
        let latency = Latency::default();
        Self { world, publisher, subscriber, event_len, _crowd: crowd, latency }
    }
}

fn subscribe_to_much(world: &World, subscriptions: usize) -> Workload {
    let mut crowd = world.workload(2);
    for first in (0..subscriptions).step_by(AT_ONCE) {
        let some = first..subscriptions.min(first + AT_ONCE);
        let requests = some.clone().flat_map(|index| {
            let mask = format!("desiredState.configs.other-{index}");
            messages::read(&format!("s{index}"), &[&mask], true)
        });
        crowd.write(&requests.collect::<Vec<_>>());
        for _ in some {
            crowd.response();
        }
    }
    crowd
}

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("One update, until its one subscriber has read it");
    let many = settings.unrelated;
    for state in settings.states {
        let mut both = [0, many].map(|count| Contestant::new(*state, count));
        settings.in_turn(&mut both, |one| {
            settings.cpus.pin(Cores::One, one.world.pid());
            let crowd = &mut one.subscriber.crowd;
            one.latency.push(rounds(settings, &mut one.publisher, crowd, one.event_len));
        });
        settings.cpus.free();
        let [none, among] = both.map(|one| one.latency.p50);
        let what = format!("one core, among {many} others, {state} workloads");
        let row = Row::new(what, "us", among).against("among none", none);
        section.rows.push(row.at_most_times(1.15));
    }
    section
}
