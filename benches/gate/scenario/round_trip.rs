//! A small read, one at a time: what each hop costs, and that the size of the state does not matter.

use std::time::Duration;

use crate::{
    caller::Caller,
    floor::{self, Hops, Server},
    pin::Cores,
    report::{Picture, Row, Section},
    world::World,
};

use super::{Contestant, Latency, Settings};

/// Somebody who answers, and how fast.
struct Responder {
    name: String,
    server: Process,
    caller: Caller,
    cores: Cores,
    latency: Latency,
}

enum Process {
    TestServer(World),
    Floor(Server),
}

impl Responder {
    fn gate(state: usize) -> Self {
        // The one that reads is one of them.
        let world = World::start(state - 1, 1, &[]);
        let caller = world.reader(0);
        let name = format!("workloads: {state}");
        Self::new(name, Process::TestServer(world), caller)
    }

    fn floor(hops: Hops, like: &Caller) -> Self {
        let (server, caller) = floor::echo(hops, like, 0);
        Self::new(hops.name().to_owned(), Process::Floor(server), caller)
    }

    fn new(name: String, server: Process, caller: Caller) -> Self {
        Self { name, server, caller, cores: Cores::One, latency: Latency::default() }
    }

    fn pid(&self) -> u32 {
        match &self.server {
            Process::TestServer(world) => world.pid(),
            Process::Floor(server) => server.pid(),
        }
    }
}

impl Contestant for Responder {
    fn measure(&mut self, settings: &Settings, time: Duration) {
        settings.cpus.pin(self.cores, self.pid());
        self.caller.round_trips(time / 4);
        self.latency.add(self.caller.round_trips(time));
    }

    fn end_run(&mut self) {
        self.latency.end_run();
    }
}

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("Round trip of a small read, one at a time");
    let mut all: Vec<_> = settings.states.iter().map(|state| Responder::gate(*state)).collect();
    let gates = all.len();
    for hops in [Hops::Worker, Hops::Mio, Hops::Blocking] {
        all.push(Responder::floor(hops, &all[0].caller));
    }
    for cores in settings.cpus.layouts() {
        all.iter_mut().for_each(|one| (one.cores, one.latency) = (*cores, Latency::default()));
        settings.in_turn(&mut all);
        let (gates, floors) = all.split_at(gates);
        section.rows.extend(floor_rows(&gates[0], floors, *cores));
        section.rows.extend(state_rows(gates, *cores));
        if *cores == Cores::One {
            points(settings, &mut section, gates, &floors[0]);
        }
    }
    section
}

fn floor_rows(gate: &Responder, floors: &[Responder], cores: Cores) -> Vec<Row> {
    let mut rows = Vec::new();
    for floor in floors {
        let row = |what: &str, pick: fn(&Latency) -> &crate::series::Series| {
            Row::new(format!("{}, {what}", cores.name()), "us", pick(&gate.latency).clone())
                .against(floor.name.clone(), pick(&floor.latency).clone())
        };
        let (p50, p99) = (row("p50", |of| &of.p50), row("p99", |of| &of.p99));
        // The floor with the same hops is what counts, where no wake-up of another core hides them.
        let counts = cores == Cores::One && floor.name == Hops::Worker.name();
        rows.push(if counts { p50.at_most_times(2.0) } else { p50 });
        rows.push(if counts { p99.at_most_times(2.5) } else { p99 });
    }
    rows
}

fn state_rows(gates: &[Responder], cores: Cores) -> Vec<Row> {
    let (few, more) = gates.split_first().unwrap();
    let rows = more.iter().map(|gate| {
        let what = format!("{}, p50, {}", cores.name(), gate.name);
        let row = Row::new(what, "us", gate.latency.p50.clone());
        let row = row.against(format!("with {}", few.name), few.latency.p50.clone());
        if cores == Cores::One { row.at_most_times(1.15) } else { row }
    });
    rows.collect()
}

/// The floor has no state, and so is the same everywhere.
fn points(settings: &Settings, section: &mut Section, gates: &[Responder], floor: &Responder) {
    for (state, gate) in settings.states.iter().zip(gates) {
        let line = |name: &str| format!("round trip, {name}");
        section.point(Picture::State, line("fifogate"), *state, &gate.latency.p50);
        section.point(Picture::State, line(&floor.name), *state, &floor.latency.p50);
    }
}
