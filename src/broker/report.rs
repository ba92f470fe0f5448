//! What the broker is doing, in numbers, for those who ask from outside (docs/operations.md#status).

use crate::state::Instance;

use super::{Broker, Counters, PeerId, Session, peer::Peer};

/// One workload.
#[derive(Debug, Clone)]
pub struct WorkloadReport {
    /// Its number here.
    pub peer: PeerId,
    /// Who it is.
    pub instance: Instance,
    /// Where it stands.
    pub session: Session,
    /// What it waits for, by request id.
    pub subscriptions: Vec<SubscriptionReport>,
    /// Bytes that wait for it.
    pub queued_bytes: usize,
    /// Answers that wait for it.
    pub answers_waiting: usize,
    /// Milliseconds since its reader took something, if something waits.
    pub reader_idle_ms: Option<u64>,
    /// Old snapshots of the state that are kept for its subscriptions.
    pub versions_kept: usize,
    /// What was counted.
    pub counters: Counters,
}

/// One subscription.
#[derive(Debug, Clone)]
pub struct SubscriptionReport {
    /// Its request's id.
    pub request_id: String,
    /// What it sees; empty: everything.
    pub masks: Vec<String>,
    /// Events that it was sent.
    pub events_sent: u64,
    /// Changes that became part of an event with others.
    pub events_merged: u64,
    /// Whether it has not been told yet of something that happened.
    pub behind: bool,
}

impl Broker {
    /// All workloads that are served, oldest first.
    #[must_use]
    pub fn report(&self) -> Vec<WorkloadReport> {
        let report = |(id, peer): (PeerId, &Peer)| WorkloadReport {
            peer: id,
            instance: peer.instance.clone(),
            session: peer.session,
            subscriptions: peer
                .subscriptions
                .iter()
                .filter_map(|(request_id, id)| {
                    let subscription = self.subscriptions.get(*id)?;
                    let masks = self.subscriptions.masks_of(*id)?.masks();
                    Some(SubscriptionReport {
                        request_id: request_id.to_string(),
                        masks: masks.iter().map(ToString::to_string).collect(),
                        events_sent: subscription.events,
                        events_merged: subscription.merged,
                        behind: subscription.lag.is_some(),
                    })
                })
                .collect(),
            queued_bytes: peer.outbox.bytes(),
            answers_waiting: peer.outbox.answers(),
            reader_idle_ms: peer.outbox.stuck_since().map(|since| self.now.0 - since.0),
            versions_kept: peer.snapshots.len(),
            counters: peer.counters,
        };
        self.workloads().into_iter().map(report).collect()
    }
}
