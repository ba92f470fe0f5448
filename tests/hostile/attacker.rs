//! A program that attacks through the pair of one workload.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, geteuid},
};

use testkit::wait_for;

/// The user that attacks, where we may choose: nobody.
const NOBODY: u32 = 65_534;

/// The last report of the attack.
#[derive(Default)]
struct Told {
    in_force: Option<Instant>,
    count: u64,
}

pub(crate) struct Attacker {
    name: String,
    child: Child,
    told: Arc<Mutex<Told>>,
}

/// Whether attackers are another user than fifogate; only root can choose.
pub(crate) fn is_another_user() -> bool {
    geteuid().is_root()
}

impl Attacker {
    /// Starts the attack in the folder of a pair. As root, we open the two FIFOs to all: nobody but
    /// who is put into their folder gets through the run directory, as with a container's mount.
    pub(crate) fn start(name: &str, arguments: &[&str], pair: &Path) -> Self {
        let user = if is_another_user() { NOBODY } else { 0 };
        if is_another_user() {
            for fifo in ["input", "output"] {
                fs::set_permissions(pair.join(fifo), Permissions::from_mode(0o666)).unwrap();
            }
        }
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
        let mut child = Command::new("python3")
            .arg("-BES")
            .arg(programs.join("unprivileged.py"))
            .args([&user.to_string(), name])
            .args(arguments)
            .current_dir(pair)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = Arc::default();
        let (stdout, hear) = (child.stdout.take().unwrap(), Arc::clone(&told));
        thread::spawn(move || listen(stdout, &hear));
        let words = arguments.iter().filter(|word| !word.starts_with('/'));
        let name = [name].iter().chain(words).copied().collect::<Vec<_>>().join(" ");
        Self { name, child, told }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How much it has done.
    pub(crate) fn count(&self) -> u64 {
        lock(&self.told).count
    }

    /// For how long it has been in force; none if it is not yet. It must not have ended.
    pub(crate) fn in_force_for(&mut self) -> Option<Duration> {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "the attack {} ended by itself", self.name);
        lock(&self.told).in_force.map(|since| since.elapsed())
    }

    pub(crate) fn wait_until_in_force(&mut self) {
        let what = format!("the attack {} in force", self.name);
        wait_for(&what, || self.in_force_for());
    }
}

/// Attackers that end together: one may hang at a lock that another holds.
#[derive(Default)]
pub(crate) struct Attackers(pub(crate) Vec<Attacker>);

impl Drop for Attackers {
    /// With all their children, stopped ones too.
    fn drop(&mut self) {
        for attacker in &self.0 {
            let group = Pid::from_raw(attacker.child.id().try_into().unwrap());
            let _ = killpg(group, Signal::SIGKILL);
        }
        for attacker in &mut self.0 {
            let _ = attacker.child.wait();
        }
    }
}

fn listen(stdout: ChildStdout, told: &Mutex<Told>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match line.parse() {
            Ok(count) => lock(told).count = count,
            Err(_) => lock(told).in_force = (line == "in force").then(Instant::now),
        }
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
