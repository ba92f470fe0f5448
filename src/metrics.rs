//! Metrics in the text format of Prometheus, version 0.0.4.
//!
//! [`of_status`] makes those of the component from its status object (docs/operations.md#metrics). The
//! reference agent adds its own by [`Metrics`].

use std::fmt::{Display, Write};

use serde_json::Value;

/// A text of metrics. Label values are escaped.
#[derive(Debug, Default)]
pub struct Metrics(String);

impl Metrics {
    /// Begins a metric; its samples follow.
    pub fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Adds a sample of the metric begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let begin = if place == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{begin}{label}=\"{}\"", escape(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// Adds a metric with one sample, without labels.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.begin(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The text.
    #[must_use]
    pub fn text(self) -> String {
        self.0
    }
}

/// A metric of workloads: name, kind, help, value.
type Metric = (&'static str, &'static str, &'static str, fn(&Value) -> u64);

// Each has one series for each workload. Prometheus sums them by itself, so totals over workloads are left out.
const OF_WORKLOADS: [Metric; 9] = [
    ("fifogate_workload_session_open", "gauge", "Whether the workload's session is open.", |own| {
        (own["session"] == "open").into()
    }),
    ("fifogate_workload_subscriptions", "gauge", "Subscriptions of the workload.", |own| {
        list(own, "subscriptions").len() as u64
    }),
    (
        "fifogate_workload_subscriptions_behind",
        "gauge",
        "Subscriptions that were not told yet of a change.",
        |own| list(own, "subscriptions").iter().filter(|own| own["behind"] == true).count() as u64,
    ),
    ("fifogate_workload_queued_bytes", "gauge", "Bytes that wait for the workload.", |own| {
        number(own, "queued_bytes")
    }),
    (
        "fifogate_workload_frames_in_total",
        "counter",
        "Messages that came from the workload.",
        |own| number(own, "frames_in"),
    ),
    (
        "fifogate_workload_frames_out_total",
        "counter",
        "Messages that were handed out for the workload.",
        |own| number(own, "frames_out"),
    ),
    (
        "fifogate_workload_denied_total",
        "counter",
        "Requests that the workload's rules do not allow.",
        |own| number(own, "denied"),
    ),
    (
        "fifogate_workload_malformed_total",
        "counter",
        "Messages of the workload that made no sense.",
        |own| number(own, "malformed"),
    ),
    (
        // A gauge: the sum falls when a subscription ends.
        "fifogate_workload_events_merged",
        "gauge",
        "Changes that became part of an event with others, in the subscriptions that stand.",
        |own| list(own, "subscriptions").iter().map(|own| number(own, "events_merged")).sum(),
    ),
];

/// Adds the metrics of a status object.
pub fn of_status(status: &Value, out: &mut Metrics) {
    let totals = &status["totals"];
    for (name, help, value) in [
        (
            "fifogate_uptime_seconds",
            "Seconds since fifogate was started.",
            number(status, "uptime_s"),
        ),
        ("fifogate_resident_bytes", "Resident memory.", number(totals, "rss_bytes")),
        ("fifogate_state_leaves", "Leaves of the state.", number(totals, "state_leaves")),
        ("fifogate_workloads", "Workloads that are served.", number(totals, "workloads")),
    ] {
        out.single(name, "gauge", help, value);
    }
    out.begin("fifogate_info", "gauge", "The version, as a label.");
    let version = status["version"].as_str().unwrap_or_default();
    out.sample("fifogate_info", &[("version", version)], 1);
    out.begin("fifogate_agent_link", "gauge", "Which of its states the agent link is in.");
    // One series for each state: values are numbers only.
    for state in ["none", "connected", "lost"] {
        let is = u8::from(status["agent_link"] == state);
        out.sample("fifogate_agent_link", &[("state", state)], is);
    }
    let help = "Whether something keeps the agent from its work.";
    let trouble = u8::from(status["agent_trouble"].is_string());
    out.single("fifogate_agent_trouble", "gauge", help, trouble);
    for (name, kind, help, value) in OF_WORKLOADS {
        out.begin(name, kind, help);
        for workload in list(status, "workloads") {
            let label = |label: &str| workload[label].as_str().unwrap_or_default();
            let labels =
                [("workload", label("name")), ("agent", label("agent")), ("id", label("id"))];
            out.sample(name, &labels, value(workload));
        }
    }
}

/// The entries of the list `name`; none if it is missing.
fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

fn escape(value: &str) -> String {
    // The backslash first: it begins the other two escapes.
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}
