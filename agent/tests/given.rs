//! The attributes of a workload that its user decides about: accounts, outputs, files and signals, each as
//! root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::Command,
};

use nix::sys::signal::Signal;
use testkit::{
    Agent, Process, Seen, fifogate, fifogate_agent, is_root_or_skip, processes_with, state_of,
    wait_for, workload, workload_with,
};

const AS_NOBODY: &str = "\"user\": \"nobody\"";

/// All output of a workload that has ended, by the agent's log of it.
fn logged(agent: &Agent, name: &str) -> String {
    let mut ctl = agent.connect();
    let id = ctl.until_state(name, "Succeeded(Ok)");
    let log: PathBuf = agent.path("run/agent/logs").join(format!("{name}.{id}"));
    let entries = fs::read_dir(log).unwrap();
    let all = entries.map(|own| fs::read(own.unwrap().path()).unwrap()).collect::<Vec<_>>();
    String::from_utf8_lossy(&all.concat()).into_owned()
}

/// Opens its outputs anew, by all names that they have.
const OPENS: &str = "echo one > /dev/stdout && echo two > /dev/stderr && echo three >> \
                     /proc/self/fd/1 && echo four > /proc/$$/fd/2 && (echo five | tee /dev/stderr) \
                     && sh -c 'echo six > /dev/fd/1' && exec 1>&2 && echo seven > /dev/stdout";

#[test]
fn outputs_can_be_opened_by_their_names() {
    let mut cases = vec![("", "full"), ("", "mounts"), ("", "none")];
    cases.extend([(AS_NOBODY, "full"), (AS_NOBODY, "mounts"), (AS_NOBODY, "none")]);
    cases.extend([("\"user\": \"12345:54321\"", "full")]);
    for (keys, isolation) in cases {
        if !is_root_or_skip() {
            break;
        }
        let text = workload_with("w", OPENS, keys, "");
        let agent = Agent::start(&text, &["--isolation", isolation]);
        let output = logged(&agent, "w");
        for line in ["one", "two", "three", "four", "five", "six", "seven"] {
            assert!(output.contains(line), "{keys} {isolation}: no {line} in {output}");
        }
    }
    let text = workload("w", OPENS, "");
    let Some(agent) = Agent::start_as(12_345, &text, &[]) else { return };
    assert!(logged(&agent, "w").contains("seven"));
}

#[test]
fn users_and_groups_are_given_by_name_or_number() {
    if !is_root_or_skip() {
        return;
    }
    let nobody = "65534:65534:/nonexistent";
    let cases = [
        ("12345", "12345:12345:/"),
        ("0012345", "12345:12345:/"),
        ("65534:65534", nobody),
        ("65534", nobody),
        ("nobody", nobody),
        ("nobody:daemon", "65534:1:/nonexistent"),
        ("12345:daemon", "12345:1:/"),
        ("12345:0", "12345:0:/"),
        ("nobody:54321", "65534:54321:/nonexistent"),
        ("0", "0:0:/root"),
        ("root:54321", "0:54321:/root"),
        ("4294967294:4294967294", "4294967294:4294967294:/"),
    ];
    let seen = Seen::new();
    let script = "echo $(id -u):$(id -g):$HOME; id -G; grep Groups: /proc/self/status";
    let all = cases.iter().enumerate().map(|(number, (user, _))| {
        let name = format!("w{number}");
        workload_with(&name, &seen.script(&name, script), &format!("\"user\": \"{user}\""), "")
    });
    let _agent = Agent::start(&all.collect::<String>(), &[]);
    for (number, (user, expected)) in cases.iter().enumerate() {
        let output = seen.read(&format!("w{number}"));
        let gid = expected.split(':').nth(1).unwrap();
        let groups = output.lines().nth(2).unwrap().trim_start_matches("Groups:").trim();
        assert_eq!(output.lines().next(), Some(*expected), "{user}");
        assert_eq!(output.lines().nth(1), Some(gid), "{user}");
        assert_eq!(groups, "", "{user}");
    }
}

#[test]
fn what_is_no_user_or_group_is_told() {
    let cases = [
        ("no-such-user", "there is no user 'no-such-user' on this node"),
        ("nobody:no-such-group", "there is no group 'no-such-group' on this node"),
        ("4294967295", "4294967295 is no number of a user"),
        ("nobody:4294967295", "4294967295 is no number of a group"),
        ("4294967296", "4294967296 is no number of a user"),
        ("-1", "there is no user '-1'"),
        ("+5", "there is no user '+5'"),
        ("5:", "a group is missing behind the colon"),
        (":5", "a user is missing before the colon"),
        ("1:2:3", "there is no group '2:3'"),
        ("", "a user is missing"),
    ];
    let all = cases.iter().enumerate().map(|(number, (user, _))| {
        workload_with(&format!("w{number}"), "true", &format!("\"user\": \"{user}\""), "")
    });
    let agent = Agent::start(&all.collect::<String>(), &[]);
    let mut ctl = agent.connect();
    for (number, (user, expected)) in cases.iter().enumerate() {
        ctl.until_state(&format!("w{number}"), "Pending(StartingFailed)");
        let info = state_of(&ctl.state(), &format!("w{number}")).unwrap().2;
        assert!(info.contains(expected), "{user}: {info}");
    }
}

#[test]
fn pairs_are_of_a_user_without_an_account() {
    if !is_root_or_skip() {
        return;
    }
    let seen = Seen::new();
    let fields = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: Read, \
                  filterMasks: [workloadStates]}]}";
    let script = "cd $CONTROL_INTERFACE_DIR && stat -c '%u:%g' input output";
    let keys = "\"user\": \"12345:54321\"";
    let _agent = Agent::start(&workload_with("w", &seen.script("w", script), keys, fields), &[]);
    assert_eq!(seen.read("w"), "12345:54321\n12345:54321\n");
}

/// A configuration, a script, and a program, and what the workload and others can do with them.
fn files(folder: &str) -> String {
    let entry = |name: &str, data: &str| format!("{{mountPoint: '{folder}/{name}', {data}}}");
    format!(
        ", files: [{}, {}, {}, {}]",
        entry("conf", "data: \"conf\\n\""),
        entry("script", "data: \"#!/bin/sh\\necho ran\\n\""),
        // The first bytes of a program alone.
        entry("program", "binaryData: f0VMRgIBAQ=="),
        entry("empty", "data: ''"),
    )
}

#[test]
fn files_can_be_read_by_whom_the_workload_becomes_and_scripts_run() {
    if !is_root_or_skip() {
        return;
    }
    let modes = "stat -c '%n %u:%g %a' conf script program empty; cat conf; ./script";
    let mut cases = vec![
        ("", "0:0", ["444", "555", "555", "444"]),
        ("\"user\": \"root\"", "0:0", ["444", "555", "555", "444"]),
        (AS_NOBODY, "65534:65534", ["400", "500", "500", "400"]),
        ("\"user\": \"12345:54321\"", "12345:54321", ["400", "500", "500", "400"]),
        ("\"user\": \"0:54321\"", "0:54321", ["444", "555", "555", "444"]),
    ];
    for (keys, owner, [conf, script, program, empty]) in cases.drain(..) {
        let (seen, folder) = (Seen::new(), Seen::new());
        let at = folder.path().display().to_string();
        // A daemon that gives up root.
        let drops = "setpriv --reuid 33 --regid 33 --clear-groups sh -c 'cat conf; ./script'";
        let drops = if owner.starts_with("0:") { drops } else { "true" };
        let text = format!("cd {at}; {modes}; {drops}; echo x >> conf || echo read only");
        let text = workload_with("w", &seen.script("w", &text), keys, &files(&at));
        let _agent = Agent::start(&text, &[]);
        let output = seen.read("w");
        let expected = format!(
            "conf {owner} {conf}\nscript {owner} {script}\nprogram {owner} {program}\nempty {owner} \
             {empty}\nconf\nran\n"
        );
        assert!(output.starts_with(&expected), "{keys}: {output}");
        let twice = if owner.starts_with("0:") { 2 } else { 1 };
        assert_eq!(output.matches("ran\n").count(), twice, "{keys}: {output}");
        assert!(output.ends_with("read only\n"), "{keys}: {output}");
    }
    let (seen, folder) = (Seen::new(), Seen::new());
    let at = folder.path().display().to_string();
    let text = workload("w", &seen.script("w", &format!("cd {at}; {modes}")), &files(&at));
    let Some(_agent) = Agent::start_as(12_345, &text, &[]) else { return };
    // Root of its own user namespace is nobody else's root.
    let output = seen.read("w");
    assert!(output.starts_with("conf 0:0 400\nscript 0:0 500\n"), "{output}");
    assert!(output.ends_with("conf\nran\n"), "{output}");
}

#[test]
fn a_stopped_workload_ends_by_sigterm() {
    let ends =
        |how: &str| format!("trap 'exit 0' TERM; sleep 75001 & {how}; while :; do wait; done");
    // By itself, with its child, and by a child.
    let cases = [
        ("itself", "kill -STOP $$"),
        ("group", "kill -STOP 0"),
        ("child", "sh -c 'kill -STOP $PPID; kill -STOP $$'"),
    ];
    for isolation in ["full", "mounts", "none"] {
        if isolation != "none" && !is_root_or_skip() {
            continue;
        }
        let all = cases.iter().map(|(name, how)| workload(name, &ends(how), ""));
        // Far beyond the patience of a test: it may not come to its end.
        let options = ["--isolation", isolation, "--grace", "3600"];
        let agent = Agent::start(&all.collect::<String>(), &options);
        let mut ctl = agent.connect();
        let log = |name: &str| agent.log().contains(&format!("{name} stopped: exit status 0"));
        for (name, how) in cases {
            ctl.until_state(name, "Running(Ok)");
            wait_for("its stop", || {
                let text = format!("sh\0-c\0{}", ends(how));
                let pids = processes_with(&text);
                let stat =
                    |pid| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                pids.iter().any(|pid| stat(*pid).contains(") T ")).then_some(())
            });
            ctl.update("", &[&format!("desiredState.workloads.{name}")]).unwrap();
            ctl.until("its end", |tree| state_of(tree, name).is_none().then_some(()));
            assert!(log(name), "{isolation} {name}: {}", agent.log());
        }
    }
}

#[test]
fn an_agent_under_nohup_survives_its_terminal() {
    let (seen, dir) = (Seen::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let text = workload("w", &seen.script("w", "grep SigIgn /proc/$$/status"), "");
    fs::write(path("m.yaml"), format!("apiVersion: v1\nworkloads:\n{text}")).unwrap();
    let shell = format!(
        "trap '' HUP; exec {} run --fifogate {} --manifest {} --run-dir {} 2> {}",
        fifogate_agent(),
        fifogate(),
        path("m.yaml"),
        path("run"),
        path("log"),
    );
    let mut agent = Process::start(Command::new("sh").args(["-c", &shell]));
    let ignored = seen.read("w");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let signals = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    };
    assert_eq!((signals("SigIgn") & 1, signals("SigCgt") & 1), (1, 0), "SIGHUP is not caught");
    // The workload does not ignore it.
    assert!(ignored.trim_end().ends_with('0'), "{ignored}");
    agent.signal(Signal::SIGHUP);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait_end().code(), Some(0));
    let log = fs::read_to_string(path("log")).unwrap();
    assert!(log.contains("stopping: SIGTERM") && !log.contains("SIGHUP"), "{log}");
}

/// Starts an agent with much to inherit, as this user, and returns the output of the workload's script.
fn output_of_heir(uid: u32, keys: &str, script: &str) -> String {
    let (seen, dir) = (Seen::new(), tempfile::tempdir().unwrap());
    chown(dir.path(), Some(uid), Some(uid)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mount_point = path("mounted/conf");
    let fields = format!(
        ", files: [{{mountPoint: '{mount_point}', data: content}}], controlInterfaceAccess: \
         {{allowRules: [{{type: StateRule, operation: Read, filterMasks: [workloadStates]}}]}}"
    );
    let script = script.replace("$CONF", &mount_point).replace("$RUN", &path("run"));
    let text = workload_with("w", &seen.script("w", &script), keys, &fields);
    fs::write(path("m.yaml"), format!("apiVersion: v1\nworkloads:\n{text}")).unwrap();
    let groups = if uid == 0 { "--groups 1,2" } else { "--clear-groups" };
    let shell = format!(
        "trap '' HUP QUIT INT USR1 PIPE CHLD 34 50 64; exec 5</etc/passwd 9>>{}; umask 027; ulimit -Sn 900; cd /tmp; \
         exec env -i PATH=$PATH LANG=C SECRET=1 setpriv --reuid {uid} --regid {uid} {groups} {} run \
         --fifogate {} --manifest {} --run-dir {} 2>{}",
        path("log9"),
        fifogate_agent(),
        fifogate(),
        path("m.yaml"),
        path("run"),
        path("log"),
    );
    let agent = Process::start(Command::new("sh").args(["-c", &shell]));
    let output = seen.read("w");
    agent.signal(Signal::SIGTERM);
    output
}

#[test]
fn every_row_is_the_same_for_root_another_user_and_an_ordinary_agent() {
    if !is_root_or_skip() {
        return;
    }
    let script = "set -- $(cut -d' ' -f1,5,6,7 /proc/$$/stat)
        echo leads: $(($1 - $2)) $(($2 - $3)) $4
        (: > /dev/tty) 2> /dev/null && echo terminal
        echo signals: $(grep -E 'Sig(Ign|Blk)' /proc/self/status | cut -f2)
        echo descriptors: $(ls /proc/self/fd) $(readlink /proc/self/fd/0)
        echo owner: $(stat -Lc %u /proc/$$/fd/2)
        echo cwd: $(pwd) umask: $(umask) descriptors: $(ulimit -Sn)
        echo user: $(id -u) $(id -g) groups: $(id -G)
        echo env: $(env | cut -d= -f1 | grep -vE '^(PWD|OLDPWD|SHLVL|_|PATH)$' | sort) $HOME
        echo privileges: $(grep NoNewPrivs /proc/self/status | cut -f2)
        echo pair: $CONTROL_INTERFACE_DIR $(ls $CONTROL_INTERFACE_DIR) $(ls -A $RUN | wc -l)
        echo file: $(cat $CONF) $(stat -c %u:%g:%a $CONF)
        (: > $CONF.new) 2> /dev/null && echo writes; rm -f $CONF.new";
    let pair = "pair: /run/ankaios/control_interface input output 0\n";
    let same = |uid: u32, groups: &str, home: &str, privileges: u8, mode: u32, last: &str| {
        format!(
            "leads: 0 0 0\nsignals: 0 0\ndescriptors: 0 1 2 3 /dev/null\nowner: {uid}\ncwd: / umask: \
             0027 descriptors: 900\nuser: {uid} {uid} groups: {groups}\nenv: CONTROL_INTERFACE_DIR HOME LANG \
             {home}\nprivileges: {privileges}\n{pair}file: content {uid}:{uid}:{mode}\n{last}"
        )
    };
    // An agent without root: its workload is root of a user namespace, and privileges gain nothing there.
    for (uid, keys, expected) in [
        (0, "", same(0, "0 1 2", "/root", 0, 444, "writes\n")),
        (0, AS_NOBODY, same(65_534, "65534", "/nonexistent", 1, 400, "")),
        (12_345, "", same(0, "0", "/", 0, 400, "writes\n")),
    ] {
        if uid != 0 && Agent::start_as(uid, "", &[]).is_none() {
            return;
        }
        let output = output_of_heir(uid, keys, script);
        // 32 and 33 are the C library's own.
        let mask = |line: &str| match line.strip_prefix("signals: ") {
            Some(sets) => {
                let sets = sets.split(' ').map(|set| u64::from_str_radix(set, 16).unwrap());
                let sets: Vec<_> = sets.map(|set| (set & !(3 << 31)).to_string()).collect();
                format!("signals: {}\n", sets.join(" "))
            }
            None => format!("{line}\n"),
        };
        assert_eq!(output.lines().map(mask).collect::<String>(), expected, "{uid} {keys}");
    }
}
