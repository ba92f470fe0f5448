//! A workload that measures its round trips while commanders do their worst, as in the hostile suite.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use testkit::Agent;

/// Longest round trip beside twenty attackers or more.
pub(crate) const WORST: Duration = Duration::from_secs(1);

pub(crate) struct Neighbour {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Neighbour {
    /// Begins to measure small reads of this workload, which may read configs.
    pub(crate) fn start(agent: &Agent, workload: &str) -> Self {
        let mut session = agent.connect_as(workload);
        let ended = Arc::<AtomicBool>::default();
        let until = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut all = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let began = Instant::now();
                session.read("g", &["desiredState.configs.small"], false);
                session.receive();
                all.push(began.elapsed());
            }
            all
        });
        Self { ended, thread }
    }

    /// Ends, prints the measurements and checks them.
    pub(crate) fn check(self) {
        self.ended.store(true, Ordering::Relaxed);
        let mut all = self.thread.join().unwrap();
        all.sort_unstable();
        let (worst, median) = (all[all.len() - 1], all[all.len() / 2]);
        println!("{} round trips, worst {worst:.1?}, median {median:.1?}", all.len());
        assert!(worst <= WORST, "a workload waited for {worst:?}");
    }
}

/// A workload for it, as it stands in a manifest.
pub(crate) fn workload() -> String {
    let rule = "{type: StateRule, operation: Read, filterMasks: ['desiredState.configs']}";
    let access = format!(", controlInterfaceAccess: {{allowRules: [{rule}]}}");
    testkit::workload("good", "exec sleep 100000", &access)
}
