//! The turn of a command on a pair: two commands in one pair would read each other's answers.
//!
//! A command holds a lock on the folder of its pair. The next one waits; behind a `watch`, which may never
//! end, it fails at once. The lock ends with its process, however that ends. Programs that use the pipes
//! themselves take no lock: it is between commands of fifogate.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{
    error::CliError,
    wait::{Stop, Woken, wait},
};

/// Interval of attempts.
const RETRY: Duration = Duration::from_millis(5);

/// The lock on the folder of a pair.
pub(super) struct PairLock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Another command with the lock.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    /// Its name with the subcommand, if it can be read.
    command: Option<String>,
}

impl PairLock {
    /// Waits for the lock, until this time. `None` for a folder that cannot be opened or locked.
    ///
    /// # Errors
    /// `Away` if another command keeps the lock; `Quiet` on a stop.
    pub(super) fn take(dir: &Path, until: Instant, stop: &Stop) -> Result<Option<Self>, CliError> {
        // The open of the pipes reports a missing folder.
        let Ok(mut folder) = File::open(dir) else { return Ok(None) };
        loop {
            folder = match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Some(Self(lock))),
                Err((folder, Errno::EAGAIN)) => folder,
                // A file system without locks.
                Err(_) => return Ok(None),
            };
            let holder = folder.metadata().ok().and_then(|own| holder(own.ino(), own.dev()));
            let is_long = holder.as_ref().is_some_and(Holder::is_watch);
            if is_long || Instant::now() >= until {
                return Err(used(dir, holder.as_ref()));
            }
            let woken = wait(&[], Some((Instant::now() + RETRY).min(until)), stop);
            if woken.is_ok_and(|woken| woken == Woken::Stopped) {
                return Err(CliError::quiet());
            }
        }
    }
}

impl Holder {
    fn is_watch(&self) -> bool {
        self.command.as_deref().is_some_and(|command| command.ends_with(" watch"))
    }
}

fn used(dir: &Path, holder: Option<&Holder>) -> CliError {
    let name = match holder {
        Some(Holder { pid, command: Some(command) }) => format!("`{command}` (pid {pid})"),
        Some(Holder { pid, command: None }) => format!("process (pid {pid})"),
        None => "command of fifogate".to_owned(),
    };
    CliError::away(format!(
        "{}: another {name} uses this pair; end it first, or use the pair of another workload",
        dir.display()
    ))
}

/// The process with a lock on this file, as far as the kernel tells: not from outside of our PID
/// namespace.
fn holder(inode: u64, device: u64) -> Option<Holder> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| pid_of(line, inode, device))?;
    Some(Holder { pid, command: command_of(pid) })
}

/// The process in a line of `/proc/locks`, if it has a lock on this file:
/// `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`.
fn pid_of(line: &str, inode: u64, device: u64) -> Option<u32> {
    let mut words = line.split_ascii_whitespace().skip(1);
    // A waiting process has an arrow in front.
    if words.next()? != "FLOCK" {
        return None;
    }
    let (pid, file) = (words.nth(2)?, words.next()?);
    let mut numbers = file.split(':');
    let mut hexadecimal = || u64::from_str_radix(numbers.next()?, 16).ok();
    let (major, minor) = (hexadecimal()?, hexadecimal()?);
    let of_device = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let is_ours = (major, minor) == of_device && numbers.next()?.parse() == Ok(inode);
    pid.parse().ok().filter(|pid| is_ours && *pid > 0)
}

/// Program and subcommand of a process of fifogate.
fn command_of(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split('\0').filter(|word| !word.is_empty());
    let program = Path::new(words.next()?).file_name()?.to_string_lossy().into_owned();
    let subcommand = words.find(|word| !word.starts_with('-'))?;
    Some(format!("{program} {subcommand}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_of_the_file_is_found_among_others() {
        let device = nix::sys::stat::makedev(8, 0x1f);
        let pid = |line| pid_of(line, 1234, device);
        assert_eq!(pid("1: FLOCK  ADVISORY  WRITE 4711 08:1f:1234 0 EOF"), Some(4711));
        for other in [
            "1: POSIX  ADVISORY  WRITE 4711 08:1f:1234 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 4711 08:1f:1234 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 4711 08:1e:1234 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 4711 08:1f:1235 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 0 08:1f:1234 0 EOF",
            "1: FLOCK  ADVISORY",
            "",
        ] {
            assert_eq!(pid(other), None, "{other}");
        }
    }
}
