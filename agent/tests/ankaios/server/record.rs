//! All that agents have sent, with its time.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use super::{
    PATIENCE,
    messages::{AgentLoadStatus, ToServer, ToServerContent, state_text},
};

/// A message of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// The number of its stream, from 0.
    pub(crate) stream: usize,
    pub(crate) at: Instant,
    pub(crate) message: ToServer,
}

/// Messages in the order of their arrival. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    shared: Arc<(Mutex<Vec<Recorded>>, Condvar)>,
}

impl Record {
    pub(super) fn push(&self, stream: usize, message: ToServer) {
        let (messages, changed) = &*self.shared;
        messages.lock().unwrap().push(Recorded { stream, at: Instant::now(), message });
        changed.notify_all();
    }

    /// All messages so far.
    pub(crate) fn all(&self) -> Vec<Recorded> {
        self.shared.0.lock().unwrap().clone()
    }

    pub(crate) fn of_stream(&self, stream: usize) -> Vec<ToServer> {
        let own = self.all().into_iter().filter(|recorded| recorded.stream == stream);
        own.map(|recorded| recorded.message).collect()
    }

    /// Waits until the messages so far make `found` return something.
    pub(crate) fn wait<T>(&self, what: &str, found: impl Fn(&[Recorded]) -> Option<T>) -> T {
        self.wait_for(PATIENCE, found).unwrap_or_else(|| {
            panic!("no {what} in {PATIENCE:?}; the agents have sent {:#?}", self.all())
        })
    }

    /// As [`Record::wait`], for a shorter or longer time.
    pub(crate) fn wait_for<T>(
        &self,
        patience: Duration,
        found: impl Fn(&[Recorded]) -> Option<T>,
    ) -> Option<T> {
        let (messages, changed) = &*self.shared;
        let end = Instant::now() + patience;
        loop {
            // Unlocked meanwhile: `found` may look at the record itself.
            let all = self.all();
            if let Some(found) = found(&all) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            let is_old = |messages: &mut Vec<Recorded>| messages.len() == all.len();
            drop(changed.wait_timeout_while(messages.lock().unwrap(), left, is_old).unwrap());
        }
    }

    /// All states that were reported of a workload, one after the other, as `Pending(Starting) Triggered at
    /// runtime.`.
    pub(crate) fn states_of(&self, workload: &str) -> Vec<String> {
        states_of(&self.all(), workload)
    }

    /// Waits until a workload was reported in this state as the last one.
    pub(crate) fn wait_for_state(&self, workload: &str, text: &str) {
        let what = format!("state '{text}' of {workload}");
        self.wait(&what, |all| {
            (states_of(all, workload).last().map(String::as_str) == Some(text)).then_some(())
        });
    }

    /// The loads that were reported, with their times.
    pub(crate) fn loads(&self) -> Vec<(Instant, AgentLoadStatus)> {
        let loads = self.all().into_iter().filter_map(|own| match own.message.content {
            Some(ToServerContent::AgentLoadStatus(load)) => Some((own.at, load)),
            _ => None,
        });
        loads.collect()
    }
}

fn states_of(all: &[Recorded], workload: &str) -> Vec<String> {
    let states = all.iter().filter_map(|own| match &own.message.content {
        Some(ToServerContent::UpdateWorkloadState(update)) => Some(&update.workload_states),
        _ => None,
    });
    let own = states.flatten().filter(|state| {
        state.instance_name.as_ref().is_some_and(|name| name.workload_name == workload)
    });
    own.map(|state| state_text(&state.execution_state.clone().unwrap_or_default())).collect()
}
