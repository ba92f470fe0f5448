//! SIGHUP, and `run --apply`: a changed manifest counts, and what it does not concern goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{OpenptyResult, openpty},
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use tempfile::TempDir;
use testkit::{
    Agent, Etcd, Process, Session, fifogate, fifogate_agent, processes_with, state_of, update,
    wait_for, workload,
};

/// Half of a cycle. The other half is in no manifest, so only the store finds it.
const ON_OTHER: &str = ", dependencies: {other: ADD_COND_RUNNING}";

/// Sets the other half.
fn set_other(ctl: &mut Session) {
    let other = "workloads:\n  other: {agent: agent_B, runtime: process, runtimeConfig: x, \
                 dependencies: {b: ADD_COND_RUNNING}}";
    ctl.update(other, &["desiredState.workloads.other"]).unwrap();
}

/// The pid of the one process with this argument.
fn pid_of(argument: &str) -> i32 {
    let argument = format!("sleep\u{0}{argument}");
    wait_for(&argument, || match processes_with(&argument)[..] {
        [pid] => Some(pid),
        _ => None,
    })
}

fn sleeps(name: &str, seconds: &str) -> String {
    workload(name, &format!("exec sleep {seconds}"), "")
}

/// Waits for a line of the log that ends with this, after what was there before.
fn wait_for_line(agent: &Agent, known: usize, end: &str) {
    wait_for(end, || agent.log()[known..].lines().any(|line| line.ends_with(end)).then_some(()));
}

/// Ends it in order.
fn stop(agent: &mut Agent) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
}

/// Sends SIGHUP, and waits for a line of the log that ends with this.
fn reload(agent: &Agent, end: &str) {
    let known = agent.log().len();
    agent.signal(Signal::SIGHUP);
    wait_for_line(agent, known, end);
}

#[test]
fn a_reload_applies_the_manifest_and_ends_only_what_it_removes_or_changes() {
    let text = [sleeps("a", "79001"), sleeps("b", "79002"), sleeps("c", "79003")].concat();
    let agent = Agent::start(&(text + "configs: {old: x, kept: x}\n"), &[]);
    let mut ctl = agent.connect();
    let others = "workloads:\n  d: {agent: agent_A, runtime: process, runtimeConfig: \
                  '{command: sleep, args: [\"79004\"]}'}\nconfigs: {events: x}";
    let masks = ["desiredState.workloads.d", "desiredState.configs.events"];
    ctl.update(others, &masks).unwrap();
    let (a, d) = (pid_of("79001"), pid_of("79004"));
    agent.edit_manifest(|text| {
        let text = text.replace("79002", "79012").replace(&sleeps("c", "79003"), "");
        text.replace("configs: {old: x, kept: x}", "configs: {new: x, kept: x}")
    });
    reload(
        &agent,
        "manifest.yaml was applied: added: config new; removed: workload c, config old; changed: \
         workload b (runtimeConfig)",
    );
    pid_of("79012");
    ctl.until("the end of c", |tree| state_of(tree, "c").is_none().then_some(()));
    assert_eq!((pid_of("79001"), pid_of("79004")), (a, d), "they were not concerned");
    wait_for("the end of c", || processes_with("sleep\u{0}79003").is_empty().then_some(()));
    let tree = ctl.state();
    let configs = tree.entries(&["desiredState", "configs"]);
    let names: Vec<_> = configs.iter().map(|(name, _)| name.as_str().to_owned()).collect();
    assert_eq!(names, ["events", "kept", "new"]);
    reload(&agent, "manifest.yaml was applied: nothing differs");
}

#[test]
fn a_faulty_manifest_changes_nothing_and_the_mended_one_is_compared_with_the_last_good_one() {
    let agent = Agent::start(&[sleeps("a", "79101"), sleeps("b", "79102")].concat(), &[]);
    set_other(&mut agent.connect());
    let (a, _) = (pid_of("79101"), pid_of("79102"));
    let good = fs::read_to_string(agent.path("manifest.yaml")).unwrap();
    agent.edit_manifest(|text| text.replace(&sleeps("b", "79102"), "  b: {runtim: x}\n"));
    let known = agent.log().len();
    reload(&agent, "restartPolicy, runtime, runtimeConfig, tags");
    let log = agent.log()[known..].to_owned();
    let faults = log.matches("ERROR fifogate_agent::reload] the manifest is not applied: ").count();
    assert_eq!(faults, 4, "{log}");
    // A rule of the state, which the store knows.
    let cycle = workload("b", "exec sleep 79102", ON_OTHER);
    agent.edit_manifest(|_| good.replace(&sleeps("b", "79102"), &cycle));
    let known = agent.log().len();
    agent.signal(Signal::SIGHUP);
    wait_for("the refusal", || {
        let log = agent.log()[known..].to_owned();
        log.contains("the manifest is not applied: ")
            .then(|| assert!(log.contains("cycle"), "{log}"))
    });
    pid_of("79102");
    agent.edit_manifest(|_| good.replace(&sleeps("b", "79102"), ""));
    reload(&agent, "manifest.yaml was applied: removed: workload b");
    wait_for("the end of b", || processes_with("sleep\u{0}79102").is_empty().then_some(()));
    assert_eq!(pid_of("79101"), a);
}

#[test]
fn a_reload_takes_the_log_level_of_the_configuration_file_and_names_what_waits_for_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    fs::write(&config, "grace = 5\n").unwrap();
    let mut agent = Agent::start("", &["--config", config.to_str().unwrap(), "--name", "agent_A"]);
    agent.connect();
    assert!(!agent.log().contains(" DEBUG "), "{}", agent.log());
    fs::write(&config, "log = 'debug'\nname = 'agent_B'\ngrace = 6\non-exit = 'keep'\n").unwrap();
    reload(&agent, "and this counts from the next start of the agent: grace, on-exit");
    reload(&agent, "nothing differs");
    let known = agent.log().len();
    fs::write(&config, "log = 'debug'\ngrace = 5\nlgo = 'error'\n").unwrap();
    agent.signal(Signal::SIGHUP);
    wait_for("the fault", || {
        let log = agent.log();
        let lines = log[known..].lines();
        let mut faults = lines.filter(|line| line.contains("the configuration stays as it was: "));
        faults.any(|line| line.contains("agent.toml:3: unknown key `lgo`")).then_some(())
    });
    wait_for_line(&agent, known, "nothing differs");
    fs::write(&config, "log = 'error'\ngrace = 5\n").unwrap();
    agent.edit_manifest(|_| "apiVersion: v0\n".to_owned());
    let reload_faulty = || {
        let known = agent.log().len();
        agent.signal(Signal::SIGHUP);
        let log = || agent.log()[known..].to_owned();
        wait_for("the error", || log().contains("the manifest is not applied: ").then(log))
    };
    // Amid this one the level changes.
    reload_faulty();
    let log = reload_faulty();
    assert!(log.lines().all(|line| line.contains(" ERROR ")), "{log}");
    stop(&mut agent);
    assert!(!agent.log().contains("stopping: "), "{}", agent.log());
}

/// A folder with a manifest of one workload.
fn folder_with_manifest(seconds: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("apiVersion: v1\nworkloads:\n{}", sleeps("w", seconds));
    fs::write(dir.path().join("m.yaml"), text).unwrap();
    dir
}

/// A terminal that ends with the test's own descriptor of it.
fn terminal() -> OpenptyResult {
    let terminal = openpty(None, None).unwrap();
    fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    terminal
}

#[test]
fn an_ended_terminal_ends_the_agent_in_order_and_a_signal_at_one_reloads() {
    let dir = folder_with_manifest("79301");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let terminal = terminal();
    let mut agent = Process::start(
        Command::new("setsid")
            .args(["--ctty", fifogate_agent(), "run", "--fifogate", fifogate(), "--manifest"])
            .args([path("m.yaml"), "--run-dir".to_owned(), path("run")])
            .stdin(Stdio::from(terminal.slave))
            .stderr(File::create(path("log")).unwrap()),
    );
    let log = || fs::read_to_string(path("log")).unwrap();
    pid_of("79301");
    agent.signal(Signal::SIGHUP);
    wait_for("the reload", || log().contains("applied: nothing differs").then_some(()));
    drop(terminal.master);
    assert_eq!(agent.wait_end().code(), Some(0));
    assert!(log().contains("stopping: SIGHUP, as the terminal has ended"), "{}", log());
    assert!(processes_with("sleep\u{0}79301").is_empty());
}

#[test]
fn with_apply_a_changed_manifest_counts_at_the_start_and_no_old_workload_begins() {
    let seen = tempfile::tempdir().unwrap();
    let notes =
        |what: &str| format!("echo {what} >> {}/seen; exec sleep 79401", seen.path().display());
    let options = ["--state-dir", "$dir/state"];
    let mut agent = Agent::start(&workload("w", &notes("old"), ""), &options);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    ctl.update("configs: {events: x}", &["desiredState.configs.events"]).unwrap();
    stop(&mut agent);
    let old = fs::read_to_string(seen.path().join("seen")).unwrap();
    agent.edit_manifest(|text| text.replace("echo old", "echo new") + &sleeps("v", "79402"));
    agent.change_options(|options| options.push("--apply".to_owned()));
    agent.restart();
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    pid_of("79402");
    let text = "was applied: added: workload v; changed: workload w (runtimeConfig)";
    assert!(agent.log().contains(text), "{}", agent.log());
    assert!(!agent.log().contains("instead of the manifest"), "{}", agent.log());
    let now = fs::read_to_string(seen.path().join("seen")).unwrap();
    assert_eq!(now.strip_prefix(&old), Some("new\n"), "{now}");
    let tree = ctl.state();
    assert!(tree.get(&["desiredState", "configs", "events"]).is_some(), "an update stays");
    // It is kept, too.
    agent.kill();
    agent.change_options(|options| options.retain(|own| own != "--apply"));
    agent.restart();
    agent.connect();
    let text = "on disk instead of the manifest; they differ: only on disk: config events";
    assert!(agent.log().lines().any(|line| line.ends_with(text)), "{}", agent.log());
}

#[test]
fn with_apply_a_manifest_that_breaks_a_rule_of_the_state_refuses_the_start() {
    let mut agent = Agent::start(&sleeps("b", "79501"), &["--state-dir", "$dir/state"]);
    set_other(&mut agent.connect());
    stop(&mut agent);
    let cycle = workload("b", "exec sleep 79501", ON_OTHER);
    agent.edit_manifest(|text| text.replace(&sleeps("b", "79501"), &cycle));
    agent.change_options(|options| options.push("--apply".to_owned()));
    agent.restart();
    assert_eq!(agent.status(), Some(2));
    let log = agent.log();
    assert!(log.contains("manifest.yaml: ") && log.contains("cycle"), "{log}");
}

/// Starts it with a manifest that is not to keep it from the state that it has.
fn restart_with(agent: &mut Agent, manifest: Option<&str>) {
    let (path, known) = (agent.path("manifest.yaml"), agent.log().len());
    match manifest {
        Some(text) => fs::write(&path, text).unwrap(),
        None => {
            // Named, though it is not there.
            fs::remove_file(&path).unwrap();
            let option = ["--manifest", path.to_str().unwrap()].map(str::to_owned);
            agent.change_options(|options| options.extend(option));
        }
    }
    agent.restart();
    agent.connect();
    let log = agent.log()[known..].to_owned();
    assert!(log.contains("instead of the manifest"), "{log}");
    if manifest.is_none() {
        assert!(log.contains("manifest.yaml: cannot read the manifest"), "{log}");
        agent.change_options(|options| options.truncate(options.len() - 2));
        fs::write(&path, "").unwrap();
    }
}

fn begin_with_faulty_manifests(store: [&str; 2], seconds: &str) {
    let mut agent = Agent::start("  w: {runtim: x}\n", &store);
    assert_eq!(agent.status(), Some(2), "nothing is kept");
    assert!(agent.log().contains(":7: unknown key `runtim`"), "{}", agent.log());
    agent.edit_manifest(|text| text.replace("  w: {runtim: x}\n", &sleeps("w", seconds)));
    let good = fs::read_to_string(agent.path("manifest.yaml")).unwrap();
    agent.restart();
    agent.connect();
    pid_of(seconds);
    stop(&mut agent);
    let missing = workload("t", "echo {{c.missing}}", ", configs: {c: c}");
    let against_a_rule = format!("{good}{missing}configs:\n  c: {{d: x}}\n");
    for fault in [Some(&*good.replace("runtime:", "runtim:")), Some(&against_a_rule), None] {
        restart_with(&mut agent, fault);
        pid_of(seconds);
        stop(&mut agent);
    }
    restart_with(&mut agent, Some("x"));
    assert!(
        agent.log().contains("ERROR fifogate_agent::run::opening] the manifest is not applied: ")
    );
    agent.edit_manifest(|_| good.clone() + &sleeps("v", "79412"));
    reload(&agent, "was applied: added: workload v");
    agent.edit_manifest(|_| "x".to_owned());
    stop(&mut agent);
    agent.change_options(|options| options.push("--apply".to_owned()));
    agent.restart();
    assert_eq!(agent.status(), Some(2), "it is to be applied");
}

#[test]
fn a_manifest_that_cannot_be_used_keeps_no_agent_from_its_kept_state() {
    begin_with_faulty_manifests(["--state-dir", "$dir/state"], "79411");
}

#[test]
fn a_manifest_that_cannot_be_used_keeps_no_agent_from_the_state_in_etcd() {
    let etcd = Etcd::start();
    begin_with_faulty_manifests(["--etcd", &etcd.endpoint()], "79421");
}

#[test]
fn agents_of_a_cluster_reload_their_manifest_too() {
    let etcd = Etcd::start();
    let options = ["--etcd", &etcd.endpoint()];
    let mut agent = Agent::start(&sleeps("a", "79601"), &options);
    agent.connect();
    let a = pid_of("79601");
    agent.edit_manifest(|text| text + &sleeps("b", "79602"));
    reload(&agent, "was applied: added: workload b");
    pid_of("79602");
    assert_eq!(pid_of("79601"), a);
    stop(&mut agent);
    agent.edit_manifest(|text| text.replace("79602", "79612"));
    agent.change_options(|options| options.push("--apply".to_owned()));
    agent.restart();
    agent.connect();
    pid_of("79612");
    assert!(agent.log().contains("was applied: changed: workload b"), "{}", agent.log());
}

#[test]
fn a_reload_leaves_restarts_alone_and_refuses_what_could_not_start_and_what_is_no_file() {
    let agent = Agent::start(&sleeps("a", "79701"), &[]);
    let mut ctl = agent.connect();
    let first = pid_of("79701");
    let restart = workload("a", "exec sleep 79701", ", tags: {restartedAt: now}");
    ctl.update(&format!("workloads:\n{restart}"), &["desiredState.workloads.a.tags.restartedAt"])
        .unwrap();
    let a = wait_for("the restart", || Some(pid_of("79701")).filter(|pid| *pid != first));
    reload(&agent, "was applied: nothing differs");
    let good = fs::read_to_string(agent.path("manifest.yaml")).unwrap();
    agent.edit_manifest(|text| text.replace("command: ", "comand: "));
    let known = agent.log().len();
    agent.signal(Signal::SIGHUP);
    let refused = || agent.log()[known..].contains("the manifest is not applied: ").then_some(());
    wait_for("the refusal", refused);
    fs::remove_file(agent.path("manifest.yaml")).unwrap();
    mkfifo(&agent.path("manifest.yaml"), Mode::S_IRWXU).unwrap();
    reload(&agent, "manifest.yaml: this is no file");
    fs::remove_file(agent.path("manifest.yaml")).unwrap();
    fs::write(agent.path("manifest.yaml"), good).unwrap();
    reload(&agent, "was applied: nothing differs");
    assert_eq!(pid_of("79701"), a);
}

#[test]
fn fifogate_and_launchers_outlive_a_hangup_and_commands_do_not_ignore_it() {
    let agent = Agent::start(&sleeps("a", "79801"), &[]);
    agent.connect();
    let command = pid_of("79801");
    let signals = |pid: i32, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap() & 1
    };
    let parent = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
        line.parse::<i32>().unwrap()
    };
    assert_eq!((signals(command, "SigIgn"), signals(command, "SigCgt")), (0, 0));
    let mut launcher = parent(command);
    while launcher != i32::try_from(agent.child.id()).unwrap() {
        assert_eq!(signals(launcher, "SigCgt"), 1, "{launcher}");
        kill(Pid::from_raw(launcher), Signal::SIGHUP).unwrap();
        launcher = parent(launcher);
    }
    let run_dir = agent.path("run").display().to_string();
    let gates = processes_with(&format!("{}\0", fifogate()));
    let ours = gates.iter().find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&run_dir))
    });
    kill(Pid::from_raw(*ours.unwrap()), Signal::SIGHUP).unwrap();
    reload(&agent, "was applied: nothing differs");
    agent.connect().state();
    assert!(!agent.log().contains("fifogate ended"), "{}", agent.log());
    assert_eq!(pid_of("79801"), command);
}

#[test]
fn a_stop_amid_updates_closes_the_kept_state() {
    let mut agent = Agent::start("", &["--state-dir", "$dir/state"]);
    for round in 0..12 {
        let mut ctl = agent.connect();
        for number in 0..40 {
            let text = format!("configs: {{k{number}: v{round}}}");
            ctl.ask(update(&text, &[&format!("desiredState.configs.k{number}")]));
        }
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.status(), Some(0));
        agent.restart();
    }
    agent.connect();
    assert!(!agent.log().contains("was damaged"), "{}", agent.log());
}

#[test]
fn an_agent_in_the_background_of_an_ended_terminal_reloads() {
    let dir = folder_with_manifest("79901");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let terminal = terminal();
    // The shell leads the session of the terminal, and ends without a word to its jobs.
    let script = format!(
        "set -m; {} run --fifogate {} --manifest {} --run-dir {} 2> {} & echo $! > {}; until [ -e {} ]; do sleep 0.01; done",
        fifogate_agent(),
        fifogate(),
        path("m.yaml"),
        path("run"),
        path("log"),
        path("pid"),
        path("end"),
    );
    let mut shell = Process::start(
        Command::new("setsid")
            .args(["--ctty", "sh", "-c", &script])
            .stdin(Stdio::from(terminal.slave)),
    );
    pid_of("79901");
    let log = || fs::read_to_string(path("log")).unwrap();
    wait_for("the agent", || log().contains("pairs are in").then_some(()));
    fs::write(path("end"), "").unwrap();
    shell.wait_end();
    let agent: i32 = fs::read_to_string(path("pid")).unwrap().trim().parse().unwrap();
    let agent = Pid::from_raw(agent);
    // Until it has seen the end of the terminal, a hangup counts as that. It looks each second.
    drop(terminal.master);
    wait_for("its looks at the terminal", || log().contains("goes on without").then_some(()));
    kill(agent, Signal::SIGHUP).unwrap();
    wait_for("the reload", || log().contains("applied: nothing differs").then_some(()));
    kill(agent, Signal::SIGTERM).unwrap();
    wait_for("its end", || processes_with("sleep\u{0}79901").is_empty().then_some(()));
}
