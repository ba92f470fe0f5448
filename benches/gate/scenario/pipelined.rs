//! Small reads, many under way.

use std::time::Duration;

use crate::{
    caller::Caller,
    floor::{self, Hops},
    pin::Cores,
    report::{Row, Section},
    series::Series,
    world::World,
};

use super::{Contestant, Settings};

const WINDOW: usize = 64;

/// Somebody who answers, and how many in a second.
struct Responder {
    pid: u32,
    caller: Caller,
    cores: Cores,
    /// Of the turns of this run.
    turns: Vec<f64>,
    rates: Series,
}

impl Responder {
    fn new(pid: u32, caller: Caller) -> Self {
        Self { pid, caller, cores: Cores::One, turns: Vec::new(), rates: Series::default() }
    }
}

impl Contestant for Responder {
    fn measure(&mut self, settings: &Settings, time: Duration) {
        settings.cpus.pin(self.cores, self.pid);
        self.caller.pipelined(WINDOW, time / 4);
        self.turns.push(self.caller.pipelined(WINDOW, time));
    }

    /// Turns take equally long.
    fn end_run(&mut self) {
        let turns = std::mem::take(&mut self.turns);
        self.rates.push(turns.iter().sum::<f64>() / turns.len() as f64);
    }
}

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("Small reads, 64 under way");
    let world = World::start(9, 1, &["--window", "64"]);
    let gate = world.reader(0);
    let (server, bare) = floor::echo(Hops::Worker, &gate, 0);
    let mut both = [Responder::new(world.pid(), gate), Responder::new(server.pid(), bare)];
    for cores in settings.cpus.layouts() {
        both.iter_mut().for_each(|one| (one.cores, one.rates) = (*cores, Series::default()));
        settings.in_turn(&mut both);
        let [gate, bare] = both.each_ref().map(|one| one.rates.clone());
        let row = Row::new(cores.name(), "1/s", gate).against(Hops::Worker.name(), bare);
        section.rows.push(row.at_least_or_share(300_000.0, 0.5));
    }
    section.note("equal reads of an unchanged state, whose answer fifogate encodes once");
    section.note("the bare one writes each answer by one call, as fifogate does");
    section
}
