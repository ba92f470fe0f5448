//! The turn of a command on a pair: two commands in one pair would read each other's answers.
//!
//! A command holds a lock on the folder of its pair. The next one waits; behind a `watch`, which may never
//! end, it fails at once. The lock ends with its process, however that ends. Programs that use the pipes
//! themselves take no lock: it is between commands of fifogate.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    mem,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
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

/// The commands that use a pair.
const COMMANDS: [&str; 3] = ["get", WATCH, "set"];
const WATCH: &str = "watch";

/// The lock on the folder of a pair.
pub(super) struct PairLock(Flock<File>);

/// Another process with the lock.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    /// The subcommand, if it is a command of fifogate.
    command: Option<&'static str>,
}

impl PairLock {
    /// Waits for the lock, until this time. `None` for a folder that cannot be opened or locked.
    ///
    /// # Errors
    /// `Busy` if another command keeps the lock; `Quiet` on a stop.
    pub(super) fn take(dir: &Path, until: Instant, stop: &Stop) -> Result<Option<Self>, CliError> {
        // `/proc/locks` lists the locks of the whole machine: it is read once, and for the error.
        let mut is_first_failure = true;
        loop {
            // Opened for each attempt: fifogate may have replaced the folder since the last one.
            // The open of the pipes reports a missing folder.
            let Ok(folder) = File::open(dir) else { return Ok(None) };
            let folder = match Flock::lock(folder, FlockArg::LockExclusiveNonblock).map(Self) {
                // Past the deadline any lock will do, so the loop has an end.
                Ok(lock) if lock.is_of(dir) || Instant::now() >= until => return Ok(Some(lock)),
                // Replaced between the open and the lock.
                Ok(_) => continue,
                Err((folder, Errno::EAGAIN)) => folder,
                // A file system without locks.
                Err(_) => return Ok(None),
            };
            let is_late = Instant::now() >= until;
            if is_late || mem::take(&mut is_first_failure) {
                let holder = holder(&folder);
                if is_late || holder.as_ref().is_some_and(Holder::is_watch) {
                    return Err(used(dir, holder.as_ref()));
                }
            }
            let woken = wait(&[], Some((Instant::now() + RETRY).min(until)), stop);
            if woken.is_ok_and(|woken| woken == Woken::Stopped) {
                return Err(CliError::quiet());
            }
        }
    }

    /// Whether `dir` is still the locked folder. Another one in its place has a lock of its own.
    fn is_of(&self, dir: &Path) -> bool {
        let id = |folder: &Metadata| (folder.dev(), folder.ino());
        match (self.0.metadata(), fs::metadata(dir)) {
            (Ok(own), Ok(there)) => id(&own) == id(&there),
            _ => false,
        }
    }
}

impl Holder {
    fn is_watch(&self) -> bool {
        self.command == Some(WATCH)
    }
}

fn used(dir: &Path, holder: Option<&Holder>) -> CliError {
    let name = match holder {
        Some(Holder { pid, command: Some(command) }) => format!("`fifogate {command}` (pid {pid})"),
        Some(Holder { pid, command: None }) => format!("process (pid {pid})"),
        None => "command of fifogate".to_owned(),
    };
    CliError::busy(format!(
        "{}: another {name} uses this pair; end it first, or use the pair of another workload",
        dir.display()
    ))
}

/// The process with a lock on this folder, as far as the kernel tells: not from outside of our PID
/// namespace.
fn holder(folder: &File) -> Option<Holder> {
    let own = folder.metadata().ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| pid_of(line, own.ino(), own.dev()))?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok();
    Some(Holder { pid, command: command.and_then(|line| command_of(&line)) })
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

/// The subcommand in a command line of fifogate.
///
/// A process chooses its command line freely, control sequences included. So nothing of it is shown:
/// it only selects one of our own words.
fn command_of(line: &[u8]) -> Option<&'static str> {
    let mut words = line.split(|byte| *byte == 0);
    if Path::new(OsStr::from_bytes(words.next()?)).file_name()? != "fifogate" {
        return None;
    }
    // Options in front of the subcommand have no values.
    let subcommand = words.find(|word| !word.starts_with(b"-"))?;
    COMMANDS.into_iter().find(|command| command.as_bytes() == subcommand)
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
    #[test]
    fn only_commands_of_fifogate_are_named() {
        for (line, command) in [
            (&b"fifogate\0watch\0-d\0x\0"[..], Some("watch")),
            (b"/usr/bin/fifogate\0-v\0--quiet\0get\0", Some("get")),
            (b"./fifogate\0set\0a=b\0", Some("set")),
            (b"fifogate\0run\0", None),
            (b"fifogate\0\x1b[2Jwatch\0", None),
            (b"fifogate\0-d\0", None),
            (b"python3\0watch\0", None),
            (b"\xff\0watch\0", None),
            (b"fifogate", None),
            (b"\0", None),
            (b"", None),
        ] {
            assert_eq!(command_of(line), command, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn lock_on_a_folder_that_was_replaced_is_not_the_one_of_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let pair = dir.path().join("control_interface");
        fs::create_dir(&pair).unwrap();
        let lock = PairLock::take(&pair, Instant::now(), &Stop::never()).unwrap().unwrap();
        assert!(lock.is_of(&pair));
        fs::rename(&pair, dir.path().join("old")).unwrap();
        assert!(!lock.is_of(&pair));
        fs::create_dir(&pair).unwrap();
        assert!(!lock.is_of(&pair));
        assert!(PairLock::take(&pair, Instant::now(), &Stop::never()).unwrap().is_some());
        assert!(PairLock::take(&dir.path().join("old"), Instant::now(), &Stop::never()).is_err());
    }
}
