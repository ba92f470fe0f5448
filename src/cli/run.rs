//! `fifogate run`: starts the server for the workloads of a manifest or of an agent.
//!
//! It turns flags into a [`Server`], reads the manifest, stops on signals, and reports readiness to
//! its starter.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::RawFd,
    path::Path,
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
    unistd::{close, dup2_stderr, dup2_stdout},
};

use signal_hook::consts::SIGHUP;

use super::{
    args::{LinkAddress, RunArgs, UpdatesBy},
    error::CliError,
    wait,
};
use crate::{
    broker::Updates,
    limits::Limits,
    manifest,
    server::{AgentTransport, Server, ServerError, ServerHandle, raise_descriptor_limit},
    source,
    state::update::Updated,
    systemd,
};

pub(super) fn run(args: RunArgs) -> Result<(), CliError> {
    // Before anything is opened: later the number could be of a descriptor of ours.
    args.notification_fd.map_or(Ok(()), check_inherited)?;
    if args.updates == UpdatesBy::Forward && args.agent_link.is_none() {
        let text = "--updates forward needs an agent to forward to: give --agent-link too";
        return Err(CliError::unusable(text));
    }
    if args.manifest.as_deref().is_some_and(source::is_stdin)
        && args.agent_link == Some(LinkAddress(None))
    {
        let text = "--manifest - and --agent-link stdio both read standard input: give one of them \
                    as a path";
        return Err(CliError::unusable(text));
    }
    let mut server = Server::builder(args.run_dir.resolve()?)
        .limits(Limits::from(&args.limits))
        .subscribe_grace(Duration::from_millis(args.subscribe_grace_ms))
        .window(args.window)
        .forward_timeout(args.forward_timeout)
        .old_pairs_kept(args.keep_old_pairs)
        .updates(match args.updates {
            UpdatesBy::Apply => Updates::Apply,
            UpdatesBy::Forward => Updates::Forward,
        });
    if let Some(path) = &args.manifest {
        server = server.initial_state(read_manifest(path)?);
    }
    if let Some(name) = args.agent_name {
        server = server.agent_name(name);
    }
    let has_agent = args.agent_link.is_some();
    if let Some(address) = args.agent_link {
        server = server.agent(address.0.map_or(AgentTransport::Stdio, AgentTransport::Unix));
    }
    // Before the start: a signal during it is kept in the socket, and stops the server in order.
    let signals = wait::signals().map_err(|error| CliError::failed(error.to_string()))?;
    if has_agent {
        // For the agent, which reads its files again: a `pkill -HUP fifogate` is to end no session.
        signal_hook::flag::register(SIGHUP, Arc::default())
            .map_err(|error| CliError::failed(error.to_string()))?;
    }
    // Before the start, too: the server takes the limit as it finds it.
    raise_descriptor_limit();
    let handle = server.stop_when_readable(signals.into()).spawn();
    let mut handle = handle.map_err(|error| CliError::failed(error.to_string()))?;
    let failed = |error: ServerError| CliError::failed(error.to_string());
    handle.wait_ready().map_err(failed)?;
    ready(args.notification_fd);
    let ended = wait_alive(&mut handle);
    systemd::notify("STOPPING=1");
    ended.map_err(failed)
}

/// Waits for the end. Meanwhile systemd gets signs of life, each behind an answer of the event loop.
fn wait_alive(handle: &mut ServerHandle) -> Result<(), ServerError> {
    let pause = systemd::watchdog_pause();
    loop {
        match handle.wait_up_to(pause) {
            Some(ended) => return ended,
            None if handle.status().is_some() => systemd::notify("WATCHDOG=1"),
            // It has ended just now.
            None => {}
        }
    }
}

fn read_manifest(path: &Path) -> Result<Updated, CliError> {
    let manifest = manifest::read_or_stdin(path);
    let manifest = manifest.map_err(|error| CliError::unusable(error.to_string()))?;
    for warning in &manifest.warnings {
        log::warn!("{warning}");
    }
    Ok(manifest.updated)
}

/// Reports readiness by the notification descriptor and to systemd, if requested.
fn ready(notification_fd: Option<RawFd>) {
    log::info!("ready");
    if let Some(fd) = notification_fd
        && let Err(error) = notify(fd)
    {
        // Only logged: without its notification the server still serves.
        log::error!("cannot notify by descriptor {fd}: {error}; is it open for writing?");
    }
    systemd::notify("READY=1");
}

/// Checks that a descriptor was given to this process.
fn check_inherited(fd: RawFd) -> Result<(), CliError> {
    let is_open = fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
    let closed = || {
        CliError::unusable(format!(
            "--notification-fd {fd}: this descriptor is not open; the shell opens it by `{fd}>FILE`"
        ))
    };
    is_open.then_some(()).ok_or_else(closed)
}

/// Writes one newline to an inherited descriptor, and closes it. An inherited descriptor cannot be
/// borrowed safely, so it is opened again by its name in `/proc`; a socket is written by `send`.
fn notify(fd: RawFd) -> io::Result<()> {
    let named = OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"));
    let written = match named {
        Ok(mut file) => file.write_all(b"\n"),
        // A socket cannot be opened by its name in `/proc`.
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
            send(fd, b"\n", MsgFlags::MSG_NOSIGNAL).map(drop).map_err(io::Error::from)
        }
        Err(error) => Err(error),
    };
    // Closed after a failed write, too: the supervisor sees the end of the pipe.
    let closed = match fd {
        // The next file would get this number, and what is meant for a standard stream with it.
        1 => dup2_stdout(File::options().write(true).open("/dev/null")?),
        2 => dup2_stderr(File::options().write(true).open("/dev/null")?),
        _ => close(fd),
    };
    closed.map_err(io::Error::from).and(written)
}
