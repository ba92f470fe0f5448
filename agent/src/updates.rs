//! Fair queue of the updates requested by workloads.
//!
//! Updates of one workload are applied in the order of their requests. Among workloads with waiting
//! updates, the one with the least used time is next. A flood of expensive updates therefore delays its
//! own sender; a small update of another workload waits at most for the update in progress.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use fifogate::{pb::ank_base as pb, state::Instance};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    model::Update,
    store::{Refused, Store},
};

/// Most waiting updates of one workload. fifogate holds back more than its `--max-forwarded`, normally a
/// smaller number.
const MOST_WAITING: usize = 1024;

/// Most idle workloads whose used time is remembered.
const MOST_IDLE: usize = 64;

/// An update requested by a workload.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) by: Instance,
    pub(crate) request_id: String,
    pub(crate) update: Update,
}

/// The result of an update.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) by: Instance,
    pub(crate) request_id: String,
    pub(crate) result: Result<pb::UpdateStateSuccess, Refused>,
}

/// Applies updates one after the other, until a channel is closed.
pub(crate) async fn decide(
    store: Store,
    mut asked: mpsc::UnboundedReceiver<Asked>,
    answered: mpsc::UnboundedSender<Answer>,
) {
    let mut waiting = Waiting::default();
    loop {
        if waiting.is_empty() {
            let Some(asked) = asked.recv().await else { return };
            take(&mut waiting, asked, &answered);
        }
        // All of them: the next workload is chosen among those with updates here.
        while let Ok(asked) = asked.try_recv() {
            take(&mut waiting, asked, &answered);
        }
        let Some((name, Asked { by, request_id, update })) = waiting.pop() else { continue };
        let begun = Instant::now();
        let result = store.update_as(update, &request_id).await;
        waiting.charge(&name, begun.elapsed());
        if answered.send(Answer { by, request_id, result }).is_err() {
            return;
        }
    }
}

fn take(waiting: &mut Waiting<Asked>, asked: Asked, answered: &mpsc::UnboundedSender<Answer>) {
    let name = asked.by.workload.clone();
    if let Err(Asked { by, request_id, .. }) = waiting.push(name, asked) {
        let text = format!("More than {MOST_WAITING} updates of this workload wait");
        // With the receiver gone, the next answer ends the loop.
        let _ = answered.send(Answer { by, request_id, result: Err(Refused::Unavailable(text)) });
    }
}

/// Waiting updates, one lane per workload.
#[derive(Debug)]
struct Waiting<T> {
    lanes: HashMap<String, Lane<T>>,
    /// Workloads with a waiting update, ordered by used time.
    ready: BTreeSet<(Duration, String)>,
    /// Used time of the workload served last. An idle workload is raised to it, so it saves up no
    /// credit.
    floor: Duration,
}

#[derive(Debug)]
struct Lane<T> {
    all: VecDeque<T>,
    used: Duration,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), ready: BTreeSet::new(), floor: Duration::ZERO }
    }
}

impl<T> Waiting<T> {
    fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Queues an update, or returns it if too many wait.
    fn push(&mut self, name: String, own: T) -> Result<(), T> {
        let lane = self
            .lanes
            .entry(name.clone())
            .or_insert_with(|| Lane { all: VecDeque::new(), used: Duration::ZERO });
        if lane.all.len() >= MOST_WAITING {
            return Err(own);
        }
        if lane.all.is_empty() {
            lane.used = lane.used.max(self.floor);
            self.ready.insert((lane.used, name));
        }
        lane.all.push_back(own);
        Ok(())
    }

    /// The next update. Call [`Waiting::charge`] for its sender before the next call.
    fn pop(&mut self) -> Option<(String, T)> {
        let (used, name) = self.ready.pop_first()?;
        self.floor = used;
        let own = self.lanes.get_mut(&name)?.all.pop_front()?;
        Some((name, own))
    }

    /// Charges the time of a popped update to its sender, and makes the sender ready again.
    fn charge(&mut self, name: &str, time: Duration) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        lane.used += time;
        if !lane.all.is_empty() {
            self.ready.insert((lane.used, name.to_owned()));
        }
        // No workload is ready only if all lanes are empty, so this drops no waiting update.
        if self.ready.is_empty() && self.lanes.len() > MOST_IDLE {
            self.lanes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(1);

    /// The order of service, if each update takes the number of ticks it holds.
    fn served(waiting: &mut Waiting<u32>) -> Vec<String> {
        let mut served = Vec::new();
        while let Some((name, ticks)) = waiting.pop() {
            waiting.charge(&name, TICK * ticks);
            served.push(format!("{name}{ticks}"));
        }
        served
    }

    fn push(waiting: &mut Waiting<u32>, name: &str, ticks: u32) {
        waiting.push(name.to_owned(), ticks).unwrap();
    }

    #[test]
    fn flood_of_dear_updates_delays_others_by_one_of_them_and_keeps_its_own_order() {
        let mut waiting = Waiting::default();
        for ticks in 100..105 {
            push(&mut waiting, "evil", ticks);
        }
        let (name, first) = waiting.pop().unwrap();
        for ticks in 1..4 {
            push(&mut waiting, "good", ticks);
        }
        waiting.charge(&name, TICK * first);
        let expected = ["good1", "good2", "good3", "evil101", "evil102", "evil103", "evil104"];
        assert_eq!(served(&mut waiting), expected);
    }

    #[test]
    fn time_that_was_not_used_is_not_saved_up() {
        let mut waiting = Waiting::default();
        for _ in 0..100 {
            push(&mut waiting, "busy", 10);
            served(&mut waiting);
        }
        for _ in 0..3 {
            push(&mut waiting, "late", 10);
            push(&mut waiting, "busy", 10);
        }
        let order = served(&mut waiting);
        let firsts = order.iter().take(3).filter(|name| name.starts_with("late")).count();
        assert!((1..=2).contains(&firsts), "{order:?}");
    }

    #[test]
    fn more_than_may_wait_are_given_back_and_others_are_not_concerned() {
        let mut waiting = Waiting::default();
        for _ in 0..MOST_WAITING {
            push(&mut waiting, "evil", 1);
        }
        assert_eq!(waiting.push("evil".to_owned(), 7), Err(7));
        push(&mut waiting, "good", 1);
        assert_eq!(served(&mut waiting).len(), MOST_WAITING + 1);
    }
}
