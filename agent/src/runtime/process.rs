//! A running workload process on the agent's side: start, stop and wait through its shim.
//!
//! An [`Order`] goes in; a [`Process`] and its output pipes come out.
//! Dropping the [`Process`] kills it together with everything it started.

use std::{
    collections::BTreeMap,
    env, fmt,
    future::ready,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use fifogate::{pb::ank_base as pb, state::Instance};
use nix::{
    sys::signal::Signal,
    unistd::{Uid, User},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

use crate::apart;

use super::{
    Change, Ended, FieldFault, Isolation, Later, Order, Output, Runtime, StartError, Started, Unit,
    accounts::{Account, account},
    capabilities,
    config::{self, Command as Config},
    exec::Identity,
    field_faults,
    files::{self, Readers},
    mounts::{Bind, Hidden},
    shim::{PAIR, Plan, ShimEvent, TERMINATE},
};

/// Variables of the agent's own environment passed on to workloads.
const PASSED_ON: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Retries of a start before a workload is given up.
const MOST_RETRIES: u32 = 5;
/// Pause before the first retry; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Time for a shim to end after its command.
const KEEPER_GRACE: Duration = Duration::from_secs(1);

/// Starts the workloads of this node.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// This program; started again, it is the shim.
    program: PathBuf,
    isolation: Isolation,
    around: Around,
}

/// Settings shared by all workloads of this agent.
#[derive(Clone, Debug)]
pub struct Around {
    /// Folders hidden from all workloads, where isolation allows.
    pub hidden: Vec<Hidden>,
    /// The umask at the start of the agent.
    pub umask: u32,
}

/// End of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
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

impl Launcher {
    /// Finds the strongest isolation possible here, or checks the one in `wanted`, by starting a probe.
    ///
    /// # Errors
    /// This program cannot be started again, or not with the wanted isolation.
    pub fn probe(program: PathBuf, around: Around, wanted: Option<Isolation>) -> io::Result<Self> {
        // From the strongest on: the first possible one counts.
        let all = [Isolation::Full, Isolation::Mounts, Isolation::None];
        let tried = wanted.as_ref().map_or(&all[..], std::slice::from_ref);
        for isolation in tried {
            let mut command = std::process::Command::new(&program);
            command.args(["launch", "--isolation", isolation.name(), "--probe"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if !command.status()?.success() {
                continue;
            }
            match isolation {
                Isolation::Full => {}
                Isolation::Mounts => log::warn!(
                    "without PID namespaces, children of a workload outlive it if its launcher is \
                     killed"
                ),
                Isolation::None => log::warn!(
                    "without namespaces, children of a workload outlive it if its launcher is \
                     killed, pairs are found by CONTROL_INTERFACE_DIR alone, and \
                     workloads with files cannot be started"
                ),
            }
            return Ok(Self { program, isolation: *isolation, around });
        }
        let name = wanted.map_or("none", Isolation::name);
        Err(io::Error::other(format!("isolation '{name}' is not possible here")))
    }

    /// The isolation of all workloads.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    async fn launch(
        &self,
        order: &Order,
    ) -> Result<(Process, ChildStdout, ChildStderr), StartError> {
        let text = order.config().to_owned();
        let config = apart::start(text.len(), move || config::parse(&text)).await;
        let config =
            config.map_err(|fault| StartError::Wrong(format!("runtimeConfig, {fault}")))?;
        let account = config.user.as_deref().map(account).transpose()?;
        let owner = account.as_ref().map(|user| (user.uid, user.gid));
        let pair = order.open_pair(owner).await?;
        let plan = self.plan(&config, order, account, pair)?;
        let failed = |error: io::Error| StartError::Failed(format!("cannot launch: {error}"));
        let (ours, theirs) = StdStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut command = Command::new(&self.program);
        // In a process group of its own, a Ctrl-C in the terminal of the agent does not reach it.
        command
            .args(["launch", "--isolation", self.isolation.name()])
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
        let mut process = Process { child, told, orders: writer, exit: None };
        let mut line = serde_json::to_string(&plan).map_err(|error| failed(error.into()))?;
        line.push('\n');
        process.orders.write_all(line.as_bytes()).await.map_err(failed)?;
        match process.next_told().await {
            Some(ShimEvent::Started) => Ok((process, stdout, stderr)),
            Some(ShimEvent::Failed(reason)) => Err(StartError::Failed(reason)),
            _ => Err(StartError::Failed("its launcher ended at once".to_owned())),
        }
    }

    fn plan(
        &self,
        config: &Config,
        order: &Order,
        account: Option<Account>,
        pair: Option<PathBuf>,
    ) -> Result<Plan, StartError> {
        let mut env = environment(account.as_ref());
        let mut binds = Vec::new();
        if let Some(pair) = pair {
            let seen = if self.isolation == Isolation::None { &pair } else { Path::new(PAIR) };
            env.insert("CONTROL_INTERFACE_DIR".to_owned(), seen.display().to_string());
            if self.isolation != Isolation::None {
                binds.push(Bind { source: pair, target: PAIR.into(), read_only: false });
            }
        }
        // After the agent's variables: the workload's own values take precedence.
        env.extend(config.env.clone());
        let owner = account.as_ref().map(|user| (user.uid, user.gid));
        binds.extend(self.write_files(order, owner)?);
        let identity = Identity {
            command: config.command.clone(),
            args: config.args.clone(),
            env,
            working_dir: config.working_dir.clone().unwrap_or_else(|| "/".into()),
            uid_gid: owner,
            capabilities: config.capabilities,
            no_new_privileges: config.no_new_privileges,
            umask: self.around.umask,
        };
        Ok(Plan {
            // A user other than root cannot write there, not even as root of a user namespace.
            protects_kernel: self.isolation != Isolation::None
                && Uid::effective().is_root()
                && identity.may_be_root(Uid::effective())
                && !capabilities::gives_all(identity.capabilities),
            identity,
            binds,
            // Without a mount namespace, hiding would affect the whole node.
            hidden: match self.isolation {
                Isolation::None => Vec::new(),
                Isolation::Full | Isolation::Mounts => self.around.hidden.clone(),
            },
        })
    }

    /// Writes the workload's files into its folder, as sources of mounts.
    fn write_files(
        &self,
        order: &Order,
        owner: Option<(u32, u32)>,
    ) -> Result<Vec<Bind>, StartError> {
        if !order.files().is_empty() && self.isolation == Isolation::None {
            let text = "it has files, and there are no mount namespaces here to show them in";
            return Err(StartError::Wrong(text.to_owned()));
        }
        files::write(&order.folder.join("files"), order.files(), Readers::Owner(owner))
    }
}

/// The variables of every workload: some of the agent's own, and the home of its user.
fn environment(account: Option<&Account>) -> BTreeMap<String, String> {
    let passed_on = PASSED_ON.iter();
    let mut all: BTreeMap<_, _> =
        passed_on.filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?))).collect();
    // As in containers, `/` without an account.
    let own = || User::from_uid(Uid::effective()).ok().flatten().map(|own| own.dir);
    let home = account.map(|user| user.home.clone()).or_else(own);
    let home = home.unwrap_or_else(|| "/".into());
    all.insert("HOME".to_owned(), home.display().to_string());
    all
}

impl Runtime for Launcher {
    fn start(self: Arc<Self>, order: Order) -> Later<'static, Result<Started, StartError>> {
        Box::pin(async move {
            let (process, stdout, stderr) = self.launch(&order).await?;
            Ok(Started { unit: Box::new(process), output: Output::Pipes(stdout, stderr) })
        })
    }

    fn keeps_logs(&self) -> bool {
        false
    }

    fn outlives_agent(&self) -> bool {
        false
    }

    /// What a start creates on the node, such as placeholders, is removed at the end of its process.
    fn finishes_starts(&self) -> bool {
        true
    }

    fn pause_before(&self, retry: u32) -> Option<Duration> {
        (retry <= MOST_RETRIES).then(|| FIRST_PAUSE * 2_u32.pow(retry - 1))
    }

    /// No process outlives its agent.
    fn left(&self) -> Vec<(Instance, bool)> {
        Vec::new()
    }

    /// They end with their shims, which see the end of the agent.
    fn abandon_all(&self) {}

    fn remove<'a>(&'a self, _: &'a Instance) -> Later<'a, Result<(), String>> {
        Box::pin(ready(Ok(())))
    }
}

/// The faults of a workload that no start gets over.
pub(super) fn faults(config: &str, files: &[pb::File]) -> Vec<FieldFault> {
    let check_file = |file: &pb::File| files::target_and_content(file).map(drop);
    field_faults(config::parse(config).map(drop), files, check_file)
}

impl Unit for Process {
    fn change(&mut self) -> Later<'_, Change> {
        Box::pin(async { Change::Ended(self.wait().await.into()) })
    }

    fn stop(self: Box<Self>, grace: Duration) -> Later<'static, Result<String, String>> {
        Box::pin(async move { Ok(Process::stop(*self, grace).await.to_string()) })
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
    async fn next_told(&mut self) -> Option<ShimEvent> {
        let line = self.told.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Waits for the end. If this is cancelled, a later call returns the same end.
    async fn wait(&mut self) -> Exit {
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
        if timeout(KEEPER_GRACE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        exit
    }

    /// Ends the process: SIGTERM first, SIGKILL after `grace`.
    async fn stop(mut self, grace: Duration) -> Exit {
        let asked = self.orders.write_all(format!("{TERMINATE}\n").as_bytes()).await;
        if asked.is_ok()
            && let Ok(exit) = timeout(grace, self.wait()).await
        {
            return exit;
        }
        let Self { mut child, told, orders, exit } = self;
        // The shim kills all its processes when the agent's end of the socket closes.
        drop((told, orders));
        if timeout(KEEPER_GRACE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        exit.unwrap_or(Exit::Signal(Signal::SIGKILL as i32))
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
        let before_shim_ends = KEEPER_GRACE / 2;
        let mut process = reported(7);
        assert!(timeout(before_shim_ends, process.wait()).await.is_err());
        assert_eq!(process.wait().await, Exit::Code(7));
        assert_eq!(reported(8).stop(before_shim_ends).await, Exit::Code(8));
    }
}
