//! A fifogate with as many workloads as wanted.

use std::{collections::BTreeMap, fs, path::PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use testkit::{Session, TestServer};

use crate::{
    caller::Caller,
    messages::{self, SHELF, SPEED_MASK},
    readers::Readers,
};

/// Descriptors of this process and of fifogate that are not for a pair.
const RESERVE: usize = 200;

/// A fifogate and the folders of its pairs.
pub(crate) struct World {
    pub(crate) gate: TestServer,
    pairs: Vec<PathBuf>,
}

impl World {
    /// With `state` workloads in its state, and `pairs` more which it serves.
    pub(crate) fn start(state: usize, pairs: usize, options: &[&str]) -> Self {
        Self::of(&messages::manifest(state, pairs), options)
    }

    /// The same, with configs to read in turn.
    pub(crate) fn with_shelf(state: usize, pairs: usize, options: &[&str]) -> Self {
        Self::of(&messages::manifest_with(state, pairs, SHELF), options)
    }

    fn of(manifest: &str, options: &[&str]) -> Self {
        let gate = TestServer::with(manifest, &[options, &["-q"]].concat());
        let found = fs::read_dir(&gate.run_dir).unwrap().filter_map(|entry| {
            let path = entry.unwrap().path();
            let (name, _) = path.file_name()?.to_str()?.split_once('.')?;
            let index: usize = name.strip_prefix('p')?.parse().ok()?;
            Some((index, path.join("control_interface")))
        });
        let pairs = found.collect::<BTreeMap<_, _>>().into_values().collect();
        Self { gate, pairs }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.gate.process.id()
    }

    pub(crate) fn pair_count(&self) -> usize {
        self.pairs.len()
    }

    /// A workload whose session is open.
    pub(crate) fn workload(&self, index: usize) -> Session {
        Session::connect(&self.pairs[index])
    }

    /// A workload that asks for one small thing again and again.
    pub(crate) fn reader(&self, index: usize) -> Caller {
        Caller::over(self.workload(index), messages::read("read", &[SPEED_MASK], false))
    }

    /// Workloads that have subscribed to the same small thing.
    pub(crate) fn subscribers(&self, indices: impl Iterator<Item = usize>) -> Subscribers {
        let mut outputs = Vec::new();
        let mut inputs = Vec::new();
        for index in indices {
            let mut workload = self.workload(index);
            workload.read("s", &[SPEED_MASK], true);
            workload.response();
            outputs.push(workload.output);
            inputs.push(workload.reader.input);
        }
        Subscribers::new(outputs, Readers::new(inputs))
    }
}

/// A workload's end of its `output` stays open: it is not to be seen leaving.
pub(crate) struct Subscribers {
    _outputs: Vec<fs::File>,
    pub(crate) readers: Readers,
}

impl Subscribers {
    pub(crate) fn new(outputs: Vec<fs::File>, readers: Readers) -> Self {
        Self { _outputs: outputs, readers }
    }
}

/// A workload that changes what others have subscribed to.
pub(crate) struct Publisher {
    caller: Caller,
    updates: [Vec<u8>; 2],
    turn: usize,
}

impl Publisher {
    pub(crate) fn new(world: &World, index: usize) -> Self {
        let updates = ["11111111", "22222222"].map(messages::set_speed);
        let caller = Caller::over(world.workload(index), updates[0].clone());
        Self { caller, updates, turn: 1 }
    }

    /// Over the pair of a floor.
    pub(crate) fn over(caller: Caller) -> Self {
        let updates = [caller.request.clone(), caller.request.clone()];
        Self { caller, updates, turn: 1 }
    }

    /// A change that is one in any case: what is set differs from what was set before.
    pub(crate) fn update(&mut self) {
        self.caller.request.copy_from_slice(&self.updates[self.turn % 2]);
        self.turn += 1;
        self.caller.ask();
    }

    pub(crate) fn take_answer(&mut self) {
        self.caller.take();
    }

    pub(crate) fn bytes(&self) -> (&[u8], &[u8]) {
        (&self.caller.request, &self.caller.response)
    }
}

/// For the node with the most workloads, on either side.
const MANY_DESCRIPTORS: u64 = 50_000;

/// As many descriptors as we may have, for us and for what we start; root may have more than it is given.
pub(crate) fn take_all_descriptors() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < MANY_DESCRIPTORS {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, MANY_DESCRIPTORS);
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// How many pairs fifogate has descriptors for, in whole hundreds, and how many it takes for one.
pub(crate) fn most_pairs() -> (usize, usize) {
    let [few, more] = [10, 110].map(|pairs| World::start(0, pairs, &[]).gate.process.descriptors());
    // Rounded, as the descriptor by which it told that it is ready may still be there.
    let each = (more - few + 50) / 100;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let most = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(RESERVE) / each.max(2);
    (most / 100 * 100, each)
}
