//! One node with very many workloads: what grows faster than their number.

use std::time::Instant;

use crate::{
    messages::{self, SPEED_MASK},
    readers::Readers,
    report::{Row, Section},
    series::{Series, grouped},
    world::{Publisher, Subscribers, World, most_pairs},
};

use super::Settings;

/// Subscriptions of each workload.
const EACH: usize = 5;
/// How many times larger the large node is.
const TIMES: usize = 10;
/// A large node takes this much of what it would, if all grew with the number of workloads.
const LINEAR: f64 = 1.3;

/// What was measured of one size of node, run by run.
#[derive(Default)]
struct Node {
    start: Series,
    memory: Series,
    update: Series,
    status: Series,
}

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("One node with very many workloads");
    let (most, each) = most_pairs();
    let wanted = settings.node;
    let many = wanted.min(most - 1);
    if many < wanted {
        section.note(format!("{wanted} workloads: descriptors, at {each} a pair, do for {many}"));
    }
    let few = many / TIMES;
    let [mut small, mut large] = [Node::default(), Node::default()];
    // One run takes long, and differs little from the next.
    for _ in 0..settings.runs.min(3) {
        small.measure(few);
        large.measure(few * TIMES);
    }
    let against = format!("{TIMES} times {} workloads", grouped(few as f64));
    let all: [(_, _, _, Pick); 4] = [
        ("start, until it is ready", "ms", true, |node| &node.start),
        ("resident memory", "MiB", true, |node| &node.memory),
        // Bare writes to more pipes take longer for each, too.
        ("one update, until all have read their event", "ms", false, |node| &node.update),
        ("status", "ms", true, |node| &node.status),
    ];
    for (what, unit, is_linear, pick) in all {
        let what = format!("{} workloads: {what}", grouped((few * TIMES) as f64));
        let row = Row::new(what, unit, pick(&large).clone());
        let row = row.against(&against, pick(&small).scaled(TIMES as f64));
        section.rows.push(if is_linear { row.at_most_times(LINEAR) } else { row });
    }
    section.note(format!("each workload has {EACH} subscriptions; one of them matches the update"));
    section.note(
        "bare writes to more pipes take longer for each, too: see one update to 1,000 and 5,000",
    );
    section.note("no processor is bound; client and fifogate have two together");
    section
}

/// One of the quantities.
type Pick = fn(&Node) -> &Series;

impl Node {
    fn measure(&mut self, count: usize) {
        let began = Instant::now();
        let world = World::with_shelf(0, count + 1, &["--subscribe-grace-ms", "0"]);
        self.start.push(millis(began));
        let mut publisher = Publisher::new(&world, count);
        let mut subscribers = subscribe(&world, count);
        publisher.update();
        let event_len = subscribers.readers.first_frames().len();
        publisher.take_answer();
        let mut updates = Series::default();
        for _ in 0..5 {
            let began = Instant::now();
            publisher.update();
            subscribers.readers.take_each(event_len);
            updates.push(millis(began));
            publisher.take_answer();
        }
        self.update.push(updates.median());
        self.memory.push(world.gate.process.memory_kib("VmRSS:") as f64 / 1024.0);
        let began = Instant::now();
        let status = world.gate.status();
        self.status.push(millis(began));
        assert_eq!(status["workloads"].as_array().unwrap().len(), count + 1);
    }
}

fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1_000.0
}

/// Each of these workloads has subscribed to what is updated, and to other configs.
fn subscribe(world: &World, count: usize) -> Subscribers {
    let masks = (1..EACH).map(messages::shelf_mask).chain([SPEED_MASK.to_owned()]);
    let masks: Vec<_> = masks.collect();
    let mut outputs = Vec::new();
    let mut inputs = Vec::new();
    for index in 0..count {
        let mut workload = world.workload(index);
        for (number, mask) in masks.iter().enumerate() {
            workload.read(&format!("s{number}"), &[mask], true);
            workload.response();
        }
        outputs.push(workload.output);
        inputs.push(workload.reader.input);
    }
    Subscribers::new(outputs, Readers::new(inputs))
}
