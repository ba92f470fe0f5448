//! Small reads, many under way.

use crate::{
    floor::{self, Hops},
    report::{Row, Section},
    series::Series,
    world::World,
};

use super::Settings;

const WINDOW: usize = 64;

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("Small reads, 64 under way");
    let world = World::start(9, 1, &["--window", "64"]);
    let gate = world.reader(0);
    let (server, bare) = floor::echo(Hops::Worker, &gate, 0);
    let mut both = [(world.pid(), gate), (server.pid(), bare)];
    for cores in settings.cpus.layouts() {
        let mut rates = [Series::default(), Series::default()];
        for _ in 0..settings.runs {
            for ((pid, caller), rates) in both.iter_mut().zip(&mut rates) {
                settings.cpus.pin(*cores, *pid);
                caller.pipelined(WINDOW, settings.time / 4);
                rates.push(caller.pipelined(WINDOW, settings.time));
            }
        }
        let [gate, bare] = rates;
        let row = Row::new(cores.name(), "1/s", gate).against(Hops::Worker.name(), bare);
        section.rows.push(row.at_least_or_share(300_000.0, 0.5));
    }
    section.note("the bare one writes each answer by one call, as fifogate does");
    section
}
