//! Mount points that are missing on the node: one file appears, and the folder around it stays the
//! node's. What is made below a mount is gone when its last workload has ended.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use testkit::{
    Agent, Process, Seen, Session, fifogate, fifogate_agent, is_root_or_skip, processes_with,
    state_of, wait_for, workload, workload_with,
};

const NOBODY: u32 = 65_534;
const AS_NOBODY: &str = "\"user\": \"nobody\"";

fn file(mount_point: &Path) -> String {
    format!(", files: [{{mountPoint: '{}', data: content}}]", mount_point.display())
}

/// A folder of this user, closed to others.
fn folder_of(uid: u32, mode: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(uid), Some(uid)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|own| own.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn stop(mut agent: Agent) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0), "{}", agent.log());
}

fn remove(ctl: &mut Session, name: &str) {
    ctl.update("", &[&format!("desiredState.workloads.{name}")]).unwrap();
    ctl.until("its end", |tree| state_of(tree, name).is_none().then_some(()));
}

/// Replaces a file of the folder, leaves a new one, and waits for one of the node.
fn work_in(folder: &Path) -> String {
    format!(
        "cd {} && cat conf && echo && echo new > new && cp db db.tmp && mv db.tmp db && until test \
         -e added; do sleep 0.02; done; cat added; ls; echo x 2>&- > conf || echo read only",
        folder.display()
    )
}

#[test]
fn a_file_beside_others_leaves_its_folder_to_the_node() {
    if !is_root_or_skip() {
        return;
    }
    for (uid, keys) in [(0, ""), (NOBODY, AS_NOBODY), (NOBODY, "")] {
        let (folder, seen) = (folder_of(uid, 0o750), Seen::new());
        let at = |name: &str| folder.path().join(name);
        fs::write(at("db"), "old").unwrap();
        chown(at("db"), Some(uid), Some(uid)).unwrap();
        let script = seen.script("w", &work_in(folder.path()));
        let agent = Agent::start(&workload_with("w", &script, keys, &file(&at("conf"))), &[]);
        let new = wait_for("a new file", || fs::metadata(at("new")).ok());
        assert_eq!(new.uid(), if keys.is_empty() { 0 } else { uid });
        // At once with its content.
        fs::write(folder.path().with_extension("added"), "added\n").unwrap();
        fs::rename(folder.path().with_extension("added"), at("added")).unwrap();
        let read_only = if keys.is_empty() { "" } else { "read only\n" };
        let output = seen.read("w");
        assert!(output.starts_with("content\nadded\nadded\nconf\ndb\nnew\n"), "{keys}: {output}");
        assert!(output.ends_with(read_only), "{keys}: {output}");
        stop(agent);
        assert_eq!(names(folder.path()), ["added", "db", "new"], "{keys}");
    }
}

#[test]
fn an_agent_of_an_ordinary_user_leaves_its_folders_to_the_node_too() {
    let (folder, seen) = (folder_of(12_345, 0o750), Seen::new());
    let at = |name: &str| folder.path().join(name);
    fs::write(at("db"), "old").unwrap();
    fs::set_permissions(at("db"), fs::Permissions::from_mode(0o644)).unwrap();
    let script = seen.script("w", &work_in(folder.path()));
    let text = workload("w", &script, &file(&at("conf")));
    let Some(agent) = Agent::start_as(12_345, &text, &[]) else { return };
    wait_for("a new file", || fs::metadata(at("new")).ok());
    fs::write(at("added"), "added\n").unwrap();
    let output = seen.read("w");
    assert!(output.starts_with("content\nadded\nadded\nconf\ndb\nnew\n"), "{output}");
    stop(agent);
    assert_eq!(names(folder.path()), ["added", "db", "new"]);
}

#[test]
fn missing_folders_stay_with_what_the_workload_left_in_them() {
    if !is_root_or_skip() {
        return;
    }
    for (uid, keys) in [(0, ""), (NOBODY, AS_NOBODY)] {
        let (folder, seen) = (folder_of(uid, 0o700), Seen::new());
        let at = |name: &str| folder.path().join(name);
        let script = format!("cat {0}/app/conf/conf; echo kept > {0}/app/data", at("").display());
        let text = workload_with(
            "w",
            &seen.script("w", &script),
            keys,
            &format!(
                ", files: [{{mountPoint: '{0}/app/conf/conf', data: a}}, {{mountPoint: \
                 '{0}/app/conf/b/c/d', data: b}}, {{mountPoint: '{0}/empty/conf', data: c}}]",
                folder.path().display()
            ),
        );
        let agent = Agent::start(&text, &[]);
        assert_eq!(seen.read("w"), "a");
        stop(agent);
        assert_eq!(names(folder.path()), ["app"], "{keys}");
        assert_eq!(names(&at("app")), ["data"], "{keys}");
        assert_eq!(fs::read_to_string(at("app/data")).unwrap(), "kept\n");
        assert_eq!(fs::metadata(at("app")).unwrap().uid(), uid);
    }
}

#[test]
fn workloads_share_a_mount_point_until_the_last_of_them_has_ended() {
    if !is_root_or_skip() {
        return;
    }
    let (folder, seen) = (folder_of(NOBODY, 0o755), Seen::new());
    let at = |name: &str| folder.path().join(name);
    let conf = at("conf");
    let script = |name: &str| {
        let script = format!(
            "until test -e {}/go-{name}; do sleep 0.02; done; cat {}; mv {1} {1}.old || echo busy",
            seen.path().display(),
            conf.display()
        );
        seen.script(name, &script)
    };
    let text = [
        workload_with("a", &script("a"), AS_NOBODY, &file(&conf)),
        workload_with("b", &script("b"), "", &file(&conf)),
        workload_with("c", &script("c"), AS_NOBODY, &file(&conf)),
    ];
    let agent = Agent::start(&text.concat(), &[]);
    let mut ctl = agent.connect();
    for name in ["a", "b", "c"] {
        ctl.until_state(name, "Running(Ok)");
    }
    for (ending, left) in [("a", "b"), ("b", "c")] {
        remove(&mut ctl, ending);
        fs::write(seen.path().join(format!("go-{left}")), "").unwrap();
        let output = seen.read(left);
        assert!(output.starts_with("content"), "without {ending}, {left}: {output}");
        assert!(output.ends_with("busy\n"), "without {ending}, {left}: {output}");
    }
    remove(&mut ctl, "c");
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_file_made_for_root_is_taken_away_by_another_user() {
    if !is_root_or_skip() {
        return;
    }
    let folder = folder_of(0, 0o755);
    let conf = folder.path().join("new/conf");
    let agent = Agent::start(&workload("root", "exec sleep 100000", &file(&conf)), &[]);
    let mut ctl = agent.connect();
    ctl.until_state("root", "Running(Ok)");
    let other = workload_with("other", "exec sleep 100000", AS_NOBODY, &file(&conf));
    ctl.update(&format!("workloads:\n{other}"), &["desiredState.workloads.other"]).unwrap();
    ctl.until_state("other", "Running(Ok)");
    remove(&mut ctl, "root");
    assert_eq!(names(&folder.path().join("new")), ["conf"]);
    remove(&mut ctl, "other");
    assert_eq!(names(&folder.path().join("new")), Vec::<String>::new());
}

#[test]
fn workloads_that_start_and_end_all_the_time_see_their_shared_file() {
    if !is_root_or_skip() {
        return;
    }
    let (folder, seen) = (folder_of(NOBODY, 0o755), Seen::new());
    let conf = folder.path().join("new/conf");
    let runs = seen.path().join("runs");
    let script = format!("cat {} >> {1}; echo >> {1}", conf.display(), runs.display());
    let all = (0..12).map(|number| {
        let (name, keys) = (format!("w{number}"), if number % 2 == 0 { "" } else { AS_NOBODY });
        workload_with(&name, &script, keys, &format!(", restartPolicy: ALWAYS{}", file(&conf)))
    });
    fs::write(&runs, "").unwrap();
    fs::set_permissions(&runs, fs::Permissions::from_mode(0o666)).unwrap();
    let agent = Agent::start(&all.collect::<String>(), &[]);
    let read = || fs::read_to_string(&runs).unwrap();
    wait_for("many runs", || (read().lines().count() >= 48).then_some(()));
    stop(agent);
    // Lines of two may be mixed, and the end may come before a line feed, but no content is missing.
    let (contents, ends) = (read().matches("content").count(), read().matches('\n').count());
    assert!((ends..=ends + 12).contains(&contents), "{}", read());
    // The one that made the folder may have ended while others still used it.
    let left = fs::read_dir(folder.path().join("new")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a placeholder is left");
}

#[test]
fn file_systems_of_the_kernel_get_no_new_names() {
    if !is_root_or_skip() {
        return;
    }
    let seen = Seen::new();
    let point = |name: &str| PathBuf::from(format!("{name}/fifogate-test/conf"));
    let groups = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let groups = groups.into_iter().find(|own| fs::exists(format!("{own}/cgroup.procs")).unwrap());
    let folders =
        [Some("/sys"), Some("/sys/kernel"), Some("/proc/sys"), Some("/proc/self"), groups];
    let folders: Vec<_> = folders.into_iter().flatten().collect();
    let all = folders.iter().enumerate().map(|(number, folder)| {
        let name = format!("w{number}");
        let script = format!("cat {0}; ls -d {0}/../../*", point(folder).display());
        workload(&name, &seen.script(&name, &script), &file(&point(folder)))
    });
    let agent = Agent::start(&all.collect::<String>(), &[]);
    let mut ctl = agent.connect();
    for (number, folder) in folders.iter().enumerate() {
        let name = format!("w{number}");
        // It runs with its file, or says why not.
        ctl.until(folder, |tree| {
            let (_, state, info) = state_of(tree, &name)?;
            (state == "Running(Ok)" || info.starts_with("Retry")).then_some(())
        });
        assert!(!fs::exists(point(folder).parent().unwrap()).unwrap(), "{folder}");
    }
    stop(agent);
}

#[test]
fn what_a_workload_cannot_make_is_not_made_for_it() {
    if !is_root_or_skip() {
        return;
    }
    let (folder, seen) = (folder_of(0, 0o755), Seen::new());
    let at = |name: &str| folder.path().join(name);
    // Its group would let root's groups in, but not the workload's user.
    fs::create_dir(at("group")).unwrap();
    fs::set_permissions(at("group"), fs::Permissions::from_mode(0o775)).unwrap();
    fs::create_dir(at("sticky")).unwrap();
    fs::set_permissions(at("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    // Everybody may write in it, but only root can reach it.
    fs::create_dir_all(at("closed/open")).unwrap();
    fs::set_permissions(at("closed/open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let points =
        ["conf", "group/conf", "deep/er/conf", "sticky/conf", "closed/open/made/conf"].map(at);
    let entries = points.map(|own| format!("{{mountPoint: '{}', data: 'x '}}", own.display()));
    let fields = format!(", files: [{}]", entries.join(", "));
    let script = format!("cd {}; cat conf group/conf deep/er/conf sticky/conf", at("").display());
    let text = workload_with("w", &seen.script("w", &script), AS_NOBODY, &fields);
    let agent = Agent::start(&text, &[]);
    assert_eq!(seen.read("w"), "x x x x ");
    assert_eq!(names(folder.path()), ["closed", "group", "sticky"]);
    assert_eq!(names(&at("closed/open")), Vec::<String>::new());
    assert_eq!(names(&at("group")), Vec::<String>::new());
    let made = fs::metadata(at("sticky/conf")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777, made.len()), (NOBODY, NOBODY, 0, 0));
    stop(agent);
    assert_eq!(names(&at("sticky")), Vec::<String>::new());
}

#[test]
fn what_a_killed_agent_left_is_taken_away_by_the_next() {
    if !is_root_or_skip() {
        return;
    }
    let folder = folder_of(NOBODY, 0o755);
    let at = |name: &str| folder.path().join(name);
    let (conf, other) = (at("conf"), at("other"));
    let text = [
        workload_with("nobody", "exec sleep 100000", AS_NOBODY, &file(&conf)),
        workload("root", "exec sleep 100000", &file(&other)),
    ];
    let mut agent = Agent::start(&text.concat(), &[]);
    let until_running = |agent: &Agent| {
        let mut ctl = agent.connect();
        for name in ["nobody", "root"] {
            ctl.until_state(name, "Running(Ok)");
        }
    };
    until_running(&agent);
    let mark = fs::metadata(&other).unwrap().modified().unwrap();
    assert_eq!(fs::metadata(&conf).unwrap().modified().unwrap(), mark);
    agent.kill();
    let run = agent.path("run").display().to_string();
    wait_for("the end of its fifogate", || processes_with(&run).is_empty().then_some(()));
    // The launchers may have had the time to take them away: they are put back as they were.
    for (path, uid) in [(&conf, NOBODY), (&other, 0)] {
        let file = fs::File::create(path).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o000)).unwrap();
        file.set_modified(mark).unwrap();
        chown(path, Some(uid), Some(uid)).unwrap();
    }
    agent.restart();
    until_running(&agent);
    stop(agent);
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_file_of_the_node_below_a_mount_stays_as_it_is() {
    if !is_root_or_skip() {
        return;
    }
    let (folder, seen) = (folder_of(NOBODY, 0o755), Seen::new());
    let at = |name: &str| folder.path().join(name);
    fs::write(at("empty"), "").unwrap();
    fs::write(at("closed"), "text").unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    // As an operator masks a file.
    fs::write(at("masked"), "").unwrap();
    fs::set_permissions(at("masked"), fs::Permissions::from_mode(0o000)).unwrap();
    let points = ["empty", "closed", "masked", "written"].map(at);
    let entries = points.map(|own| format!("{{mountPoint: '{}', data: 'x '}}", own.display()));
    let fields = format!(", files: [{}]", entries.join(", "));
    let script = format!("cd {}; cat empty closed masked written", at("").display());
    let agent = Agent::start(&workload("w", &seen.script("w", &script), &fields), &[]);
    assert_eq!(seen.read("w"), "x x x x ");
    // From now on it is the node's.
    fs::write(at("written"), "text").unwrap();
    stop(agent);
    assert_eq!(names(folder.path()), ["closed", "empty", "masked", "written"]);
    assert_eq!(fs::read_to_string(at("written")).unwrap(), "text");
}

#[test]
fn a_stop_during_a_start_leaves_nothing() {
    for _ in 0..5 {
        let folder = folder_of(nix::unistd::geteuid().as_raw(), 0o755);
        let at = |number: u32| folder.path().join(number.to_string());
        // Many: the first placeholder is there long before the start is done.
        let entry = |own| format!("{{mountPoint: '{}', data: x}}", at(own).display());
        let entries: Vec<_> = (0..300).map(entry).collect();
        let fields = format!(", files: [{}]", entries.join(", "));
        let agent = Agent::start("", &[]);
        let mut ctl = agent.connect();
        let text = workload("w", "exec sleep 100000", &fields);
        ctl.update(&format!("workloads:\n{text}"), &["desiredState.workloads.w"]).unwrap();
        wait_for("the first placeholder", || at(0).exists().then_some(()));
        stop(agent);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn failed_starts_leave_nothing() {
    let (folder, seen) = (tempfile::tempdir().unwrap(), Seen::new());
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("taken")).unwrap();
    let fields = format!(
        ", files: [{{mountPoint: '{0}/new/conf', data: a}}, {{mountPoint: '{0}/taken', data: b}}]",
        folder.path().display()
    );
    let text = [
        workload("mounts", "true", &fields),
        workload_with("command", "true", "\"command\": \"/does/not/exist\"", &file(&at("deep/x"))),
    ];
    let agent = Agent::start(&text.concat(), &[]);
    let mut ctl = agent.connect();
    for name in ["mounts", "command"] {
        ctl.until("its failure", |tree| {
            let (_, _, info) = state_of(tree, name)?;
            info.starts_with("Retry 2").then_some(())
        });
    }
    stop(agent);
    assert_eq!(names(folder.path()), ["taken"]);
    drop(seen);
}

#[test]
fn root_gets_a_file_right_below_the_root_folder_and_others_do_not() {
    if !is_root_or_skip() {
        return;
    }
    let (seen, own) = (Seen::new(), tempfile::tempdir().unwrap());
    // A name that nobody else has.
    let name = format!("/fifogate{}", own.path().file_name().unwrap().to_str().unwrap());
    let point = PathBuf::from(&name);
    let text = [
        workload("root", &seen.script("root", &format!("cat {name}; ls -d /run")), &file(&point)),
        workload_with("nobody", "exec sleep 100000", AS_NOBODY, &file(&point.with_extension("n"))),
    ];
    let agent = Agent::start(&text.concat(), &[]);
    let mut ctl = agent.connect();
    assert_eq!(seen.read("root"), "content/run\n");
    let info = ctl.until("its failure", |tree| {
        let (_, _, info) = state_of(tree, "nobody")?;
        info.starts_with("Retry").then_some(info)
    });
    assert!(info.contains("right below the root folder"), "{info}");
    stop(agent);
    assert!(!fs::exists(&point).unwrap());
}

const WITH_PAIR: &str = ", controlInterfaceAccess: {allowRules: [{type: StateRule, operation: Read, \
                         filterMasks: [workloadStates]}]}";

#[test]
fn run_stays_the_nodes_for_workloads_with_a_control_interface() {
    if !is_root_or_skip() {
        return;
    }
    let (seen, dir) = (Seen::new(), tempfile::tempdir().unwrap());
    let script = |name: &str| {
        let script =
            "ls $CONTROL_INTERFACE_DIR; until test -e /run/added; do sleep 0.02; done; echo \
                      $NAME > /run/$NAME.pid"
                .replace("$NAME", name);
        seen.script(name, &script)
    };
    let text = [
        workload("a", &script("a"), WITH_PAIR),
        workload("b", &script("b"), WITH_PAIR),
        workload_with("c", &script("c").replace("echo", "true"), AS_NOBODY, WITH_PAIR),
    ];
    let manifest = dir.path().join("m.yaml");
    fs::write(&manifest, format!("apiVersion: v1\nworkloads:\n{}", text.concat())).unwrap();
    // A node that has an empty /run.
    let shell = format!(
        "mount -t tmpfs -o mode=755 none /run && exec {} run --fifogate {} --manifest {} --run-dir {}/run",
        fifogate_agent(),
        fifogate(),
        manifest.display(),
        dir.path().display(),
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &shell]);
    let agent = Process::start(&mut command);
    let run = PathBuf::from(format!("/proc/{}/root/run", agent.id()));
    let is_own = || fs::metadata(&run).unwrap().dev() != fs::metadata("/run").unwrap().dev();
    wait_for("its /run", || is_own().then_some(()));
    fs::write(run.join("added"), "").unwrap();
    for name in ["a", "b", "c"] {
        assert!(seen.read(name).starts_with("input\noutput\n"), "{name}: {}", seen.read(name));
    }
    // podman, if it is installed, has its folders there.
    let of_podman = |name: &String| ["containers", "libpod"].contains(&name.as_str());
    let names_in_run: Vec<_> = names(&run).into_iter().filter(|own| !of_podman(own)).collect();
    assert_eq!(names_in_run, ["a.pid", "added", "ankaios", "b.pid"]);
    // It is each workload's own: the node's has nothing in it.
    assert_eq!(names(&run.join("ankaios/control_interface")), Vec::<String>::new());
    let folder = fs::metadata(run.join("ankaios/control_interface")).unwrap();
    assert_eq!((folder.uid(), folder.mode() & 0o7777), (0, 0o755));
}
