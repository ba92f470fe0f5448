//! Everything in a state, against a copy of as many bytes.

use std::time::{Duration, Instant};

use crate::{
    caller::Caller,
    floor::{self, Hops},
    messages,
    pin::Cores,
    report::{Row, Section},
    series::{Times, number},
    world::{Publisher, World},
};

use super::{Contestant, Latency, Settings};

/// The largest pipe of an ordinary user, to which fifogate grows one for an answer that is as long.
const PIPE: usize = 1 << 20;

/// Somebody who gives all of it.
struct Responder {
    pid: u32,
    caller: Caller,
    /// Changes it before each answer, so that none can be the one that was given before.
    publisher: Option<Publisher>,
    cores: Cores,
    latency: Latency,
}

impl Contestant for Responder {
    fn measure(&mut self, settings: &Settings, time: Duration) {
        settings.cpus.pin(self.cores, self.pid);
        let mut times = Times::default();
        let begin = Instant::now();
        while begin.elapsed() < time {
            if let Some(publisher) = &mut self.publisher {
                publisher.update();
                publisher.take_answer();
            }
            times.push(self.caller.call());
        }
        self.latency.add(times);
    }

    fn end_run(&mut self) {
        self.latency.end_run();
    }
}

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("Everything in a large state");
    let state = *settings.states.last().unwrap();
    let world = World::start(state - 2, 2, &[]);
    let publisher = Publisher::new(&world, 0);
    let gate = Caller::over(world.workload(1), messages::read("all", &[""], false));
    let (server, bare) = floor::echo(Hops::Blocking, &gate, PIPE);
    let (cores, bytes) = (Cores::One, gate.response.len());
    let one = |pid, caller, publisher| {
        let latency = Latency::default();
        Responder { pid, caller, publisher, cores, latency }
    };
    let mut both = [one(world.pid(), gate, Some(publisher)), one(server.pid(), bare, None)];
    for cores in settings.cpus.layouts() {
        both.iter_mut().for_each(|one| (one.cores, one.latency) = (*cores, Latency::default()));
        settings.in_turn(&mut both);
        let [read, copy] = both.each_ref().map(|one| one.latency.p50.scaled(0.001));
        let what = format!("{}, workloads: {state}", cores.name());
        let row = Row::new(what, "ms", read).against("bare copy", copy);
        section.rows.push(row.at_most_times(3.0));
    }
    section.note(format!("the answer has {} bytes", number(bytes as f64)));
    section
}
