//! Logs that the server asks for.

use fifogate::pb::ank_base as pb;
use testkit::{wait_for, workload};

use super::{
    joined::{Joined, added, deleted},
    server::{FromServerContent, LogsCancelRequest, LogsRequest, ToServerContent, instance_name},
};

/// What came of a log: its lines, and for which instances it ended.
fn log(joined: &Joined, id: &str) -> (Vec<String>, Vec<pb::WorkloadInstanceName>) {
    let (mut lines, mut ended) = (Vec::new(), Vec::new());
    for own in joined.port.record().all() {
        match own.message.content {
            Some(ToServerContent::LogEntriesResponse(own)) if own.request_id == id => {
                let entries = own.log_entries_response.unwrap().log_entries;
                lines.extend(entries.into_iter().map(|entry| entry.message));
            }
            Some(ToServerContent::LogsStopResponse(own)) if own.request_id == id => {
                ended.extend(own.logs_stop_response.unwrap().workload_name);
            }
            _ => {}
        }
    }
    (lines, ended)
}

fn ask(joined: &Joined, id: &str, names: Vec<pb::WorkloadInstanceName>, request: pb::LogsRequest) {
    let logs_request = Some(pb::LogsRequest { workload_names: names, ..request });
    let request = LogsRequest { request_id: id.to_owned(), logs_request };
    joined.stream.send(FromServerContent::LogsRequest(request));
}

fn name(workload: &str) -> pb::WorkloadInstanceName {
    added(workload)[0].instance_name.clone().unwrap()
}

fn until(joined: &Joined, id: &str, lines: &[&str], ended: usize) {
    wait_for(&format!("{lines:?} and {ended} ends of {id}"), || {
        let (now, stops) = log(joined, id);
        (now == lines && stops.len() == ended).then_some(())
    });
}

#[test]
fn log_is_sent_with_exactly_the_id_of_its_request_and_ends() {
    let one = workload("one", "echo a; echo b >&2; echo c", "");
    let joined = Joined::with(&one);
    joined.wait_for_state("one", "Succeeded(Ok)");
    for id in ["cli-conn-1-2@x", "commander-conn-3@y", "agent_B@asks@z@1"] {
        ask(&joined, id, vec![name(&one)], pb::LogsRequest::default());
        wait_for("its end", || (log(&joined, id).1 == [name(&one)]).then_some(()));
        let mut lines = log(&joined, id).0;
        // Each of its streams is read on its own.
        lines.sort();
        assert_eq!(lines, ["a", "b", "c"]);
    }
    let tail = pb::LogsRequest { tail: Some(1), ..Default::default() };
    ask(&joined, "tail", vec![name(&one)], tail);
    wait_for("the last line", || (log(&joined, "tail").0.len() == 1).then_some(()));
}

#[test]
fn followed_log_ends_with_its_workload_and_a_cancelled_one_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let one = workload("one", &format!("exec cat {}", pipe.display()), "");
    let joined = Joined::with(&one);
    joined.wait_for_state("one", "Running(Ok)");
    let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let mut say = |text: &str| std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
    let follow = pb::LogsRequest { follow: Some(true), ..Default::default() };
    ask(&joined, "kept", vec![name(&one)], follow.clone());
    ask(&joined, "cancelled", vec![name(&one)], follow);
    say("first\n");
    until(&joined, "kept", &["first"], 0);
    until(&joined, "cancelled", &["first"], 0);
    let cancel = LogsCancelRequest { request_id: "cancelled".to_owned() };
    joined.stream.send(FromServerContent::LogsCancelRequest(cancel));
    // One that the agent does not know: they go to all agents.
    let cancel = LogsCancelRequest { request_id: "of another".to_owned() };
    joined.stream.send(FromServerContent::LogsCancelRequest(cancel));
    // Behind the cancellation.
    ask(&joined, "behind", vec![instance_name("nobody.1.agent_A")], pb::LogsRequest::default());
    until(&joined, "behind", &[], 1);
    say("second\n");
    until(&joined, "kept", &["first", "second"], 0);
    joined.order(Vec::new(), deleted(&one, &[]));
    until(&joined, "kept", &["first", "second"], 1);
    assert_eq!(log(&joined, "cancelled"), (vec!["first".to_owned()], Vec::new()));
}

#[test]
fn log_of_a_workload_that_is_not_here_or_never_started_ends_at_once() {
    let waits = workload("waits", "echo x", ", dependencies: {far: ADD_COND_RUNNING}");
    let joined = Joined::with(&waits);
    joined.wait_for_state("waits", "Pending(WaitingToStart)");
    let nobody = instance_name("nobody.1.agent_A");
    ask(&joined, "1", vec![nobody.clone(), name(&waits)], pb::LogsRequest::default());
    wait_for("both ends", || (log(&joined, "1").1.len() == 2).then_some(()));
    let (lines, ended) = log(&joined, "1");
    assert!(lines.is_empty() && ended.contains(&nobody) && ended.contains(&name(&waits)));
}

#[test]
fn logs_end_with_the_connection() {
    let one = workload("one", "while :; do echo x; sleep 0.01; done", "");
    let mut joined = Joined::with(&one);
    joined.wait_for_state("one", "Running(Ok)");
    let follow = pb::LogsRequest { follow: Some(true), ..Default::default() };
    ask(&joined, "1", vec![name(&one)], follow);
    wait_for("some lines", || (log(&joined, "1").0.len() > 3).then_some(()));
    joined.port.reset_all();
    joined.take_again(&one);
    ask(&joined, "2", vec![instance_name("nobody.1.agent_A")], pb::LogsRequest::default());
    until(&joined, "2", &[], 1);
    let number = joined.stream.number;
    let messages = joined.port.record().of_stream(number);
    let is_log = |content: &Option<ToServerContent>| {
        matches!(content, Some(ToServerContent::LogEntriesResponse(_)))
    };
    assert!(messages.iter().all(|own| !is_log(&own.content)), "{messages:?}");
}
