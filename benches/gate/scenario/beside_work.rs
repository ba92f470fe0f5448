//! A small read while fifogate has other work, and what a processor for its worker thread alone gives.
//!
//! Other work is done by a thread of this program: it is bound as the client is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    caller::Caller,
    messages,
    pin::Cores,
    report::{Row, Section},
    series::Series,
    world::{Publisher, World},
};

use super::{Contestant, Latency, Settings};

/// What fifogate does beside small reads.
#[derive(Clone, Copy, Debug)]
enum Work {
    Nothing,
    /// Whole states for another workload, each after a change.
    LargeReads,
    /// Updates with many subscribers.
    FanOut,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing else",
            Self::LargeReads => "large reads",
            Self::FanOut => "updates to many",
        }
    }
}

/// One fifogate with its work and its reader.
struct Reader {
    world: World,
    caller: Caller,
    work: Work,
    /// `None` if there is nothing else.
    busy: Option<Busy>,
    cores: Cores,
    latency: Latency,
    /// How often the other work was done in a second: the turns of this run, and the runs.
    turns: Vec<f64>,
    rates: Series,
}

impl Reader {
    fn new(settings: &Settings, work: Work) -> Self {
        let many = settings.subscribers.iter().copied().filter(|count| *count <= 1_000).max();
        let many = many.unwrap_or(1);
        let (state, pairs) = match work {
            Work::Nothing => (10, 1),
            Work::LargeReads => (*settings.states.last().unwrap(), 3),
            Work::FanOut => (10, many + 2),
        };
        let world = World::start(state, pairs, &["--subscribe-grace-ms", "0"]);
        let caller = Caller::over(world.workload(0), messages::read("read", &[OTHER_MASK], false));
        let busy = match work {
            Work::Nothing => None,
            Work::LargeReads => {
                let mut publisher = Publisher::new(&world, 1);
                let mut all = Caller::over(world.workload(2), messages::read("all", &[""], false));
                Some(Busy::start(move || {
                    publisher.update();
                    publisher.take_answer();
                    all.call();
                }))
            }
            Work::FanOut => {
                let mut publisher = Publisher::new(&world, 1);
                let mut subscribers = world.subscribers(2..many + 2);
                publisher.update();
                let event_len = subscribers.readers.first_frames().len();
                publisher.take_answer();
                Some(Busy::start(move || {
                    publisher.update();
                    subscribers.readers.take_each(event_len);
                    publisher.take_answer();
                }))
            }
        };
        let (cores, latency) = (Cores::One, Latency::default());
        Self {
            world,
            caller,
            work,
            busy,
            cores,
            latency,
            turns: Vec::new(),
            rates: Series::default(),
        }
    }
}

impl Contestant for Reader {
    fn measure(&mut self, settings: &Settings, time: Duration) {
        settings.cpus.pin(self.cores, self.world.pid());
        let done = self.busy.as_ref().map(Busy::go);
        let begin = Instant::now();
        // As a workload that asks now and then: a reader without a pause is never alone with the work.
        let times = self.caller.round_trips_after(time, |_, _| thread::sleep(PAUSE));
        self.latency.add(times);
        if let (Some(busy), Some(before)) = (&self.busy, done) {
            let rate = (busy.pause() - before) as f64 / begin.elapsed().as_secs_f64();
            self.turns.push(rate);
        }
    }

    fn end_run(&mut self) {
        self.latency.end_run();
        let turns = std::mem::take(&mut self.turns);
        if !turns.is_empty() {
            self.rates.push(turns.iter().sum::<f64>() / turns.len() as f64);
        }
    }
}

impl Reader {
    fn series(&self) -> Measured {
        let mut all = vec![
            ("a small read, p50", "us", self.latency.p50.clone()),
            ("a small read, p99", "us", self.latency.p99.clone()),
        ];
        if self.busy.is_some() {
            all.push(("that work", "1/s", self.rates.clone()));
        }
        all
    }
}

/// What no other work changes.
const OTHER_MASK: &str = "desiredState.apiVersion";

/// Between two small reads.
const PAUSE: Duration = Duration::from_micros(300);

/// A thread that does the same again and again, while it may.
struct Busy {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    goes: AtomicBool,
    rests: AtomicBool,
    ends: AtomicBool,
    done: AtomicU64,
}

impl Busy {
    fn start(mut work: impl FnMut() + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = thread::spawn(move || {
            while !own.ends.load(Ordering::Acquire) {
                if own.goes.load(Ordering::Acquire) {
                    own.rests.store(false, Ordering::Release);
                    work();
                    own.done.fetch_add(1, Ordering::AcqRel);
                } else {
                    own.rests.store(true, Ordering::Release);
                    thread::park();
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Lets it work; gives how often it has done so.
    fn go(&self) -> u64 {
        self.shared.goes.store(true, Ordering::Release);
        self.thread.as_ref().unwrap().thread().unpark();
        self.shared.done.load(Ordering::Acquire)
    }

    /// Waits until it rests; gives how often it has done its work.
    fn pause(&self) -> u64 {
        self.shared.goes.store(false, Ordering::Release);
        while !self.shared.rests.load(Ordering::Acquire) {
            thread::yield_now();
        }
        self.shared.done.load(Ordering::Acquire)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        let thread = self.thread.take().unwrap();
        thread.thread().unpark();
        // Its own panic was printed.
        let _ = thread.join();
    }
}

pub(super) fn run(settings: &Settings) -> Section {
    let mut section = Section::new("A small read now and then, beside other work of fifogate");
    let mut all =
        [Work::Nothing, Work::LargeReads, Work::FanOut].map(|work| Reader::new(settings, work));
    let mut by_layout = Vec::new();
    for cores in settings.cpus.all_layouts() {
        for one in &mut all {
            (one.cores, one.latency, one.rates) = (*cores, Latency::default(), Series::default());
        }
        settings.in_turn(&mut all);
        by_layout.push((*cores, all.each_ref().map(Reader::series)));
    }
    for (index, reader) in all.iter().enumerate() {
        section
            .rows
            .extend(rows(reader.work, by_layout.iter().map(|(cores, all)| (*cores, &all[index]))));
    }
    section.note(
        "\"worker apart\": the worker thread alone on one processor, client and event loop on the other; its \
         ratio is to \"two cores\"",
    );
    section.note("large reads: of the whole state of the table above, each after a change; updates to many: 1,000");
    section.note("the client's threads for the other work share its processor");
    section
}

/// What was measured, by its name and unit.
type Measured = Vec<(&'static str, &'static str, Series)>;

/// All layouts of one quantity stand together.
fn rows<'m>(work: Work, by_layout: impl Iterator<Item = (Cores, &'m Measured)>) -> Vec<Row> {
    let by_layout: Vec<_> = by_layout.collect();
    let mut rows = Vec::new();
    for place in 0..by_layout[0].1.len() {
        let mut two = None;
        for (cores, measured) in &by_layout {
            let (what, unit, series) = &measured[place];
            let row = Row::new(
                format!("{}: {what}, {}", work.name(), cores.name()),
                unit,
                series.clone(),
            );
            rows.push(match (cores, &two) {
                (Cores::Apart, Some(two)) => row.against(Cores::Two.name(), Series::clone(two)),
                _ => row,
            });
            if *cores == Cores::Two {
                two = Some(series.clone());
            }
        }
    }
    rows
}
