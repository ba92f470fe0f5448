//! The server inside of this process: two beside each other, their ends, and typed errors.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fifogate::{
    link::AgentLink,
    manifest,
    server::{AgentTransport, Server, ServerBuilder, ServerError, StartError},
};
use serde_json::Value;
use tempfile::TempDir;

use testkit::{Session, fixture, wait_for};

const FLUSH: Duration = Duration::from_secs(1);

/// A server of one workload `w` that may read and write the configs, one of them `of`.
fn server_of(dir: &TempDir, of: &str) -> ServerBuilder {
    let text = format!(
        "apiVersion: v1\nconfigs:\n  of: {of}\nworkloads:\n  w:\n    agent: agent_A\n    runtime: process\n    \
         runtimeConfig: \"\"\n    controlInterfaceAccess:\n      allowRules:\n      - type: StateRule\n        \
         operation: ReadWrite\n        filterMasks: [desiredState.configs]\n"
    );
    let path = dir.path().join("manifest.yaml");
    fs::write(&path, text).unwrap();
    let manifest = manifest::read(&path).unwrap();
    Server::builder(dir.path().join("run")).initial_state(manifest.updated)
}

/// The only pair below `run_dir`.
fn pair(run_dir: &Path) -> std::path::PathBuf {
    let mut folders = fs::read_dir(run_dir).unwrap().map(|entry| entry.unwrap().path());
    folders.find(|path| path.is_dir()).unwrap().join("control_interface")
}

/// One test at a time: they count the threads of this process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn two_servers_serve_in_one_process_and_one_outlives_the_other() {
    let _alone = alone();
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut servers = [(&one, "one"), (&other, "other")].map(|(dir, of)| {
        let mut handle = server_of(dir, of).spawn().unwrap();
        handle.wait_ready().unwrap();
        let mut workload = Session::open(&pair(&dir.path().join("run")));
        workload.hello();
        (of, handle, workload)
    });
    for (of, handle, workload) in &mut servers {
        workload.read("r", &["desiredState.configs"], false);
        let (_, content) = workload.response();
        assert!(format!("{content:?}").contains(&format!("{of:?}")), "{content:?}");
        let status: Value = serde_json::from_str(&handle.status().unwrap()).unwrap();
        assert_eq!(status["totals"]["workloads"], 1);
        assert_eq!(status["workloads"][0]["session"], "open");
    }
    let [(_, first, mut of_first), (_, second, mut of_second)] = servers;
    first.shutdown(FLUSH).unwrap();
    of_first.end_of_file();
    of_second.set_config("u", "k", "v");
    of_second.success();
    second.shutdown(FLUSH).unwrap();
}

#[test]
fn end_leaves_no_thread_and_the_run_directory_can_be_served_again() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let before = threads();
    for _ in 0..3 {
        let mut handle = server_of(&dir, "x").spawn().unwrap();
        handle.wait_ready().unwrap();
        assert!(threads() > before);
        handle.shutdown(FLUSH).unwrap();
        let names: Vec<_> = fs::read_dir(dir.path().join("run")).unwrap().collect();
        assert_eq!(names.len(), 1, "the pair stays for its workload, the status socket does not");
    }
    wait_for("the end of all threads", || (threads() <= before).then_some(()));
}

#[test]
fn readable_descriptor_stops_the_server_and_so_does_a_dropped_handle() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (stop, mut trigger) = UnixStream::pair().unwrap();
    let mut handle = server_of(&dir, "x").stop_when_readable(OwnedFd::from(stop)).spawn().unwrap();
    handle.wait_ready().unwrap();
    trigger.write_all(b"!").unwrap();
    handle.wait().unwrap();

    let mut handle = server_of(&dir, "x").spawn().unwrap();
    handle.wait_ready().unwrap();
    let mut workload = Session::open(&pair(&dir.path().join("run")));
    workload.hello();
    drop(handle);
    workload.end_of_file();
}

#[test]
fn reasons_not_to_start_are_told_apart() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let mut first = server_of(&dir, "x").spawn().unwrap();
    first.wait_ready().unwrap();
    let error = Server::builder(&run_dir).spawn().unwrap_err();
    assert!(matches!(&error, StartError::AlreadyRunning(dir) if dir.ends_with("run")), "{error}");
    assert!(first.status().is_some(), "the first one is not disturbed");
    first.shutdown(FLUSH).unwrap();

    let error = Server::builder(fixture("no/such/parent")).spawn().unwrap_err();
    assert!(matches!(error, StartError::RunDirUnusable(_)), "{error}");
    let nobody = AgentTransport::Unix(dir.path().join("nobody"));
    let error = Server::builder(&run_dir).agent(nobody).spawn().unwrap_err();
    assert!(matches!(error, StartError::AgentUnreachable(..)), "{error}");
    assert!(!run_dir.join("status.sock").exists(), "a server that did not start leaves no socket");
}

#[test]
fn socket_path_that_is_too_long_is_told_with_its_length_and_the_limit() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let told = |builder: ServerBuilder| builder.spawn().unwrap_err().to_string();
    let long = dir.path().join("d".repeat(120));
    let bytes = long.join("status.sock").as_os_str().len();
    let text = told(Server::builder(&long));
    assert!(text.contains(&format!("107 bytes, this one has {bytes}")), "{text}");
    let agent = AgentTransport::Unix(dir.path().join("a".repeat(120)));
    let text = told(Server::builder(dir.path().join("run")).agent(agent));
    assert!(text.contains("107 bytes"), "{text}");
}

#[test]
fn agent_over_a_channel_ends_the_server_and_garbage_from_it_is_its_fault() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let (transport, agent) = AgentTransport::channel().unwrap();
        (Server::builder(dir.path().join("run")).agent(transport).spawn().unwrap(), agent)
    };
    let (handle, end) = start();
    let agent = AgentLink::open(end.try_clone().unwrap(), end, "agent_A").unwrap();
    drop(agent);
    handle.wait().unwrap();

    let (handle, mut end) = start();
    end.write_all(&[0xff; 64]).unwrap();
    let error = handle.wait().unwrap_err();
    assert!(matches!(error, ServerError::AgentProtocol(_)), "{error:?}");
}
