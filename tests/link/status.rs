//! The status of a fifogate of which all numbers are known.

use std::process::Command;

use fifogate::pb::{
    agent_link::{AgentTrouble, from_agent::Content},
    ank_base::ReadWriteEnum,
};
use serde_json::{Value, json};

use testkit::{LinkAgent, Transport, configs};
use testkit::{Session, fifogate};

fn status(agent: &LinkAgent, output: &str) -> String {
    let answer = Command::new(fifogate())
        .args(["status", "--output", output, "--run-dir"])
        .arg(&agent.run_dir)
        .output()
        .unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap()
}

#[test]
fn all_of_it_is_true() {
    let mut agent = LinkAgent::start(Transport::Stdio, &["--subscribe-grace-ms", "0"]);
    let masks = ["desiredState.configs", "agents"];
    let pair = agent.add("w", ReadWriteEnum::RwRead, &masks);
    agent.add("idle", ReadWriteEnum::RwRead, &masks);
    let mut workload = Session::connect(&pair); // 1 in, 1 out
    workload.read("s", &["desiredState.configs.*"], true); // 2, 2
    workload.response();
    agent.link.replace_state(configs(&[("k", "v")])).unwrap(); // 2, 3
    workload.response();
    workload.read("d", &["workloadStates"], false); // 3, 4
    assert_eq!(workload.error().1, "Access denied");
    workload.write(&[0]); // 4, 4
    workload.read("r", &["agents"], false); // 5, 5
    workload.state_response();

    let told: Value = serde_json::from_str(&status(&agent, "json")).unwrap();
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(told["run_dir"], agent.run_dir.to_str().unwrap());
    assert_eq!(told["agent_link"], "connected");
    assert_eq!(told["agent_trouble"], Value::Null);
    assert!(told["uptime_s"].as_u64().unwrap() < 60);
    let own = |name: &str| {
        let workloads = told["workloads"].as_array().unwrap();
        workloads.iter().find(|own| own["name"] == name).unwrap().clone()
    };
    let subscription = json!({
        "request_id": "s", "masks": ["desiredState.configs.*"], "events_sent": 1, "events_merged": 0,
        "behind": false,
    });
    assert_eq!(
        own("w"),
        json!({
            "name": "w", "agent": "agent_A", "id": "1", "dir": pair, "session": "open",
            "subscriptions": [subscription], "queued_bytes": 0, "answers_waiting": 0,
            "reader_idle_ms": null, "versions_kept": 0, "held_ms": null, "misbehaviors": [],
            "oddities": [],
            "frames_in": 5, "frames_out": 5,
            "denied": 1, "malformed": 1, "last_denial": last_denial(),
        })
    );
    assert_eq!(
        (&own("idle")["session"], &own("idle")["frames_in"]),
        (&json!("awaiting_hello"), &json!(0))
    );
    let totals = &told["totals"];
    for (name, value) in [
        ("workloads", 2),
        ("subscriptions", 1),
        ("frames_in", 5),
        ("frames_out", 5),
        ("denied", 1),
        ("malformed", 1),
        ("events_sent", 1),
        ("queued_bytes", 0),
    ] {
        assert_eq!(totals[name], value, "{name}");
    }
    assert_eq!(totals["state_leaves"], 5); // apiVersion, workloads {}, k, workloadStates {}, agents {}
    assert!(totals["rss_bytes"].as_u64().unwrap() > 1 << 20);

    other_formats_say_the_same(&agent);
}

fn last_denial() -> Value {
    let reason = "no rule allows it (allowed to read: desiredState.configs, agents)";
    json!({ "request": "read", "what": "workloadStates", "reason": reason })
}

fn other_formats_say_the_same(agent: &LinkAgent) {
    let text = status(agent, "text");
    assert!(text.contains("2 workloads, 1 subscription, 5 leaves"), "{text}");
    let metrics = status(agent, "prometheus");
    let scrape =
        prometheus_parse::Scrape::parse(metrics.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let denied = scrape.samples.iter().find(|sample| {
        sample.metric == "fifogate_workload_denied_total"
            && sample.labels.get("workload") == Some("w")
    });
    assert_eq!(denied.unwrap().value, prometheus_parse::Value::Counter(1.0));
}

#[test]
fn nobody_to_ask_is_told_with_what_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    let answer =
        Command::new(fifogate()).args(["status", "--run-dir"]).arg(dir.path()).output().unwrap();
    assert_eq!(answer.status.code(), Some(1));
    let said = String::from_utf8(answer.stderr).unwrap();
    assert!(said.contains("status.sock") && said.contains("is fifogate running"), "{said}");
}

#[test]
fn trouble_of_the_agent_is_told_until_there_is_none() {
    let mut agent = LinkAgent::start(Transport::Stdio, &[]);
    let trouble = |agent: &mut LinkAgent, reason: &str| {
        let content = Content::Trouble(AgentTrouble { reason: reason.to_owned() });
        agent.link.call(content).unwrap();
        let told: Value = serde_json::from_str(&status(agent, "json")).unwrap();
        told["agent_trouble"].clone()
    };
    assert_eq!(trouble(&mut agent, "the store is away"), "the store is away");
    assert!(status(&agent, "text").contains("the agent says: the store is away"));
    assert_eq!(trouble(&mut agent, ""), Value::Null);
    assert!(!status(&agent, "text").contains("the agent says"));
}
