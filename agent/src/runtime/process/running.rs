//! A running process and its shim, seen from the process that started the shim: this agent, or a keeper.
//!
//! A [`Plan`] goes in; a [`Process`] and its output pipes come out.
//! Dropping the [`Process`] kills it together with everything it started.

use std::{
    fmt, io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

use crate::runtime::{
    Change, Ended, Later, Unit,
    shim::{Isolation, Plan, ShimEvent, TERMINATE},
};

/// Time for a shim to end after its command.
const SHIM_GRACE: Duration = Duration::from_secs(1);

/// End of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Exit {
    /// It exited with this status.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// Unknown: its shim is gone.
    Lost,
}

impl From<Exit> for Ended {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(0) => Self::Succeeded,
            Exit::Code(_) | Exit::Signal(_) => Self::Failed(exit.to_string()),
            Exit::Lost => Self::Lost { how: exit.to_string(), counts_as_failure: true },
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
            Self::Lost => f.write_str("its launcher was killed"),
        }
    }
}

/// A running process. Dropping it kills it together with everything it started.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    told: Lines<BufReader<OwnedReadHalf>>,
    orders: OwnedWriteHalf,
    /// The reported end.
    exit: Option<Exit>,
}

impl Process {
    /// Starts a process by a shim of this program.
    ///
    /// # Errors
    /// The process was not started, for this reason.
    pub(super) async fn start(
        program: &Path,
        isolation: Isolation,
        plan: &Plan,
    ) -> Result<(Self, ChildStdout, ChildStderr), String> {
        let failed = |error: io::Error| format!("cannot launch: {error}");
        let (ours, theirs) = StdStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut command = Command::new(program);
        // In a process group of its own, a Ctrl-C in the terminal of the agent does not reach it.
        command
            .args(["launch", "--isolation", isolation.name()])
            .process_group(0)
            .kill_on_drop(true);
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        // The command still holds the shim's end of the socket. Its closing is the sign of the shim's
        // end.
        drop(command);
        let missing = || failed(io::Error::other("no pipe"));
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let (reader, writer) = UnixStream::from_std(ours).map_err(failed)?.into_split();
        let told = BufReader::new(reader).lines();
        let mut process = Self { child, told, orders: writer, exit: None };
        let mut line = serde_json::to_string(plan).map_err(|error| failed(error.into()))?;
        line.push('\n');
        process.orders.write_all(line.as_bytes()).await.map_err(failed)?;
        match process.next_told().await {
            Some(ShimEvent::Started) => Ok((process, stdout, stderr)),
            Some(ShimEvent::Failed(reason)) => Err(reason),
            _ => Err("its launcher ended at once".to_owned()),
        }
    }

    async fn next_told(&mut self) -> Option<ShimEvent> {
        let line = self.told.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Waits for the end. If this is cancelled, a later call returns the same end.
    pub(super) async fn wait(&mut self) -> Exit {
        let exit = match self.exit {
            Some(exit) => exit,
            None => match self.next_told().await {
                Some(ShimEvent::Exited(code)) => Exit::Code(code),
                Some(ShimEvent::Killed(signal)) => Exit::Signal(signal),
                _ => Exit::Lost,
            },
        };
        // Kept before the next await: the shim reports once.
        self.exit = Some(exit);
        // The shim ends right after its report; it is reaped here, or killed if it hangs.
        if timeout(SHIM_GRACE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        exit
    }

    /// Asks the process to end, by SIGTERM. False if its shim is gone.
    pub(super) async fn terminate(&mut self) -> bool {
        self.orders.write_all(format!("{TERMINATE}\n").as_bytes()).await.is_ok()
    }

    /// Kills the process and all that it started.
    pub(super) async fn kill(&mut self) -> Exit {
        // The shim kills all its processes when this end of the socket closes.
        let _ = self.orders.shutdown().await;
        if timeout(SHIM_GRACE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        self.exit.unwrap_or(Exit::Signal(Signal::SIGKILL as i32))
    }

    /// Ends the process: SIGTERM first, SIGKILL after `grace`.
    async fn stop(mut self, grace: Duration) -> Exit {
        if self.terminate().await
            && let Ok(exit) = timeout(grace, self.wait()).await
        {
            return exit;
        }
        self.kill().await
    }
}

impl Unit for Process {
    fn change(&mut self) -> Later<'_, Change> {
        Box::pin(async { Change::Ended(self.wait().await.into()) })
    }

    fn stop(self: Box<Self>, grace: Duration) -> Later<'static, Result<String, String>> {
        Box::pin(async move { Ok(Process::stop(*self, grace).await.to_string()) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A process whose shim has reported its end with `code`, and does not end itself.
    fn reported(code: i32) -> Process {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let line = serde_json::to_string(&ShimEvent::Exited(code)).unwrap();
        (&theirs).write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut command = Command::new("sleep");
        command.arg("60").stdin(OwnedFd::from(theirs)).kill_on_drop(true);
        let child = command.spawn().unwrap();
        let (reader, orders) = UnixStream::from_std(ours).unwrap().into_split();
        let told = BufReader::new(reader).lines();
        Process { child, told, orders, exit: None }
    }

    // Time is virtual: it passes when all else waits.
    #[tokio::test(start_paused = true)]
    async fn wait_cancelled_after_the_report_loses_no_exit_status() {
        let before_shim_ends = SHIM_GRACE / 2;
        let mut process = reported(7);
        assert!(timeout(before_shim_ends, process.wait()).await.is_err());
        assert_eq!(process.wait().await, Exit::Code(7));
        assert_eq!(reported(8).stop(before_shim_ends).await, Exit::Code(8));
    }
}
