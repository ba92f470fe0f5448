//! The node's own files: a workload's files, however their mountPoint is prepared, follow and change nothing
//! on the node, and leave nothing there; and nobody but the agent's user reads or prepares what the agent
//! keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::sys::signal::Signal;
use testkit::{Agent, Seen, is_root, is_root_or_skip, state_of, workload, workload_with};

const AGENT: &str = env!("CARGO_BIN_EXE_fifogate-agent");
const NOBODY: u32 = 65_534;

fn files(mount_points: &[String]) -> String {
    let entries: Vec<String> =
        mount_points.iter().map(|own| format!("{{mountPoint: '{own}', data: content}}")).collect();
    format!(", files: [{}]", entries.join(", "))
}

/// A folder of nobody's, as in the home folder of a workload's user.
fn attackers() -> Seen {
    let folder = Seen::new();
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    folder
}

fn attackers_link(target: &Path, at: &Path) {
    symlink(target, at).unwrap();
    std::os::unix::fs::lchown(at, Some(NOBODY), Some(NOBODY)).unwrap();
}

/// Ends an agent in order: nothing is left of its workloads.
fn stop(mut agent: Agent) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0), "{}", agent.log());
}

/// All names below a folder with mode, owner and content.
fn listing(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let own = fs::symlink_metadata(&path).unwrap();
            let content = if own.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            all.push(format!("{} {:o} {} {content:?}", path.display(), own.mode(), own.uid()));
            if own.is_dir() {
                left.push(path);
            }
        }
    }
    all.sort();
    all
}

#[test]
fn mount_points_that_lead_elsewhere_make_and_change_nothing_on_the_node() {
    if !is_root_or_skip() {
        return;
    }
    let (node, own) = (tempfile::tempdir().unwrap(), attackers());
    fs::write(node.path().join("secret"), "kept").unwrap();
    fs::set_permissions(node.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(node.path().join("folder")).unwrap();
    let at = |name: &str| own.path().join(name);
    attackers_link(&node.path().join("made"), &at("dangling"));
    attackers_link(&node.path().join("folder/made"), &at("dangling-deep"));
    attackers_link(&node.path().join("secret"), &at("to-secret"));
    attackers_link(node.path(), &at("to-folder"));
    attackers_link(Path::new("../../../../../../etc"), &at("upwards"));
    attackers_link(Path::new("loop"), &at("loop"));
    fs::create_dir(at("folder")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link = "is a symbolic link of another user";
    let folder = "a folder is there already";
    let cases = [
        ("dangling", link),
        ("dangling-deep", link),
        ("to-secret", link),
        ("to-folder/made", link),
        ("to-folder/folder/new/made", link),
        ("upwards/made", link),
        ("loop", link),
        ("folder", folder),
        ("fifo/made", "is no folder"),
        ("../made", "without `..`"),
        ("folder/../made", "without `..`"),
    ];
    let before = (listing(node.path()), listing(own.path()));
    let text: String = cases
        .iter()
        .enumerate()
        .map(|(number, (mount_point, _))| {
            let mount_point = format!("{}/{mount_point}", own.path().display());
            workload(&format!("w{number}"), "exec sleep 100000", &files(&[mount_point]))
        })
        .collect();
    let agent = Agent::start(&text, &[]);
    let mut ctl = agent.connect();
    for (number, (mount_point, expected)) in cases.iter().enumerate() {
        let name = format!("w{number}");
        let info = ctl.until(mount_point, |tree| {
            let (_, state, info) = state_of(tree, &name)?;
            assert_ne!(state, "Running(Ok)", "{mount_point} is mounted");
            (info.contains("mount") && !info.starts_with("Triggered")).then_some(info)
        });
        assert!(info.contains(expected), "{mount_point}: {info}");
    }
    assert_eq!((listing(node.path()), listing(own.path())), before);
}

#[test]
fn mount_points_of_any_kind_in_folders_of_another_user_are_left_as_they_were() {
    if !is_root_or_skip() {
        return;
    }
    let (own, seen) = (attackers(), Seen::new());
    let at = |name: &str| own.path().join(name);
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(at("file"), "old").unwrap();
    fs::write(at("other"), "other").unwrap();
    attackers_link(Path::new("/nowhere"), &at("link-beside"));
    fs::set_permissions(own.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let before = listing(own.path());
    let points = ["fifo", "file", "new", "deep/er/new", "deep/er/new2"];
    let points = points.map(|name| at(name).display().to_string());
    let script = format!(
        "cd {}; for f in fifo file new deep/er/new deep/er/new2 other; do cat $f; echo; done; \
         readlink link-beside; stat -c '%u %a' .; echo x > other; echo y > file || echo read only",
        own.path().display()
    );
    let text =
        workload_with("w", &seen.script("w", &script), "\"user\": \"nobody\"", &files(&points));
    fs::set_permissions(at("other"), fs::Permissions::from_mode(0o644)).unwrap();
    let agent = Agent::start(&text, &[]);
    let output = seen.read("w");
    let content = "content\n".repeat(5);
    let expected = format!("{content}other\n/nowhere\n65534 750\n");
    assert!(output.starts_with(&expected), "{output}");
    assert!(output.ends_with("read only\n"), "{output}");
    stop(agent);
    assert_eq!(listing(own.path()), before);
}

/// Exchanges two links for others, each in one step, and a folder for a link, as fast as that goes.
fn exchange_links(own: &Path, node: &Path, stop: &AtomicBool) {
    let at = |name: &str| own.join(name);
    let exchange = |target: &str, at: &Path| {
        let next = at.with_extension("next");
        attackers_link(&node.join(target), &next);
        fs::rename(&next, at).unwrap();
    };
    let (next, spot) = (at("spot.next"), at("spot"));
    while !stop.load(Ordering::Relaxed) {
        exchange("none", &at("link"));
        exchange("folder/none", &at("beside"));
        exchange("secret", &at("link"));
        exchange("folder/conf", &at("beside"));
        // Something may be made in them meanwhile, if the agent makes something.
        let _ = fs::create_dir(&next);
        let _ = fs::rename(&next, &spot);
        let _ = fs::remove_dir_all(&spot);
        if symlink(node.join("folder"), &spot).is_ok() {
            std::os::unix::fs::lchown(&spot, Some(NOBODY), Some(NOBODY)).unwrap();
            fs::remove_file(&spot).unwrap();
        }
    }
}

#[test]
fn links_that_are_exchanged_meanwhile_make_and_change_nothing_on_the_node() {
    if !is_root_or_skip() {
        return;
    }
    let (node, own) = (tempfile::tempdir().unwrap(), attackers());
    fs::write(node.path().join("secret"), "kept").unwrap();
    fs::create_dir(node.path().join("folder")).unwrap();
    fs::write(node.path().join("folder/conf"), "kept").unwrap();
    let before = listing(node.path());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| exchange_links(own.path(), node.path(), &stop));
        let agent = Agent::start("", &["--grace", "0"]);
        let mut ctl = agent.connect();
        let points = ["link", "beside", "spot/conf", "spot/made", "spot", "deep/spot/made"];
        let names = (0..points.len()).map(|number| format!("w{number}")).collect::<Vec<_>>();
        let masks: Vec<_> =
            names.iter().map(|name| format!("desiredState.workloads.{name}")).collect();
        let masks: Vec<_> = masks.iter().map(String::as_str).collect();
        for round in 0..8 {
            let workloads = names.iter().zip(points).map(|(name, point)| {
                let point = own.path().join(point).display().to_string();
                workload(name, &format!("exec sleep 1{round}00"), &files(&[point]))
            });
            let all: String = workloads.collect();
            ctl.update(&format!("workloads:\n{all}"), &masks).unwrap();
            for name in &names {
                ctl.until("several tries", |tree| {
                    let (_, state, info) = state_of(tree, name)?;
                    (state == "Running(Ok)" || info.starts_with("Retry 3")).then_some(())
                });
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(listing(node.path()), before);
}

#[test]
fn hundreds_of_files_in_a_missing_folder_are_all_there() {
    let (folder, seen) = (tempfile::tempdir().unwrap(), Seen::new());
    let missing = folder.path().join("is/missing");
    let points: Vec<_> =
        (0..1000).map(|number| format!("{}/{number}", missing.display())).collect();
    let mut others: Vec<_> =
        (0..20).map(|number| format!("{}/other{number}/x", folder.path().display())).collect();
    let mut all = points;
    all.append(&mut others);
    let script = format!(
        "ls {0} | wc -l; cat {0}/999 && echo; cat {1}/other19/x",
        missing.display(),
        folder.path().display()
    );
    let agent = Agent::start(&workload("w", &seen.script("w", &script), &files(&all)), &[]);
    agent.connect().until_state("w", "Running(Ok)");
    assert_eq!(seen.read("w"), "1000\ncontent\ncontent");
    stop(agent);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn links_of_root_on_the_way_to_a_mount_point_are_followed() {
    if !is_root_or_skip() {
        return;
    }
    let (folder, seen) = (tempfile::tempdir().unwrap(), Seen::new());
    fs::create_dir_all(folder.path().join("real/deep")).unwrap();
    fs::write(folder.path().join("real/file"), "old").unwrap();
    symlink("real", folder.path().join("link")).unwrap();
    symlink("../real/./deep/../file", folder.path().join("real/to-file")).unwrap();
    symlink(folder.path().join("real"), folder.path().join("absolute")).unwrap();
    let points = ["link/new", "real/to-file", "absolute/deep/new"]
        .map(|name| format!("{}/{name}", folder.path().display()));
    let script = format!(
        "cd {}/real; for f in new file deep/new; do cat $f; echo; done",
        folder.path().display()
    );
    let before = listing(folder.path());
    let agent = Agent::start(&workload("w", &seen.script("w", &script), &files(&points)), &[]);
    agent.connect().until_state("w", "Running(Ok)");
    assert_eq!(seen.read("w"), "content\n".repeat(3));
    stop(agent);
    assert_eq!(listing(folder.path()), before);
}

#[test]
fn a_mount_point_in_what_is_hidden_shows_nothing_of_it_and_makes_nothing_there() {
    let seen = Seen::new();
    let agent = Agent::start("", &["--state-dir", "$dir/state"]);
    let mut ctl = agent.connect();
    let at = |name: &str| agent.path(name).display().to_string();
    let points = [at("run/new"), at("run/agent/lock"), at("state/desired-state.redb"), at("new")];
    let script = format!("find {} {} | wc -l; find {0} -name 'ctl.*'", at("run"), at("state"));
    let text = workload("w", &seen.script("w", &script), &files(&points));
    ctl.update(&format!("workloads:\n{text}"), &["desiredState.workloads.w"]).unwrap();
    // Both folders, what was mounted, and one folder in between.
    assert_eq!(seen.read("w"), "6\n");
    assert!(!fs::exists(agent.path("run/new")).unwrap());
    assert_eq!(fs::metadata(agent.path("run/agent/lock")).unwrap().len(), 0);
}

/// Starts an agent that is to be refused; its status and what it said.
fn refused(args: &[&str]) -> String {
    let output = Command::new(AGENT).arg("run").args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[test]
fn what_the_agent_keeps_is_for_its_user_alone_whatever_the_umask() {
    for umask in ["000", "022", "077", "277"] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let text = workload("w", "echo hello; exec sleep 100000", &files(&[path("mounted")]));
        fs::write(path("m.yaml"), format!("apiVersion: v1\nworkloads:\n{text}")).unwrap();
        let shell = format!(
            "umask {umask}; exec {AGENT} run --fifogate {} --manifest {} --run-dir {} --state-dir {}",
            testkit::fifogate(),
            path("m.yaml"),
            path("run/deep"),
            path("state/deep"),
        );
        let mut child = Command::new("sh").args(["-c", &shell]).spawn().unwrap();
        testkit::wait_for("its log", || {
            let logs = fs::read_dir(dir.path().join("state/deep/logs")).ok()?;
            logs.flatten()
                .find(|own| fs::read_dir(own.path()).is_ok_and(|mut all| all.next().is_some()))
        });
        let mut left = vec![dir.path().join("run/deep/agent"), dir.path().join("state/deep")];
        let mut seen = 0;
        while let Some(path) = left.pop() {
            let own = fs::symlink_metadata(&path).unwrap();
            // A workload's file is seen by the workload with this mode, and below 0700 by nobody else.
            let is_mounted = path.parent().is_some_and(|folder| folder.ends_with("files"));
            let expected = match (own.is_dir(), is_mounted) {
                (true, _) => 0o700,
                (false, true) => 0o400 | if is_root() { 0o044 } else { 0 },
                (false, false) => 0o600,
            };
            assert_eq!(own.mode() & 0o7777, expected, "{umask}: {}", path.display());
            seen += 1;
            if own.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|own| own.unwrap().path()));
            }
        }
        assert!(seen >= 9, "{seen}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn folders_that_belong_to_another_user_or_are_open_to_others_are_refused_untouched() {
    if !is_root_or_skip() {
        return;
    }
    let folder = |mode: u32, uid: u32| {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("kept"), "kept").unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(mode)).unwrap();
        chown(&own, Some(uid), Some(uid)).unwrap();
        (dir, own)
    };
    for option in ["--state-dir", "--run-dir"] {
        for (mode, uid, expected) in [
            (0o700, NOBODY, "belongs to user 65534, not to user 0"),
            (0o755, NOBODY, "belongs to user 65534, not to user 0"),
            (0o777, 0, "is open to other users (mode 0777)"),
            (0o1777, 0, "is open to other users (mode 1777)"),
            (0o770, 0, "is open to other users (mode 0770)"),
        ] {
            let (dir, own) = folder(mode, uid);
            let before = listing(dir.path());
            let other = dir.path().join("other");
            let other_option = if option == "--run-dir" { "--state-dir" } else { "--run-dir" };
            let said = refused(&[
                option,
                own.to_str().unwrap(),
                other_option,
                other.to_str().unwrap(),
                "--fifogate",
                "/does/not/exist",
            ]);
            assert!(said.contains(expected), "{option} {mode:o} {uid}: {said}");
            let _ = fs::remove_dir_all(&other);
            assert_eq!(listing(dir.path()), before, "{option} {mode:o} {uid}");
        }
    }
}

#[test]
fn links_in_the_agents_folders_are_neither_followed_nor_emptied() {
    if !is_root_or_skip() {
        return;
    }
    for link in ["agent/lock", "agent"] {
        let (dir, node) = (attackers(), tempfile::tempdir().unwrap());
        fs::write(node.path().join("lock"), "kept").unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        if link == "agent/lock" {
            fs::create_dir(run.join("agent")).unwrap();
            attackers_link(&node.path().join("lock"), &run.join(link));
        } else {
            attackers_link(node.path(), &run.join(link));
        }
        // Made by another user; and, as if it had been handed over, by ourselves.
        for uid in [NOBODY, 0] {
            chown(&run, Some(uid), Some(uid)).unwrap();
            fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
            let before = listing(node.path());
            let run = run.to_str().unwrap();
            let state = dir.path().join("state");
            refused(&["--run-dir", run, "--state-dir", state.to_str().unwrap()]);
            assert_eq!(listing(node.path()), before, "{link} {uid}");
        }
    }
    // A folder of the way that another user can exchange, and one that leads where another user wants.
    let (dir, node, shared) = (attackers(), tempfile::tempdir().unwrap(), Seen::new());
    fs::create_dir(dir.path().join("state")).unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    attackers_link(node.path(), &shared.path().join("link"));
    let (run, state) = (node.path().join("run"), dir.path().join("state"));
    for (run, state, expected) in [
        (&run, &state, "others can replace"),
        (&dir.path().join("run"), &node.path().join("state"), "others can replace"),
        (&shared.path().join("link/run"), &node.path().join("state"), "link of another user"),
        (&shared.path().join("link"), &node.path().join("state"), "link of another user"),
        (&run, &shared.path().join("link"), "link of another user"),
    ] {
        let said =
            refused(&["--run-dir", run.to_str().unwrap(), "--state-dir", state.to_str().unwrap()]);
        assert!(said.contains(expected), "{expected}: {said}");
        let _ = fs::remove_dir(node.path().join("run"));
        assert_eq!(fs::read_dir(node.path()).unwrap().count(), 0, "{said}");
    }
    // The file of the state is a link.
    let state = node.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(node.path().join("victim"), "").unwrap();
    symlink(node.path().join("victim"), state.join("desired-state.redb")).unwrap();
    let said =
        refused(&["--run-dir", run.to_str().unwrap(), "--state-dir", state.to_str().unwrap()]);
    assert!(said.contains("desired-state.redb"), "{said}");
    assert_eq!(fs::metadata(node.path().join("victim")).unwrap().len(), 0);
}

#[test]
fn a_state_that_others_could_read_is_closed_to_them() {
    let (dir, seen) = (tempfile::tempdir().unwrap(), Seen::new());
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let option = state.display().to_string();
    let mut agent = Agent::start("", &["--state-dir", &option]);
    agent.connect();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.status(), Some(0));
    for (path, mode) in [(state.clone(), 0o755), (state.join("desired-state.redb"), 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    agent.restart();
    let mut ctl = agent.connect();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join("desired-state.redb"))), (0o700, 0o600));
    assert!(agent.log().contains("was open to other users, and is private now"), "{}", agent.log());
    // Workloads do not see it at all, not even as the agent's user.
    let script = format!("ls -A {option} | wc -l; ls -A {option}");
    let text = workload("w", &seen.script("w", &script), "");
    ctl.update(&format!("workloads:\n{text}"), &["desiredState.workloads.w"]).unwrap();
    assert_eq!(seen.read("w"), "0\n");
}
