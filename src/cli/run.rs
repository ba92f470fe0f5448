//! `fifogate run`: starts the server for the workloads of a manifest or of an agent.
//!
//! It turns flags into a [`ServerConfig`], reads the manifest, and reports readiness to its
//! starter.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::fd::RawFd,
    path::Path,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
    unistd::close,
};

use super::{
    args::{RunArgs, UpdatesBy},
    error::CliError,
};
use crate::{
    broker::{self, Updates},
    limits::Limits,
    manifest,
    server::{Server, ServerConfig},
    state::update::Updated,
};

pub(super) fn run(args: RunArgs) -> Result<(), CliError> {
    if args.updates == UpdatesBy::Forward && args.agent_link.is_none() {
        let text = "--updates forward needs an agent to forward to: give --agent-link too";
        return Err(CliError::unusable(text));
    }
    let start = args.manifest.as_deref().map(read_manifest).transpose()?;
    let config = ServerConfig {
        run_dir: args.run_dir.resolve()?,
        broker: broker::Config {
            limits: Limits::from(&args.limits),
            subscribe_grace_ms: args.subscribe_grace_ms,
            window: args.window.into(),
            agent_name: args.agent_name,
            link: None,
            updates: match args.updates {
                UpdatesBy::Apply => Updates::Apply,
                UpdatesBy::Forward => Updates::Forward,
            },
            forward_timeout_ms: u64::try_from(args.forward_timeout.as_millis()).unwrap_or(u64::MAX),
            ..broker::Config::default()
        },
        link: args.agent_link,
    };
    let failed = |error: io::Error| CliError::failed(error.to_string());
    let daemon = Server::new(config, start.as_ref()).map_err(failed)?;
    daemon.run(|| ready(args.notification_fd)).map_err(failed)
}

fn read_manifest(path: &Path) -> Result<Updated, CliError> {
    let manifest = manifest::read(path).map_err(|error| CliError::unusable(error.to_string()))?;
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
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = super::systemd::notify(&socket, "READY=1")
    {
        log::error!("cannot notify systemd: {error}");
    }
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
    close(fd).map_err(io::Error::from).and(written)
}
