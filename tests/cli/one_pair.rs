//! Several commands on one pair: short ones take turns, and none waits behind a `watch`.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::Child,
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};
use testkit::{ALL_RIGHTS, TestServer, manifest_with};

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
    let lock = Flock::lock(fs::File::open(&dir).unwrap(), FlockArg::LockExclusive).unwrap();
    let output = fifogate(&["get", "--timeout", "0.2", "-d"]).arg(&dir).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let pid = format!("(pid {}) uses this pair", std::process::id());
    assert!(output.status.code() == Some(1) && said.contains(&pid), "{said}");
    let waits = start(&["get", "--timeout", "60", "-d", dir.to_str().unwrap(), "agents"]);
    std::thread::sleep(Duration::from_millis(100));
    drop(lock);
    let (code, said) = end(waits);
    assert_eq!(code, Some(0), "{said}");
}
