//! A podman of a test's own: its storage, its events and its containers end with the test.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{is_root_or_skip, skip};

/// The only image: busybox, with a user of the number 1000.
pub const IMAGE: &str = "localhost/box";

/// Commands of busybox in the image.
const COMMANDS: [&str; 11] =
    ["sh", "sleep", "cat", "echo", "ls", "true", "id", "date", "kill", "seq", "mv"];

/// Options with which podman runs where a container of runc may not set limits or use networks.
const OPTIONS: &str = "
[containers]
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
netns = \"none\"
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
infra_image = \"localhost/pause\"
";

/// Waits for its end, as the infra container of a pod does.
const PAUSE: &str = "#!/bin/sh\ntrap exit TERM\nwhile :; do sleep 1000 & wait; done\n";

/// A podman with an empty storage, apart from [`IMAGE`].
pub struct Podman {
    dir: TempDir,
}

impl Podman {
    /// Makes one. `None`, and the test is skipped, where podman cannot start a container.
    pub fn new() -> Option<Self> {
        if !is_root_or_skip() {
            return None;
        }
        let Some(busybox) = program("busybox").filter(|_| program("podman").is_some()) else {
            skip("podman and busybox are not installed (tests/podman/setup.sh)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            path("graph"),
            path("run")
        );
        fs::write(path("storage.conf"), storage).unwrap();
        let options =
            format!("{OPTIONS}tmp_dir = {:?}\nvolume_path = {:?}\n", path("tmp"), path("volumes"));
        fs::write(path("containers.conf"), options).unwrap();
        let podman = Self { dir };
        podman.make_image(&busybox);
        let ran = podman.output(&["run", "--rm", IMAGE, "true"]);
        if !ran.status.success() {
            let why = String::from_utf8_lossy(&ran.stderr).trim().replace('\n', " ");
            skip(&format!("podman cannot start a container here: {why}"));
            return None;
        }
        Some(podman)
    }

    fn make_image(&self, busybox: &Path) {
        let root = self.path("root");
        for folder in ["bin", "etc", "tmp", "run", "usr", "lib", "lib64"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for command in COMMANDS {
            symlink("busybox", root.join("bin").join(command)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
            .unwrap();
        fs::write(root.join("bin/pause"), PAUSE).unwrap();
        fs::set_permissions(root.join("bin/pause"), fs::Permissions::from_mode(0o755)).unwrap();
        let tar = self.path("image.tar");
        let made = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
        assert!(made.unwrap().success());
        let tar = tar.to_str().unwrap();
        self.run(&["import", tar, IMAGE]);
        let pause = "--change=ENTRYPOINT [\"/bin/pause\"]";
        self.run(&["import", pause, tar, "localhost/pause"]);
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The environment in which `podman` is this one.
    pub fn env(&self) -> Vec<(String, String)> {
        let file = |name: &str| self.path(name).display().to_string();
        vec![
            ("CONTAINERS_CONF".to_owned(), file("containers.conf")),
            ("CONTAINERS_STORAGE_CONF".to_owned(), file("storage.conf")),
        ]
    }

    /// As [`Podman::env`], with a script that runs before each call of the program `podman`, and sees its
    /// arguments. `$REAL_PATH` is `PATH` without it.
    pub fn env_before(&self, script: &str) -> Vec<(String, String)> {
        let folder = self.path("before");
        fs::create_dir_all(&folder).unwrap();
        let text = format!("#!/bin/sh\n{script}\nPATH=$REAL_PATH exec podman \"$@\"\n");
        let program = folder.join("podman");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut env = self.env();
        env.push(("REAL_PATH".to_owned(), path.clone()));
        env.push(("PATH".to_owned(), format!("{}:{path}", folder.display())));
        env
    }

    /// Runs podman.
    pub fn output(&self, args: &[&str]) -> Output {
        Command::new("podman").args(args).envs(self.env()).output().unwrap()
    }

    /// Runs podman, which has to succeed, and returns what it prints.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// All containers, as `podman ps` lists them.
    pub fn containers(&self) -> Vec<Value> {
        let text = self.run(&["ps", "--all", "--no-trunc", "--format=json"]);
        let all: Option<Vec<Value>> = serde_json::from_str(&text).unwrap();
        all.unwrap_or_default()
    }

    /// The container of a workload of agent_A, if there is exactly one.
    pub fn container_of(&self, workload: &str) -> Option<Value> {
        let begin = format!("{workload}.");
        let mut own = self.containers().into_iter().filter(|one| {
            let name = one["Labels"]["name"].as_str().unwrap_or_default();
            name.starts_with(&begin) && name.ends_with(".agent_A")
        });
        let first = own.next()?;
        own.next().is_none().then_some(first)
    }

    /// The id of the container of a workload of agent_A; of several, none is.
    pub fn id_of(&self, workload: &str) -> Option<String> {
        Some(self.container_of(workload)?["Id"].as_str()?.to_owned())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.output(&["rm", "--all", "--force", "--time=0"]);
        self.output(&["pod", "rm", "--all", "--force", "--time=0"]);
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut all = std::env::split_paths(&path).map(|folder| folder.join(name));
    all.find(|path| path.metadata().is_ok_and(|own| own.permissions().mode() & 0o111 != 0))
}

/// A workload of agent_A in a container that runs a script, with options of podman as JSON and
/// further fields.
pub fn container(name: &str, script: &str, options: &str, fields: &str) -> String {
    let config = serde_json::json!({
        "image": IMAGE,
        "commandOptions": serde_json::from_str::<Value>(options).unwrap(),
        "commandArgs": ["sh", "-c", script],
    });
    let config = Value::from(config.to_string()).to_string();
    format!("  {name}: {{runtime: podman, agent: agent_A, runtimeConfig: {config}{fields}}}\n")
}
