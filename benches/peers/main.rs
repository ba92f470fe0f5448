//! fifogate beside other ways to tell an event to many processes of one machine, in the same run.
//!
//! Every server is a process of its own, on one processor. Its clients are one thread of this program, on
//! another: prepared bytes, epoll, and no decoding beyond frames. The servers are killed when their owners
//! are dropped, so they end with this program, also when it panics.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../gate/caller.rs"]
#[allow(dead_code)] // needed by `world`
mod caller;
mod client;
mod crowd;
mod dbus;
mod etcd;
mod fan_out;
mod gate;
mod http2;
#[path = "../gate/machine.rs"]
mod machine;
#[path = "../gate/messages.rs"]
#[allow(dead_code)] // not all of its masks
mod messages;
mod mqtt;
mod nats;
mod options;
#[path = "../gate/page.rs"]
mod page;
mod peer;
#[path = "../gate/pin.rs"]
#[allow(dead_code)] // one layout of two
mod pin;
#[path = "../gate/plot.rs"]
mod plot;
#[path = "../gate/readers.rs"]
#[allow(dead_code)] // needed by `world`
mod readers;
mod report;
#[path = "../gate/series.rs"]
#[allow(dead_code)] // not all of its numbers
mod series;
mod server;
mod stall;
mod steady;
#[path = "../gate/table.rs"]
mod table;
#[path = "../gate/world.rs"]
#[allow(dead_code)] // clients of its own kind are for `make bench`
mod world;

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Parser;

use options::Options;
use report::Report;

/// Where pairs and sockets are made: in memory, as they are below `/run`.
const MEMORY: &str = "/dev/shm";

fn main() {
    let options = Options::parse();
    if !options.harness.measures("make bench-peers") {
        return;
    }
    if Path::new(MEMORY).is_dir() {
        tempfile::env::override_temp_dir(Path::new(MEMORY)).unwrap();
    }
    world::take_all_descriptors();
    crowd::end_by_signal();
    let settings = options.settings();
    let mut report = Report::new(&settings);
    say(&report.head());
    for table in fan_out::run(&settings, &mut report) {
        report.add(table);
    }
    report.add(steady::run(&settings));
    report.add(stall::run(&settings));
    if options.write {
        report.write();
    }
}

/// Says it at once: who watches wants to see how far it is.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
}
