//! The attributes of a workload's process: session, signals, descriptors, capabilities, and its view of
//! the node.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    process::{Command, Stdio},
};

use testkit::{
    Agent, Seen, fifogate, is_root_or_skip, state_of, wait_for, workload, workload_with,
};

const AGENT: &str = env!("CARGO_BIN_EXE_fifogate-agent");

/// The output of a script that runs as a workload.
fn output_of(script: &str, keys: &str, fields: &str, options: &[&str]) -> String {
    let seen = Seen::new();
    let text = workload_with("w", &seen.script("w", script), keys, fields);
    let _agent = Agent::start(&text, options);
    seen.read("w")
}

/// Starts an agent by a shell command, in which `$AGENT` starts it, and gives the output of the
/// workload's script.
fn output_under(shell: &str, script: &str) -> String {
    let (seen, dir) = (Seen::new(), tempfile::tempdir().unwrap());
    let manifest = dir.path().join("m.yaml");
    let text = workload("w", &seen.script("w", script), "");
    fs::write(&manifest, format!("apiVersion: v1\nworkloads:\n{text}")).unwrap();
    let agent = format!(
        "{AGENT} run --fifogate {} --manifest {} --run-dir {}/run",
        fifogate(),
        manifest.display(),
        dir.path().display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &shell.replace("$AGENT", &agent)]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let output = seen.read("w");
    for pid in testkit::processes_with(&agent.replace(' ', "\0")) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGTERM,
        );
    }
    child.wait().unwrap();
    output
}

#[test]
fn a_workload_killed_by_a_real_time_signal_failed_by_that_signal() {
    for isolation in ["full", "mounts", "none"] {
        if isolation != "none" && !is_root_or_skip() {
            continue;
        }
        let text = [34, 35, 50, 64]
            .map(|signal| workload(&format!("s{signal}"), &format!("kill -{signal} $$"), ""));
        let agent = Agent::start(&text.concat(), &["--isolation", isolation]);
        let mut ctl = agent.connect();
        for signal in [34, 35, 50, 64] {
            ctl.until_state(&format!("s{signal}"), "Failed(ExecFailed)");
            let info = state_of(&ctl.state(), &format!("s{signal}")).unwrap().2;
            assert_eq!(info, format!("killed by signal {signal}"), "{isolation}");
        }
    }
}

#[test]
fn an_orphan_killed_by_a_real_time_signal_costs_its_workload_nothing() {
    for isolation in ["full", "mounts", "none"] {
        if isolation != "none" && !is_root_or_skip() {
            continue;
        }
        let seen = Seen::new();
        let orphan = |signal: u8| format!("(sh -c 'kill -{signal} $$' &);");
        // The shim has reaped all of them when no process is left but the workload's own.
        let script = format!("{} {} {} sleep 0.5", orphan(34), orphan(64), orphan(11));
        let agent = Agent::start(
            &workload("w", &seen.script("w", &script), ", restartPolicy: ON_FAILURE"),
            &["--isolation", isolation],
        );
        let mut ctl = agent.connect();
        seen.read("w");
        ctl.until_state("w", "Running(Ok)");
        assert!(!agent.log().contains("w ended"), "{isolation}: {}", agent.log());
    }
}

#[test]
fn what_a_real_time_signal_leaves_behind_is_killed_with_the_workload() {
    let script = "(sh -c 'sleep 83001 & kill -34 $$' &); setsid sleep 83002 & sleep 0.3; exit 3";
    let agent = Agent::start(&workload("w", script, ""), &["--isolation", "none"]);
    let mut ctl = agent.connect();
    ctl.until_state("w", "Failed(ExecFailed)");
    assert_eq!(state_of(&ctl.state(), "w").unwrap().2, "exit status 3");
    let left = |text: &str| testkit::processes_with(text).len();
    wait_for("the end of all", || {
        (left("sleep\u{0}83001") + left("sleep\u{0}83002") == 0).then_some(())
    });
}

#[test]
fn a_workload_leads_a_session_of_its_own() {
    for isolation in ["full", "none"] {
        if isolation == "full" && !is_root_or_skip() {
            continue;
        }
        let script = "cut -d' ' -f1,5,6,7 /proc/$$/stat";
        let output = output_of(script, "", "", &["--isolation", isolation]);
        let fields: Vec<&str> = output.trim().split(' ').collect();
        assert_eq!(fields[0], fields[1], "{isolation}: leads its group: {output}");
        assert_eq!(fields[0], fields[2], "{isolation}: leads its session: {output}");
        assert_eq!(fields[3], "0", "{isolation}: has no terminal: {output}");
    }
}

#[test]
fn an_agent_in_the_foreground_of_a_terminal_does_not_pass_it_on() {
    let shell = "script -qec '$AGENT' /dev/null";
    let script = "(: > /dev/tty) 2>/dev/null && echo terminal; (: < /dev/tty) 2>/dev/null && echo \
                  readable; cut -d' ' -f7 /proc/self/stat";
    assert_eq!(output_under(shell, script), "0\n");
}

#[test]
fn a_workload_inherits_no_ignored_and_no_blocked_signal() {
    // As nohup, a shell script's `&` and a supervisor that blocks signals leave them.
    let shell = "trap '' HUP INT QUIT TERM PIPE USR1 USR2 CHLD WINCH TSTP TTIN TTOU 34 64; $AGENT & \
                 wait; kill -9 $!";
    let script = "grep -E 'SigIgn|SigBlk' /proc/$$/status | cut -f2";
    for shell in [shell, "nohup $AGENT"] {
        let output = output_under(shell, script);
        let sets = output.lines().map(|line| u64::from_str_radix(line, 16).unwrap());
        // 32 and 33 are the C library's own. Its posix_spawn leaves them ignored.
        let left: Vec<_> = sets.map(|set| set & !(3 << 31)).collect();
        assert_eq!(left, [0, 0], "{shell}");
    }
}

#[test]
fn a_workload_has_no_descriptors_beyond_its_standard_ones() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    let shell = format!("exec 3<{path} 7>>{path} 9</ ; $AGENT");
    let script = "for fd in /proc/$$/fd/*; do readlink $fd; done";
    let output = output_under(&shell, script);
    let file = file.path().to_str().unwrap();
    assert!(output.lines().all(|target| target != file && target != "/"), "{output}");
    assert!(output.lines().any(|target| target == "/dev/null"), "{output}");
}

#[test]
fn an_agent_with_few_descriptors_takes_all_it_may_have_and_leaves_its_workloads_the_few() {
    // The parent of the workload's parent is the agent.
    let script = "agent=$(cut -d' ' -f4 /proc/$PPID/stat); ulimit -Sn; ulimit -Hn
                  grep 'open files' /proc/$agent/limits | tr -s ' ' | cut -d' ' -f4,5";
    let output = output_under("ulimit -Sn 900; ulimit -Hn 5000; $AGENT --isolation none", script);
    assert_eq!(output, "900\n5000\n5000 5000\n");
}

/// Lines of a script that tries something, as `NAME ok` or `NAME refused`.
fn tries(all: &[(&str, &str)]) -> String {
    let lines = all.iter().map(|(name, command)| {
        format!(
            "if ({command}) >/dev/null 2>&1; then echo {name} ok; else echo {name} refused; fi\n"
        )
    });
    lines.collect()
}

/// Ways out of a namespace, and to the pairs of others, for a workload that is root.
fn ways_out(agent: &Agent) -> Vec<(&'static str, String)> {
    let run = agent.path("run").display().to_string();
    let pid = agent.child.id();
    let ls = "ls -d $R/ctl.*".replace("$R", &run);
    let scratch = "d=$(mktemp -d); ";
    vec![
        ("control", ls.clone()),
        ("umount", format!("umount {run}; umount -l {run}; {ls}")),
        ("mount", format!("{scratch} mount -t tmpfs none $d")),
        ("bind", format!("{scratch} mount --bind / $d")),
        ("remount", "mount -o remount,rw,bind /proc/sys".to_owned()),
        ("nsenter", "nsenter -t 1 -m true".to_owned()),
        ("unshare", "unshare -m true".to_owned()),
        ("mknod", format!("{scratch} mknod $d/null c 1 3")),
        ("shim-root", "ls /proc/1/root/".to_owned()),
        ("shim-memory", "exec 3< /proc/1/mem".to_owned()),
        ("shim-fd", "ls -L /proc/1/fd/0".to_owned()),
        ("agent-root", format!("ls /proc/{pid}/root/{run}/agent")),
        ("agent-signal", format!("kill -0 {pid}")),
        ("user-umount", format!("unshare -Urm sh -c 'umount {run}; umount -l {run}; {ls}'")),
        ("user-bind", format!("{scratch} unshare -Urm sh -c \"mount --bind / $d\"")),
        (
            "user-overlay",
            format!(
                "{scratch} unshare -Urm sh -c \"mount -t overlay o -o lowerdir={run}/..:/usr $d && \
                 ls -d $d/run/ctl.*\""
            ),
        ),
        (
            "user-rbind",
            format!(
                "{scratch} unshare -Urm sh -c \"mount --rbind {run}/.. $d; umount $d/run; ls -d \
                 $d/run/ctl.*\""
            ),
        ),
        ("core-pattern", "exec 3>> /proc/sys/kernel/core_pattern".to_owned()),
        ("sysrq", "exec 3>> /proc/sysrq-trigger".to_owned()),
    ]
}

/// The ways that lead out for a workload with these keys.
fn run_ways_out(isolation: &str, keys: &str) -> Vec<String> {
    try_ways_out(&Agent::start("", &["--isolation", isolation]), keys)
}

fn try_ways_out(agent: &Agent, keys: &str) -> Vec<String> {
    let seen = Seen::new();
    let mut ctl = agent.connect();
    let ways = ways_out(agent);
    let ways: Vec<_> = ways.iter().map(|(name, command)| (*name, command.as_str())).collect();
    let text = workload_with("w", &seen.script("w", &tries(&ways)), keys, "");
    ctl.update(&format!("workloads:\n{text}"), &["desiredState.workloads.w"]).unwrap();
    let output = seen.read("w");
    let found = |line: &&str| line.ends_with(" ok");
    output.lines().filter(found).map(|line| line.replace(" ok", "")).collect()
}

#[test]
fn root_in_a_workload_does_not_leave_its_namespaces_or_reach_other_pairs() {
    if !is_root_or_skip() {
        return;
    }
    assert_eq!(run_ways_out("full", ""), Vec::<String>::new());
    assert_eq!(run_ways_out("full", "\"user\": \"root\""), Vec::<String>::new());
    // In one PID namespace with the agent its number is known, and their user is the same: signals
    // arrive, and process 1 is the host's.
    let mounts = run_ways_out("mounts", "");
    assert_eq!(mounts, ["agent-signal"]);
}

#[test]
fn another_user_in_a_workload_does_not_leave_its_namespaces_or_reach_other_pairs() {
    if !is_root_or_skip() {
        return;
    }
    assert_eq!(run_ways_out("full", "\"user\": \"nobody\""), Vec::<String>::new());
    assert_eq!(run_ways_out("mounts", "\"user\": \"nobody\""), Vec::<String>::new());
}

#[test]
fn root_of_a_user_namespace_does_not_leave_it_or_reach_other_pairs() {
    for isolation in ["full", "mounts"] {
        let Some(agent) = Agent::start_as(12_345, "", &["--isolation", isolation]) else { return };
        let found = try_ways_out(&agent, "");
        // Its user is the agent's: signals arrive where the number is known.
        let expected: &[&str] = if isolation == "full" { &[] } else { &["agent-signal"] };
        assert_eq!(found, expected, "{isolation}");
    }
}

#[test]
fn workloads_with_more_capabilities_can_do_what_these_are_for() {
    if !is_root_or_skip() {
        return;
    }
    let found = run_ways_out("full", "\"capabilities\": [\"CAP_SYS_ADMIN\", \"mknod\"]");
    for expected in ["mount", "unshare", "mknod"] {
        assert!(found.iter().any(|way| way == expected), "{expected}: {found:?}");
    }
    assert!(!found.iter().any(|way| way == "agent-root"), "{found:?}");
}

#[test]
fn root_in_a_workload_can_do_the_ordinary_things() {
    if !is_root_or_skip() {
        return;
    }
    let bind = "import socket; socket.socket().bind((\"127.0.0.77\", 81))";
    let all = [
        ("chown", "f=$(mktemp) && chown nobody:nogroup $f && test $(stat -c %U $f) = nobody"),
        ("override", "f=$(mktemp) && chmod 0 $f && chown nobody $f && cat $f"),
        ("setuid-file", "f=$(mktemp) && chown nobody $f && chmod 4755 $f && test -u $f"),
        ("su", "test $(su -s /bin/sh nobody -c 'id -u') = $(id -u nobody)"),
        ("setpriv", "test $(setpriv --reuid 65534 --regid 65534 --clear-groups id -u) = 65534"),
        ("kill-other", "setpriv --reuid 65534 sleep 1000 & kill $!"),
        ("chroot", "chroot / true"),
        ("bind-port", &format!("python3 -c '{bind}'")),
    ];
    let output = output_of(&tries(&all), "", "", &["--isolation", "full"]);
    let expected: String = all.iter().map(|(name, _)| format!("{name} ok\n")).collect();
    assert_eq!(output, expected);
}

/// The five sets of capabilities, and whether setuid programs count.
const CAPABILITIES: &str =
    "grep -E '^(Cap|NoNewPrivs)' /proc/$$/status | tr -d '\\t' | tr '\\n' ' '";

#[test]
fn capabilities_are_those_of_containers_and_those_that_are_asked_for() {
    if !is_root_or_skip() {
        return;
    }
    let sets = |keys: &str| {
        let output = output_of(CAPABILITIES, keys, "", &[]);
        let value = |name: &str| {
            let at = output.split(' ').find_map(|own| own.strip_prefix(name));
            u64::from_str_radix(at.unwrap_or_else(|| panic!("{name}: {output}")), 16).unwrap()
        };
        let all = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"];
        all.map(value)
    };
    // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot
    // audit_write setfcap
    let usual = 0xa004_05fb;
    assert_eq!(sets(""), [0, usual, usual, usual, 0, 0]);
    let admin = usual | 1 << 12;
    assert_eq!(sets("\"capabilities\": [\"NET_ADMIN\"]"), [0, admin, admin, admin, 0, 0]);
    assert_eq!(sets("\"user\": \"nobody\""), [0, 0, 0, usual, 0, 1]);
    let keys = "\"user\": \"nobody\", \"capabilities\": [\"cap_net_admin\", \"CHOWN\"]";
    let own = 1 << 12 | 1;
    assert_eq!(sets(keys), [own, own, own, admin, own, 1]);
    let keys = "\"user\": \"nobody\", \"noNewPrivileges\": false";
    assert_eq!(sets(keys), [0, 0, 0, usual, 0, 0]);
    let keys = "\"noNewPrivileges\": true";
    assert_eq!(sets(keys), [0, usual, usual, usual, 0, 1]);
    let [_, all, ..] = sets("\"capabilities\": [\"ALL\"]");
    assert_eq!(all & (1 << 21 | 1 << 19 | 1 << 27), 1 << 21 | 1 << 19 | 1 << 27);
}

#[test]
fn what_is_wrong_with_capabilities_is_told() {
    let wrong = |name: &str, keys: &str| workload_with(name, "true", keys, "");
    let text = [
        wrong("unknown", "\"capabilities\": [\"SYS_ADMN\"]"),
        wrong("kind", "\"capabilities\": \"SYS_ADMIN\""),
        wrong("value", "\"noNewPrivileges\": \"perhaps\""),
    ];
    let agent = Agent::start(&text.concat(), &[]);
    let mut ctl = agent.connect();
    for (name, expected) in [
        ("unknown", "there is no capability 'SYS_ADMN'; SYS_ADMIN is the nearest"),
        ("kind", "capabilities must be a sequence, such as [NET_ADMIN]"),
        ("value", "noNewPrivileges is true or false"),
    ] {
        ctl.until_state(name, "Pending(StartingFailed)");
        let info = state_of(&ctl.state(), name).unwrap().2;
        assert!(info.contains(expected), "{name}: {info}");
    }
}

#[test]
fn mounted_files_are_not_loaded_by_what_starts_a_workload() {
    if !is_root_or_skip() {
        return;
    }
    // The dynamic linker complains of it in each program that is started where it is mounted. Many start
    // at once, as a program that is slow to be loaded may find it mounted meanwhile.
    let workload = |n| {
        format!(
            "  w{n}: {{runtime: process, agent: agent_A, runtimeConfig: '{{command: sleep, args: \
             [100000], user: nobody}}', files: [{{mountPoint: /etc/ld.so.preload, data: \
             \"/evil/preloaded.so\\n\"}}]}}\n"
        )
    };
    let agent = Agent::start(&(0..20).map(workload).collect::<String>(), &[]);
    let mut ctl = agent.connect();
    for n in 0..20 {
        let id = ctl.until_state(&format!("w{n}"), "Running(Ok)");
        let log = agent.path("run/agent/logs").join(format!("w{n}.{id}"));
        let said = wait_for("its log", || {
            let first = fs::read_dir(&log).ok()?.next()?.ok()?;
            let bytes = fs::read(first.path()).ok()?;
            (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
        });
        assert_eq!(said.matches("/evil/preloaded.so").count(), 1, "{said}");
    }
}
