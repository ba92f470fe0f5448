//! Queue of execution states on their way to the store.
//!
//! Tasks add reports; [`Reports::deliver`] sends them in order, in batches, and again after the store
//! was unreachable. Workloads go on meanwhile. The queue is bounded by `MOST_STEPS` and the number of
//! instances.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fifogate::pb::ank_base as pb;
use log::Level;
use prost::Message;
use tokio::{sync::Notify, time::sleep};

use crate::{
    log_text::{self, Quoted},
    store::{Refused, Store},
};

/// Length of the queue from which only the last report of an instance is kept.
const MOST_STEPS: usize = 1000;
/// Bounds of one batch. A request to etcd may be four times as large.
const MOST_AT_ONCE: usize = 100;
const MOST_BYTES_AT_ONCE: usize = 384 << 10;
/// Pause before an unreachable store is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A queue of reports, shared by all its clones.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    waiting: Arc<Mutex<VecDeque<pb::WorkloadState>>>,
    added: Arc<Notify>,
}

impl Reports {
    /// Queues a report.
    pub fn add(&self, report: pb::WorkloadState) {
        let mut waiting = self.waiting();
        // Merged only when full: otherwise every reported state becomes an event.
        if waiting.len() >= MOST_STEPS {
            waiting.retain(|other| other.instance_name != report.instance_name);
        }
        waiting.push_back(report);
        // Before the wake-up, so `deliver` finds the lock free.
        drop(waiting);
        self.added.notify_one();
    }

    /// Delivers reports for ever: in order, in batches if they come quickly, and again after the store
    /// was unreachable.
    pub async fn deliver(self, store: Store) {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                // A report added since `take` has left its notification here.
                self.added.notified().await;
                continue;
            }
            let left = keep(batch, |some| store.report(some)).await;
            if !left.is_empty() {
                self.put_back(left);
                sleep(RETRY).await;
            }
        }
    }

    /// Takes the first reports, of different instances. One event shows one state of an instance, so
    /// two states go into two batches. An oversized report goes alone.
    fn take(&self) -> Vec<pb::WorkloadState> {
        let mut waiting = self.waiting();
        let (mut batch, mut bytes): (Vec<pb::WorkloadState>, usize) = (Vec::new(), 0);
        while let Some(next) = waiting.front()
            && batch.len() < MOST_AT_ONCE
            && (batch.is_empty() || bytes + next.encoded_len() <= MOST_BYTES_AT_ONCE)
            && batch.iter().all(|own| own.instance_name != next.instance_name)
        {
            bytes += next.encoded_len();
            batch.extend(waiting.pop_front());
        }
        batch
    }

    /// Puts undelivered reports back to the front. If the queue is full, those with a newer one are
    /// dropped.
    fn put_back(&self, batch: Vec<pb::WorkloadState>) {
        let mut waiting = self.waiting();
        let full = waiting.len() >= MOST_STEPS;
        // From the back: each one goes to the front, so their order stays.
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

/// Sends a batch to the store, and returns the reports to try again. After a rejected batch, each
/// report is sent by itself, so an invalid one does not stop the others.
async fn keep<F>(
    batch: Vec<pb::WorkloadState>,
    mut report: impl FnMut(Vec<pb::WorkloadState>) -> F,
) -> Vec<pb::WorkloadState>
where
    F: Future<Output = Result<(), Refused>>,
{
    match report(batch.clone()).await {
        Ok(()) => return Vec::new(),
        Err(Refused::Unavailable(text)) => {
            log::debug!("execution states wait: {text}");
            return batch;
        }
        Err(Refused::Invalid(text) | Refused::Denied(text)) if batch.len() == 1 => {
            log_not_kept(&batch, &text);
            return Vec::new();
        }
        // A batch may be invalid because of one report, or of its size: each is tried alone.
        Err(Refused::Invalid(_) | Refused::Denied(_)) => {}
    }
    let mut left = VecDeque::from(batch);
    while let Some(next) = left.pop_front() {
        match report(vec![next.clone()]).await {
            Ok(()) => {}
            Err(Refused::Unavailable(text)) => {
                log::debug!("execution states wait: {text}");
                left.push_front(next);
                break;
            }
            Err(Refused::Invalid(text) | Refused::Denied(text)) => log_not_kept(&[next], &text),
        }
    }
    left.into()
}

fn log_not_kept(reports: &[pb::WorkloadState], text: &str) {
    for name in reports.iter().filter_map(|report| report.instance_name.as_ref()) {
        let name = name.workload_name.as_str();
        let text = format_args!("an execution state of {} is not kept: {text}", Quoted(name));
        log_text::about(name, Level::Error, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store accepting at most `most` bytes at once and no report named `refused`. It is unavailable
    /// after `asks` calls.
    fn store(
        most: usize,
        mut asks: usize,
        kept: &mut Vec<pb::WorkloadState>,
    ) -> impl FnMut(Vec<pb::WorkloadState>) -> std::future::Ready<Result<(), Refused>> {
        move |some| {
            let bytes: usize = some.iter().map(Message::encoded_len).sum();
            let is_refused = |own: &pb::WorkloadState| own == &report("refused", 0);
            std::future::ready(match asks.checked_sub(1) {
                None => Err(Refused::Unavailable("away".to_owned())),
                Some(_) if bytes > most || some.iter().any(is_refused) => {
                    asks -= 1;
                    Err(Refused::Invalid("too large".to_owned()))
                }
                Some(left) => {
                    asks = left;
                    kept.extend(some);
                    Ok(())
                }
            })
        }
    }

    #[tokio::test]
    async fn report_that_is_refused_takes_no_other_with_it() {
        let mut all: Vec<_> = (0..40).map(|n| report(&format!("w{n}"), n)).collect();
        all.insert(7, report("refused", 0));
        let mut kept = Vec::new();
        assert!(keep(all.clone(), store(usize::MAX, 1000, &mut kept)).await.is_empty());
        all.remove(7);
        assert_eq!(kept, all);
        // A batch too large as a whole, and a store unavailable in the middle of it.
        let mut kept = Vec::new();
        assert!(keep(all.clone(), store(50, 1000, &mut kept)).await.is_empty());
        assert_eq!(kept, all);
        let mut kept = Vec::new();
        let left = keep(all.clone(), store(50, 11, &mut kept)).await;
        assert_eq!((&kept[..], &left[..]), (&all[..10], &all[10..]));
        let mut kept = Vec::new();
        assert_eq!(keep(all.clone(), store(50, 0, &mut kept)).await, all, "all again");
    }

    #[test]
    fn batch_is_bounded_by_bytes_and_one_that_is_larger_is_alone() {
        let with_info = |workload: &str, bytes: usize| {
            let mut report = report(workload, 0);
            report.execution_state.as_mut().unwrap().additional_info = Some("x".repeat(bytes));
            report
        };
        for (bytes, count, most) in [(1024, 1000, 100), (30_000, 40, 13), (1 << 20, 3, 1)] {
            let reports = Reports::default();
            (0..count).for_each(|n| reports.add(with_info(&n.to_string(), bytes)));
            let mut sizes = Vec::new();
            while let batch = reports.take()
                && !batch.is_empty()
            {
                sizes.push(batch.len());
            }
            assert_eq!(sizes.iter().sum::<usize>(), count);
            assert_eq!(sizes.iter().max(), Some(&most), "{bytes} bytes each");
        }
    }

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
