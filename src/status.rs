//! The JSON object of the status socket (docs/operations.md#status).
//!
//! [`status`] combines the broker's [`WorkloadReport`]s with the server's [`ServerStatus`]. It is
//! pure. The totals are sums over the listed workloads, except for the size of the process and of
//! the state.

use std::{collections::HashMap, path::Path};

use serde_json::{Value, json};

use crate::broker::{Counters, PeerId, Session, SubscriptionReport, WorkloadReport};

/// Figures of the server, unknown to the broker.
#[derive(Debug, Clone)]
pub(crate) struct ServerStatus<'a> {
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The run directory.
    pub run_dir: &'a Path,
    /// `none`, `connected` or `lost`.
    pub agent_link: &'a str,
    /// A fault of the agent, as reported by the agent itself.
    pub agent_trouble: Option<&'a str>,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Leaves of the state.
    pub state_leaves: usize,
    /// Size of the state, as counted by `--max-state-bytes`.
    pub state_bytes: usize,
    /// Blocked or misbehaving ports.
    pub port_statuses: HashMap<PeerId, PortStatus>,
}

/// Behavior of a workload on its pair, beyond normal use.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortStatus {
    /// Milliseconds since a call on its pipe blocked; `None` if no call is blocked.
    pub held_ms: Option<u64>,
    /// Misbehaviors since its pair was opened, without duplicates.
    pub misbehaviors: Vec<&'static str>,
}

/// Builds the status object: totals, and one entry for each workload.
#[must_use]
pub(crate) fn status(around: &ServerStatus<'_>, workloads: &[WorkloadReport]) -> Value {
    let sum = |number: fn(&WorkloadReport) -> u64| workloads.iter().map(number).sum::<u64>();
    let of_subscriptions = |number: fn(&SubscriptionReport) -> u64| {
        workloads.iter().flat_map(|workload| &workload.subscriptions).map(number).sum::<u64>()
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": around.uptime_s,
        "run_dir": around.run_dir,
        "agent_link": around.agent_link,
        "agent_trouble": around.agent_trouble,
        "workloads": workloads.iter().map(|own| workload(own, around)).collect::<Vec<_>>(),
        "totals": {
            "workloads": workloads.len(),
            "subscriptions": sum(|workload| workload.subscriptions.len() as u64),
            "events_sent": of_subscriptions(|subscription| subscription.events_sent),
            "events_merged": of_subscriptions(|subscription| subscription.events_merged),
            "behind": of_subscriptions(|subscription| subscription.behind.into()),
            "queued_bytes": sum(|workload| workload.queued_bytes as u64),
            "frames_in": sum(|workload| workload.counters.frames_in),
            "frames_out": sum(|workload| workload.counters.frames_out),
            "denied": sum(|workload| workload.counters.denied),
            "malformed": sum(|workload| workload.counters.malformed),
            "rss_bytes": around.rss_bytes,
            "state_leaves": around.state_leaves,
            "state_bytes": around.state_bytes,
        },
    })
}

fn workload(report: &WorkloadReport, around: &ServerStatus<'_>) -> Value {
    // Missing for most: the event loop reports only blocked and misbehaving ports.
    let port = around.port_statuses.get(&report.peer).cloned().unwrap_or_default();
    let instance = &report.instance;
    let folder = format!("{}.{}", instance.workload, instance.id);
    let Counters { frames_in, frames_out, denied, malformed } = report.counters;
    json!({
        "name": instance.workload,
        "agent": instance.agent,
        "id": instance.id,
        "dir": around.run_dir.join(folder).join("control_interface"),
        "session": match report.session {
            Session::AwaitHello => "awaiting_hello",
            Session::Open => "open",
            Session::Closed => "closed",
        },
        "subscriptions": report.subscriptions.iter().map(|own| json!({
            "request_id": own.request_id,
            "masks": own.masks,
            "events_sent": own.events_sent,
            "events_merged": own.events_merged,
            "behind": own.behind,
        })).collect::<Vec<_>>(),
        "queued_bytes": report.queued_bytes,
        "answers_waiting": report.answers_waiting,
        "reader_idle_ms": report.reader_idle_ms,
        "versions_kept": report.versions_kept,
        "held_ms": port.held_ms,
        "misbehaviors": port.misbehaviors,
        // The former name of `misbehaviors`, kept for one release.
        "oddities": port.misbehaviors,
        "frames_in": frames_in,
        "frames_out": frames_out,
        "denied": denied,
        "last_denial": report.last_denial.as_ref().map(|own| json!({
            "request": own.request,
            "what": own.what,
            "reason": own.reason,
        })),
        "malformed": malformed,
    })
}
