//! The process that becomes a workload's command. In: one line of JSON on standard input, a socket to
//! the shim. Out: a line that this program is loaded, a line that all is ready, and behind it nothing
//! if the command was started, else the reason.
//!
//! It is loaded before anything is mounted for the workload, as a file that is mounted in place of a
//! library would run here with all rights.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::{AsFd, IntoRawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, atomic::AtomicBool},
};

use nix::{
    libc::{SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP},
    sys::{
        prctl::{set_keepcaps, set_no_new_privs},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, close, getuid, setgid, setgroups, setsid, setuid},
};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::capabilities::{self, USUAL};

/// The command, and what its process is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) working_dir: PathBuf,
    pub(super) uid_gid: Option<(u32, u32)>,
    /// Beside the usual ones.
    pub(super) capabilities: u64,
    /// Whether programs with the setuid bit give nothing; if nothing is said, for all users but root.
    pub(super) no_new_privileges: Option<bool>,
    pub(super) umask: u32,
}

impl Identity {
    /// Whether something in this workload can be root, as far as we know.
    pub(super) fn may_be_root(&self, us: Uid) -> bool {
        let uid = self.uid_gid.map_or(us, |(uid, _)| Uid::from_raw(uid));
        uid.is_root() || self.no_new_privileges == Some(false)
    }
}

/// The line that says that the dynamic linker is done with this program. The shim waits for it before
/// it mounts: that the program was started does not say that its libraries were opened.
pub(super) const LOADED: &str = "loaded";

/// The line that says that nothing is missing but the command itself.
pub(super) const READY: &str = "ready";

/// Closes what a careless parent has left open: nothing but the standard ones is a workload's.
pub(super) fn close_inherited() -> io::Result<()> {
    let listed: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in listed {
        // That of the listing itself is closed already.
        let _ = close(fd.into_raw_fd());
    }
    Ok(())
}

/// Becomes the command.
pub(super) fn main() -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut socket = UnixStream::from(socket);
    if writeln!(socket, "{LOADED}").is_err() {
        return ExitCode::FAILURE;
    }
    let error = match prepare(&socket) {
        // Comes back only if it fails.
        Ok(mut command) => match writeln!(socket, "{READY}") {
            Ok(()) => command.exec().to_string(),
            Err(error) => error.to_string(),
        },
        Err(error) => error,
    };
    let _ = socket.write_all(error.as_bytes());
    ExitCode::FAILURE
}

fn prepare(socket: &UnixStream) -> Result<Command, String> {
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).map_err(|error| error.to_string())?;
    let identity: Identity = serde_json::from_str(&line).map_err(|error| error.to_string())?;
    // A session of its own has no controlling terminal, into which it could type.
    setsid().map_err(|errno| format!("cannot begin a session: {errno}"))?;
    reset_signals().map_err(|error| format!("cannot reset signals: {error}"))?;
    take_identity(&identity)?;
    umask(Mode::from_bits_truncate(identity.umask));
    let mut command = Command::new(&identity.command);
    command.args(&identity.args).env_clear().envs(&identity.env);
    command.current_dir(&identity.working_dir).stdin(Stdio::null());
    Ok(command)
}

/// A signal that is ignored stays so in the program that is started; one that is handled does not. The
/// three that cannot be handled safely cannot be ignored either when a program causes them. The standard
/// library unblocks all.
fn reset_signals() -> io::Result<()> {
    let unused = Arc::new(AtomicBool::new(false));
    let kept = [SIGKILL, SIGSTOP, SIGILL, SIGFPE, SIGSEGV];
    // 32 and 33 are the C library's own.
    let all = (1..=31).chain(nix::libc::SIGRTMIN()..=nix::libc::SIGRTMAX());
    for signal in all.filter(|signal| !kept.contains(signal)) {
        signal_hook::flag::register(signal, Arc::clone(&unused))?;
    }
    Ok(())
}

fn take_identity(identity: &Identity) -> Result<(), String> {
    let asked = CapabilitySet::from_bits_retain(identity.capabilities);
    let possible = capabilities::possible();
    let asked = if asked.is_all() || identity.capabilities == u64::MAX { possible } else { asked };
    let us = getuid();
    let uid = identity.uid_gid.map_or(us, |(uid, _)| Uid::from_raw(uid));
    let own = if us.is_root() { possible } else { capabilities::current() };
    if let Some((name, _)) = asked.difference(own).iter_names().next() {
        return Err(format!("the agent has no capability {name} to pass on"));
    }
    let bound = USUAL.union(asked).intersection(possible);
    // An ordinary user without namespaces has nothing to take away.
    if us.is_root() {
        capabilities::bound(bound)
            .map_err(|error| format!("cannot drop capabilities: {error} (this takes SETPCAP)"))?;
    }
    if let Some((uid, gid)) = identity.uid_gid {
        become_user(Uid::from_raw(uid), Gid::from_raw(gid))?;
    }
    let dropped = |error| format!("cannot set capabilities: {error}");
    if uid.is_root() {
        capabilities::set(bound, CapabilitySet::empty()).map_err(dropped)?;
    } else {
        // Another user's program has those alone that are handed on.
        capabilities::set(asked, asked).map_err(dropped)?;
    }
    if identity.no_new_privileges.unwrap_or(!uid.is_root()) {
        set_no_new_privs().map_err(|errno| format!("cannot set no_new_privs: {errno}"))?;
    }
    Ok(())
}

fn become_user(uid: Uid, gid: Gid) -> Result<(), String> {
    let failed = |errno| format!("cannot become user {uid} and group {gid}: {errno}");
    if getuid().is_root() {
        setgroups(&[]).map_err(failed)?;
    }
    setgid(gid).map_err(failed)?;
    // Otherwise the capabilities that are asked for would end with root.
    set_keepcaps(true).map_err(failed)?;
    setuid(uid).map_err(failed)?;
    set_keepcaps(false).map_err(failed)
}
