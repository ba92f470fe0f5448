//! A subscriber that stops reading for ten seconds, while events go on.

use std::time::Duration;

use testkit::memory_kib;

use crate::{
    options::Settings,
    peer::Kind,
    series::{Times, grouped, number},
    steady::Stream,
    table::Table,
};

/// More than elsewhere: what is in the way of a subscriber is not to be held by the kernel alone.
const BYTES: usize = 2_000;
const OTHERS: usize = 10;
/// Of events behind the time in which it does not read.
const AFTER: Duration = Duration::from_secs(1);

/// What one peer did.
struct Outcome {
    before: Times,
    meanwhile: Times,
    others_lost: usize,
    /// Growth of the server's memory, in KiB.
    grown_before: i64,
    grown_meanwhile: i64,
    /// Of the events that were said since it stopped.
    said: usize,
    got: usize,
    has_newest: bool,
    /// Whether it got what was said later.
    goes_on: bool,
    was_cut_off: bool,
}

fn measure(kind: Kind, settings: &Settings) -> Outcome {
    let mut stream = Stream::start(kind, OTHERS + 1, BYTES, settings);
    let kib = |stream: &Stream| i64::try_from(memory_kib(stream.peer.pid(), "VmRSS:")).unwrap();
    let at_first = kib(&stream);
    stream.run(settings.before);
    stream.drain();
    let before = std::mem::take(&mut stream.times);
    stream.got = 0;
    let (at_stop, said_before) = (kib(&stream), stream.said());
    let deaf = 0;
    stream.crowd.deafen(deaf);
    stream.run(settings.deaf);
    let grown_meanwhile = kib(&stream) - at_stop;
    let said_meanwhile = stream.said();
    stream.crowd.hear(deaf);
    let meanwhile = std::mem::take(&mut stream.times);
    stream.drain();
    stream.run(AFTER);
    stream.drain();
    settings.cpus.free();
    let (mut numbers, was_cut_off) = stream.crowd.heard();
    numbers.sort_unstable();
    numbers.dedup();
    let of_these = said_before as u64 + 1..=said_meanwhile as u64;
    let all = (stream.said() - said_before) * OTHERS;
    Outcome {
        others_lost: all.saturating_sub(stream.got),
        before,
        meanwhile,
        grown_before: at_stop - at_first,
        grown_meanwhile,
        said: said_meanwhile - said_before,
        got: numbers.iter().filter(|seq| of_these.contains(seq)).count(),
        has_newest: numbers.contains(of_these.end()),
        goes_on: numbers.last() == Some(&(stream.said() as u64)),
        was_cut_off,
    }
}

const HEAD: [&str; 8] = [
    "",
    "lost for it",
    "then has the newest",
    "later events",
    "memory, all read, KiB",
    "memory, meanwhile, KiB",
    "others' p99, us",
    "others lost",
];

pub(crate) fn run(settings: &Settings) -> Table {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    for kind in &settings.kinds {
        let mut own = measure(*kind, settings);
        let [before, meanwhile] =
            [&mut own.before, &mut own.meanwhile].map(|times| number(times.percentile(99)));
        let lost = own.said - own.got;
        rows.push(vec![
            kind.name().to_owned(),
            format!("{} of {}", grouped(lost as f64), grouped(own.said as f64)),
            if own.has_newest { "yes" } else { "no" }.to_owned(),
            match (own.was_cut_off, own.goes_on) {
                (true, _) => "it is cut off",
                (_, true) => "it gets all",
                (_, false) => "it gets not all",
            }
            .to_owned(),
            format!("{:+}", own.grown_before),
            format!("{:+}", own.grown_meanwhile),
            format!("{before} -> {meanwhile}"),
            grouped(own.others_lost as f64),
        ]);
    }
    let (before, deaf) = (settings.before.as_secs_f64(), settings.deaf.as_secs_f64());
    let title = format!("A subscriber that does not read for {deaf} s");
    let notes = vec![
        format!(
            "one run: 1,000 events of {BYTES} bytes a second to it and {OTHERS} others; {before} s \
             with all reading, {deaf} s without it, then it reads what is there, then 1 s of events"
        ),
        "memory: growth of the server in that time; p99 of the others: before, and meanwhile".to_owned(),
        "lost for fifogate: merged into newer events; nothing lost: all of it waited, in the memory of \
         the server or of the kernel, and more would in a longer time"
            .to_owned(),
    ];
    Table { title, rows, notes }
}
