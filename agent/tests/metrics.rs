//! Metrics and health over HTTP, from a running agent with its fifogate.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod http;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::TcpListener,
    process::{Command, Stdio},
};

use http::{Answer, address_of, get, get_as};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::{Agent, Etcd, processes_with, repository, skip, wait_for, workload};

const OPTIONS: [&str; 2] = ["--metrics", "0"];

fn metrics(agent: &Agent) -> String {
    let Answer { status, head, body } = get(&address_of(agent, "/metrics"), "/metrics");
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    body
}

/// The value of a series as it is printed.
fn value(agent: &Agent, series: &str) -> Option<String> {
    let text = metrics(agent);
    text.lines().find_map(|line| Some(line.strip_prefix(series)?.strip_prefix(' ')?.to_owned()))
}

fn until(agent: &Agent, series: &str, expected: &str) {
    wait_for(&format!("{series} {expected}"), || {
        (value(agent, series).as_deref() == Some(expected)).then_some(())
    });
}

/// An agent of which every metric has a series.
fn busy() -> Agent {
    let fails = workload("fails", "exit 3", ", restartPolicy: ON_FAILURE");
    let agent = Agent::start(&[fails, workload("sleeps", "sleep 100000", "")].concat(), &OPTIONS);
    agent.connect().until_state("sleeps", "Running(Ok)");
    agent
}

#[test]
fn states_starts_and_updates_of_workloads_are_metrics_and_a_removed_one_has_none() {
    let agent = busy();
    let running =
        r#"fifogate_agent_workload_state{workload="sleeps",state="Running",sub_state="Ok"}"#;
    until(&agent, running, "1");
    let restarts = r#"fifogate_agent_workload_restarts_total{workload="fails"}"#;
    wait_for("restarts", || value(&agent, restarts).filter(|count| count != "0"));
    until(&agent, r#"fifogate_agent_workload_starts_total{workload="sleeps"}"#, "1");
    until(&agent, "fifogate_agent_store_reachable", "1");
    until(&agent, "fifogate_up", "1");
    let mut ctl = agent.connect();
    ctl.update("workloads: {}", &["desiredState.workloads.sleeps"]).unwrap();
    ctl.update("workloads: {}", &["desiredState.workloads.*"]).unwrap_err();
    until(&agent, r#"fifogate_agent_updates_total{result="accepted"}"#, "1");
    let gone = || (!metrics(&agent).contains("sleeps")).then_some(());
    wait_for("the end of its series", gone);
}

/// The answer about the health of an agent.
fn health(address: &str) -> (u16, String) {
    let Answer { status, body, .. } = get(address, "/healthz");
    (status, body.trim_end().to_owned())
}

fn until_health(address: &str, status: u16, text: &str) {
    let expected = (status, text.to_owned());
    wait_for(text, || (health(address) == expected).then_some(()));
}

/// The fifogate of an agent.
fn gate_of(agent: &Agent) -> Pid {
    let run_dir = agent.path("run").display().to_string();
    let is_gate = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "fifogate")
    };
    Pid::from_raw(processes_with(&run_dir).into_iter().find(is_gate).unwrap())
}

#[test]
fn fifogate_that_hangs_is_bad_health_and_metrics_go_on_without_it() {
    let agent = busy();
    let address = address_of(&agent, "/metrics");
    assert_eq!(health(&address), (200, "agent_A runs".to_owned()));
    let gate = gate_of(&agent);
    // Its process is there, and its link is open.
    kill(gate, Signal::SIGSTOP).unwrap();
    assert_eq!(health(&address), (503, "fifogate does not answer".to_owned()));
    until(&agent, "fifogate_up", "0");
    assert!(metrics(&agent).contains("process_open_fds "));
    kill(gate, Signal::SIGCONT).unwrap();
    until_health(&address, 200, "agent_A runs");
    kill(gate, Signal::SIGKILL).unwrap();
    until(&agent, "fifogate_agent_gate_restarts_total", "1");
    until(&agent, "fifogate_up", "1");
}

#[test]
fn fifogate_that_cannot_be_started_again_is_bad_health_until_it_is() {
    let agent = Agent::start("", &OPTIONS);
    let address = address_of(&agent, "/metrics");
    until_health(&address, 200, "agent_A runs");
    // In the place of its socket it accepts nothing else.
    let socket = agent.path("run/status.sock");
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "").unwrap();
    kill(gate_of(&agent), Signal::SIGKILL).unwrap();
    until_health(&address, 503, "fifogate does not run");
    fs::remove_file(&socket).unwrap();
    until_health(&address, 200, "agent_A runs");
}

#[test]
fn store_that_cannot_be_used_is_bad_health_with_the_reason() {
    let mut etcd = Etcd::start();
    let agent = Agent::start("", &["--metrics", "0", "--etcd", &etcd.endpoint()]);
    let address = address_of(&agent, "/metrics");
    until_health(&address, 200, "agent_A runs");
    etcd.kill();
    let (status, reason) =
        wait_for("bad health", || Some(health(&address)).filter(|(status, _)| *status != 200));
    let begin = "the store cannot be reached since ";
    assert!(status == 503 && reason.starts_with(begin), "{status} {reason}");
    until(&agent, "fifogate_agent_store_reachable", "0");
    etcd.restart();
    until_health(&address, 200, "agent_A runs");
    until(&agent, "fifogate_agent_store_reachable", "1");
}

#[test]
fn foreign_hosts_other_paths_and_other_methods_are_refused_and_slow_clients_hold_nobody_up() {
    let agent = busy();
    let address = address_of(&agent, "/metrics");
    assert_eq!(get_as(&address, "evil.example", "/metrics").status, 421);
    assert_eq!(get_as(&address, "localhost:1", "/metrics").status, 200);
    assert_eq!(get(&address, "/").status, 404);
    // More than there are places: the slow ones are given up after a time.
    let slow: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(&address).unwrap();
            stream.write_all(b"GET /metrics HT").unwrap();
            stream
        })
        .collect();
    assert_eq!(get(&address, "/healthz").status, 200);
    drop(slow);
}

#[test]
fn address_in_use_ends_the_agent_at_its_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut agent = Agent::start("", &["--metrics", &address]);
    assert_eq!(agent.status(), Some(1));
    let text = format!("error: --metrics {address}: Address already in use");
    assert!(agent.log().contains(&text), "{}", agent.log());
}

#[test]
fn address_that_others_reach_is_warned_of() {
    let agent = Agent::start("", &["--metrics", "0.0.0.0:0"]);
    wait_for("the warning", || agent.log().contains("whoever reaches 0.0.0.0:").then_some(()));
    let address = address_of(&agent, "/metrics").replace("0.0.0.0", "127.0.0.1");
    assert_eq!(get_as(&address, "node.example", "/healthz").status, 200);
}

/// The names of metrics in a text of them, with their kinds.
fn named(text: &str) -> BTreeMap<String, String> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    kinds.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

#[test]
fn every_metric_is_in_the_operations_manual_and_every_one_there_exists() {
    let agent = busy();
    let found = named(&metrics(&agent));
    let manual = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let (_, part) = manual.split_once("\n### Metrics\n").unwrap();
    let part = part.split_once("\n## ").unwrap().0;
    let mut told = BTreeMap::new();
    for line in part.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next().unwrap().trim_matches('`').to_owned();
        let kind = cells.next().unwrap().split(',').next().unwrap().to_owned();
        assert_eq!(told.insert(name, kind), None, "{line}");
    }
    assert_eq!(told, found);
    // Every metric has series here, so its labels are told right, too.
    let text = metrics(&agent);
    let with_series: BTreeSet<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect();
    assert_eq!(with_series, found.keys().map(String::as_str).collect());
}

#[test]
fn promtool_has_nothing_to_say_against_the_metrics() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return skip("promtool is not installed (tests/metrics/setup.sh)");
    }
    let agent = busy();
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(metrics(&agent).as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn metrics_and_the_page_may_have_one_port() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let agent = Agent::start("", &["--metrics", &port, "--page", &format!("127.0.0.1:{port}")]);
    let address = address_of(&agent, "/metrics");
    assert_eq!(get(&address, "/healthz").status, 200);
    let page = get(&address, "/");
    assert_eq!((page.status, page.body.contains("<html")), (200, true), "{}", page.head);
    assert!(
        agent.log().contains(&format!("the page is at http://{address}/\n")),
        "{}",
        agent.log()
    );
}
