//! Which processor a node runs on.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The processors that we may use.
#[derive(Clone, Debug)]
pub(crate) struct Cpus {
    all: CpuSet,
    usable: Vec<usize>,
    pins: bool,
}

impl Cpus {
    /// Those of this thread. If not `pins`, all nodes are left on all of them.
    pub(crate) fn new(pins: bool) -> Self {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let usable = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap()).collect();
        Self { all, usable, pins }
    }

    /// This thread, and what it starts, is of a node: each has a processor of its own, as far as there
    /// are so many.
    pub(crate) fn pin(&self, node: usize) {
        if self.pins {
            let mut own = CpuSet::new();
            own.set(self.usable[node % self.usable.len()]).unwrap();
            sched_setaffinity(Pid::from_raw(0), &own).unwrap();
        }
    }

    /// This thread, and what it starts, is of no node.
    pub(crate) fn free(&self) {
        sched_setaffinity(Pid::from_raw(0), &self.all).unwrap();
    }

    /// How nodes are placed.
    pub(crate) fn describe(&self) -> String {
        if !self.pins {
            return "all nodes on all processors".to_owned();
        }
        let count = self.usable.len();
        let s = if count == 1 { "" } else { "s" };
        format!("each node on one of {count} processor{s}, etcd on all")
    }
}
