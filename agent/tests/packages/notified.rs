//! What systemd is told, and what workloads are not.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use fifogate::pb::{
    agent_link::{Ack, ForwardedRequest, GateHello, ToAgent, to_agent::Content},
    ank_base::{Request, UpdateStateRequest, request::RequestContent},
};
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use prost::Message;
use testkit::{Process, fifogate, fifogate_agent, skip, wait_for};

/// A manifest without workloads.
const EMPTY: &str = "apiVersion: v1\nworkloads: {}\n";

/// A service with a watchdog of 0.2 s, and the socket for its notifications.
fn start(program: &str, folder: &Path, manifest: &str) -> (Process, UnixDatagram) {
    let (mut command, socket) = service(program, folder, manifest);
    (Process::start(&mut command), socket)
}

/// As [`start`], not yet started.
fn service(program: &str, folder: &Path, manifest: &str) -> (Command, UnixDatagram) {
    let (path, file) = (folder.join("notify"), folder.join("manifest.yaml"));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    fs::write(&file, manifest).unwrap();
    let mut command = Command::new(program);
    command.args(["run", "--manifest"]).arg(file).arg("--run-dir").arg(folder.join("run"));
    command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "200000").stdin(Stdio::null());
    // Any option would do.
    command.env("FIFOGATE_GRACE", "1.5").env("FIFOGATE_ISOLATION", "none");
    (command, socket)
}

fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let count = socket.recv(&mut buffer).expect("no notification came");
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[test]
fn both_programs_say_that_they_are_ready_that_they_live_and_that_they_stop() {
    for program in [fifogate(), fifogate_agent()] {
        let folder = tempfile::tempdir().unwrap();
        let (mut process, socket) = start(program, folder.path(), EMPTY);
        let ready = next(&socket);
        assert!(ready.starts_with("READY=1"), "{program}: {ready}");
        if program == fifogate_agent() {
            assert_eq!(ready, "READY=1\nSTATUS=agent_A is running");
        }
        // Exactly one: fifogate of the agent is no service.
        assert_eq!([next(&socket), next(&socket)], ["WATCHDOG=1", "WATCHDOG=1"]);
        process.signal(Signal::SIGTERM);
        let mut last = next(&socket);
        while last == "WATCHDOG=1" {
            last = next(&socket);
        }
        assert_eq!(last, "STOPPING=1", "{program}");
        assert!(process.wait_end().success());
    }
}

/// Waits until no sign of life came for five times the time in which systemd wants one.
fn until_silence(socket: &UnixDatagram) {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    wait_for("the end of the signs of life", || socket.recv(&mut [0; 1024]).is_err().then_some(()));
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
}

/// A thread that stands still, while the others of its process go on. It goes on when this is dropped: a process
/// with such a thread does not end.
struct Stopped(Pid);

impl Stopped {
    /// Stops the thread of this name; `None`, and the test is skipped, where that is not allowed.
    fn new(process: &Process, name: &str) -> Option<Self> {
        let threads = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
        let mut threads = threads.map(|own| own.unwrap().path());
        let is_named = |path: &PathBuf| fs::read_to_string(path.join("comm")).unwrap() == name;
        let path = threads.find(is_named).unwrap();
        let thread = Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap());
        match ptrace::seize(thread, ptrace::Options::empty()) {
            Err(Errno::EPERM) => {
                skip("no thread can be stopped here (ptrace)");
                return None;
            }
            result => result.unwrap(),
        }
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Some(Self(thread))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

#[test]
fn fifogate_gives_no_sign_of_life_while_its_event_loop_hangs_and_its_other_threads_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (process, socket) = start(fifogate(), folder.path(), EMPTY);
    assert_eq!([next(&socket), next(&socket)], ["READY=1", "WATCHDOG=1"]);
    let Some(stopped) = Stopped::new(&process, "event_loop\n") else { return };
    until_silence(&socket);
    drop(stopped);
    assert_eq!(next(&socket), "WATCHDOG=1");
}

/// Stands for a fifogate that asks much and reads no answer. It goes on with the files `ask` and `read`.
const DOES_NOT_READ: &str = r#"#!/bin/sh
cd "${0%/*}"
until_there() { while [ ! -e "$1" ]; do [ -d /proc/$PPID ] || exit; sleep 0.01; done; }
cat hello; head -c 1 > first; cat ack; until_there ask; cat requests & until_there read; exec cat > answers
"#;

/// Writes the program and its messages.
fn write_gate(folder: &Path) {
    let frame = |content| ToAgent { content: Some(content) }.encode_length_delimited_to_vec();
    let hello = GateHello {
        protocol_version: "1.0.0".to_owned(),
        run_dir: folder.join("run").display().to_string(),
    };
    // Without a new state: the main loop itself answers, with an error and the id.
    let request = Request {
        request_id: "x".repeat(1000),
        request_content: Some(RequestContent::UpdateStateRequest(UpdateStateRequest::default())),
    };
    let request = ForwardedRequest { instance_name: None, request: Some(request) };
    fs::write(folder.join("hello"), frame(Content::Hello(hello))).unwrap();
    fs::write(folder.join("ack"), frame(Content::Ack(Ack { id: 1 }))).unwrap();
    fs::write(folder.join("requests"), frame(Content::Request(request)).repeat(2000)).unwrap();
    fs::write(folder.join("gate"), DOES_NOT_READ).unwrap();
    fs::set_permissions(folder.join("gate"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// What the agent says of its health.
fn health(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap();
    let (_, address) = log.split_once("metrics are at http://").unwrap();
    let mut stream = TcpStream::connect(address.split_once('/').unwrap().0).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn agent_gives_no_sign_of_life_while_its_main_loop_hangs_and_its_other_tasks_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_gate(folder.path());
    let (mut command, socket) = service(fifogate_agent(), folder.path(), EMPTY);
    command.arg("--fifogate").arg(path("gate")).args(["--metrics", "0"]);
    let _agent = Process::start(command.stderr(File::create(path("log")).unwrap()));
    assert_eq!(next(&socket), "READY=1\nSTATUS=agent_A is running");
    assert_eq!([next(&socket), next(&socket)], ["WATCHDOG=1", "WATCHDOG=1"]);
    fs::write(path("ask"), "").unwrap();
    until_silence(&socket);
    let health = health(&path("log"));
    assert!(health.ends_with("fifogate does not answer\n"), "{health}");
    fs::write(path("read"), "").unwrap();
    assert_eq!(next(&socket), "WATCHDOG=1");
}

#[test]
fn workloads_have_no_variable_of_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seen");
    let manifest = format!(
        "apiVersion: v1\nworkloads:\n  w:\n    runtime: process\n    agent: agent_A\n    runtimeConfig: \
         '{{command: sh, args: [-c, \"env > {0}.new; mv {0}.new {0}\"]}}'\n",
        file.display()
    );
    let (_agent, _socket) = start(fifogate_agent(), folder.path(), &manifest);
    wait_for("the workload", || file.exists().then_some(()));
    let seen = fs::read_to_string(file).unwrap();
    for name in ["FIFOGATE_", "NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert!(!seen.contains(name), "{seen}");
    }
    assert!(seen.contains("PATH="), "{seen}");
}
