//! The status as text for people: totals first, then a table with one line for each workload.

use serde_json::Value;

use super::{list, number};

/// A column of the table: title, and text of a cell.
type Column = (&'static str, fn(&Value) -> String);

const COLUMNS: [Column; 11] = [
    ("WORKLOAD", |own| text(own, "name")),
    ("AGENT", |own| text(own, "agent")),
    ("ID", |own| text(own, "id").chars().take(8).collect()),
    ("SESSION", |own| text(own, "session")),
    ("SUBS", |own| list(own, "subscriptions").len().to_string()),
    ("BEHIND", |own| behind(own).to_string()),
    ("QUEUED", |own| bytes(number(own, "queued_bytes"))),
    ("IN", |own| number(own, "frames_in").to_string()),
    ("OUT", |own| number(own, "frames_out").to_string()),
    ("DENIED", |own| number(own, "denied").to_string()),
    ("MALFORMED", |own| number(own, "malformed").to_string()),
];

/// Index of the first numeric column; numbers are aligned to the right.
const FIRST_NUMBER: usize = 4;

/// A number with its noun.
fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

pub(super) fn show(status: &Value) -> String {
    let totals = &status["totals"];
    let head = format!(
        "fifogate {} up {} at {}, agent link {}\n{}, {}, {} of state, {} resident, {} queued\n{} sent, {} \
         merged; {} in, {} out; {} denied, {} malformed\n",
        text(status, "version"),
        duration(number(status, "uptime_s")),
        text(status, "run_dir"),
        text(status, "agent_link"),
        counted(number(totals, "workloads"), "workload", "workloads"),
        counted(number(totals, "subscriptions"), "subscription", "subscriptions"),
        counted(number(totals, "state_leaves"), "leaf", "leaves"),
        bytes(number(totals, "rss_bytes")),
        bytes(number(totals, "queued_bytes")),
        counted(number(totals, "events_sent"), "event", "events"),
        number(totals, "events_merged"),
        counted(number(totals, "frames_in"), "frame", "frames"),
        number(totals, "frames_out"),
        number(totals, "denied"),
        number(totals, "malformed"),
    );
    let trouble = status["agent_trouble"].as_str();
    // Foreign text: control characters are escaped, so no terminal obeys them.
    let trouble = trouble.map(|own| format!("the agent says: {}\n", own.escape_debug()));
    let workloads = list(status, "workloads");
    head + &trouble.unwrap_or_default() + &table(workloads) + &denials(workloads)
}

/// A line for each workload with a denied request, about the last one.
fn denials(workloads: &[Value]) -> String {
    let mut lines = String::new();
    for own in workloads.iter().filter(|own| own["last_denial"].is_object()) {
        let denial = &own["last_denial"];
        // Masks and names come from the workload.
        let [request, what, reason] =
            ["request", "what", "reason"].map(|key| text(denial, key).escape_debug().to_string());
        let newline = if lines.is_empty() { "\n" } else { "" };
        let name = text(own, "name");
        lines += &format!("{newline}last denial of {name}: {request} of {what}: {reason}\n");
    }
    lines
}

fn table(workloads: &[Value]) -> String {
    if workloads.is_empty() {
        return String::new();
    }
    let titles = COLUMNS.map(|(title, _)| title.to_owned());
    let rows = workloads.iter().map(|own| COLUMNS.map(|(_, show)| show(own)));
    let rows: Vec<_> = std::iter::once(titles).chain(rows).collect();
    // In characters, as the padding of `format!` counts them.
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..COLUMNS.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::from("\n");
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < FIRST_NUMBER {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        out += cells.collect::<Vec<_>>().join("  ").trim_end();
        out.push('\n');
    }
    out
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or("?").to_owned()
}

fn behind(workload: &Value) -> usize {
    list(workload, "subscriptions").iter().filter(|own| own["behind"] == true).count()
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}
