//! The output of workloads, as other workloads receive it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};
use prost::Message;
use testkit::{Agent, Session, state_of, wait_for, workload};

fn name(workload: &str, id: &str) -> pb::WorkloadInstanceName {
    pb::WorkloadInstanceName {
        workload_name: workload.to_owned(),
        agent_name: "agent_A".to_owned(),
        id: id.to_owned(),
    }
}

fn ask(ctl: &mut Session, names: &[pb::WorkloadInstanceName], request: pb::LogsRequest) -> String {
    let workload_names = names.to_vec();
    ctl.ask(RequestContent::LogsRequest(pb::LogsRequest { workload_names, ..request }))
}

/// All lines until the log stops.
fn lines(ctl: &mut Session, id: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match ctl.answer(id) {
            ResponseContent::LogsRequestAccepted(_) => assert!(all.is_empty()),
            ResponseContent::LogEntriesResponse(entries) => {
                all.extend(entries.log_entries.into_iter().map(|entry| entry.message));
            }
            ResponseContent::LogsStopResponse(_) => return all,
            other => panic!("{other:?}"),
        }
    }
}

/// All lines of an instance that has ended, which are so many.
fn whole_log(ctl: &mut Session, own: &pb::WorkloadInstanceName, count: usize) -> Vec<String> {
    wait_for("all lines", || {
        let request = ask(ctl, std::slice::from_ref(own), pb::LogsRequest::default());
        Some(lines(ctl, &request)).filter(|lines| lines.len() == count)
    })
}

#[test]
fn a_log_is_told_whole_or_its_tail_and_what_is_accepted_comes_first() {
    let script = "for i in 1 2 3 4 5; do echo out $i; done; sleep 0.05; echo err >&2; exit 1";
    let agent = Agent::start(&workload("w", script, ""), &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Failed(ExecFailed)");
    let own = name("w", &id);
    let all = whole_log(&mut ctl, &own, 6);
    assert_eq!(all, ["out 1", "out 2", "out 3", "out 4", "out 5", "err"]);
    let tail = pb::LogsRequest { tail: Some(2), ..Default::default() };
    let request = ask(&mut ctl, std::slice::from_ref(&own), tail);
    assert_eq!(lines(&mut ctl, &request), ["out 5", "err"]);
    let future = Some("2999-01-01T00:00:00Z".to_owned());
    for (since, until, expected) in [(future.clone(), None, 0), (None, future, 6)] {
        let range = pb::LogsRequest { since, until, ..Default::default() };
        let request = ask(&mut ctl, std::slice::from_ref(&own), range);
        assert_eq!(lines(&mut ctl, &request).len(), expected);
    }
    let request =
        ask(&mut ctl, &[name("w", "other"), name("none", "x")], pb::LogsRequest::default());
    match ctl.answer(&request) {
        ResponseContent::LogsRequestAccepted(own) => assert!(own.workload_names.is_empty()),
        other => panic!("{other:?}"),
    }
    let wrong = pb::LogsRequest { since: Some("yesterday".to_owned()), ..Default::default() };
    let request = ask(&mut ctl, &[own], wrong);
    assert!(
        matches!(ctl.answer(&request), ResponseContent::Error(e) if e.message.contains("RFC 3339"))
    );
}

#[test]
fn a_follower_is_told_what_comes_until_it_cancels() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("say");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("exec cat <> {}", pipe.display());
    let agent = Agent::start(&workload("w", &script, ""), &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Running(Ok)");
    let follow = pb::LogsRequest { follow: Some(true), ..Default::default() };
    let request = ask(&mut ctl, &[name("w", &id)], follow);
    assert!(matches!(ctl.answer(&request), ResponseContent::LogsRequestAccepted(_)));
    for text in ["one", "two"] {
        fs::write(&pipe, format!("{text}\n")).unwrap();
        let ResponseContent::LogEntriesResponse(entries) = ctl.answer(&request) else { panic!() };
        assert_eq!(entries.log_entries[0].message, text);
    }
    let cancel = RequestContent::LogsCancelRequest(pb::LogsCancelRequest {});
    // A cancel has the id of what it cancels.
    ctl.request(&request, cancel);
    assert!(matches!(ctl.answer(&request), ResponseContent::LogsCancelAccepted(_)));
    fs::write(&pipe, "three\n").unwrap();
    let whole = wait_for("the third line in the log", || {
        let request = ask(&mut ctl, &[name("w", &id)], pb::LogsRequest::default());
        // Anything for the cancelled request would fail here.
        let mut all = Vec::new();
        loop {
            let (own, content) = ctl.response();
            assert_eq!(own, request);
            match content {
                ResponseContent::LogEntriesResponse(entries) => all.extend(entries.log_entries),
                ResponseContent::LogsStopResponse(_) => break,
                _ => {}
            }
        }
        (all.len() == 3).then_some(all)
    });
    assert_eq!(whole[2].message, "three");
}

#[test]
fn smallest_log_keeps_its_last_lines_and_a_prompt_follower_misses_none() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("go");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("cat {}; seq 1 50000; printf end", pipe.display());
    let agent = Agent::start(&workload("w", &script, ""), &["--log-bytes", "65536"]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Running(Ok)");
    let follow = pb::LogsRequest { follow: Some(true), ..Default::default() };
    let request = ask(&mut ctl, &[name("w", &id)], follow);
    fs::write(&pipe, "").unwrap();
    let expected = (1..=50_000).map(|number| number.to_string()).chain(["end".to_owned()]);
    assert!(lines(&mut ctl, &request).into_iter().eq(expected), "a line was missed");
    ctl.until_state("w", "Succeeded(Ok)");
    let request = ask(&mut ctl, &[name("w", &id)], pb::LogsRequest::default());
    let kept = lines(&mut ctl, &request);
    // Each of these lines takes 12 bytes beside its 5.
    assert!(kept.len() >= 48 * 1024 / 17 && kept.len() <= 64 * 1024 / 17 + 1, "{}", kept.len());
    assert_eq!(kept.last().map(String::as_str), Some("end"));
}

#[test]
fn a_hundred_megabytes_are_followed_in_order_and_memory_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    // A million lines of 100 bytes, numbered.
    let script = format!(
        "until test -e {}; do sleep 0.02; done; exec seq -f '%099.0f' 0 1048575",
        go.display()
    );
    let agent = Agent::start(&workload("w", &script, ""), &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Running(Ok)");
    let follow = pb::LogsRequest { follow: Some(true), ..Default::default() };
    let request = ask(&mut ctl, &[name("w", &id)], follow);
    assert!(matches!(ctl.answer(&request), ResponseContent::LogsRequestAccepted(_)));
    let before = agent.child.memory_kib("VmHWM");
    fs::write(&go, "").unwrap();
    let mut next = 0_u64;
    loop {
        match ctl.answer(&request) {
            ResponseContent::LogEntriesResponse(entries) => {
                assert!(entries.encoded_len() <= 2 << 20);
                for entry in entries.log_entries {
                    assert_eq!(entry.message.parse::<u64>().unwrap(), next, "{}", entry.message);
                    next += 1;
                }
            }
            ResponseContent::LogsStopResponse(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next, 1 << 20);
    let after = agent.child.memory_kib("VmHWM");
    assert!(after < before + 16_384, "{before} KiB, then {after} KiB");
    let tail = pb::LogsRequest { tail: Some(3), ..Default::default() };
    let request = ask(&mut ctl, &[name("w", &id)], tail);
    let numbers: Vec<u64> =
        lines(&mut ctl, &request).iter().map(|own| own.parse().unwrap()).collect();
    assert_eq!(numbers, [1_048_573, 1_048_574, 1_048_575]);
    let kept: u64 = fs::read_dir(agent.path("run/agent/logs").join(format!("w.{id}")))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept <= 16 << 20, "{kept}");
}

#[test]
fn a_follower_that_never_reads_does_not_stop_what_writes_for_ever() {
    let rights = ", controlInterfaceAccess: {allowRules: [{type: LogRule, workloadNames: ['*']}]}";
    let writes = workload("w", "seq -f '%099.0f' 0 400000; exec sleep 1000", "");
    let workloads = [writes, workload("silent", "exec sleep 1000", rights)].concat();
    let agent = Agent::start(&workloads, &["--log-bytes", "1000000"]);
    let mut ctl = agent.connect();
    let id = wait_for("its start", || state_of(&ctl.state(), "w").map(|own| own.0));
    let mut silent = agent.connect_as("silent");
    let follow = pb::LogsRequest { follow: Some(true), ..Default::default() };
    ask(&mut silent, &[name("w", &id)], follow);
    let log = agent.path("run/agent/logs").join(format!("w.{id}"));
    wait_for("all output", || {
        let entries = fs::read_dir(&log).ok()?.filter_map(Result::ok);
        let ends = entries.filter_map(|entry| {
            let start: u64 = entry.file_name().to_str()?.parse().ok()?;
            Some(start + entry.metadata().ok()?.len())
        });
        // Twelve bytes of each line are when it came and how long it is.
        (ends.max()? == 400_001 * (99 + 12)).then_some(())
    });
}

#[test]
fn a_line_that_is_too_long_is_cut_and_said_to_be() {
    let script = "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo next";
    let agent = Agent::start(&workload("w", script, ""), &[]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Succeeded(Ok)");
    let all = whole_log(&mut ctl, &name("w", &id), 3);
    assert!(all[0].len() < 2 << 20 && all[0].ends_with("x [truncated]"));
    assert!(all[1].starts_with("The previous message was truncated"));
    assert_eq!(all[2], "next");
}
