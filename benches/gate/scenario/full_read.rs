//! Everything in a state, against a copy of as many bytes.

use crate::{
    caller::Caller,
    floor::{self, Hops},
    messages,
    report::{Row, Section},
    series::{Times, number},
    world::{Publisher, World},
};

use super::{Latency, Settings};

/// The largest pipe of an ordinary user, to which fifogate grows one for an answer that is as long.
const PIPE: usize = 1 << 20;

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("Everything in a large state");
    let state = *settings.states.last().unwrap();
    let world = World::start(state - 2, 2, &[]);
    let mut publisher = Publisher::new(&world, 0);
    let mut gate = Caller::over(world.workload(1), messages::read("all", &[""], false));
    let (server, mut bare) = floor::echo(Hops::Blocking, &gate, PIPE);
    for cores in settings.cpus.layouts() {
        let (mut reads, mut copies) = (Latency::default(), Latency::default());
        for _ in 0..settings.runs {
            settings.cpus.pin(*cores, world.pid());
            reads.add(times(settings, &mut gate, || {
                // So that no answer can be the one that was given before.
                publisher.update();
                publisher.take_answer();
            }));
            settings.cpus.pin(*cores, server.pid());
            copies.add(times(settings, &mut bare, || {}));
            reads.end_run();
            copies.end_run();
        }
        let [read, copy] = [reads.p50, copies.p50].map(|time| time.scaled(0.001));
        let what = format!("{}, workloads: {state}", cores.name());
        let row = Row::new(what, "ms", read).against("bare copy", copy);
        section.rows.push(row.at_most_times(3.0));
    }
    section.note(format!("the answer has {} bytes", number(gate.response.len() as f64)));
    section
}

fn times(settings: &Settings, caller: &mut Caller, mut before: impl FnMut()) -> Times {
    let mut times = Times::default();
    let begin = std::time::Instant::now();
    while begin.elapsed() < settings.time {
        before();
        times.push(caller.call());
    }
    times
}
