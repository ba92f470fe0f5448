use serde_json::json;

use super::*;

fn status() -> Value {
    json!({
        "version": "0.1.0", "uptime_s": 4_000, "run_dir": "/run/gate", "agent_link": "connected",
        "agent_trouble": "the store is away\n",
        "workloads": [
            {
                "name": "dash", "agent": "node_a", "id": "0123456789abcdef", "session": "open",
                "subscriptions": [
                    { "request_id": "s", "masks": [], "events_sent": 7, "events_merged": 2, "behind": true },
                ],
                "queued_bytes": 2_048, "frames_in": 3, "frames_out": 10, "denied": 1, "malformed": 0,
            },
            {
                "name": "b", "agent": "", "id": "1\"\\\n", "session": "awaiting_hello", "subscriptions": [],
                "queued_bytes": 0, "frames_in": 0, "frames_out": 0, "denied": 0, "malformed": 0,
            },
        ],
        "totals": { "workloads": 2, "subscriptions": 1, "rss_bytes": 5_242_880, "state_leaves": 12 },
    })
}

#[test]
fn text_has_the_whole_first_and_aligned_columns() {
    let shown = text::show(&status());
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "fifogate 0.1.0 up 1 h 6 min at /run/gate, agent link connected");
    assert_eq!(lines[3], r"the agent says: the store is away\n");
    assert!(lines[1].contains("5.0 MiB resident"), "{}", lines[1]);
    let column = |line: &str, word: &str| line.find(word).map(|at| at + word.len());
    assert_eq!(column(lines[5], "QUEUED"), column(lines[6], "2.0 KiB"), "{shown}");
    assert_eq!(lines[5].find("SESSION"), lines[6].find("open"), "{shown}");
}

#[test]
fn prometheus_text_is_understood_by_a_parser_and_labels_are_escaped() {
    let shown = metrics(&status());
    let lines = shown.lines().map(|line| Ok(line.to_owned()));
    let parsed = prometheus_parse::Scrape::parse(lines).unwrap();
    let value = |metric: &str, workload: &str| {
        let found = parsed.samples.iter().find(|sample| {
            sample.metric == metric
                && sample.labels.get("workload").is_none_or(|own| own == workload)
        });
        match found.unwrap_or_else(|| panic!("no {metric}")).value {
            prometheus_parse::Value::Gauge(value) | prometheus_parse::Value::Counter(value) => {
                value
            }
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(value("fifogate_agent_trouble", ""), 1.0);
    assert_eq!(value("fifogate_resident_bytes", ""), 5_242_880.0);
    assert_eq!(value("fifogate_workload_frames_out_total", "dash"), 10.0);
    assert_eq!(value("fifogate_workload_subscriptions_behind", "dash"), 1.0);
    assert_eq!(value("fifogate_workload_session_open", "b"), 0.0);
    assert!(shown.contains(r#"id="1\"\\\n""#), "{shown}");
    // Every metric has its kind and help, once.
    for kind in ["# TYPE ", "# HELP "] {
        let names: Vec<_> =
            shown.lines().filter_map(|line| line.strip_prefix(kind)?.split(' ').next()).collect();
        let mut unique = names.clone();
        unique.dedup();
        assert_eq!(names.len(), unique.len());
    }
}
