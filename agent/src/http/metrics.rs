//! `/metrics` and `/healthz` (docs/operations.md#metrics).

use std::{collections::BTreeSet, fs, time::SystemTime};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use fifogate::internal::{
    metrics::{Metrics, of_status},
    state::{AGENTS, WORKLOAD_STATES},
};
use nix::sys::resource::{Resource, getrlimit};

use super::{Sources, gate_status};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn router(sources: Sources) -> Router {
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(health)).with_state(sources)
}

async fn metrics(State(sources): State<Sources>) -> impl IntoResponse {
    let mut out = Metrics::default();
    let status = gate_status::ask(&sources.run_dir).await;
    let help = "Whether fifogate answers the agent.";
    out.single("fifogate_up", "gauge", help, u8::from(status.is_some()));
    if let Some(status) = status {
        of_status(&status, &mut out);
    }
    of_agent(&sources, &mut out);
    of_workloads(&sources, &mut out);
    // A folder with a file for each descriptor: reading it may take milliseconds.
    let process = tokio::task::spawn_blocking(Process::read).await.unwrap_or_default();
    of_process(&process, sources.figures.since(), &mut out);
    ([(header::CONTENT_TYPE, TEXT)], out.text())
}

async fn health(State(sources): State<Sources>) -> impl IntoResponse {
    let trouble = sources.figures.trouble();
    if !trouble.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n"));
    }
    if sources.gate.borrow().is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, "fifogate does not run\n".to_owned());
    }
    // Its answer comes through its event loop and its broker. A process that is there may hang.
    if gate_status::ask(&sources.run_dir).await.is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, "fifogate does not answer\n".to_owned());
    }
    (StatusCode::OK, format!("{} runs\n", sources.agent))
}

fn of_agent(sources: &Sources, out: &mut Metrics) {
    let Sources { agent, figures, commanders, .. } = sources;
    out.begin("fifogate_agent_info", "gauge", "The version and the name, as labels.");
    let version = env!("CARGO_PKG_VERSION");
    out.sample("fifogate_agent_info", &[("version", version), ("agent", agent)], 1);
    let is_reachable = u8::from(figures.trouble().is_empty());
    let help = "Whether the store can be read and changed.";
    out.single("fifogate_agent_store_reachable", "gauge", help, is_reachable);
    let agents = figures.states().borrow().entries(&[AGENTS]).len();
    out.single("fifogate_agent_agents", "gauge", "Agents in the state.", agents);
    let help = "Streams of the command interface.";
    out.single("fifogate_agent_commanders", "gauge", help, commanders.count());
    let name = "fifogate_agent_updates_total";
    out.begin(name, "counter", "Updates asked of this agent, by their result.");
    let (accepted, refused) = figures.updates();
    out.sample(name, &[("result", "accepted")], accepted);
    out.sample(name, &[("result", "refused")], refused);
    let help = "Times that fifogate was started again.";
    out.single("fifogate_agent_gate_restarts_total", "counter", help, figures.gate_restarts());
}

/// Series have the name of a workload, but not the id of its instance: a new configuration is no new series.
fn of_workloads(sources: &Sources, out: &mut Metrics) {
    let tree = sources.figures.states().borrow().clone();
    let name = "fifogate_agent_workload_state";
    out.begin(name, "gauge", "1 for the current execution state of each workload of this agent.");
    for (workload, instances) in tree.entries(&[WORKLOAD_STATES, &sources.agent]).iter() {
        // While an instance follows another one of its name, both have a state.
        let states: BTreeSet<_> = instances
            .entries()
            .iter()
            .map(|(_, own)| {
                let text = |field| own.str_at(field).unwrap_or_default();
                (text("state"), text("subState"))
            })
            .collect();
        for (state, sub_state) in states {
            let labels =
                [("workload", workload.as_ref()), ("state", state), ("sub_state", sub_state)];
            out.sample(name, &labels, 1);
        }
    }
    let starts = sources.figures.starts();
    let name = "fifogate_agent_workload_starts_total";
    out.begin(name, "counter", "Starts of each workload.");
    for (workload, own) in &starts {
        out.sample(name, &[("workload", workload)], own.all);
    }
    let name = "fifogate_agent_workload_restarts_total";
    out.begin(name, "counter", "Starts of each workload after an end, by its restart policy.");
    for (workload, own) in &starts {
        out.sample(name, &[("workload", workload)], own.again);
    }
}

/// Figures of this process from the kernel.
#[derive(Debug, Default)]
struct Process {
    resident: Option<u64>,
    open: Option<usize>,
    most_open: Option<u64>,
}

impl Process {
    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
        Self {
            resident: resident.map(|kib: u64| kib << 10),
            // Without the one that reads the folder.
            open: fs::read_dir("/proc/self/fd").ok().map(|all| all.count().saturating_sub(1)),
            most_open: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

/// By the names that all clients of Prometheus have for them.
fn of_process(process: &Process, since: SystemTime, out: &mut Metrics) {
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let help = "Start of the agent, in seconds since 1970.";
    out.single("process_start_time_seconds", "gauge", help, since);
    if let Some(bytes) = process.resident {
        out.single("process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
    }
    if let Some(count) = process.open {
        out.single("process_open_fds", "gauge", "Open descriptors.", count);
    }
    if let Some(count) = process.most_open {
        out.single("process_max_fds", "gauge", "Most open descriptors.", count);
    }
}
