//! Logs of workloads of other nodes, asked for by a workload and by an operator.

use std::{path::PathBuf, process::Command};

use fifogate::{
    pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent},
    state::Tree,
};
use tempfile::TempDir;
use testkit::{Agent, Authority, Etcd, Session, fifogate_agent, wait_for};

use super::tls::{free_port, options};

/// A workload of this agent that says how far it counts, and goes on when somebody writes to a pipe.
fn counts(name: &str, agent: &str, script: &str) -> String {
    let config = serde_json::json!({ "command": "sh", "args": ["-c", script] });
    let config = serde_json::Value::from(config.to_string()).to_string();
    format!("  {name}: {{runtime: process, agent: {agent}, runtimeConfig: {config}}}\n")
}

/// The instance of a workload, once it runs.
fn running(tree: &Tree, agent: &str, name: &str) -> Option<pb::WorkloadInstanceName> {
    let path = ["workloadStates", agent, name];
    let (id, state) = tree.entries(&path).iter().next()?;
    (state.str_at("state") == Some("Running")).then(|| pb::WorkloadInstanceName {
        workload_name: name.to_owned(),
        agent_name: agent.to_owned(),
        id: id.to_string(),
    })
}

fn ask(ctl: &mut Session, names: &[&pb::WorkloadInstanceName], follow: bool) -> String {
    let workload_names = names.iter().copied().cloned().collect();
    let follow = Some(follow);
    let request = pb::LogsRequest { workload_names, follow, ..Default::default() };
    ctl.ask(RequestContent::LogsRequest(request))
}

/// The next lines of a request, each with its workload; `None` for the end of a log.
fn next(ctl: &mut Session, id: &str) -> Vec<(String, Option<String>)> {
    match ctl.answer(id) {
        ResponseContent::LogEntriesResponse(entries) => {
            let line =
                |own: pb::LogEntry| (own.workload_name.unwrap().workload_name, Some(own.message));
            entries.log_entries.into_iter().map(line).collect()
        }
        ResponseContent::LogsStopResponse(own) => {
            vec![(own.workload_name.unwrap().workload_name, None)]
        }
        other => panic!("{other:?}"),
    }
}

fn accepted(ctl: &mut Session, id: &str) -> usize {
    match ctl.answer(id) {
        ResponseContent::LogsRequestAccepted(own) => own.workload_names.len(),
        other => panic!("{other:?}"),
    }
}

fn refusal(ctl: &mut Session, id: &str) -> String {
    match ctl.answer(id) {
        ResponseContent::Error(error) => error.message,
        other => panic!("{other:?}"),
    }
}

/// Three nodes, of which the third does not listen, with a workload on each; and a session on the first.
struct Nodes {
    _etcd: Etcd,
    first: Agent,
    second: Agent,
    _third: Agent,
    ctl: Session,
    /// What is written there is said by `far`.
    say: PathBuf,
    near: pb::WorkloadInstanceName,
    far: pb::WorkloadInstanceName,
    mute: pb::WorkloadInstanceName,
    _files: (TempDir, Authority),
}

fn nodes() -> Nodes {
    let etcd = Etcd::start();
    let authority = Authority::new();
    authority.issue("ank-server");
    let dir = tempfile::tempdir().unwrap();
    let say = dir.path().join("say");
    nix::unistd::mkfifo(&say, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let says = format!("echo one; echo two; exec cat <> {}", say.display());
    let text = [
        counts("near", "agent_A", "echo here; exec sleep 100000"),
        counts("far", "agent_B", &says),
        counts("mute", "agent_C", "exec sleep 100000"),
    ]
    .concat();
    let endpoint = etcd.endpoint();
    let start = |name: &str, listen: &[String]| {
        let own = ["--etcd", &endpoint, "--name", name, "--takeover-after", "3"].map(str::to_owned);
        let all: Vec<_> = own.iter().chain(listen).map(String::as_str).collect();
        Agent::start(&text, &all)
    };
    let tls = || options(&authority, "ank-server", free_port());
    let first = start("agent_A", &tls());
    let mut ctl = first.connect();
    let (second, third) = (start("agent_B", &tls()), start("agent_C", &[]));
    let mut until = |agent: &str, name: &str| {
        ctl.until(&format!("{name} runs"), |tree| running(tree, agent, name))
    };
    let (near, far) = (until("agent_A", "near"), until("agent_B", "far"));
    let mute = until("agent_C", "mute");
    // The files are read again for each connection.
    let files = (dir, authority);
    Nodes { _etcd: etcd, first, second, _third: third, ctl, say, near, far, mute, _files: files }
}

#[test]
fn logs_of_other_nodes_come_whole_and_a_node_that_nobody_reaches_is_told_of() {
    let Nodes { _etcd, first, second: _second, _third, mut ctl, near, far, mute, _files, .. } =
        nodes();
    // All lines of both, each with its end.
    let lines = wait_for("all lines", || {
        let id = ask(&mut ctl, &[&near, &far], false);
        assert_eq!(accepted(&mut ctl, &id), 2);
        let mut all = Vec::new();
        while all.iter().filter(|(_, line): &&(String, Option<String>)| line.is_none()).count() < 2
        {
            all.extend(next(&mut ctl, &id));
        }
        (all.len() == 5).then_some(all)
    });
    let of = |name: &str| -> Vec<_> {
        lines.iter().filter(|(own, _)| own == name).map(|(_, line)| line.as_deref()).collect()
    };
    assert_eq!(of("far"), [Some("one"), Some("two"), None]);
    assert_eq!(of("near"), [Some("here"), None]);
    // An operator asks the same agent.
    let socket = format!("unix:{}", first.path("run/command.sock").display());
    let printed =
        Command::new(fifogate_agent()).args(["logs", "far", "--connect", &socket]).output();
    let printed = printed.unwrap();
    assert_eq!(String::from_utf8_lossy(&printed.stdout), "one\ntwo\n", "{printed:?}");
    let id = ask(&mut ctl, &[&near, &mute], false);
    let expected = "The log of 'mute' is kept by 'agent_C', which does not run or was started \
                    without --listen";
    assert_eq!(refusal(&mut ctl, &id), expected);
}

#[test]
fn log_of_another_node_is_followed_until_its_node_is_gone() {
    let Nodes { _etcd, first: _first, mut second, _third, mut ctl, say, far, _files, .. } = nodes();
    let id = ask(&mut ctl, &[&far], true);
    assert_eq!(accepted(&mut ctl, &id), 1);
    let mut heard = Vec::new();
    let mut told = 0;
    while heard.len() < 5 {
        if told + 2 == heard.len() {
            told += 1;
            std::fs::write(&say, format!("more {told}\n")).unwrap();
        }
        heard.extend(next(&mut ctl, &id).into_iter().map(|(_, line)| line.unwrap()));
    }
    assert_eq!(heard, ["one", "two", "more 1", "more 2", "more 3"]);
    second.kill_with_gate();
    let lost = next(&mut ctl, &id).remove(0).1.unwrap();
    let expected = "[the rest of this log is lost with the connection to agent_B";
    assert!(lost.starts_with(expected), "{lost}");
    assert_eq!(next(&mut ctl, &id), [("far".to_owned(), None)]);
    let id = ask(&mut ctl, &[&far], false);
    let text = refusal(&mut ctl, &id);
    assert!(text.starts_with("The log of 'far' is kept by 'agent_B', which does not"), "{text}");
}
