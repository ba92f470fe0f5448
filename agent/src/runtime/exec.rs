//! Last process of a start: it gives up rights, and becomes the workload's command by `exec`.
//!
//! In: one line of JSON on standard input, a socket to the shim. Out: the lines `loaded` and `ready`,
//! then end of file if the command was started, else the reason.
//!
//! This program is loaded before the shim mounts anything for the workload: a file mounted over a
//! library would run here with all rights.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::{AsFd, IntoRawFd},
        unix::{fs::fchown, net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, atomic::AtomicBool},
};

use nix::{
    errno::Errno,
    libc::{SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP},
    sys::prctl::{set_keepcaps, set_no_new_privs},
    unistd::{Gid, Uid, close, getuid, setgid, setgroups, setsid, setuid},
};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::{
    capabilities::{self, USUAL},
    inherited::Inherited,
};

/// The command and the attributes of its process, sent by the shim as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) working_dir: PathBuf,
    pub(super) uid_gid: Option<(u32, u32)>,
    /// Bits of the capabilities beyond the default ones.
    pub(super) capabilities: u64,
    /// Whether setuid programs gain no rights; if absent, true for all users but root.
    pub(super) no_new_privileges: Option<bool>,
    pub(super) inherited: Inherited,
}

impl Identity {
    /// Whether a process of this workload can become root, as far as the agent can know.
    pub(super) fn may_be_root(&self, us: Uid) -> bool {
        let uid = self.uid_gid.map_or(us, |(uid, _)| Uid::from_raw(uid));
        uid.is_root() || self.no_new_privileges == Some(false)
    }
}

/// Line sent after the dynamic linker has loaded this program. The shim waits for it before mounting: a
/// successful `spawn` does not mean all libraries are open.
pub(super) const LOADED: &str = "loaded";

/// Line sent when only the `exec` of the command is left.
pub(super) const READY: &str = "ready";

/// SIGHUP is for the agent, and its processes have its name: a `pkill -HUP` by that name is to end no workload. The
/// command itself gets the default again, as `exec` resets handled signals.
pub(super) fn outlive_hangup() -> io::Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default()).map(drop)
}

/// Closes descriptors inherited from a careless parent: a workload gets only the three standard ones.
pub(super) fn close_inherited() -> io::Result<()> {
    // Listed before the first close: closing changes the folder under way.
    let listed: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in listed {
        // The descriptor of the listing itself is closed already.
        let _ = close(fd.into_raw_fd());
    }
    Ok(())
}

/// Becomes the command, or sends the reason to the shim and fails.
pub(super) fn main() -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut socket = UnixStream::from(socket);
    if writeln!(socket, "{LOADED}").is_err() {
        return ExitCode::FAILURE;
    }
    let error = match prepare(&socket) {
        // `exec` returns only on failure.
        Ok(mut command) => match writeln!(socket, "{READY}") {
            Ok(()) => command.exec().to_string(),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    // A closed socket: the shim is gone, and nobody waits for the reason.
    let _ = socket.write_all(error.as_bytes());
    ExitCode::FAILURE
}

/// The process cannot take the attributes of its command.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    /// The shim sent no identity.
    #[error(transparent)]
    Identity(io::Error),
    #[error("cannot begin a session: {0}")]
    Session(Errno),
    #[error("cannot reset signals: {0}")]
    Signals(io::Error),
    /// The agent has not this capability.
    #[error("the agent has no capability {0} to pass on")]
    NoCapability(&'static str),
    #[error("cannot set the limit of descriptors: {0}")]
    Limit(Errno),
    #[error("cannot drop capabilities: {0} (this takes SETPCAP)")]
    DropCapabilities(io::Error),
    #[error("cannot set capabilities: {0}")]
    SetCapabilities(io::Error),
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivileges(Errno),
    #[error("cannot become user {uid} and group {gid}: {errno}")]
    User { uid: Uid, gid: Gid, errno: Errno },
}

fn prepare(socket: &UnixStream) -> Result<Command, PrepareError> {
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).map_err(PrepareError::Identity)?;
    let identity = serde_json::from_str(&line).map_err(io::Error::from);
    let identity: Identity = identity.map_err(PrepareError::Identity)?;
    // A new session has no controlling terminal for the command to type into.
    setsid().map_err(PrepareError::Session)?;
    reset_signals().map_err(PrepareError::Signals)?;
    take_identity(&identity)?;
    identity.inherited.restore().map_err(PrepareError::Limit)?;
    let mut command = Command::new(&identity.command);
    command.args(&identity.args).env_clear().envs(&identity.env);
    command.current_dir(&identity.working_dir).stdin(Stdio::null());
    Ok(command)
}

/// Gives each signal a handler: `exec` resets handled signals, but keeps ignored ones ignored. Left out
/// are three signals without a safe handler. The kernel does not ignore them if a program causes them.
/// The standard library unblocks all signals.
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

fn take_identity(identity: &Identity) -> Result<(), PrepareError> {
    let asked = CapabilitySet::from_bits_retain(identity.capabilities);
    let possible = capabilities::possible();
    // `ALL` means all capabilities this process may have.
    let asked = if asked.is_all() || identity.capabilities == u64::MAX { possible } else { asked };
    let us = getuid();
    let uid = identity.uid_gid.map_or(us, |(uid, _)| Uid::from_raw(uid));
    let own = if us.is_root() { possible } else { capabilities::current() };
    if let Some((name, _)) = asked.difference(own).iter_names().next() {
        return Err(PrepareError::NoCapability(name));
    }
    let bound = USUAL.union(asked).intersection(possible);
    // Before the user changes, as this takes SETPCAP. An ordinary user without namespaces has nothing
    // to drop.
    if us.is_root() {
        capabilities::bound(bound).map_err(PrepareError::DropCapabilities)?;
    }
    if let Some((uid, gid)) = identity.uid_gid {
        // Opening `/dev/stdout` opens the pipe anew, and asks for its owner. Without the right to give
        // files away the pipes can still be written.
        let _ = fchown(io::stdout(), Some(uid), Some(gid));
        let _ = fchown(io::stderr(), Some(uid), Some(gid));
        become_user(Uid::from_raw(uid), Gid::from_raw(gid))?;
    }
    if uid.is_root() {
        capabilities::set(bound, CapabilitySet::empty()).map_err(PrepareError::SetCapabilities)?;
    } else {
        // A program of another user has only the inherited capabilities.
        capabilities::set(asked, asked).map_err(PrepareError::SetCapabilities)?;
    }
    if identity.no_new_privileges.unwrap_or(!uid.is_root()) {
        set_no_new_privs().map_err(PrepareError::NoNewPrivileges)?;
    }
    Ok(())
}

fn become_user(uid: Uid, gid: Gid) -> Result<(), PrepareError> {
    let failed = |errno| PrepareError::User { uid, gid, errno };
    if getuid().is_root() {
        // Supplementary groups of the agent would give their rights to the workload.
        setgroups(&[]).map_err(failed)?;
    }
    // The group first: after `setuid` the process may not change it any more.
    setgid(gid).map_err(failed)?;
    // Otherwise `setuid` would clear the requested capabilities.
    set_keepcaps(true).map_err(failed)?;
    setuid(uid).map_err(failed)?;
    set_keepcaps(false).map_err(failed)
}
