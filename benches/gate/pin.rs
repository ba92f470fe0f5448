//! Which processor runs what.

use std::fs;

use nix::{
    errno::Errno,
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
    /// The worker thread of fifogate on its own, its event loop with the client.
    Apart,
}

impl Cpus {
    pub(crate) fn new() -> Self {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let usable = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap()).collect();
        Self { all, usable }
    }

    /// The ways that a floor has, too; one if there is no second processor.
    pub(crate) fn layouts(&self) -> &'static [Cores] {
        if self.usable.len() > 1 { &[Cores::One, Cores::Two] } else { &[Cores::One] }
    }

    /// All ways of fifogate.
    pub(crate) fn all_layouts(&self) -> &'static [Cores] {
        if self.usable.len() > 1 { &[Cores::One, Cores::Two, Cores::Apart] } else { &[Cores::One] }
    }

    /// We and all threads of `server` run where `cores` says.
    pub(crate) fn pin(&self, cores: Cores, server: u32) {
        set_all("self", |_| only(self.usable[0]));
        set_all(&server.to_string(), |name| {
            let second = match cores {
                Cores::One => false,
                Cores::Two => true,
                Cores::Apart => name == "worker",
            };
            only(self.usable[usize::from(second)])
        });
    }

    /// We, and what we start, run wherever there is room.
    pub(crate) fn free(&self) {
        set_all("self", |_| self.all);
    }
}

impl Cores {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "one core",
            Self::Two => "two cores",
            Self::Apart => "worker apart",
        }
    }
}

fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    set
}

/// Binds each thread of a process, by its name.
fn set_all(process: &str, cpus: impl Fn(&str) -> CpuSet) {
    for entry in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let task = entry.unwrap();
        let thread = Pid::from_raw(task.file_name().to_str().unwrap().parse().unwrap());
        // A thread may have ended meanwhile.
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        match sched_setaffinity(thread, &cpus(name.trim_end())) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => panic!("cannot bind a thread: {errno}"),
        }
    }
}
