//! How fast fifogate is, beside the floor under it: what the kernel alone takes for the same bytes,
//! between the same two processes, in the same run.
//!
//! fifogate runs as a process, and its client is this one: it writes prepared bytes, and decodes
//! nothing while it measures. The floors are processes too: this program once more, as `floor`.
//! Each quantity is measured several times, floor and fifogate in short turns; what is printed is the
//! median, and the smallest and largest of the runs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod floor;
mod machine;
mod messages;
mod options;
mod page;
mod pin;
mod plot;
mod readers;
mod report;
mod scenario;
mod series;
mod table;
mod world;

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Parser;

use options::Options;
use report::Report;
use scenario::{Scenario, Settings, idle::Idle};

/// Where the pairs are made: in memory, as they are below `/run`.
const MEMORY: &str = "/dev/shm";

fn main() {
    let options = Options::parse();
    if let Some(floor) = &options.floor {
        return floor.serve();
    }
    if !options.harness.measures("make bench") {
        return;
    }
    if Path::new(MEMORY).is_dir() {
        tempfile::env::override_temp_dir(Path::new(MEMORY)).unwrap();
    }
    world::take_all_descriptors();
    let settings = Settings::new(&options);
    let mut report = Report::new(&options);
    say(&report.head());
    let chosen = options.scenarios();
    // It runs beside all others, as it does nothing.
    let idle = chosen.contains(&Scenario::Idle).then(|| Idle::begin(&settings));
    for scenario in chosen {
        settings.cpus.free();
        let section = scenario.run(&settings);
        report.add(section);
    }
    if let Some(idle) = idle {
        report.add(Some(idle.end()));
    }
    say(&report.tail());
    if options.write {
        report.write();
    }
}

/// Says it at once: who watches wants to see how far it is.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
}
