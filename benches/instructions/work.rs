//! The pieces of work.

use clap::ValueEnum;

use crate::{
    core::{Core, PUBLISHER},
    messages::{self, SPEED_MASK},
};

/// One of them. Never less is done than the name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Small reads
    #[value(name = "1000-small-reads")]
    SmallReads,
    /// An update that all subscribers are told of
    #[value(name = "10-updates-to-1000-subscribers")]
    FanOut,
    /// Updates that one of very many subscriptions matches
    #[value(name = "100-updates-among-10000-subscriptions")]
    Unrelated,
    /// Updates of a large state
    #[value(name = "1000-updates-of-a-state-of-5000-workloads")]
    LargeState,
    /// Everything that there is
    #[value(name = "full-read-of-1000-workloads")]
    FullRead,
    /// Sessions that begin, each with a subscription
    #[value(name = "hello-and-subscribe-of-100-workloads")]
    Begin,
}

impl Work {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().unwrap().get_name().to_owned()
    }

    /// How often it is done to be counted.
    pub(crate) fn times(self) -> usize {
        match self {
            Self::SmallReads | Self::LargeState => 1_000,
            Self::Unrelated | Self::Begin => 100,
            Self::FanOut => 10,
            Self::FullRead => 1,
        }
    }

    /// Gets ready for it, then does it that often.
    pub(crate) fn perform(self, times: usize) {
        match self {
            Self::SmallReads => small_reads(times),
            Self::FanOut => fan_out(times),
            Self::Unrelated => unrelated(times),
            Self::LargeState => large_state(times),
            Self::FullRead => full_read(times),
            Self::Begin => begin(times),
        }
    }
}

fn small_reads(times: usize) {
    let mut core = Core::start(9, 1);
    core.begin(PUBLISHER);
    let read = messages::read("read", &[SPEED_MASK], false);
    counted(|| {
        for _ in 0..times {
            assert_eq!(core.say(PUBLISHER, &read), 1);
        }
    });
}

fn fan_out(times: usize) {
    let count = 1_000;
    let mut core = Core::start(0, count + 1);
    core.begin(PUBLISHER);
    let subscribe = messages::read("s", &[SPEED_MASK], true);
    for workload in 1..=count {
        core.begin(workload);
        core.say(workload, &subscribe);
    }
    update(&mut core, times, count);
}

fn unrelated(times: usize) {
    let mut core = Core::start(8, 2);
    core.begin(PUBLISHER);
    core.begin(1);
    for index in 0..10_000 {
        let mask = format!("desiredState.configs.other-{index}");
        core.say(1, &messages::read(&format!("s{index}"), &[&mask], true));
    }
    core.say(1, &messages::read("s", &[SPEED_MASK], true));
    update(&mut core, times, 1);
}

fn large_state(times: usize) {
    let mut core = Core::start(4_998, 2);
    core.begin(PUBLISHER);
    core.begin(1);
    core.say(1, &messages::read("s", &[SPEED_MASK], true));
    update(&mut core, times, 1);
}

/// Each with one event for each subscriber, and an answer.
fn update(core: &mut Core, times: usize, subscribers: usize) {
    let updates = ["11111111", "22222222"].map(messages::set_speed);
    counted(|| {
        for update in updates.iter().cycle().take(times) {
            assert_eq!(core.say(PUBLISHER, update), subscribers + 1);
        }
    });
}

fn full_read(times: usize) {
    let mut core = Core::start(999, 1);
    core.begin(PUBLISHER);
    let read = messages::read("all", &[""], false);
    counted(|| {
        for _ in 0..times {
            assert_eq!(core.say(PUBLISHER, &read), 1);
        }
    });
    assert!(core.bytes() > 200_000);
}

fn begin(times: usize) {
    let mut core = Core::start(0, 100);
    let subscribe = messages::read("s", &[SPEED_MASK], true);
    counted(|| {
        for workload in 0..times {
            core.begin(workload);
            assert_eq!(core.say(workload, &subscribe), 1);
        }
    });
}

/// The counted part: instructions between entering this and leaving it (see [`COUNTED`]).
#[inline(never)]
fn counted(work: impl FnOnce()) {
    work();
}

/// How valgrind finds [`counted`].
pub(crate) const COUNTED: &str = "*work::counted*";
