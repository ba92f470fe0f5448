//! What systemd is told, and what workloads are not.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use testkit::{Process, fifogate, fifogate_agent, wait_for};

/// A service with a watchdog of 0.2 s, and the socket for its notifications.
fn start(program: &str, folder: &Path, manifest: &str) -> (Process, UnixDatagram) {
    let (path, file) = (folder.join("notify"), folder.join("manifest.yaml"));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    fs::write(&file, manifest).unwrap();
    let mut command = Command::new(program);
    command.args(["run", "--manifest"]).arg(file).arg("--run-dir").arg(folder.join("run"));
    command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "200000").stdin(Stdio::null());
    // Any option would do.
    command.env("FIFOGATE_GRACE", "1.5").env("FIFOGATE_ISOLATION", "none");
    (Process::start(&mut command), socket)
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
        let (mut process, socket) =
            start(program, folder.path(), "apiVersion: v1\nworkloads: {}\n");
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
