//! `--on-exit keep`: processes outlive their agent, and the next one takes them over.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use fifogate::pb::ank_base::{self as pb, request::RequestContent, response::ResponseContent};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::{Agent, Etcd, Session, processes_with, state_of, wait_for, workload, workload_with};

const KEEP: [&str; 2] = ["--on-exit", "keep"];
/// The right to read the desired state, and so a pair.
const READS: &str = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: Read, \
                     filterMasks: ['desiredState']}]}";

/// An agent whose workloads end with the test.
struct Keeping {
    agent: Agent,
    run: PathBuf,
}

impl Keeping {
    fn start(workloads: &str, options: &[&str]) -> Self {
        let agent = Agent::start(workloads, &[&KEEP[..], options].concat());
        let run = agent.path("run");
        Self { agent, run }
    }

    /// The process id of the keeper of a workload.
    fn keeper_of(&self, workload: &str) -> Option<i32> {
        let begin = format!("{workload}.");
        self.keepers().into_iter().find(|(name, _)| name.starts_with(&begin)).map(|(_, pid)| pid)
    }

    fn keepers(&self) -> Vec<(String, i32)> {
        let entries = fs::read_dir(self.run.join("agent")).unwrap().map(Result::unwrap);
        let pid = |entry: fs::DirEntry| {
            let pid = fs::read_to_string(entry.path().join("keeper/lock")).ok()?;
            Some((entry.file_name().into_string().unwrap(), pid.trim().parse().ok()?))
        };
        entries.filter_map(pid).collect()
    }

    /// Ends the agent in one of two ways, and starts it again.
    fn replace(&mut self, how: Signal) -> Session {
        if how == Signal::SIGKILL {
            self.agent.kill_with_gate();
        } else {
            self.agent.signal(how);
            assert_eq!(self.agent.status(), Some(0));
        }
        self.agent.restart();
        self.agent.connect()
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.agent.kill();
        for (_, pid) in self.keepers() {
            // With it, its process ends. It may be gone already.
            let is_keeper = fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("\u{0}keep\u{0}"));
            if is_keeper {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// All lines that are kept of an instance.
fn log_of(ctl: &mut Session, workload: &str, id: &str) -> Vec<String> {
    let name = pb::WorkloadInstanceName {
        workload_name: workload.to_owned(),
        agent_name: "agent_A".to_owned(),
        id: id.to_owned(),
    };
    let request = pb::LogsRequest { workload_names: vec![name], ..Default::default() };
    let request = ctl.ask(RequestContent::LogsRequest(request));
    let mut all = Vec::new();
    loop {
        match ctl.answer(&request) {
            ResponseContent::LogsRequestAccepted(own) => assert_eq!(own.workload_names.len(), 1),
            ResponseContent::LogEntriesResponse(entries) => {
                all.extend(entries.log_entries.into_iter().map(|entry| entry.message));
            }
            ResponseContent::LogsStopResponse(_) => return all,
            other => panic!("{other:?}"),
        }
    }
}

fn process_of(marker: &str) -> Option<i32> {
    match processes_with(marker)[..] {
        [pid] => Some(pid),
        _ => None,
    }
}

/// The process, when it is there: a shell becomes it after the start of its workload.
fn wait_for_process(marker: &str) -> i32 {
    wait_for(marker, || process_of(marker))
}

#[test]
fn agent_is_replaced_twenty_times_and_no_process_restarts_and_no_line_is_lost_or_doubled() {
    let marker = |number| format!("i={number}76000; ");
    let script =
        |number| format!("{}while :; do i=$((i+1)); echo $i; sleep 0.01; done", marker(number));
    let name = |number| format!("c{number}");
    let texts = (1..=10).map(|number| workload(&name(number), &script(number), READS));
    let mut own = Keeping::start(&texts.collect::<String>(), &["--log-bytes", "65536"]);
    let mut ctl = own.agent.connect();
    let mut ids = Vec::new();
    for number in 1..=10 {
        ids.push(ctl.until_state(&name(number), "Running(Ok)"));
    }
    // A child that is about to become `sleep` has the same command line.
    let process = |number| wait_for("one process", || process_of(&marker(number)));
    let pids: Vec<_> = (1..=10).map(process).collect();
    let mut before = [0; 10];
    for round in 0..20 {
        let how = if round % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
        let mut ctl = own.replace(how);
        for number in 1..=10 {
            let (name, id) = (name(number), &ids[number - 1]);
            assert_eq!(ctl.until_state(&name, "Running(Ok)"), *id);
            let line = format!("] {name} taken over from an earlier agent\n");
            let times = || own.agent.log().matches(&line).count();
            wait_for(&line, || (times() == round + 1).then_some(()));
            // It has gone on, and the new agent hears of it.
            let count = wait_for("further lines", || {
                let log = log_of(&mut ctl, &name, id);
                (log.len() > before[number - 1]).then_some(log.len())
            });
            before[number - 1] = count;
        }
    }
    assert_eq!((1..=10).map(process).collect::<Vec<_>>(), pids);
    let mut ctl = own.agent.connect();
    for number in 1..=10 {
        let log = log_of(&mut ctl, &name(number), &ids[number - 1]);
        let first = number * 100_000 + 76_001;
        let expected: Vec<_> = (first..).take(log.len()).map(|own| own.to_string()).collect();
        assert!(log.len() >= before[number - 1]);
        assert_eq!(log, expected, "each line once, from the first one on");
    }
}

/// A script that says that it runs, and ends with a status as soon as `go` is there.
fn ends_at(go: &Path, status: u8) -> String {
    let dir = go.parent().unwrap().display();
    format!(
        "echo begun; mktemp {dir}/run.XXXXXX; until [ -e {} ]; do sleep 0.01; done; echo done; \
         exit {status}",
        go.display()
    )
}

#[test]
fn end_without_an_agent_is_told_by_the_next_one_and_counts_for_the_restart_policy() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let once = ends_at(&go, 3);
    let again = format!("if [ -e {} ]; then exec sleep 76010; fi; {once}", go.display());
    let texts =
        [workload("never", &once, ""), workload("again", &again, ", restartPolicy: ON_FAILURE")];
    let mut own = Keeping::start(&texts.concat(), &[]);
    let mut ctl = own.agent.connect();
    let id = ctl.until_state("never", "Running(Ok)");
    ctl.until_state("again", "Running(Ok)");
    let runs = || fs::read_dir(dir.path()).unwrap().count();
    wait_for("both", || (runs() == 2).then_some(()));
    own.agent.kill_with_gate();
    fs::write(&go, "").unwrap();
    let keepers: Vec<_> = ["never", "again"].map(|own_| own.keeper_of(own_).unwrap()).into();
    let is_gone = |pid: &i32| !Path::new(&format!("/proc/{pid}")).exists();
    wait_for("the end of their keepers", || keepers.iter().all(is_gone).then_some(()));
    own.agent.restart();
    for _ in 0..2 {
        let mut ctl = own.agent.connect();
        assert_eq!(ctl.until_state("never", "Failed(ExecFailed)"), id);
        let (_, _, how) = state_of(&ctl.state(), "never").unwrap();
        assert_eq!(how, "exit status 3");
        ctl.until_state("again", "Running(Ok)");
        let log = log_of(&mut ctl, "never", &id);
        assert_eq!(
            (log.first().unwrap().as_str(), log.last().unwrap().as_str()),
            ("begun", "done")
        );
        assert_eq!((log.len(), runs()), (3, 3), "neither ran again but by its policy");
        // The end is told once more, and still nothing runs again.
        own.replace(Signal::SIGTERM);
    }
}

/// How often a log tells that an instance of a workload is ended, as nobody wants it.
fn ends_of_unwanted(log: &str, name: &str) -> usize {
    let begin = format!("] {name} ");
    let end = "of an earlier agent is not wanted; it is ended";
    log.lines().filter(|line| line.contains(&begin) && line.ends_with(end)).count()
}

#[test]
fn next_agent_ends_what_is_not_wanted_and_replaces_what_has_changed() {
    let sleep = |number| format!("exec sleep 7602{number}");
    let texts = [
        workload("stays", &sleep(1), READS),
        workload("goes", &sleep(2), READS),
        workload("changes", &sleep(3), ""),
        workload("gets_rights", &sleep(4), ""),
        workload_with(
            "has_files",
            &sleep(5),
            "",
            ", files: [{mountPoint: /etc/76020, data: text}]",
        ),
    ];
    let mut own = Keeping::start(&texts.concat(), &["--state-dir", "$dir/state"]);
    let mut ctl = own.agent.connect();
    let names = ["stays", "goes", "changes", "gets_rights", "has_files"];
    names.iter().for_each(|name| _ = ctl.until_state(name, "Running(Ok)"));
    let marker = |number: usize| format!("sleep\u{0}7602{number}");
    let before: Vec<_> = (1..=5).map(|number| wait_for_process(&marker(number))).collect();
    own.agent.kill_with_gate();
    // Without its state, the agent begins with the manifest.
    fs::remove_dir_all(own.agent.path("state").join("desired")).ok();
    fs::read_dir(own.agent.path("state")).unwrap().flatten().for_each(|entry| {
        if entry.file_type().unwrap().is_file() {
            fs::remove_file(entry.path()).unwrap();
        }
    });
    let gets = workload("gets_rights", &sleep(4), READS);
    own.agent.edit_manifest(|text| {
        let text = text.replace(&texts[1], "").replace(&texts[3], &gets);
        text.replace("sleep 76023", "sleep 76026")
    });
    own.agent.restart();
    let mut ctl = own.agent.connect();
    for name in ["stays", "changes", "gets_rights", "has_files"] {
        ctl.until_state(name, "Running(Ok)");
    }
    ctl.until("the end of the others", |state| state_of(state, "goes").is_none().then_some(()));
    let of = |name| ends_of_unwanted(&own.agent.log(), name);
    assert_eq!((of("goes"), of("changes"), of("stays")), (1, 1, 0));
    wait_for_process("sleep\u{0}76026");
    let is_other = |pid: &i32| *pid != before[3];
    wait_for("another process, with a pair", || process_of(&marker(4)).filter(is_other));
    let after = [1, 2, 3, 5].map(|number| process_of(&marker(number)));
    assert_eq!(after, [Some(before[0]), None, None, Some(before[4])], "two are not touched");
    for folder in ["run/agent", "state/logs"] {
        let entries = fs::read_dir(own.agent.path(folder)).unwrap().map(Result::unwrap);
        let names: Vec<_> = entries.map(|own| own.file_name().into_string().unwrap()).collect();
        assert!(!names.iter().any(|name| name.starts_with("goes.")), "{folder}: {names:?}");
    }
    // Its pair and its files are those of before.
    let inside = PathBuf::from(format!("/proc/{}/root", before[0]));
    let [folder] = &own.agent.pairs_of("stays")[..] else { panic!("one pair is expected") };
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let fifo = "run/ankaios/control_interface/input";
    assert_eq!(inode(inside.join(fifo)), inode(folder.join("input")));
    let file = format!("/proc/{}/root/etc/76020", before[4]);
    assert_eq!(fs::read_to_string(file).unwrap(), "text");
}

#[test]
fn keeper_that_is_killed_takes_its_process_along_and_one_that_hangs_is_replaced() {
    let script = "echo said; exec sleep 76030";
    let marker = "sleep\u{0}76030";
    let mut own = Keeping::start(&workload("w", script, ""), &[]);
    let mut ctl = own.agent.connect();
    let id = ctl.until_state("w", "Running(Ok)");
    wait_for("its line", || (log_of(&mut ctl, "w", &id) == ["said"]).then_some(()));
    kill(Pid::from_raw(own.keeper_of("w").unwrap()), Signal::SIGKILL).unwrap();
    ctl.until_state("w", "Failed(Lost)");
    wait_for("the end of its process", || processes_with(marker).is_empty().then_some(()));
    assert_eq!(log_of(&mut ctl, "w", &id), ["said"]);
    // The next agent starts it again: nobody knows how it has ended.
    let mut ctl = own.replace(Signal::SIGKILL);
    ctl.until_state("w", "Running(Ok)");
    wait_for("both lines", || (log_of(&mut ctl, "w", &id) == ["said", "said"]).then_some(()));
    let keeper = own.keeper_of("w").unwrap();
    let process = wait_for_process(marker);
    kill(Pid::from_raw(keeper), Signal::SIGSTOP).unwrap();
    let mut ctl = own.replace(Signal::SIGKILL);
    ctl.until_state("w", "Running(Ok)");
    wait_for("another process", || process_of(marker).filter(|pid| *pid != process));
    assert!(own.agent.log().contains("is started anew: its keeper does not answer"));
}

#[test]
fn keeper_that_is_told_to_end_gives_its_process_time() {
    let script = "trap 'echo bye; exit 4' TERM; echo hi; while :; do sleep 0.01; done";
    let mut own = Keeping::start(&workload("w", script, ""), &[]);
    let mut ctl = own.agent.connect();
    let id = ctl.until_state("w", "Running(Ok)");
    wait_for("its trap", || (log_of(&mut ctl, "w", &id) == ["hi"]).then_some(()));
    own.agent.kill_with_gate();
    let keeper = own.keeper_of("w").unwrap();
    kill(Pid::from_raw(keeper), Signal::SIGTERM).unwrap();
    let gone = || (!Path::new(&format!("/proc/{keeper}")).exists()).then_some(());
    wait_for("the end of the keeper", gone);
    own.agent.restart();
    let mut ctl = own.agent.connect();
    ctl.until_state("w", "Failed(ExecFailed)");
    let (_, _, how) = state_of(&ctl.state(), "w").unwrap();
    let log = log_of(&mut ctl, "w", &id);
    // Some shells tell of the `sleep` that got the signal, too.
    assert!(how == "exit status 4" && log.iter().any(|line| line == "bye"), "{how}: {log:?}");
}

#[test]
fn agent_that_ends_its_workloads_ends_those_that_another_one_has_left_too() {
    let mut own = Keeping::start(&workload("w", "exec sleep 76040", ""), &[]);
    own.agent.connect().until_state("w", "Running(Ok)");
    let process = wait_for_process("sleep\u{0}76040");
    own.agent.kill_with_gate();
    own.agent.change_options(|all| all.retain(|own| !KEEP.contains(&own.as_str())));
    own.agent.restart();
    own.agent.connect().until_state("w", "Running(Ok)");
    assert_eq!(process_of("sleep\u{0}76040"), Some(process));
    own.agent.signal(Signal::SIGTERM);
    assert_eq!(own.agent.status(), Some(0));
    assert_eq!((process_of("sleep\u{0}76040"), own.keeper_of("w")), (None, None));
    // Of another name: nobody else would take them over.
    own.agent.change_options(|all| all.extend(KEEP.map(str::to_owned)));
    own.agent.restart();
    own.agent.connect().until_state("w", "Running(Ok)");
    own.agent.kill_with_gate();
    own.agent.change_options(|all| all.extend(["--name", "agent_B"].map(str::to_owned)));
    own.agent.restart();
    wait_for("its end", || process_of("sleep\u{0}76040").is_none().then_some(()));
    assert!(own.agent.log().contains("an agent of another name has left it here"));
}

#[test]
fn kept_processes_in_a_cluster_keep_the_name_of_their_agent_here() {
    let etcd = Etcd::start();
    let endpoint = etcd.endpoint();
    let text = workload("w", "exec sleep 76050", "");
    let refused = std::process::Command::new(testkit::fifogate_agent())
        .args(["run", "--etcd", &endpoint, "--run-dir", "/nonexistent", "--on-exit", "keep"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("takes --takeover-after never"), "{said}");
    let options = ["--etcd", &endpoint, "--takeover-after", "never"];
    let mut own = Keeping::start(&text, &options);
    own.agent.connect().until_state("w", "Running(Ok)");
    let process = wait_for_process("sleep\u{0}76050");
    for how in [Signal::SIGTERM, Signal::SIGKILL] {
        own.replace(how).until_state("w", "Running(Ok)");
        assert_eq!(process_of("sleep\u{0}76050"), Some(process));
    }
}

#[test]
fn processes_run_on_while_the_file_of_the_state_is_saved_and_brought_back() {
    let workloads =
        workload("stays", "exec sleep 77911", "") + &workload("goes", "exec sleep 77912", "");
    let mut own = Keeping::start(&workloads, &["--state-dir", "$dir/state"]);
    let (file, backup) = (own.agent.path("state/desired-state.redb"), own.agent.path("backup"));
    let id = own.agent.connect().until_state("stays", "Running(Ok)");
    let pid = wait_for_process("sleep\u{0}77911");
    own.agent.signal(Signal::SIGTERM);
    assert_eq!(own.agent.status(), Some(0));
    fs::copy(&file, &backup).unwrap();
    own.agent.restart();
    let mut ctl = own.agent.connect();
    ctl.update("", &["desiredState.workloads.goes"]).unwrap();
    ctl.until("its end", |tree| state_of(tree, "goes").is_none().then_some(()));
    own.agent.signal(Signal::SIGTERM);
    assert_eq!(own.agent.status(), Some(0));
    fs::copy(&backup, &file).unwrap();
    own.agent.restart();
    let mut ctl = own.agent.connect();
    ctl.until_state("goes", "Running(Ok)");
    assert_eq!(ctl.until_state("stays", "Running(Ok)"), id);
    assert_eq!(process_of("sleep\u{0}77911"), Some(pid));
}
