//! A running workload process on the agent's side: start, stop and wait through its shim.
//!
//! A `runtimeConfig` and a [`LaunchContext`] go in; a [`Process`] and its output pipes come out.
//! Dropping the [`Process`] kills it together with everything it started.

use std::{
    collections::BTreeMap,
    env, fmt,
    fs::{self, DirBuilder, Permissions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown},
            net::UnixStream as StdStream,
        },
    },
    path::{Component, Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fifogate::pb::ank_base::file::FileContent;
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

use super::{
    Isolation, LaunchContext, capabilities,
    config::Command as Config,
    exec::Identity,
    mounts::{Bind, Hidden},
    shim::{PAIR, Plan, ShimEvent, TERMINATE},
};

/// Variables of the agent's own environment passed on to workloads.
const PASSED_ON: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"];

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

/// Reason of a failed start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Another try may succeed.
    Failed(String),
    /// A field of the workload is wrong; only a change of it helps.
    Wrong(String),
}

/// End of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// Unknown: its shim is gone.
    Lost,
}

impl Exit {
    /// Whether the exit status was 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
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

    /// Starts a process, and returns it with its output pipes.
    ///
    /// # Errors
    /// The process was not started, and nothing of it is left.
    pub async fn start(
        &self,
        config: &Config,
        around: &LaunchContext,
    ) -> Result<(Process, ChildStdout, ChildStderr), StartError> {
        let plan = self.plan(config, around)?;
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

    fn plan(&self, config: &Config, around: &LaunchContext) -> Result<Plan, StartError> {
        let account = around.account.as_ref();
        let mut env: BTreeMap<String, String> = PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?)))
            .collect();
        // As in containers, `/` without an account.
        let own = || User::from_uid(Uid::effective()).ok().flatten().map(|own| own.dir);
        let home = account.map(|user| user.home.clone()).or_else(own);
        let home = home.unwrap_or_else(|| "/".into());
        env.insert("HOME".to_owned(), home.display().to_string());
        let mut binds = Vec::new();
        if let Some(pair) = &around.pair {
            let seen = if self.isolation == Isolation::None { pair } else { Path::new(PAIR) };
            env.insert("CONTROL_INTERFACE_DIR".to_owned(), seen.display().to_string());
            if self.isolation != Isolation::None {
                let (source, target) = (pair.clone(), PAIR.into());
                binds.push(Bind { source, target, read_only: false });
            }
        }
        // After the agent's variables: the workload's own values take precedence.
        env.extend(config.env.clone());
        let owner = account.map(|user| (user.uid, user.gid));
        binds.extend(self.write_files(around, owner)?);
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
        around: &LaunchContext,
        owner: Option<(u32, u32)>,
    ) -> Result<Vec<Bind>, StartError> {
        if !around.files.is_empty() && self.isolation == Isolation::None {
            let text = "it has files, and there are no mount namespaces here to show them in";
            return Err(StartError::Wrong(text.to_owned()));
        }
        let folder = around.folder.join("files");
        let mut binds = Vec::new();
        for (number, file) in around.files.iter().enumerate() {
            let target = PathBuf::from(&file.mount_point);
            let wrong = |what: &str| {
                StartError::Wrong(format!("file with mountPoint '{}': {what}", file.mount_point))
            };
            let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
            if !target.is_absolute() || !target.components().all(plain) {
                return Err(wrong("a mountPoint is an absolute path without `..`"));
            }
            let content = match &file.file_content {
                Some(FileContent::Data(text)) => text.as_bytes().to_vec(),
                Some(FileContent::BinaryData(text)) => STANDARD
                    .decode(text.trim())
                    .map_err(|error| wrong(&format!("binaryData is no base64: {error}")))?,
                None => Vec::new(),
            };
            let source = folder.join(number.to_string());
            write_file(&folder, &source, &content, owner).map_err(|error| {
                StartError::Failed(format!("cannot write {}: {error}", source.display()))
            })?;
            binds.push(Bind { source, target, read_only: true });
        }
        Ok(binds)
    }
}

/// Access to a file: by its owner, by anybody in the workload, and the additions for programs.
///
/// No process outside of the workload reaches its files. Inside of it, a daemon started by root reads them
/// when it has become another user; a workload of another user cannot change its user.
fn mode(content: &[u8], owner: Option<(u32, u32)>) -> u32 {
    let is_root = owner.map_or(Uid::effective().is_root(), |(uid, _)| uid == 0);
    let is_program = content.starts_with(b"#!") || content.starts_with(b"\x7fELF");
    match (is_root, is_program) {
        (true, true) => 0o555,
        (true, false) => 0o444,
        (false, true) => 0o500,
        (false, false) => 0o400,
    }
}

fn write_file(
    folder: &Path,
    path: &Path,
    content: &[u8],
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A file of an earlier start is replaced, never written into.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    // Whatever the umask.
    file.set_permissions(Permissions::from_mode(mode(content, owner)))
}

/// A running process. Dropping it kills it together with everything it started.
#[derive(Debug)]
pub struct Process {
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
    pub async fn wait(&mut self) -> Exit {
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
    pub async fn stop(mut self, grace: Duration) -> Exit {
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
