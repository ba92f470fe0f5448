//! The agent, fifogate or a launcher is killed: the state and the processes that are left.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use fifogate::pb::ank_base::response::ResponseContent;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use testkit::{
    Agent, Seen, is_root, is_root_or_skip, processes_with, state_of, update, wait_for, workload,
    workload_with,
};

#[test]
fn all_that_was_acknowledged_before_the_agent_was_killed_is_there_afterwards() {
    let mut agent = Agent::start("", &["--state-dir", "$dir/state"]);
    let mut ctl = agent.connect();
    // Sixteen are on their way at a time; the kill comes somewhere among the thousand.
    let (mut asked, mut acknowledged) = (0, Vec::new());
    while acknowledged.len() < 500 {
        while asked < 1_000 && asked < acknowledged.len() + 16 {
            let text = format!("configs: {{k{asked}: v{asked}}}");
            ctl.ask(update(&text, &[&format!("desiredState.configs.k{asked}")]));
            asked += 1;
        }
        let (id, content) = ctl.response();
        assert!(matches!(content, ResponseContent::UpdateStateSuccess(_)), "{content:?}");
        acknowledged.push(id.parse::<usize>().unwrap() - 1);
    }
    agent.kill();
    // What was answered but not read yet was acknowledged too; what is in the pipe is dropped by the
    // next fifogate, so this is looked at before it is started.
    while let Some((id, _)) = ctl.response_within(Duration::from_millis(200)) {
        acknowledged.push(id.parse::<usize>().unwrap() - 1);
    }
    agent.restart();
    let mut ctl = agent.connect();
    let tree = ctl.state();
    for number in &acknowledged {
        let config = tree.get(&["desiredState", "configs", &format!("k{number}")]);
        let value = config.and_then(|config| config.as_str()).map(str::to_owned);
        assert_eq!(value, Some(format!("v{number}")));
    }
    assert!(acknowledged.len() < 1_000, "the kill came too late");
}

#[test]
fn a_killed_agent_leaves_no_process() {
    let script = "sleep 75001 & setsid sleep 75002 & exec sleep 75003";
    let mut agent = Agent::start(&workload("w", script, ""), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    let left = || -> usize {
        ["75001", "75002", "75003"]
            .map(|own| processes_with(&format!("sleep\u{0}{own}")).len())
            .iter()
            .sum()
    };
    wait_for("all of its processes", || (left() == 3).then_some(()));
    agent.kill();
    wait_for("the end of all", || (left() == 0).then_some(()));
    let run = agent.path("run");
    wait_for("the end of fifogate", || {
        processes_with(run.to_str().unwrap()).is_empty().then_some(())
    });
}

#[test]
fn without_namespaces_too_nothing_outlives_its_workload_or_a_killed_agent() {
    for isolation in ["mounts", "none"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        // One in its group, one that left it, and one that nobody here is the parent of any more.
        let text = format!(
            "echo $CONTROL_INTERFACE_DIR > {}; sleep 75101 & setsid sleep 75102 & \
             (setsid sleep 75103 &); exec sleep 75104",
            out.display()
        );
        let rights = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: Read, \
                      filterMasks: ['*']}]}";
        let manifest = workload("w", &text, rights);
        let mut agent = Agent::start(&manifest, &["--isolation", isolation]);
        let mut ctl = agent.connect();
        let all = ["75101", "75102", "75103", "75104"].map(|own| format!("sleep\u{0}{own}"));
        let found = || -> Vec<_> { all.iter().map(|one| processes_with(one)).collect() };
        let everybody = || found().iter().all(|one| one.len() == 1).then_some(());
        let nobody = || found().iter().all(Vec::is_empty).then_some(());
        ctl.until_state("w", "Running(Ok)");
        wait_for("all of its processes", everybody);
        let pair = std::fs::read_to_string(&out).unwrap();
        let run = agent.path("run");
        let expected = if isolation == "none" { run.to_str().unwrap() } else { "/run/ankaios/" };
        assert!(pair.starts_with(expected), "{pair}");
        ctl.update("", &["desiredState.workloads.w"]).unwrap();
        wait_for("the end of a removed workload", nobody);
        let again = format!("workloads:\n{manifest}");
        ctl.update(&again, &["desiredState.workloads.w"]).unwrap();
        wait_for("all of its processes again", everybody);
        kill(Pid::from_raw(processes_with(&all[3])[0]), Signal::SIGKILL).unwrap();
        wait_for("the end of a workload that was killed", nobody);
        ctl.update("", &["desiredState.workloads.w"]).unwrap();
        ctl.update(&again, &["desiredState.workloads.w"]).unwrap();
        wait_for("all of its processes once more", everybody);
        agent.kill();
        wait_for("the end of all", nobody);
    }
}

#[test]
fn fifogate_comes_back_and_workloads_go_on() {
    let agent = Agent::start(&workload("w", "exec sleep 76001", ""), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    ctl.update("configs: {before: kept}", &["desiredState.configs.before"]).unwrap();
    let gate = || {
        let all = processes_with(agent.path("run").to_str().unwrap());
        all.into_iter().find(|pid| {
            let program = std::fs::read_link(format!("/proc/{pid}/exe"));
            program.is_ok_and(|program| program.ends_with("fifogate"))
        })
    };
    let process = wait_for("its process", || processes_with("sleep\u{0}76001").first().copied());
    let killed = wait_for("fifogate", gate);
    kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
    wait_for("another fifogate", || gate().filter(|pid| *pid != killed));
    let mut ctl = agent.connect();
    let tree = ctl.state();
    let config = tree.get(&["desiredState", "configs", "before"]).and_then(|node| node.as_str());
    assert_eq!(config, Some("kept"));
    assert_eq!(state_of(&tree, "w").unwrap().1, "Running(Ok)");
    assert_eq!(processes_with("sleep\u{0}76001"), [process], "it was not restarted");
    ctl.update("configs: {after: too}", &["desiredState.configs.after"]).unwrap();
}

#[test]
fn what_a_killed_agent_kept_of_a_workload_is_removed_if_it_is_wanted_no_more() {
    if !is_root_or_skip() {
        return;
    }
    let files = ", files: [{mountPoint: /tmp/of-a-test, data: secret}]";
    let text = workload("w", "exec sleep 100000", files);
    let mut agent = Agent::start(&text, &["--state-dir", "$dir/state"]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    let folders = |agent: &Agent| {
        let all = fs::read_dir(agent.path("run/agent")).unwrap();
        let names = all.map(|own| own.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("w.")).collect::<Vec<_>>()
    };
    assert_eq!(folders(&agent).len(), 1);
    agent.kill();
    drop(ctl);
    fs::remove_dir_all(agent.path("state")).unwrap();
    agent.edit_manifest(|manifest| manifest.replace(&text, ""));
    agent.restart();
    agent.connect().until_state("ctl", "Running(Ok)");
    wait_for("the removal of its folder", || folders(&agent).is_empty().then_some(()));
}

#[test]
fn a_workload_that_is_killed_is_restarted_by_its_policy() {
    let text = workload("w", "exec sleep 77001", ", restartPolicy: ALWAYS");
    let agent = Agent::start(&text, &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    let process = || processes_with("sleep\u{0}77001").first().copied();
    let killed = wait_for("its process", process);
    kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
    wait_for("another", || process().filter(|pid| *pid != killed));
    ctl.until_state("w", "Running(Ok)");
}

#[test]
fn pairs_of_an_agent_that_ended_are_gone_after_the_next_start() {
    let mut agent = Agent::start("", &[]);
    agent.connect().hello();
    let old = agent.path("run/left.1/control_interface");
    agent.kill();
    fs::create_dir_all(&old).unwrap();
    mkfifo(&old.join("input"), Mode::S_IRWXU).unwrap();
    mkfifo(&old.join("output"), Mode::S_IRWXU).unwrap();
    agent.restart();
    wait_for("the end of an old pair", || (!old.exists()).then_some(()));
    agent.connect().hello();
}

#[test]
fn a_killed_launcher_is_a_lost_workload_and_leaves_nothing() {
    let agent = Agent::start(&workload("w", "exec sleep 78001", ""), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Running(Ok)");
    let process = wait_for("its process", || processes_with("sleep\u{0}78001").first().copied());
    let parent = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
        line.parse::<i32>().unwrap()
    };
    kill(Pid::from_raw(parent(parent(process))), Signal::SIGKILL).unwrap();
    ctl.until_state("w", "Failed(Lost)");
    wait_for("its end", || processes_with("sleep\u{0}78001").is_empty().then_some(()));
}

#[test]
fn a_manifest_that_does_not_count_any_more_is_told_with_its_differences() {
    let mut agent = Agent::start("", &["--state-dir", "$dir/state"]);
    agent.connect().hello();
    agent.kill();
    let path = agent.path("manifest.yaml");
    let text = fs::read_to_string(&path).unwrap() + &workload("later", "exec sleep 78001", "");
    fs::write(path, text).unwrap();
    agent.restart();
    let warning = wait_for("the line about the manifest", || {
        let log = agent.log();
        let line = log.lines().find(|line| line.contains("instead of the manifest"))?;
        log.ends_with('\n').then(|| line.to_owned())
    });
    let differs = "they differ: only in the manifest: workload later";
    assert!(warning.contains("WARN") && warning.ends_with(differs), "{warning}");
}

#[test]
fn an_agent_waits_for_the_lock_of_one_that_is_ending() {
    let mut agent = Agent::start("", &[]);
    agent.connect().hello();
    agent.kill();
    let path = agent.path("run/agent/lock");
    let file = fs::File::open(&path).unwrap();
    let ending = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    agent.restart();
    let descriptors = format!("/proc/{}/fd", agent.child.id());
    wait_for("its look at the lock", || {
        let open = fs::read_dir(&descriptors).ok()?.flatten();
        let mut files = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        files.any(|file| file == path).then_some(())
    });
    drop(ending);
    agent.connect().hello();
}

#[test]
fn a_second_agent_on_the_same_state_or_in_the_same_folder_is_refused() {
    let agent = Agent::start("", &["--state-dir", "$dir/state"]);
    let mut ctl = agent.connect();
    let second = |state: &str, run: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_fifogate-agent"))
            .args(["run", "--state-dir"])
            .arg(agent.path(state))
            .arg("--run-dir")
            .arg(agent.path(run))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, error) = second("state", "other");
    assert!(status == Some(1) && error.contains("another agent has this file open"), "{error}");
    let (status, error) = second("other", "run");
    assert!(status == Some(1) && error.contains("another agent runs here"), "{error}");
    assert_eq!(error.matches("waiting up to 2s for its end").count(), 1, "{error}");
    ctl.until_state("ctl", "Running(Ok)");
}

/// A workload that is restarted, and writes down at each start which pair it finds.
struct Restarted {
    agent: Agent,
    seen: Seen,
    id: String,
    /// Its process, by its command line.
    sleeper: String,
}

impl Restarted {
    fn start(number: usize) -> Self {
        let seconds = 76_001 + number;
        let seen = Seen::new();
        let file = seen.path().join("starts");
        let script = format!(
            "cd $CONTROL_INTERFACE_DIR && stat -c '%n %F %u:%g %a' input output >> {} && exec sleep \
             {seconds}",
            file.display()
        );
        let user = if is_root() { "\"user\": \"12345:54321\"" } else { "" };
        let fields = ", restartPolicy: ALWAYS, controlInterfaceAccess: {allowRules: [{type: \
                      StateRule, operation: Read, filterMasks: ['*']}]}";
        let agent = Agent::start(&workload_with("w", &script, user, fields), &[]);
        let id = agent.connect().until_state("w", "Running(Ok)");
        Self { agent, seen, id, sleeper: format!("sleep\u{0}{seconds}") }
    }

    /// Its folder in the run directory.
    fn folder(&self) -> PathBuf {
        self.agent.path("run").join(format!("w.{}", self.id))
    }

    /// What each start found, one after the other.
    fn found(&self, starts: usize) -> Vec<String> {
        wait_for(&format!("start {starts}"), || {
            let text = fs::read_to_string(self.seen.path().join("starts")).ok()?;
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            (lines.len() == 2 * starts && text.ends_with('\n')).then_some(lines)
        })
    }

    fn end_process(&self) {
        let process = wait_for("its process", || processes_with(&self.sleeper).pop());
        kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
        wait_for("its end", || (!processes_with(&self.sleeper).contains(&process)).then_some(()));
    }
}

fn remove_all(folder: &Path) {
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn pair_whose_names_were_removed_is_made_again_for_the_next_process_of_its_workload() {
    let remove: [fn(&Path); 5] = [
        remove_all,
        |folder| remove_all(&folder.join("control_interface")),
        |folder| fs::remove_file(folder.join("control_interface/input")).unwrap(),
        |folder| fs::remove_file(folder.join("control_interface/output")).unwrap(),
        |folder| {
            let input = folder.join("control_interface/input");
            fs::remove_file(&input).unwrap();
            mkfifo(&input, Mode::S_IRWXU).unwrap();
        },
    ];
    let all: Vec<_> = (0..remove.len()).map(Restarted::start).collect();
    for (own, remove) in all.iter().zip(remove) {
        own.found(1);
        remove(&own.folder());
        own.end_process();
    }
    for own in &all {
        let found = own.found(2);
        assert_eq!(found[2..], found[..2]);
        own.agent.connect_as("w").state();
        assert_eq!(own.agent.connect().until_state("w", "Running(Ok)"), own.id);
        // A pair with its names goes on as it is.
        own.end_process();
    }
    for own in &all {
        own.found(3);
        let log = own.agent.log();
        assert_eq!(log.matches("the pair is made again").count(), 1, "{log}");
    }
}

#[test]
fn file_in_place_of_a_removed_fifo_is_left_alone_and_keeps_only_its_workload_from_starting() {
    let own = Restarted::start(5);
    let mut ctl = own.agent.connect();
    let output = own.folder().join("control_interface/output");
    fs::remove_file(&output).unwrap();
    fs::write(&output, "mine").unwrap();
    own.end_process();
    ctl.until("the reason", |tree| {
        let info = state_of(tree, "w")?.2;
        info.contains("is a regular file, and a FIFO belongs there; remove it").then_some(())
    });
    assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
    fs::remove_file(&output).unwrap();
    own.found(2);
    own.agent.connect_as("w").state();
}
