//! Which processor runs what.

use std::fs;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The processors that we may use.
#[derive(Debug)]
pub(crate) struct Cpus {
    all: CpuSet,
    usable: Vec<usize>,
}

/// Where the two sides run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Both on one.
    One,
    /// Each on its own.
    Two,
}

impl Cpus {
    pub(crate) fn new() -> Self {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let usable = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap()).collect();
        Self { all, usable }
    }

    /// Both ways, if there is more than one processor.
    pub(crate) fn layouts(&self) -> &'static [Cores] {
        if self.usable.len() > 1 { &[Cores::One, Cores::Two] } else { &[Cores::One] }
    }

    /// We and all threads of `server` run where `cores` says.
    pub(crate) fn pin(&self, cores: Cores, server: u32) {
        let other = self.usable[usize::from(cores == Cores::Two)];
        set(Pid::from_raw(0), &only(self.usable[0]));
        for entry in fs::read_dir(format!("/proc/{server}/task")).unwrap() {
            let thread = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
            set(Pid::from_raw(thread), &only(other));
        }
    }

    /// We, and what we start, run wherever there is room.
    pub(crate) fn free(&self) {
        set(Pid::from_raw(0), &self.all);
    }
}

impl Cores {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "one core",
            Self::Two => "two cores",
        }
    }
}

fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    set
}

fn set(thread: Pid, cpus: &CpuSet) {
    sched_setaffinity(thread, cpus).unwrap();
}
