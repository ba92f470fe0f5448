//! The operations of a schedule, drawn from a seed.

use std::time::Duration;

use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// Workloads and configs of these numbers are changed.
const ITEMS: u32 = 4;

/// Numbers of nodes are below the size of the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// An update by a workload of a node.
    SetConfig {
        node: usize,
        config: u32,
    },
    RemoveConfig {
        node: usize,
        config: u32,
    },
    /// A new instance of a workload, perhaps at another agent, and perhaps with a config in its text.
    SetWorkload {
        node: usize,
        workload: u32,
        agent: usize,
        always: bool,
        config: Option<u32>,
    },
    RemoveWorkload {
        node: usize,
        workload: u32,
    },
    /// More items than a transaction of etcd takes, all to one value.
    SetMany {
        node: usize,
    },
    /// More than 4 MiB.
    Large {
        node: usize,
    },
    KillProcess {
        workload: u32,
    },
    Refuse {
        node: usize,
    },
    Silence {
        node: usize,
    },
    Join {
        node: usize,
    },
    KillAgent {
        node: usize,
    },
    StartAgent {
        node: usize,
    },
    StopAgent {
        node: usize,
    },
    ContinueAgent {
        node: usize,
    },
    KillFifogate {
        node: usize,
    },
    /// At the revision of now, which agents that are cut off do not know.
    Compact,
    Backup,
    Restore,
    /// Somebody deletes all keys, and goes back to the last backup.
    EmptyAndRestore,
    /// Somebody deletes all keys, ends all agents in order and starts them again.
    EmptyAndStartAnew,
    RestartEtcd,
    /// etcd answers nobody for some time.
    PauseEtcd(Duration),
    /// Outdates all tokens, if this etcd asks for users.
    ChangeUsers,
    Wait(Duration),
}

impl Operation {
    /// Some operations for a cluster of this size.
    pub(crate) fn schedule(random: &mut ChaCha8Rng, size: usize) -> Vec<Self> {
        // Something that runs to begin with.
        let begin = |workload| {
            let agent = random.random_range(0..size);
            Self::SetWorkload { node: 0, workload, agent, always: workload > 0, config: None }
        };
        let mut all: Vec<_> = (0..3).map(begin).collect();
        for _ in 0..random.random_range(8..20) {
            all.push(match random.random_range(0..10) {
                0..5 => Self::update(random, size),
                5..9 => Self::fault(random, size),
                _ => Self::Wait(pause(random)),
            });
        }
        all
    }

    fn update(random: &mut ChaCha8Rng, size: usize) -> Self {
        let (node, agent) = (random.random_range(0..size), random.random_range(0..size));
        let (config, workload) = (random.random_range(0..ITEMS), random.random_range(0..ITEMS));
        match random.random_range(0..20) {
            0..5 => Self::SetConfig { node, config },
            5..7 => Self::RemoveConfig { node, config },
            7..16 => {
                let (always, refers) = (random.random_bool(0.7), random.random_bool(0.4));
                let config = refers.then_some(config);
                Self::SetWorkload { node, workload, agent, always, config }
            }
            16 => Self::RemoveWorkload { node, workload },
            17..19 => Self::SetMany { node },
            _ => Self::Large { node },
        }
    }

    fn fault(random: &mut ChaCha8Rng, size: usize) -> Self {
        let node = random.random_range(0..size);
        let all = [
            Self::KillProcess { workload: random.random_range(0..ITEMS) },
            Self::KillProcess { workload: random.random_range(0..ITEMS) },
            Self::Refuse { node },
            Self::Silence { node },
            Self::Join { node },
            Self::KillAgent { node },
            Self::StartAgent { node },
            Self::StopAgent { node },
            Self::ContinueAgent { node },
            Self::KillFifogate { node },
            Self::Compact,
            Self::Compact,
            Self::Backup,
            Self::Restore,
            Self::EmptyAndRestore,
            Self::EmptyAndStartAnew,
            Self::RestartEtcd,
            Self::PauseEtcd(pause(random)),
            Self::ChangeUsers,
            Self::ChangeUsers,
        ];
        all.choose(random).unwrap().clone()
    }
}

/// Shorter and longer than agents take to notice a silence, and than their leases.
fn pause(random: &mut ChaCha8Rng) -> Duration {
    Duration::from_millis(*[100, 300, 1_000, 3_000, 6_000].choose(random).unwrap())
}
