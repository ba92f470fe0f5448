//! The commands of an operator, as they are typed.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Output, Stdio},
};

use nix::{
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::{Agent, fifogate_agent, shell, wait_for, workload};

pub(super) fn command(agent: &Agent, args: &[&str]) -> Command {
    let mut command = Command::new(fifogate_agent());
    let socket = agent.path("run/command.sock");
    command.env("FIFOGATE_CONNECT", format!("unix:{}", socket.display())).args(args);
    command.stdin(Stdio::null());
    command
}

fn run(agent: &Agent, args: &[&str]) -> (Option<i32>, String, String) {
    wait_for("the socket", || agent.path("run/command.sock").exists().then_some(()));
    let Output { status, stdout, stderr } = command(agent, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// The standard output of a command that succeeds.
pub(super) fn done(agent: &Agent, args: &[&str]) -> String {
    let (status, stdout, stderr) = run(agent, args);
    assert_eq!(status, Some(0), "{args:?}: {stdout}{stderr}");
    stdout
}

/// Standard error of a command that fails with this status.
fn fails(agent: &Agent, status: i32, args: &[&str]) -> String {
    let (found, stdout, stderr) = run(agent, args);
    assert_eq!(found, Some(status), "{args:?}: {stdout}{stderr}");
    stderr
}

/// A manifest in a file; its path.
fn file(agent: &Agent, name: &str, text: &str) -> String {
    let path = agent.path(name);
    fs::write(&path, format!("apiVersion: v1\n{text}")).unwrap();
    path.display().to_string()
}

#[test]
fn manifest_is_applied_shown_changed_and_deleted_again() {
    let agent = Agent::start("", &[]);
    let sleep = format!("workloads:\n{}", workload("w", "exec sleep 100000", ""));
    let one = file(&agent, "one.yaml", &sleep);
    let two = file(&agent, "two.yaml", "configs: {c: green}\n");
    let dry = done(&agent, &["apply", "--dry-run", &one, &two]);
    assert_eq!(dry, "workload w would be added\nconfig c would be added\n");
    let (status, stdout, stderr) = run(&agent, &["apply", &one, &two]);
    assert_eq!((status, stdout.as_str()), (Some(0), "workload w added\n"), "{stderr}");
    assert!(stderr.ends_with("w: Running(Ok)\n"), "{stderr}");
    let dry = done(&agent, &["apply", "--dry-run", &one, &two]);
    assert_eq!(dry, "workload w is unchanged\nconfig c is unchanged\n");
    let table = done(&agent, &["get", "workloads", "w"]);
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["WORKLOAD", "AGENT", "RUNTIME", "STATE", "INFORMATION"]);
    assert_eq!(lines[1], ["w", "agent_A", "process", "Running(Ok)"]);
    assert_eq!(lines.len(), 2);
    assert_eq!(done(&agent, &["get", "configs"]), "CONFIG  VALUE\nc       green\n");
    let mask = "desiredState.configs";
    let state = done(&agent, &["get", "state", mask]);
    assert_eq!(state, "desiredState:\n  apiVersion: v1\n  configs:\n    c: green\n");
    assert_eq!(done(&agent, &["apply", "--delete", &one, &two]), "workload w deleted\n");
    assert_eq!(fails(&agent, 1, &["get", "workloads", "w"]), "error: there is no workload w\n");
}

#[test]
fn dry_run_tells_what_templates_restart_and_what_is_refused() {
    let agent = Agent::start("", &[]);
    let fixed = workload("fixed", "exec sleep 100000", "");
    let uses = workload("uses", "exec sleep 10000{{c}}", ", configs: {c: pace}");
    let all = |config: &str| format!("workloads:\n{fixed}{uses}configs: {{{config}}}\n");
    let one = file(&agent, "one.yaml", &all("pace: '1'"));
    let two = file(&agent, "two.yaml", &all("pace: '2', other: x"));
    let only = file(&agent, "only.yaml", "configs: {pace: '2'}\n");
    done(&agent, &["apply", &one]);
    let dry = done(&agent, &["apply", "--dry-run", &two]);
    let expected = "workload fixed is unchanged\nworkload uses would be replaced\n\
                    config other would be added\nconfig pace would be changed\n";
    assert_eq!(dry, expected);
    let dry = done(&agent, &["apply", "--dry-run", &only]);
    assert_eq!(dry, "config pace would be changed\nworkload uses would be replaced\n");
    let json = done(&agent, &["apply", "--dry-run", "-o", "json", &only]);
    assert!(json.contains("\"desiredState.workloads.uses\":\"replaced\""), "{json}");
    let error = fails(&agent, 1, &["apply", "--dry-run", "--delete", &only]);
    let text = "error: the update would be refused: Update rejected: 'Resulting State is invalid";
    assert!(error.starts_with(text), "{error}");
    assert_eq!(done(&agent, &["apply", &only]), "workload uses replaced\n");
    assert_eq!(
        fails(&agent, 1, &["apply", "--delete", &only]),
        error.replace("the update would be refused: ", "")
    );
}

#[test]
fn agents_are_a_table_or_a_document() {
    let agent = Agent::start("", &[]);
    agent
        .connect()
        .until("the status", |tree| tree.get(&["agents", "agent_A", "status"]).map(drop));
    let table = done(&agent, &["get", "agents"]);
    let line: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[..2], ["agent_A", "1"]);
    assert!(line[2].ends_with('%') && line[4] == "MiB", "{table}");
    let json = done(&agent, &["get", "agents", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["agents"]["agent_A"]["status"].is_object(), "{json}");
}

#[test]
fn failed_workload_is_status_1_and_no_wait_looks_at_nothing() {
    let agent = Agent::start("", &[]);
    let workload = "{runtime: nothing, agent: agent_A, runtimeConfig: x}";
    let bad = file(&agent, "bad.yaml", &format!("workloads: {{bad: {workload}}}\n"));
    assert_eq!(done(&agent, &["apply", "--no-wait", &bad]), "workload bad added\n");
    done(&agent, &["delete", "workload", "bad"]);
    let (status, stdout, stderr) = run(&agent, &["apply", "-o", "json", &bad]);
    assert_eq!(status, Some(1), "{stderr}");
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(json["addedWorkloads"][0].as_str().unwrap().starts_with("bad."), "{json}");
    assert!(stderr.contains("bad: Pending(StartingFailed)"), "{stderr}");
    assert!(stderr.ends_with("error: the update was accepted, but failed: bad\n"), "{stderr}");
}

#[test]
fn workload_that_ends_at_once_has_failed_and_time_that_is_over_names_what_is_waited_for() {
    let mut agent = Agent::start("", &[]);
    let ends =
        file(&agent, "ends.yaml", &format!("workloads:\n{}", workload("ends", "exit 3", "")));
    let error = fails(&agent, 1, &["apply", &ends]);
    assert!(error.ends_with("error: the update was accepted, but failed: ends\n"), "{error}");
    let waits = workload("waits", "exec sleep 1", ", dependencies: {ends: ADD_COND_SUCCEEDED}");
    let waits = format!("workloads:\n{waits}{}", workload("ends", "exit 3", ""));
    let waits = file(&agent, "waits.yaml", &waits);
    let error = fails(&agent, 1, &["apply", "--timeout", "1", &waits]);
    let text = "error: the update was accepted, and is still not done after 1 s: \
                waits (it waits for ends: ADD_COND_SUCCEEDED)\n";
    assert!(error.ends_with(text), "{error}");
    done(&agent, &["delete", "workload", "waits"]);
    let mut waiting = command(&agent, &["apply", &waits]);
    let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "waits: Pending(WaitingToStart)"));
    agent.kill();
    let last = lines.last().unwrap();
    let text = "error: the update was accepted, and its outcome is unknown: the agent at unix:";
    assert!(last.starts_with(text) && last.ends_with("the connection is lost"), "{last}");
    assert_eq!(waiting.wait().unwrap().code(), Some(1));
}

#[test]
fn mistakes_of_the_user_change_nothing_and_have_a_reason() {
    let agent = Agent::start("", &[]);
    let wrong = file(&agent, "wrong.yaml", "workloads: {w: {agent: 7}}\n");
    let error = fails(&agent, 2, &["apply", &wrong]);
    assert!(error.contains("wrong.yaml:2:"), "{error}");
    let error = fails(&agent, 1, &["delete", "workload", "none", "ctl"]);
    assert_eq!(error, "error: there is no workload none; nothing was deleted\n");
    let error = fails(&agent, 1, &["logs", "none"]);
    assert_eq!(error, "error: there is no workload none\n");
    let error = fails(&agent, 2, &["set", "desiredState.workloads.ctl=x"]);
    assert!(error.contains("this path takes no text"), "{error}");
    let error =
        fails(&agent, 2, &["set", "desiredState.configs.a=1", "desiredState.configs.a.b=2"]);
    assert!(error.contains("a.b: is changed by desiredState.configs.a already"), "{error}");
    for args in [["get", "state", "desiredStat"], ["get", "events", "desiredStat"]] {
        let error = fails(&agent, 2, &args);
        assert!(error.contains("unknown mask 'desiredStat'"), "{error}");
    }
    let error = fails(&agent, 2, &["watch", "desiredStat"]);
    assert!(error.contains("unknown mask 'desiredStat'"), "{error}");
    let (status, _, stderr) = run(&agent, &["get", "state", "desiredState.configs.none"]);
    let text = "note: nothing is at desiredState.configs.none\n";
    assert_eq!((status, &*stderr), (Some(0), text));
    let nowhere = ["get", "state", "--connect", "unix:/nowhere/command.sock"];
    let error = fails(&agent, 1, &nowhere);
    assert!(error.contains("no agent is reached at unix:/nowhere/command.sock"), "{error}");
    assert_eq!(done(&agent, &["get", "workloads"]).lines().count(), 2);
}

#[test]
fn values_are_set_and_removed_and_each_change_is_watched() {
    let agent = Agent::start("", &[]);
    done(&agent, &["get", "configs"]);
    let mut watch = command(&agent, &["watch", "-o", "json", "-n", "2", "desiredState.configs"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert!(next()["alteredFields"].is_null());
    done(&agent, &["set", "desiredState.configs.a=1"]);
    assert_eq!(next()["completeState"]["desiredState"]["configs"]["a"], "1");
    done(&agent, &["set", "desiredState.configs.a-", "desiredState.configs.b=2"]);
    assert!(next()["alteredFields"]["removedFields"][0].is_string());
    assert!(watch.wait().unwrap().success());
    let error = fails(&agent, 1, &["set", "desiredState.apiVersion=v9"]);
    assert!(error.contains("v9"), "{error}");
}

#[test]
fn workload_is_started_anew_with_the_same_configuration() {
    let agent = Agent::start(&workload("w", "echo $$; exec sleep 100000", ""), &[]);
    let mut ctl = agent.connect();
    let before = ctl.until_state("w", "Running(Ok)");
    let (status, stdout, stderr) = run(&agent, &["restart", "w"]);
    assert_eq!((status, stdout.as_str()), (Some(0), "workload w replaced\n"), "{stderr}");
    assert_eq!(ctl.until_state("w", "Running(Ok)"), before, "the id is that of the configuration");
    assert_eq!(done(&agent, &["logs", "w"]).lines().count(), 2, "it has written twice");
}

#[test]
fn instance_that_another_update_replaces_is_no_longer_waited_for() {
    let agent = Agent::start("", &[]);
    let waiting = ", dependencies: {never: ADD_COND_SUCCEEDED}";
    let never = workload("never", "echo here; exec sleep 100000", "");
    let first = workload("w", "exec sleep 100001", waiting);
    let first = file(&agent, "first.yaml", &format!("workloads:\n{never}{first}"));
    let second = workload("w", "exec sleep 100002", "");
    let second = file(&agent, "second.yaml", &format!("workloads:\n{second}"));
    wait_for("the socket", || agent.path("run/command.sock").exists().then_some(()));
    let start = |args: &[&str], name: &str| {
        let file = File::create(agent.path(name)).unwrap();
        let mut command = command(&agent, args);
        command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap()
    };
    let said = |name: &str| fs::read_to_string(agent.path(name)).unwrap();
    let mut applying = start(&["apply", "--timeout", "600", &first], "apply.log");
    for line in ["never: Running(Ok)", "w: Pending(WaitingToStart)"] {
        wait_for(line, || said("apply.log").contains(line).then_some(()));
    }
    done(&agent, &["apply", &second]);
    assert_eq!(applying.wait().unwrap().code(), Some(1));
    let text = "w: removed or replaced by another update\n\
                error: the update was accepted, but failed: w\n";
    assert!(said("apply.log").ends_with(text), "{}", said("apply.log"));
    let mut follower = start(&["logs", "-f", "never"], "follow.log");
    wait_for("the line", || (said("follow.log") == "here\n").then_some(()));
    done(&agent, &["delete", "workload", "never"]);
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    assert_eq!(said("follow.log"), "here\nthe log of never has ended\n");
}

#[test]
fn logs_of_several_workloads_have_their_names_and_a_follower_ends_by_interrupt() {
    let both = workload("a", "echo from a", "") + &workload("b", "echo from b; echo more", "");
    let agent = Agent::start(&both, &[]);
    let mut ctl = agent.connect();
    ctl.until_state("a", "Succeeded(Ok)");
    ctl.until_state("b", "Succeeded(Ok)");
    assert_eq!(done(&agent, &["logs", "b", "-n", "1"]), "more\n");
    let all = done(&agent, &["logs", "a", "b"]);
    let mut all: Vec<_> = all.lines().collect();
    all.sort_unstable();
    assert_eq!(all, ["a: from a", "b: from b", "b: more"]);
    let script = shell("echo one; exec sleep 100000");
    let long =
        format!("workloads:\n  l: {{runtime: process, agent: nobody, runtimeConfig: {script}}}\n");
    let mut apply = command(&agent, &["apply", "--agent", "agent_A", "-"]);
    let mut apply = apply.stdin(Stdio::piped()).spawn().unwrap();
    write!(apply.stdin.take().unwrap(), "apiVersion: v1\n{long}").unwrap();
    assert!(apply.wait().unwrap().success());
    let mut logs = command(&agent, &["logs", "-f", "l"]);
    let mut logs = logs.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    kill(Pid::from_raw(i32::try_from(logs.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(logs.wait().unwrap().success());
}

/// What a terminal gets on standard error from a command, and its exit status.
fn at_a_terminal(mut command: Command, kind: &str) -> (Option<i32>, String) {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    command.env("TERM", kind).stdout(Stdio::null()).stderr(terminal.slave);
    let mut child = command.spawn().unwrap();
    // The last end of the terminal is that of the child.
    drop(command);
    let (mut screen, mut bytes, mut piece) = (File::from(terminal.master), Vec::new(), [0; 4096]);
    // A terminal without another end is an error of input and output.
    while let Ok(count @ 1..) = screen.read(&mut piece) {
        bytes.extend(&piece[..count]);
    }
    (child.wait().unwrap().code(), String::from_utf8(bytes).unwrap())
}

#[test]
fn terminal_shows_a_live_line_for_each_workload_and_its_last_state_stays() {
    let agent = Agent::start("", &[]);
    let slow = workload("slow", "exec sleep 100000", ", dependencies: {first: ADD_COND_SUCCEEDED}");
    let text = workload("first", "sleep 1", "") + &slow;
    let manifest = file(&agent, "both.yaml", &format!("workloads:\n{text}"));
    done(&agent, &["get", "configs"]);
    let (status, screen) = at_a_terminal(command(&agent, &["apply", &manifest]), "xterm");
    assert_eq!(status, Some(0), "{screen}");
    let turns = ["|", "/", "-", "\\"].map(|turn| format!("{turn} slow: Pending(WaitingToStart)"));
    let seen = turns.iter().filter(|turn| screen.contains(*turn)).count();
    assert!(seen > 1, "its spinner turns: {screen:?}");
    assert!(screen.contains("first: Running(Ok)\r\n"), "{screen:?}");
    // Nothing live is left in the end.
    assert!(screen.ends_with("\u{1b}[2Kslow: Running(Ok)\r\n"), "{screen:?}");
    let delete = command(&agent, &["delete", "workload", "slow"]);
    let (status, screen) = at_a_terminal(delete, "dumb");
    assert_eq!(status, Some(0), "{screen}");
    assert!(screen.ends_with("slow: Removed\r\n") && !screen.contains('\u{1b}'), "{screen:?}");
}
