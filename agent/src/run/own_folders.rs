//! The agent's own folders: opened, checked, and locked against another agent in the same run directory.

use std::{
    fmt, fs, io, mem,
    os::unix::fs::MetadataExt,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::Options;
use crate::{
    cli::CliError,
    folders::{Private, Readable},
    runtime::Hidden,
    store::etcd,
};

/// The agent's own folders, checked before anything in them is read.
pub(super) struct Folders {
    pub(super) run: Private,
    pub(super) state: Option<Private>,
    /// Lock against other agents in the same run directory.
    pub(super) alone: Flock<fs::File>,
}

impl Folders {
    pub(super) fn open(options: &Options) -> Result<Self, CliError> {
        let run_dir = options.run_dir.display();
        let named =
            |error| CliError::Failed(format!("cannot make run directory {run_dir}: {error}"));
        // fifogate refuses a folder readable by others, too.
        let run = Private::open(&options.run_dir, Readable::Refused).map_err(named)?;
        let state = options.state_dir.as_deref().map(|path| Private::open(path, Readable::Closed));
        let state = state
            .transpose()
            .map_err(|error| CliError::Failed(format!("cannot keep the state: {error}")))?;
        let agent = run.folder("agent").map_err(named)?;
        // Before the store is opened: a second agent here changes nothing in it.
        let alone = lock(&agent)?;
        Ok(Self { run, state, alone })
    }
}

/// Time for an agent that was just killed to let go of its lock: its process ends some time after the signal.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two attempts to take the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn lock(folder: &Private) -> Result<Flock<fs::File>, CliError> {
    let file = folder.file("lock").map_err(|error| CliError::Failed(error.to_string()))?;
    let path = folder.path.join("lock");
    let named = |what: &dyn fmt::Display| CliError::Failed(format!("{}: {what}", path.display()));
    let end = Instant::now() + LOCK_PATIENCE;
    let (mut file, mut waits) = (file, false);
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EAGAIN)) if Instant::now() < end => file = again,
            Err((_, Errno::EAGAIN)) => {
                let text = "another agent runs here: stop it, or give another --run-dir";
                return Err(named(&text));
            }
            Err((_, errno)) => return Err(named(&errno)),
        }
        if !mem::replace(&mut waits, true) {
            log::info!(
                "{} is locked by another agent: waiting up to {LOCK_PATIENCE:?} for its end",
                path.display()
            );
        }
        thread::sleep(LOCK_PAUSE);
    }
}

/// The folders to hide from workloads, without those inside of another one.
pub(super) fn hidden(run: &Private, state: Option<&Private>) -> io::Result<Vec<Hidden>> {
    let all: Vec<&Private> = [Some(run), state].into_iter().flatten().collect();
    let is_within = |own: &Private, other: &Private| {
        own.path != other.path && own.path.starts_with(&other.path)
    };
    let mut found: Vec<Hidden> = Vec::new();
    for own in &all {
        let again = found.iter().any(|known| known.path == own.path);
        if !again && !all.iter().any(|other| is_within(own, other)) {
            let metadata = fs::File::from(own.fd.try_clone()?).metadata()?;
            found.push(Hidden { path: own.path.clone(), file: (metadata.dev(), metadata.ino()) });
        }
    }
    Ok(found)
}

/// Place of this process: another process can check whether it still runs.
pub(super) fn place(lock: &Flock<fs::File>) -> etcd::Place {
    let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let file = lock.metadata().map(|own| format!("{}:{}", own.dev(), own.ino()));
    etcd::Place {
        machine: read("/etc/machine-id"),
        boot: read("/proc/sys/kernel/random/boot_id"),
        lock: file.unwrap_or_default(),
    }
}
