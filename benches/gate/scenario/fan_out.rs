//! One update, until the last of many subscribers has read it.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    crowd::Crowd,
    floor::{self, Server},
    pin::Cores,
    report::{Row, Section},
    series::Times,
    world::{Publisher, Subscribers, World, most_pairs},
};

use super::{Latency, Settings};

/// Before each round, so that both sides have gone to sleep.
const PAUSE: Duration = Duration::from_micros(300);

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("One update, until the last of its subscribers has read it");
    let (most, each) = most_pairs();
    for wanted in settings.subscribers {
        let count = (*wanted).min(most - 1);
        if count < *wanted {
            let why =
                format!("{wanted} subscribers: descriptors, at {each} a pair, do for {count}");
            section.note(why);
        }
        let mut round = Round::new(0, count);
        for cores in settings.cpus.layouts() {
            let (gate, bare) = round.measure(settings, *cores);
            let what = format!("{}, {count} subscribers", cores.name());
            let row = Row::new(what, "us", gate.p50).against("bare writes", bare.p50);
            let counts = count == 1_000 && *cores == Cores::Two;
            section.rows.push(if counts { row.at_most_times(2.0) } else { row });
        }
    }
    for state in settings.states {
        let mut round = Round::new(*state, 100);
        let (gate, bare) = round.measure(settings, Cores::One);
        let what = format!("one core, 100 subscribers, {state} other workloads");
        section.rows.push(Row::new(what, "us", gate.p50).against("bare writes", bare.p50));
    }
    section
}

/// Subscribers of fifogate, and readers of bare writes of the same bytes.
struct Round {
    world: World,
    publisher: Publisher,
    subscribers: Subscribers,
    event_len: usize,
    server: Server,
    asker: Publisher,
    crowd: Crowd,
}

impl Round {
    fn new(state: usize, count: usize) -> Self {
        let world = World::start(state, count + 1, &["--settle", "0"]);
        let mut publisher = Publisher::new(&world, 0);
        let mut subscribers = world.subscribers(1..=count);
        publisher.update();
        let event = subscribers.crowd.first_frames();
        publisher.take_answer();
        let (server, asker, crowd) = floor::fan(&publisher, &event, count);
        let event_len = event.len();
        Self { world, publisher, subscribers, event_len, server, asker, crowd }
    }

    /// fifogate, then the floor.
    fn measure(&mut self, settings: &Settings, cores: Cores) -> (Latency, Latency) {
        let (mut gate, mut bare) = (Latency::default(), Latency::default());
        let len = self.event_len;
        for _ in 0..settings.runs {
            settings.cpus.pin(cores, self.world.pid());
            let crowd = &mut self.subscribers.crowd;
            gate.push(rounds(settings, &mut self.publisher, crowd, len));
            settings.cpus.pin(cores, self.server.pid());
            bare.push(rounds(settings, &mut self.asker, &mut self.crowd, len));
        }
        settings.cpus.free();
        (gate, bare)
    }
}

/// Updates for some time; the first ones do not count.
pub(super) fn rounds(
    settings: &Settings,
    publisher: &mut Publisher,
    crowd: &mut Crowd,
    event_len: usize,
) -> Times {
    let mut times = Times::default();
    let begin = Instant::now();
    let warm = settings.time / 8;
    let mut counted = 0;
    while begin.elapsed() < settings.time || counted < 3 {
        thread::sleep(PAUSE);
        let asked = Instant::now();
        publisher.update();
        crowd.take_each(event_len);
        let told = asked.elapsed();
        publisher.take_answer();
        if begin.elapsed() > warm {
            times.push(told);
            counted += 1;
        }
    }
    times
}
