//! Descriptors, inodes or `/proc` run out: served workloads stay served, and fifogate refuses others with
//! a reason.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use fifogate::pb::ank_base as pb;
use pb::request::RequestContent;

use super::attacked::{alone, manifest};
use testkit::{Session, TestServer, fifogate, is_done_elsewhere, wait_for};

/// Opens a pair if it is served: with nobody behind it, `output` cannot be opened.
fn served(run_dir: &Path, name: &str) -> Option<Session> {
    let prefix = format!("{name}.");
    let folders = run_dir.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let is_own = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix);
    let pair = folders.into_iter().find(is_own)?.join("control_interface");
    let is_there = |fifo: &str| pair.join(fifo).symlink_metadata().is_ok();
    if !is_there("input") || !is_there("output") || !has_reader(&pair) {
        return None;
    }
    Some(Session::connect(&pair))
}

fn has_reader(pair: &Path) -> bool {
    use nix::{fcntl::OFlag, sys::stat::Mode};
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
    nix::fcntl::open(&pair.join("output"), flags, Mode::empty()).is_ok()
}

/// Each of these workloads is served, or refused with a reason of its own in what fifogate said.
/// Gives those that are served.
fn served_or_refused(names: &[String], run_dir: &Path, said: &str) -> Vec<Session> {
    let mut all = Vec::new();
    for name in names {
        match served(run_dir, name) {
            Some(workload) => all.push(workload),
            None => {
                let reason = format!("no control interface for {name}");
                let told = said.lines().any(|line| line.contains(&reason));
                assert!(told, "{name} is not served and nothing says why: {said}");
            }
        }
    }
    all
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("w{number}x")).collect()
}

fn manifest_of(names: &[String]) -> String {
    manifest(&names.iter().map(String::as_str).collect::<Vec<_>>(), 0)
}

/// It asks and is answered, also with more than a page.
fn is_served(workload: &mut Session) {
    for (key, value) in [("small", "v".to_owned()), ("large", "v".repeat(20_000))] {
        workload.set_config("u", key, &value);
        workload.success();
        workload.read("r", &[&format!("desiredState.configs.{key}")], false);
        workload.state_response();
    }
}

#[test]
fn workloads_for_which_there_are_no_descriptors_are_refused_and_the_others_served() {
    let _alone = alone();
    let names = names(40);
    let gate = TestServer::behind(r#"ulimit -n 64; exec "$@""#, &manifest_of(&names), &[]);
    let mut all = served_or_refused(&names, &gate.run_dir, &gate.log());
    assert!((5..names.len()).contains(&all.len()), "{} of them are served", all.len());
    all.iter_mut().for_each(is_served);
    let said = gate.log();
    assert!(!said.contains("Too many open files"), "it ran out before it refused: {said}");
    assert!(said.contains("descriptor"), "the reason is not told: {said}");
    // There are some left for whoever asks what is wrong.
    let status =
        Command::new(fifogate()).args(["status", "--run-dir"]).arg(&gate.run_dir).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    drop(all);
    assert_eq!(gate.stop(), Some(0));
}

#[test]
fn workloads_for_which_the_file_system_has_no_room_are_refused_and_the_others_served() {
    if is_done_elsewhere(&["--mount"]) {
        return;
    }
    let _alone = alone();
    // Each pair takes four inodes: two folders, two FIFOs. One is the root's, one the socket's.
    const FIT: usize = 3;
    let mount = r#"mkdir "$dir/run"; exec unshare -m sh -c 'mount -t tmpfs -o mode=700,nr_inodes=16 none "$dir/run" && exec "$@"' sh "$@""#;
    let names = names(10);
    let gate = TestServer::behind(mount, &manifest_of(&names), &[]);
    let run_dir = seen_by(&gate);
    // `good` takes a place too.
    let mut all: Vec<_> = served(&run_dir, "good").into_iter().collect();
    all.extend(served_or_refused(&names, &run_dir, &gate.log()));
    assert_eq!(all.len(), FIT);
    all.iter_mut().for_each(is_served);
    assert!(gate.log().contains("No space left on device"), "{}", gate.log());
    drop(all);
    assert_eq!(gate.stop(), Some(0));
}

/// Its run directory, as it sees it itself.
fn seen_by(gate: &TestServer) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", gate.process.id()));
    root.join(gate.run_dir.strip_prefix("/").unwrap())
}

/// Runs a command in the mount namespace of fifogate.
fn within(gate: &TestServer, command: &[&str]) {
    let target = gate.process.id().to_string();
    let status = Command::new("nsenter").args(["-t", &target, "-m"]).args(command).status();
    assert!(status.unwrap().success(), "{command:?}");
}

#[test]
fn lost_proc_leaves_who_is_served_and_refuses_who_comes_until_it_is_back() {
    if is_done_elsewhere(&["--mount"]) {
        return;
    }
    let _alone = alone();
    let gate = TestServer::behind(r#"exec unshare -m "$@""#, &manifest(&["w"], 0), &[]);
    let mut good = gate.connect("good");
    let mut other = gate.connect("w");
    within(&gate, &["mount", "-t", "tmpfs", "none", "/proc"]);
    is_served(&mut good);
    is_served(&mut other);
    add_workload(&mut good, "late");
    is_served(&mut other);
    let line = wait_for("the reason why late is not served", || {
        let log = gate.log();
        log.lines().find(|line| line.contains("no control interface for late")).map(str::to_owned)
    });
    assert!(line.contains("/proc"), "the reason is not told: {line}");

    within(&gate, &["umount", "/proc"]);
    add_workload(&mut good, "later");
    is_served(&mut wait_for("later", || served(&gate.run_dir, "later")));
    assert_eq!(gate.stop(), Some(0));
}

/// By the update of a workload that may do everything.
fn add_workload(by: &mut Session, name: &str) {
    let workload = pb::Workload {
        agent: Some("a".to_owned()),
        runtime: Some("r".to_owned()),
        runtime_config: Some(name.to_owned()),
        control_interface_access: Some(testkit::access(pb::ReadWriteEnum::RwReadWrite, &["*"])),
        ..Default::default()
    };
    let workloads = pb::WorkloadMap { workloads: [(name.to_owned(), workload)].into() };
    let desired = pb::State { workloads: Some(workloads), ..Default::default() };
    let update = pb::UpdateStateRequest {
        new_state: Some(pb::CompleteState { desired_state: Some(desired), ..Default::default() }),
        update_mask: vec![format!("desiredState.workloads.{name}")],
    };
    by.request("add", RequestContent::UpdateStateRequest(update));
    by.success();
}
