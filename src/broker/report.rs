//! The broker's part of the status object (docs/operations.md#status): a copy of its figures, per
//! workload.

use crate::state::Instance;

use super::{Broker, Counters, PeerId, Session, denial::Denial, peer::Peer};

/// One workload.
#[derive(Debug, Clone)]
pub struct WorkloadReport {
    /// The number of its peer.
    pub peer: PeerId,
    /// The served instance.
    pub instance: Instance,
    /// The phase of its session.
    pub session: Session,
    /// Its subscriptions, by request id.
    pub subscriptions: Vec<SubscriptionReport>,
    /// Bytes waiting in its outbox.
    pub queued_bytes: usize,
    /// Answers waiting in its outbox.
    pub answers_waiting: usize,
    /// Milliseconds since the last progress of its reader, if messages wait.
    pub reader_idle_ms: Option<u64>,
    /// Snapshots kept for its subscriptions.
    pub versions_kept: usize,
    /// Its counters.
    pub counters: Counters,
    /// Its last denied request.
    pub last_denial: Option<Denial>,
}

/// One subscription.
#[derive(Debug, Clone)]
pub struct SubscriptionReport {
    /// The id of its request.
    pub request_id: String,
    /// Its masks; empty: everything.
    pub masks: Vec<String>,
    /// Events sent.
    pub events_sent: u64,
    /// Changes merged into the event of an earlier one.
    pub events_merged: u64,
    /// True if changes are undelivered.
    pub behind: bool,
}

impl Broker {
    /// All served workloads, oldest first.
    #[doc(hidden)] // its figures are internal
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
                    let (events_sent, events_merged) = subscription.counts();
                    let masks = self.subscriptions.masks_of(*id)?.masks();
                    Some(SubscriptionReport {
                        request_id: request_id.to_string(),
                        masks: masks.iter().map(ToString::to_string).collect(),
                        events_sent,
                        events_merged,
                        behind: subscription.lag().is_some(),
                    })
                })
                .collect(),
            queued_bytes: peer.outbox.bytes(),
            answers_waiting: peer.outbox.answers(),
            reader_idle_ms: peer.outbox.stuck_since().map(|since| self.now.0 - since.0),
            versions_kept: peer.snapshots.len(),
            counters: peer.counters,
            last_denial: peer.last_denial.as_deref().cloned(),
        };
        self.peers.workloads().into_iter().map(report).collect()
    }
}
