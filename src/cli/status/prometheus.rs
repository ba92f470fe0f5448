//! The status in the text format of Prometheus, version 0.0.4.
//!
//! Each metric of workloads has one series for each workload. Prometheus sums them by itself, so
//! totals over workloads are left out.

use std::fmt::Write;

use serde_json::Value;

use super::{list, number};

/// A metric of workloads: name, kind, help, value.
type Metric = (&'static str, &'static str, &'static str, fn(&Value) -> u64);

const OF_WORKLOADS: [Metric; 9] = [
    ("session_open", "gauge", "Whether the workload's session is open.", |own| {
        (own["session"] == "open").into()
    }),
    ("subscriptions", "gauge", "Subscriptions of the workload.", |own| {
        list(own, "subscriptions").len() as u64
    }),
    ("subscriptions_behind", "gauge", "Subscriptions that were not told yet of a change.", |own| {
        list(own, "subscriptions").iter().filter(|own| own["behind"] == true).count() as u64
    }),
    ("queued_bytes", "gauge", "Bytes that wait for the workload.", |own| {
        number(own, "queued_bytes")
    }),
    ("frames_in_total", "counter", "Messages that came from the workload.", |own| {
        number(own, "frames_in")
    }),
    ("frames_out_total", "counter", "Messages that were handed out for the workload.", |own| {
        number(own, "frames_out")
    }),
    ("denied_total", "counter", "Requests that the workload's rules do not allow.", |own| {
        number(own, "denied")
    }),
    ("malformed_total", "counter", "Messages of the workload that made no sense.", |own| {
        number(own, "malformed")
    }),
    (
        // A gauge: the sum falls when a subscription ends.
        "events_merged",
        "gauge",
        "Changes that became part of an event with others, in the \
      subscriptions that stand.",
        |own| list(own, "subscriptions").iter().map(|own| number(own, "events_merged")).sum(),
    ),
];

pub(super) fn show(status: &Value) -> String {
    let mut out = String::new();
    let totals = &status["totals"];
    let link = ["none", "connected", "lost"];
    for (name, help, value) in [
        ("uptime_seconds", "Seconds since fifogate was started.", number(status, "uptime_s")),
        ("resident_bytes", "Resident memory.", number(totals, "rss_bytes")),
        ("state_leaves", "Leaves of the state.", number(totals, "state_leaves")),
        ("workloads", "Workloads that are served.", number(totals, "workloads")),
    ] {
        head(&mut out, name, "gauge", help);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "fifogate_{name} {value}");
    }
    head(&mut out, "info", "gauge", "The version, as a label.");
    let version = escape(status["version"].as_str().unwrap_or_default());
    let _ = writeln!(out, "fifogate_info{{version=\"{version}\"}} 1");
    head(&mut out, "agent_link", "gauge", "Which of its states the agent link is in.");
    // One series for each state: values are numbers only.
    for state in link {
        let is = u8::from(status["agent_link"] == state);
        let _ = writeln!(out, "fifogate_agent_link{{state=\"{state}\"}} {is}");
    }
    head(&mut out, "agent_trouble", "gauge", "Whether something keeps the agent from its work.");
    let _ =
        writeln!(out, "fifogate_agent_trouble {}", u8::from(status["agent_trouble"].is_string()));
    for (name, kind, help, value) in OF_WORKLOADS {
        let name = format!("workload_{name}");
        head(&mut out, &name, kind, help);
        for workload in list(status, "workloads") {
            let label = |label: &str| escape(workload[label].as_str().unwrap_or_default());
            let (own, agent, id) = (label("name"), label("agent"), label("id"));
            let value = value(workload);
            let _ = writeln!(
                out,
                "fifogate_{name}{{workload=\"{own}\",agent=\"{agent}\",id=\"{id}\"}} {value}"
            );
        }
    }
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP fifogate_{name} {help}\n# TYPE fifogate_{name} {kind}");
}

fn escape(value: &str) -> String {
    // The backslash first: it begins the other two escapes.
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}
