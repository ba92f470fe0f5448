//! Resident memory: of a small fifogate, and of each workload more.

use crate::{
    report::{Row, Section},
    series::Series,
    world::{Publisher, World, most_pairs},
};

use super::{Settings, adding::Linked};

/// Fewer than this are not told from what comes and goes anyway.
const FEW: usize = 10;

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("Resident memory");
    let more = if settings.quick { 100 } else { 3_000.min(most_pairs().0 - FEW) };
    let [mut small, mut idle, mut linked, mut busy, mut served] =
        [(); 5].map(|()| Series::default());
    for _ in 0..settings.runs {
        let few = World::start(0, FEW, &[]);
        let base = kib(&few);
        small.push(base);
        let many = World::start(0, FEW + more, &[]);
        let each = |world: &World, base: f64| (kib(world) - base) / more as f64;
        idle.push(each(&many, base));
        let [base, more_linked] = [FEW, FEW + more].map(of_agent);
        linked.push((more_linked - base) / more as f64);
        let before = kib(&many);
        keep_busy(&many, FEW + more);
        busy.push(each(&many, before));
        keep_busy(&few, FEW);
        served.push(kib(&few));
    }
    section.rows.push(Row::new("10 idle workloads", "KiB", small).at_most(8192.0));
    section.rows.push(Row::new("10 busy workloads", "KiB", served));
    section.rows.push(Row::new("each idle workload more, of an agent", "KiB", linked).at_most(6.0));
    section.rows.push(Row::new("each idle workload more, of a manifest", "KiB", idle).at_most(6.0));
    section.rows.push(Row::new("each busy workload, on top of that", "KiB", busy));
    section
        .note(format!("per workload: with {more} more; busy: a session, a subscription, an event"));
    section
}

/// Of a fifogate with so many workloads, which an agent added and told the state of.
fn of_agent(count: usize) -> f64 {
    let (mut fifogate, _) = Linked::start(count);
    fifogate.send_state(count);
    let kib = fifogate.memory_kib();
    fifogate.end();
    kib
}

fn kib(world: &World) -> f64 {
    world.gate.process.memory_kib("VmRSS:") as f64
}

/// All of them have asked, subscribed, and were told something.
fn keep_busy(world: &World, count: usize) {
    let mut publisher = Publisher::new(world, 0);
    let mut subscribers = world.subscribers(1..count);
    publisher.update();
    subscribers.readers.first_frames();
    publisher.take_answer();
}
