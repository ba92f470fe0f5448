//! Processor time when nothing happens: none.

use std::{fs, time::Instant};

use crate::{
    report::{Row, Section},
    series::Series,
    world::{Subscribers, World},
};

use super::Settings;

/// A fifogate whose workloads have subscribed and are told nothing.
pub(crate) struct Idle<'s> {
    settings: &'s Settings,
    world: World,
    _subscribers: Subscribers,
    began: Instant,
    ticks: u64,
    switches: u64,
}

const WORKLOADS: usize = 100;

impl<'s> Idle<'s> {
    /// Two seconds later, when nothing waits to be looked at any more, it begins to count.
    pub(crate) fn begin(settings: &'s Settings) -> Self {
        let world = World::start(0, WORKLOADS, &[]);
        let subscribers = world.subscribers(0..WORKLOADS);
        std::thread::sleep(std::time::Duration::from_secs(2));
        let (ticks, switches) = (ticks(world.pid()), switches(world.pid()));
        Self { settings, world, _subscribers: subscribers, began: Instant::now(), ticks, switches }
    }

    pub(crate) fn end(self) -> Section {
        let wanted = self.settings.idle;
        std::thread::sleep(wanted.saturating_sub(self.began.elapsed()));
        let mut section = Section::new("Nothing happens");
        let time = self.began.elapsed().as_secs();
        let mut row = |what, unit, value: u64, most: f64| {
            let mut series = Series::default();
            series.push(value as f64);
            section.rows.push(Row::new(what, unit, series).at_most(most));
        };
        let ticks = ticks(self.world.pid()) - self.ticks;
        row(format!("processor time in {time} s"), "ticks", ticks, 0.0);
        let switches = switches(self.world.pid()) - self.switches;
        row(format!("wake-ups in {time} s"), "", switches, 0.0);
        section.note(format!("{WORKLOADS} workloads, each with a subscription"));
        section
    }
}

/// User and system time, in ticks of the clock.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name before may hold anything.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = rest.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// How often its threads went to sleep.
fn switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let each = threads.map(|thread| {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    });
    each.sum()
}
