//! What workloads report, on its way to the store. While the store is away, workloads go on; what then
//! waits is bounded by their number.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fifogate::pb::ank_base as pb;
use tokio::{sync::Notify, time::sleep};

use crate::store::{Refused, Store};

/// Reports that wait before only the last one of an instance is kept.
const MOST_STEPS: usize = 1000;
/// Reports that are taken to the store at once.
const MOST_AT_ONCE: usize = 100;
/// How long an unreachable store is left alone.
const RETRY: Duration = Duration::from_millis(500);

/// A queue of reports; all its handles are the same.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    waiting: Arc<Mutex<VecDeque<pb::WorkloadState>>>,
    added: Arc<Notify>,
}

impl Reports {
    /// An instance is doing so now.
    pub fn add(&self, report: pb::WorkloadState) {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_STEPS {
            waiting.retain(|other| other.instance_name != report.instance_name);
        }
        waiting.push_back(report);
        drop(waiting);
        self.added.notify_one();
    }

    /// Takes reports to the store for ever: in their order, several at a time if they come quickly, and
    /// again if the store was not there.
    pub async fn deliver(self, store: Store) {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                self.added.notified().await;
                continue;
            }
            match store.report(batch.clone()).await {
                Ok(()) => {}
                Err(Refused::Unavailable(text)) => {
                    log::debug!("execution states wait: {text}");
                    self.put_back(batch);
                    sleep(RETRY).await;
                }
                Err(Refused::Invalid(text)) => log::error!("execution states are not kept: {text}"),
            }
        }
    }

    /// The first ones, of different instances. One event tells one state of an instance: of two, both
    /// are to be seen.
    fn take(&self) -> Vec<pb::WorkloadState> {
        let mut waiting = self.waiting();
        let mut batch: Vec<pb::WorkloadState> = Vec::new();
        while let Some(next) = waiting.front()
            && batch.len() < MOST_AT_ONCE
            && batch.iter().all(|own| own.instance_name != next.instance_name)
        {
            batch.extend(waiting.pop_front());
        }
        batch
    }

    /// What was not taken comes first again, but for what is out of date by now.
    fn put_back(&self, batch: Vec<pb::WorkloadState>) {
        let mut waiting = self.waiting();
        let full = waiting.len() >= MOST_STEPS;
        for report in batch.into_iter().rev() {
            let newer = |other: &pb::WorkloadState| other.instance_name == report.instance_name;
            if !(full && waiting.iter().any(newer)) {
                waiting.push_front(report);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<pb::WorkloadState>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(workload: &str, step: usize) -> pb::WorkloadState {
        pb::WorkloadState {
            instance_name: Some(pb::WorkloadInstanceName {
                workload_name: workload.to_owned(),
                ..Default::default()
            }),
            execution_state: Some(pb::ExecutionState {
                additional_info: Some(step.to_string()),
                execution_state_enum: None,
            }),
        }
    }

    #[test]
    fn one_batch_has_one_state_of_an_instance_and_the_order_is_kept() {
        let reports = Reports::default();
        let all = [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("b", 3)];
        all.iter().for_each(|(name, step)| reports.add(report(name, *step)));
        assert_eq!(reports.take(), [report("a", 1), report("b", 1)]);
        let second = reports.take();
        assert_eq!(second, [report("a", 2), report("b", 2)]);
        reports.put_back(second.clone());
        assert_eq!(reports.take(), second, "what the store did not take comes again");
        assert_eq!(reports.take(), [report("b", 3)]);
        assert!(reports.take().is_empty());
    }

    #[test]
    fn what_waits_for_a_store_that_is_away_is_bounded_and_the_last_of_each_is_kept() {
        let reports = Reports::default();
        reports.add(report("quiet", 0));
        reports.add(report("restarts", 0));
        let batch = reports.take();
        for step in 1..10 * MOST_STEPS {
            reports.add(report("restarts", step));
            assert!(reports.waiting().len() <= MOST_STEPS);
        }
        reports.put_back(batch);
        let mut last = Vec::new();
        loop {
            let batch = reports.take();
            if batch.is_empty() {
                break;
            }
            last.extend(batch);
        }
        assert!(last.len() <= MOST_STEPS + MOST_AT_ONCE);
        assert_eq!(last.last(), Some(&report("restarts", 10 * MOST_STEPS - 1)));
        assert!(last.contains(&report("quiet", 0)));
    }
}
