//! Shim: this program again, as launcher between the agent and a workload's process.
//!
//! The agent cannot run its own code in a forked child, so the child is this program: it unshares
//! namespaces, mounts, and starts the command. Afterwards it reports the command's start and end,
//! executes commands of the agent, and reaps orphans. Its standard input is a socket to the agent.
//!
//! When the socket closes, the agent is gone, and the shim ends everything. In a PID namespace with the
//! shim as first process, the kernel does so even if the shim is killed. Without one, the shim is the
//! subreaper of all processes of the command.
//!
//! A third process (`exec`) gives up rights, and becomes the command.

use std::{
    fmt, fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
};

use clap::ValueEnum;
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl::{set_child_subreaper, set_pdeathsig},
        signal::{Signal, kill, killpg},
        stat::{Mode, umask},
    },
    unistd::{Pid, getegid, geteuid},
};
use rustix::{
    io::Errno,
    process::{WaitOptions, WaitStatus, wait},
};
use serde::{Deserialize, Serialize};

use super::{
    exec::{self, Identity, LOADED, READY},
    mounts::{self, Bind, Hidden, MountError},
    placeholders::Placeholders,
};

/// Isolation of a workload from its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Isolation {
    /// Its own mounts, and its own processes, all of which end with the first.
    Full,
    /// Its own mounts.
    Mounts,
    /// Nothing.
    None,
}

impl Isolation {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Mounts => "mounts",
            Self::None => "none",
        }
    }
}

/// Start parameters of the shim: one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) identity: Identity,
    pub(super) binds: Vec<Bind>,
    pub(super) hidden: Vec<Hidden>,
    /// Whether parts of `/proc` become read-only.
    pub(super) protects_kernel: bool,
}

/// The processes between the agent and a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Makes the namespaces.
    Outside,
    /// Is in the namespaces, and keeps the command.
    Inside,
    /// Becomes the command.
    Command,
}

/// Report of the shim to the agent: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ShimEvent {
    Started,
    /// Not started, with the reason.
    Failed(String),
    Exited(i32),
    Killed(i32),
}

/// Command of the agent to the shim, in one line: SIGTERM to the process group of the workload, and
/// SIGCONT, in case it is stopped.
pub(super) const TERMINATE: &str = "terminate";

/// Folder of the pair as seen by a workload.
pub(super) const PAIR: &str = "/run/ankaios/control_interface";

/// Runs one stage of a launch. With `probe`, only tries whether the stage is possible here.
#[must_use]
pub fn main(isolation: Isolation, stage: Stage, probe: bool) -> ExitCode {
    let prepared = exec::close_inherited().and_then(|()| exec::outlive_hangup());
    let status = prepared.and_then(|()| match (stage, isolation) {
        (Stage::Command, _) => Ok(exec::main()),
        (Stage::Outside, Isolation::Full) => enter(isolation).and_then(|()| go_inside(probe)),
        (Stage::Outside, Isolation::Mounts) => {
            enter(isolation).and_then(|()| keep(isolation, probe))
        }
        _ => keep(isolation, probe),
    });
    status.unwrap_or_else(|error| {
        if !probe {
            tell(&ShimEvent::Failed(format!("its launcher failed: {error}")));
        }
        ExitCode::FAILURE
    })
}

/// Unshares the namespaces of `isolation`. A user other than root becomes root of a user namespace
/// first.
fn enter(isolation: Isolation) -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNS;
    if isolation == Isolation::Full {
        flags |= CloneFlags::CLONE_NEWPID;
    }
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags)?;
    if !uid.is_root() {
        // The kernel refuses a gid_map of an ordinary user without this.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    mounts::make_private()
}

/// Starts this program once more: only children of its maker are in a new PID namespace.
fn go_inside(probe: bool) -> io::Result<ExitCode> {
    end_with_parent()?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["launch", "--isolation", "full", "--stage", "inside"]);
    if probe {
        command.arg("--probe");
    }
    // This process only waits: its own end would end the namespace's first process.
    let status = command.status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}

fn end_with_parent() -> io::Result<()> {
    Ok(set_pdeathsig(Signal::SIGKILL)?)
}

fn keep(isolation: Isolation, probe: bool) -> io::Result<ExitCode> {
    match isolation {
        Isolation::Full => {
            end_with_parent()?;
            mounts::mount_proc()?;
        }
        // Nothing ends with the shim here, so it outlives the agent and ends all processes. As
        // subreaper it becomes the parent of orphans, and can reap them.
        Isolation::Mounts | Isolation::None => set_child_subreaper(true)?,
    }
    if probe {
        return Ok(ExitCode::SUCCESS);
    }
    let mut orders = BufReader::new(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?));
    let mut line = String::new();
    orders.read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line)?;
    let mounts = !(plan.binds.is_empty() && plan.hidden.is_empty()) || plan.protects_kernel;
    // Refused here once more: without a namespace this would hide folders from the whole node.
    if isolation == Isolation::None && mounts {
        return Err(io::Error::other("it would mount on the host"));
    }
    let mut placeholders = Placeholders::new(plan.identity.uid_gid);
    let pid = match start(isolation, &plan, &mut placeholders) {
        Ok(pid) => pid,
        Err(error) => {
            placeholders.remove();
            tell(&ShimEvent::Failed(error.to_string()));
            return Ok(ExitCode::FAILURE);
        }
    };
    tell(&ShimEvent::Started);
    // On a thread of its own, as `reap` blocks.
    thread::spawn(move || obey(orders, pid));
    let told = reap(pid);
    // In a PID namespace the kernel does this when the shim ends. It is too late for the placeholders:
    // no process may use the mounts on them any more.
    if isolation != Isolation::Full || !placeholders.is_empty() {
        end_all(isolation);
    }
    placeholders.remove();
    // Only now: the report stands for the end of all processes of the command.
    tell(&told);
    Ok(ExitCode::SUCCESS)
}

/// The command was not started.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The process that becomes the command cannot be started.
    #[error("the process for the command cannot be started: {0}")]
    Process(io::Error),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("workingDir {} is no folder", .0.display())]
    NoFolder(PathBuf),
    /// The command itself cannot be started.
    #[error("command '{command}' cannot be started: {reason}")]
    Command { command: String, reason: String },
    /// The process reported this reason before it was ready.
    #[error("{0}")]
    Reported(String),
}

fn start(
    isolation: Isolation,
    plan: &Plan,
    placeholders: &mut Placeholders,
) -> Result<Pid, CommandError> {
    // Loaded before the mounts: a file of the workload could take the place of its libraries.
    let (pid, mut socket) = start_waiting(isolation).map_err(CommandError::Process)?;
    // For the placeholders of many files. The process of the command has the agent's limit by now.
    fifogate::server::raise_descriptor_limit();
    // New folders on the way to a mount point are accessible to all users.
    umask(Mode::from_bits_truncate(0o022));
    mounts::mount_all(&plan.binds, &plan.hidden, placeholders)?;
    if plan.protects_kernel {
        mounts::protect_kernel()?;
    }
    let Identity { command, working_dir, .. } = &plan.identity;
    if !working_dir.is_dir() {
        return Err(CommandError::NoFolder(working_dir.clone()));
    }
    let failed = |reason: &dyn fmt::Display| {
        let (command, reason) = (command.clone(), reason.to_string());
        CommandError::Command { command, reason }
    };
    let mut line = serde_json::to_string(&plan.identity).map_err(|error| failed(&error))?;
    line.push('\n');
    socket.get_mut().write_all(line.as_bytes()).map_err(|error| failed(&error))?;
    // A successful `exec` closes the other end of the socket, without a reason before.
    let mut said = String::new();
    socket.read_to_string(&mut said).map_err(|error| failed(&error))?;
    match said.strip_prefix(READY).map(str::trim) {
        Some("") => Ok(pid),
        Some(reason) => Err(failed(&reason)),
        None if said.is_empty() => Err(failed(&"its process ended before")),
        None => Err(CommandError::Reported(said)),
    }
}

/// Starts the process for the command, and waits until it is loaded. It gets the command later.
fn start_waiting(isolation: Isolation) -> io::Result<(Pid, BufReader<UnixStream>)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["launch", "--isolation", isolation.name(), "--stage", "command"]);
    let child = command.stdin(OwnedFd::from(theirs)).spawn()?;
    // Otherwise the shim would hold the other end open, and miss the end of the process.
    drop(command);
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let mut socket = BufReader::new(ours);
    let mut said = String::new();
    socket.read_line(&mut said)?;
    if said.trim_end() != LOADED {
        return Err(io::Error::other("it ended before it was loaded"));
    }
    Ok((Pid::from_raw(pid), socket))
}

/// Executes commands of the agent until the socket closes, then kills the workload.
fn obey(orders: BufReader<UnixStream>, pid: Pid) {
    for line in orders.lines().map_while(Result::ok) {
        if line == TERMINATE {
            // It may be gone already.
            let _ = killpg(pid, Signal::SIGTERM);
            // A stopped process takes no signal but this one and SIGKILL.
            let _ = killpg(pid, Signal::SIGCONT);
        }
    }
    // The socket is closed, so the agent is gone or gives this workload no more time.
    let _ = killpg(pid, Signal::SIGKILL);
    // The command may have left its group. After its end, `keep` goes on, and ends all the rest.
    kill_children();
}

/// Waits for the end of the command, and reaps orphans meanwhile.
fn reap(pid: Pid) -> ShimEvent {
    loop {
        match next_end() {
            Ok((own, status)) if own == pid => match status.terminating_signal() {
                Some(signal) => return ShimEvent::Killed(signal),
                None => return ShimEvent::Exited(status.exit_status().unwrap_or_default()),
            },
            Ok(_) => {}
            Err(error) => return ShimEvent::Failed(format!("it was lost: {error}")),
        }
    }
}

/// Waits for the end of any child. A signal in its status stays a number, as some have no name.
fn next_end() -> Result<(Pid, WaitStatus), Errno> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                return Ok((Pid::from_raw(pid.as_raw_nonzero().get()), status));
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Ends all processes left by the command. As their subreaper, or first process of their namespace, the
/// shim becomes the parent of every orphan, wherever it went.
fn end_all(isolation: Isolation) {
    loop {
        match isolation {
            // All of this namespace. A workload with rights to mount may have covered its `/proc`.
            Isolation::Full => _ = kill(Pid::from_raw(-1), Signal::SIGKILL),
            Isolation::Mounts | Isolation::None => kill_children(),
        }
        if next_end().is_err() {
            return;
        }
    }
}

fn kill_children() {
    let us = Pid::this();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.map(Pid::from_raw).filter(|pid| parent_of(*pid) == Some(us)) {
        // It may be gone already.
        let _ = kill(pid, Signal::SIGKILL);
    }
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold any character; the state and the parent come behind it.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut rest = str::from_utf8(stat.get(name_end + 1..)?).ok()?.split_ascii_whitespace();
    rest.nth(1)?.parse().ok().map(Pid::from_raw)
}

fn tell(told: &ShimEvent) {
    let stdin = io::stdin();
    let Ok(fd) = stdin.as_fd().try_clone_to_owned() else { return };
    if let Ok(mut line) = serde_json::to_string(told) {
        line.push('\n');
        // If the socket is closed, the agent is gone, and `obey` ends everything.
        let _ = UnixStream::from(fd).write_all(line.as_bytes());
    }
}
