//! Two builds of the packages in the root of a minimal Debian, which `tests/debian/setup.sh` makes.
//!
//! The root is in a mount and a PID namespace: whatever fails, all processes end with the latter.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use testkit::{fifogate_agent, is_root_or_skip, skip};

/// The steps in the root.
const STEPS: &str = include_str!("steps.sh");

/// What stands for systemd there.
const SYSTEMCTL: &str = include_str!("systemctl.sh");

/// Makes the root ours: nothing of this machine is below it but /dev.
const ENTER: &str = "set -eu; cd \"$1\"; mount --bind . .; cd \"$1\"
mount -t proc proc proc; mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp; mount --rbind /dev dev
pivot_root . mnt; umount -l /mnt; exec sh -eu /test/steps.sh";

/// Runs it to a good end, and returns all that it has said.
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// The folder of built programs, and the one above.
fn target() -> (PathBuf, PathBuf) {
    let built = Path::new(fifogate_agent()).parent().unwrap().to_owned();
    let target = built.parent().unwrap().to_owned();
    (built, target)
}

#[test]
fn packages_are_installed_upgraded_under_a_running_workload_and_purged_without_a_trace() {
    if !is_root_or_skip() {
        return;
    }
    let (built, target) = target();
    let tarball = target.join("debian-root.tar");
    if !tarball.exists() {
        skip("tests/debian/setup.sh has made no root of Debian");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let unpack = ["--extract", "--file"];
    run(Command::new("tar").args(unpack).arg(&tarball).arg("--directory").arg(&root));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/debian/build.sh");
    for version in ["1.0", "1.1"] {
        let output = root.join("test").join(version);
        let mut build = Command::new(&script);
        build.arg(built.file_name().unwrap()).arg(output).arg(version);
        run(build.env("CARGO_TARGET_DIR", &target));
    }
    fs::write(root.join("test/steps.sh"), STEPS).unwrap();
    fs::write(root.join("test/systemctl"), SYSTEMCTL).unwrap();
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
    inside.args(["sh", "-c", ENTER, "sh"]).arg(&root).env_clear();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let said = run(inside.env("PATH", path).env("DEBIAN_FRONTEND", "noninteractive"));
    assert!(said.lines().any(|line| line == "done"), "{said}");
}
