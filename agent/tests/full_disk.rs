//! A disk that is full or read-only for a while: what is refused then, and what goes on afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{fs, io::Write};

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};
use testkit::{Agent, Session, SmallDisk, is_done_elsewhere, update, wait_for, workload};

/// Sets a config and returns the error, if there is one.
fn set(ctl: &mut Session, name: &str, value: &str) -> Result<(), String> {
    let mask = format!("desiredState.configs.{name}");
    let id = ctl.ask(update(&format!("configs: {{{name}: '{value}'}}"), &[&mask]));
    match ctl.answer(&id) {
        ResponseContent::UpdateStateSuccess(_) => Ok(()),
        ResponseContent::Error(error) => Err(error.message),
        other => panic!("{other:?}"),
    }
}

fn get(ctl: &mut Session, name: &str) -> Option<usize> {
    let tree = ctl.state();
    let config = tree.get(&["desiredState", "configs", name])?;
    config.as_str().map(str::len)
}

#[test]
fn output_of_a_full_disk_is_lost_and_later_output_is_kept_whole() {
    if is_done_elsewhere(&["--mount"]) {
        return;
    }
    let disk = SmallDisk::mount(4);
    let state = disk.path("state");
    let pipe = disk.path("say");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("exec cat <> {}", pipe.display());
    let workload = workload("w", &script, "");
    let agent = Agent::start(&workload, &["--state-dir", state.to_str().unwrap()]);
    let mut ctl = agent.connect();
    let id = ctl.until_state("w", "Running(Ok)");
    let follow = pb::LogsRequest {
        workload_names: vec![pb::WorkloadInstanceName {
            workload_name: "w".to_owned(),
            agent_name: "agent_A".to_owned(),
            id,
        }],
        follow: Some(true),
        ..Default::default()
    };
    let request = ctl.ask(RequestContent::LogsRequest(follow));
    let mut say = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let mut line = |ctl: &mut Session, text: &str| {
        writeln!(say, "{text}").unwrap();
        loop {
            if let ResponseContent::LogEntriesResponse(own) = ctl.answer(&request) {
                return own.log_entries.into_iter().map(|own| own.message).collect::<Vec<_>>();
            }
        }
    };
    assert_eq!(line(&mut ctl, "before"), ["before"]);
    for round in 0..3 {
        let full = disk.fill();
        // Some of it fits into the last page of the file.
        fs::write(&pipe, "lost\n".repeat(2_000)).unwrap();
        let told = "output of w is lost: No space left on device";
        wait_for("the loss", || (agent.log().matches(told).count() > round).then_some(()));
        drop(full);
        let after = format!("after {round}");
        let other = loop {
            let lines = line(&mut ctl, &after);
            if let Some(other) = lines.into_iter().find(|own| own != "lost") {
                break other;
            }
        };
        assert_eq!(other, after, "a line is torn");
    }
}

#[test]
fn updates_are_taken_again_when_there_is_room_and_refused_ones_left_nothing() {
    if is_done_elsewhere(&["--mount"]) {
        return;
    }
    let disk = SmallDisk::mount(4);
    let state = disk.path("state");
    let mut agent = Agent::start("", &["--state-dir", state.to_str().unwrap()]);
    let mut ctl = agent.connect();
    let large = "x".repeat(100_000);
    set(&mut ctl, "before", "1").unwrap();
    for round in 0..3 {
        let full = disk.fill();
        for _ in 0..3 {
            let error = set(&mut ctl, "large", &large).unwrap_err();
            assert!(error.contains("No space left on device"), "{error}");
        }
        assert_eq!(get(&mut ctl, "large"), None, "a refused update is not shown");
        drop(full);
        set(&mut ctl, &format!("after{round}"), "1").unwrap();
    }
    agent.kill();
    drop(ctl);
    agent.restart();
    let mut ctl = agent.connect();
    for name in ["before", "after0", "after1", "after2"] {
        assert_eq!(get(&mut ctl, name), Some(1), "{name}");
    }
    assert_eq!(get(&mut ctl, "large"), None, "a refused update was kept");
}

#[test]
fn agent_on_a_read_only_disk_says_so_and_loses_nothing() {
    if is_done_elsewhere(&["--mount"]) {
        return;
    }
    let disk = SmallDisk::mount(4);
    let state = disk.path("state");
    let mut agent = Agent::start("", &["--state-dir", state.to_str().unwrap()]);
    let mut ctl = agent.connect();
    set(&mut ctl, "before", "1").unwrap();
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    disk.set_read_only(true);
    agent.restart();
    assert_eq!(agent.status(), Some(1));
    let log = agent.log();
    let error = log.lines().find(|line| line.starts_with("error: cannot keep the state: "));
    let error = error.unwrap_or_else(|| panic!("{log}"));
    assert!(error.contains("Read-only file system"), "{error}");
    disk.set_read_only(false);
    agent.restart();
    let mut ctl = agent.connect();
    assert_eq!(get(&mut ctl, "before"), Some(1));
    set(&mut ctl, "after", "1").unwrap();
}
