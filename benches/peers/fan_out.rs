//! One event, until the last of its subscribers has it; and the memory of a server with idle subscribers.

use std::{
    thread,
    time::{Duration, Instant},
};

use testkit::memory_kib;

use crate::{
    crowd::{Crowd, payload},
    options::Settings,
    peer::{Kind, Peer},
    pin::Cores,
    report::Report,
    series::{Series, Times, grouped, number},
    table::Table,
};

/// Of an event.
pub(crate) const BYTES: usize = 200;
/// Before each event, so that both sides have gone to sleep.
const PAUSE: Duration = Duration::from_micros(300);

/// One peer with its clients.
struct Contestant {
    peer: Box<dyn Peer>,
    crowd: Crowd,
    kib: usize,
    seq: u64,
    latency: Series,
}

impl Contestant {
    fn new(kind: Kind, subscribers: usize) -> Self {
        let mut peer = kind.start(subscribers);
        let mut crowd = Crowd::new(&mut *peer, subscribers, BYTES);
        let kib = memory_kib(peer.pid(), "VmRSS:");
        crowd.tell_all(&mut *peer, 0);
        Self { peer, crowd, kib, seq: 0, latency: Series::default() }
    }

    /// Events for some time; the first ones do not count.
    fn run(&mut self, settings: &Settings) {
        settings.cpus.pin(Cores::Two, self.peer.pid());
        let mut times = Times::default();
        let begin = Instant::now();
        let mut counted = 0;
        while begin.elapsed() < settings.turn || counted < 3 {
            thread::sleep(PAUSE);
            self.crowd.turn(Duration::ZERO, &mut |_, _| {});
            self.seq += 1;
            let event = self.peer.event(&payload(self.seq, BYTES));
            let said = Instant::now();
            self.crowd.publish(&event);
            self.crowd.take_each(self.seq);
            let told = said.elapsed();
            if begin.elapsed() > settings.turn / 8 {
                times.push(told);
                counted += 1;
            }
        }
        settings.cpus.free();
        self.latency.push(times.percentile(50));
    }
}

/// Two tables: latency and memory.
pub(crate) fn run(settings: &Settings, report: &mut Report) -> [Table; 2] {
    let mut latency =
        table("One event of 200 bytes, until the last of its subscribers has it, in us", settings);
    let mut memory = table("Resident memory of the server with idle subscribers, in KiB", settings);
    let mut kib = vec![Vec::new(); settings.kinds.len()];
    for count in &settings.subscribers {
        let all = measure(settings, *count);
        latency.rows[0].extend([grouped(*count as f64), "ratio".to_owned()]);
        memory.rows[0].push(grouped(*count as f64));
        for (index, own) in all.iter().enumerate() {
            report.point(settings.kinds[index].name(), *count, &own.latency);
            let ratio = own.latency.over(&all[0].latency);
            latency.rows[index + 1].extend([own.latency.to_string(), number(ratio.median())]);
            memory.rows[index + 1].push(grouped(own.kib as f64));
            kib[index].push(own.kib as f64);
        }
    }
    let (few, many) = (settings.subscribers[0], settings.subscribers.last().unwrap());
    memory.rows[0].push("each more".to_owned());
    for (row, kib) in memory.rows[1..].iter_mut().zip(&kib) {
        row.push(number((kib.last().unwrap() - kib[0]) / (many - few).max(1) as f64));
    }
    latency
        .notes
        .push(format!("{} runs; both sides have slept when the event is said", settings.runs));
    memory.notes.push("one server each, before its first event".to_owned());
    [latency, memory]
}

/// With a row for each peer.
fn table(title: &str, settings: &Settings) -> Table {
    let mut rows = vec![vec!["subscribers".to_owned()]];
    rows.extend(settings.kinds.iter().map(|kind| vec![kind.name().to_owned()]));
    Table { title: title.to_owned(), rows, notes: Vec::new() }
}

fn measure(settings: &Settings, subscribers: usize) -> Vec<Contestant> {
    let mut all: Vec<_> =
        settings.kinds.iter().map(|kind| Contestant::new(*kind, subscribers)).collect();
    for _ in 0..settings.runs {
        all.iter_mut().for_each(|own| own.run(settings));
    }
    all
}
