//! 1,000 events a second to ten subscribers: latency of each event to each subscriber, and lost events.

use std::time::{Duration, Instant};

use crate::{
    crowd::{Crowd, payload},
    fan_out::BYTES,
    options::Settings,
    peer::{Kind, Peer},
    pin::Cores,
    series::{Series, Times, grouped, number},
    table::Table,
};

const SUBSCRIBERS: usize = 10;
const INTERVAL: Duration = Duration::from_millis(1);
/// Nothing more comes when nothing came for so long.
const QUIET: Duration = Duration::from_millis(300);
/// The longest wait for what comes late.
const LATE: Duration = Duration::from_secs(5);

/// A server whose publisher says events at a steady rate.
pub(crate) struct Stream {
    pub(crate) peer: Box<dyn Peer>,
    pub(crate) crowd: Crowd,
    bytes: usize,
    /// When each event was said, from the first one, number 1.
    sent: Vec<Instant>,
    pub(crate) times: Times,
    /// How many events reached subscribers.
    pub(crate) got: usize,
}

impl Stream {
    pub(crate) fn start(kind: Kind, subscribers: usize, bytes: usize, settings: &Settings) -> Self {
        let mut peer = kind.start(subscribers);
        let mut crowd = Crowd::new(&mut *peer, subscribers, bytes);
        crowd.tell_all(&mut *peer, 0);
        settings.cpus.pin(Cores::Two, peer.pid());
        Self { peer, crowd, bytes, sent: Vec::new(), times: Times::default(), got: 0 }
    }

    /// How many events were said.
    pub(crate) fn said(&self) -> usize {
        self.sent.len()
    }

    /// Says events for some time, and reads what comes. An event that is late does not delay the next one.
    pub(crate) fn run(&mut self, time: Duration) {
        let begin = Instant::now();
        self.crowd.wake_each(Some(INTERVAL));
        let count = u32::try_from(time.as_micros() / INTERVAL.as_micros()).unwrap();
        let mut next = 0;
        while next < count {
            while next < count && begin.elapsed() >= INTERVAL * next {
                let event = self.peer.event(&payload(self.sent.len() as u64 + 1, self.bytes));
                self.sent.push(Instant::now());
                self.crowd.publish(&event);
                next += 1;
            }
            self.turn(INTERVAL);
        }
        self.crowd.wake_each(None);
    }

    /// Reads until nothing comes any more.
    pub(crate) fn drain(&mut self) {
        let begin = Instant::now();
        while self.turn(QUIET) && begin.elapsed() < LATE {}
    }

    fn turn(&mut self, wait: Duration) -> bool {
        let (sent, times, got) = (&self.sent, &mut self.times, &mut self.got);
        self.crowd.turn(wait, &mut |_, seq| {
            if let Some(sent) = sent.get((seq as usize).wrapping_sub(1)) {
                times.push(sent.elapsed());
                *got += 1;
            }
        })
    }
}

/// One peer.
struct Contestant {
    kind: Kind,
    p50: Series,
    p99: Series,
    lost: usize,
    all: usize,
}

impl Contestant {
    fn run(&mut self, settings: &Settings) {
        let mut stream = Stream::start(self.kind, SUBSCRIBERS, BYTES, settings);
        stream.run(settings.steady / 8);
        stream.drain();
        let before = stream.said();
        (stream.times, stream.got) = Default::default();
        stream.run(settings.steady);
        stream.drain();
        settings.cpus.free();
        let all = (stream.said() - before) * SUBSCRIBERS;
        self.all += all;
        self.lost += all.saturating_sub(stream.got);
        self.p50.push(stream.times.percentile(50));
        self.p99.push(stream.times.percentile(99));
    }
}

pub(crate) fn run(settings: &Settings) -> Table {
    let new = |kind: &Kind| Contestant {
        kind: *kind,
        p50: Series::default(),
        p99: Series::default(),
        lost: 0,
        all: 0,
    };
    let mut all: Vec<_> = settings.kinds.iter().map(new).collect();
    for _ in 0..settings.steady_runs {
        all.iter_mut().for_each(|own| own.run(settings));
    }
    let head = ["", "p50, us", "ratio", "p99, us", "ratio", "lost"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let first = (all[0].p50.clone(), all[0].p99.clone());
    rows.extend(all.iter().map(|own| {
        let ratio = |series: &Series, first: &Series| number(series.over(first).median());
        vec![
            own.kind.name().to_owned(),
            own.p50.to_string(),
            ratio(&own.p50, &first.0),
            own.p99.to_string(),
            ratio(&own.p99, &first.1),
            format!("{} of {}", grouped(own.lost as f64), grouped(own.all as f64)),
        ]
    }));
    let title = format!("1,000 events of {BYTES} bytes a second to {SUBSCRIBERS} subscribers");
    let seconds = settings.steady.as_secs_f64();
    let note = format!(
        "{} runs of {seconds} s; a latency is that of one event to one subscriber",
        settings.steady_runs
    );
    Table { title, rows, notes: vec![note] }
}
