//! Several commands on one pair: short ones take turns, and none waits behind a `watch`.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write, pipe},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use testkit::{ALL_RIGHTS, TestServer, manifest_with, wait_for};

use super::stand_in::{StandIn, make_pair, pair};
use crate::{fifogate, start};

/// fifogate with a workload that may do everything.
fn gate(options: &[&str]) -> TestServer {
    TestServer::with(&manifest_with("configs: {mode: slow}\n", &["op"], ALL_RIGHTS), options)
}

fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

/// Counts how often a folder is opened.
struct Opens {
    inotify: Inotify,
    count: usize,
}

impl Opens {
    fn of(dir: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        inotify.add_watch(dir, AddWatchFlags::IN_OPEN).unwrap();
        Self { inotify, count: 0 }
    }

    /// Waits until somebody has opened it so often from now on. A command opens it once for each attempt
    /// to lock it, so the second open shows that the first attempt failed.
    fn wait_for(&mut self, opens: usize) {
        let wanted = self.count + opens;
        wait_for("an attempt to lock the folder", || {
            let events = self.inotify.read_events().unwrap_or_default();
            // Without a name it is the folder itself, not one of its pipes.
            let own = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_ISDIR);
            self.count +=
                events.iter().filter(|event| event.name.is_none() && own(event.mask)).count();
            (self.count >= wanted).then_some(())
        });
    }
}

fn lock(dir: &Path) -> Flock<File> {
    Flock::lock(File::open(dir).unwrap(), FlockArg::LockExclusive).unwrap()
}

/// A pipe without room for another byte.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    // Opened again: only this description of the pipe is non-blocking.
    let own = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut options = OpenOptions::new();
    let mut filler = options.write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(own).unwrap();
    let full = loop {
        if let Err(error) = filler.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    (reader, writer)
}

/// A watch that has printed the state.
fn watching(dir: &str) -> Child {
    let mut watch = start(&["watch", "-d", dir, "--output", "json", "desiredState.configs"]);
    let mut first = String::new();
    let mut stdout = BufReader::new(watch.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    assert!(first.contains("slow"), "{first}");
    // Kept open: a watch ends without a reader.
    watch.stdout = Some(stdout.into_inner());
    watch
}

#[test]
fn short_commands_on_one_pair_take_turns() {
    let gate = gate(&[]);
    let dir = gate.pair("op");
    let dir = dir.to_str().unwrap();
    for round in 0..3 {
        let commands = (0..10).map(|number| match number % 2 {
            0 => start(&["get", "-d", dir, "--timeout", "30", "desiredState.configs"]),
            _ => {
                let value = format!("desiredState.configs.mode=slow{round}");
                start(&["set", "-d", dir, "--timeout", "30", &value])
            }
        });
        for child in commands.collect::<Vec<_>>() {
            assert_eq!(end(child), (Some(0), String::new()));
        }
    }
}

#[test]
fn command_beside_a_watch_fails_at_once_and_names_it_and_the_watch_goes_on() {
    let gate = gate(&["--subscribe-grace-ms", "0"]);
    let dir = gate.pair("op");
    let dir = dir.to_str().unwrap();
    let mut watch = watching(dir);
    let expected = format!(
        "error: {dir}: another `fifogate watch` (pid {}) uses this pair; end it first, or use the pair \
         of another workload\n",
        watch.id()
    );
    for args in [
        &["get", "agents"][..],
        &["set", "desiredState.configs.mode=slower"],
        &["watch", "agents"],
        // By another name of the folder.
        &["get", "agents", "-d", &format!("{dir}/../control_interface")],
    ] {
        let begun = Instant::now();
        let mut command = fifogate(args);
        if !args.contains(&"-d") {
            command.args(["-d", dir]);
        }
        let output = command.args(["--timeout", "60"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8(output.stderr).unwrap().replace("/../control_interface", "");
        assert_eq!(said, expected, "{args:?}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{args:?}");
    }
    assert_eq!(gate.status_of("op")["frames_in"], 2, "nothing of the others came");
    assert!(watch.try_wait().unwrap().is_none());
    // However it ends, the pair is free then.
    watch.kill().unwrap();
    watch.wait().unwrap();
    let output = fifogate(&["get", "-d", dir, "agents"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn lock_of_another_program_is_waited_for_up_to_the_timeout() {
    let gate = gate(&[]);
    let dir = gate.pair("op");
    let held = lock(&dir);
    let output = fifogate(&["get", "--timeout", "0.2", "-d"]).arg(&dir).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // Its command line is not shown: it may hold anything.
    let expected = format!(
        "error: {}: another process (pid {}) uses this pair; end it first, or use the pair of another \
         workload\n",
        dir.display(),
        std::process::id()
    );
    assert_eq!((output.status.code(), said), (Some(1), expected));
    let mut opens = Opens::of(&dir);
    let mut waits = start(&["get", "--timeout", "60", "-d", dir.to_str().unwrap(), "agents"]);
    opens.wait_for(2);
    assert!(waits.try_wait().unwrap().is_none());
    drop(held);
    assert_eq!(end(waits), (Some(0), String::new()));
}

#[test]
fn folder_that_was_replaced_during_the_wait_is_locked_anew() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("control_interface");
    make_pair(&own);
    let old = lock(&own);
    let mut opens = Opens::of(&own);
    let mut get = start(&["get", "--timeout", "60", "-d", own.to_str().unwrap()]);
    opens.wait_for(2);
    fs::rename(&own, dir.path().join("old")).unwrap();
    make_pair(&own);
    let new = lock(&own);
    let mut gate = StandIn::open(&own);
    drop(old);
    let mut opens = Opens::of(&own);
    opens.wait_for(2);
    assert!(get.try_wait().unwrap().is_none());
    assert!(gate.has_heard_all(), "it spoke without the lock of the new folder");
    drop(new);
    gate.hear_hello();
    gate.accept();
    let (id, _) = gate.hear_request();
    gate.respond_state(&id, "v1");
    assert_eq!(end(get), (Some(0), String::new()));
}

#[test]
fn slow_reader_of_the_output_holds_up_no_other_command() {
    let gate = gate(&[]);
    let dir = gate.pair("op");
    let dir = dir.to_str().unwrap();
    for (args, frames) in [
        (&["get", "desiredState.configs"][..], 2),
        (&["set", "desiredState.configs.mode=fast"], 3),
        (&["set", "--dry-run", "desiredState.configs.mode=slow"], 2),
    ] {
        let (reader, writer) = full_pipe();
        let frames_in = || gate.status_of("op")["frames_in"].as_u64().unwrap();
        let wanted = frames_in() + frames;
        let mut slow = std::process::Command::new(testkit::fifogate())
            .args(args)
            .args(["-d", dir])
            .stdout(Stdio::from(writer))
            .spawn()
            .unwrap();
        wait_for("the last request", || (frames_in() >= wanted).then_some(()));
        let other = fifogate(&["get", "-d", dir, "desiredState.configs"]).output().unwrap();
        let said = String::from_utf8(other.stderr).unwrap();
        assert_eq!((other.status.code(), &*said), (Some(0), ""), "{args:?}");
        assert!(slow.try_wait().unwrap().is_none(), "it does not wait for its reader");
        drop(reader);
        assert_eq!(slow.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn watch_that_finds_its_pair_in_use_afterwards_says_so_once() {
    let dir = pair();
    let name = dir.path().to_str().unwrap();
    let mut gate = StandIn::open(dir.path());
    let mut watch = start(&["watch", "--timeout", "0.2", "--output", "json", "-d", name]);
    gate.hear_hello();
    gate.accept();
    let (id, _) = gate.hear_request();
    gate.respond_state(&id, "v1");
    let mut shown = BufReader::new(watch.stdout.take().unwrap()).lines();
    shown.next().unwrap().unwrap();
    let mut notes = BufReader::new(watch.stderr.take().unwrap()).lines();
    let mut note = || notes.next().unwrap().unwrap();
    drop(gate);
    assert!(note().ends_with("fifogate went away; waiting for fifogate"));
    let held = lock(dir.path());
    let said = note();
    let expected = format!(
        "{name}: another process (pid {}) uses this pair; end it first, or use the pair of another \
         workload; trying again",
        std::process::id()
    );
    assert!(said.ends_with(&expected), "{said}");
    // More attempts than fit into one `--timeout`.
    Opens::of(dir.path()).wait_for(100);
    let mut gate = StandIn::open(dir.path());
    drop(held);
    gate.hear_hello();
    gate.accept();
    assert!(note().ends_with(": connected again"));
    watch.kill().unwrap();
    watch.wait().unwrap();
}
