//! The runtime of processes: a [`Plan`] is made of what a workload asks for, and carried out by a shim.
//!
//! With `--on-exit keep`, a keeper between the agent and the shim lets the process outlive the agent. Any
//! agent takes over what such an agent has left in its run directory.

pub(crate) mod keeper;
mod keeper_folder;
mod kept;
mod running;

use std::{
    collections::BTreeMap,
    env, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fifogate::{pb::ank_base as pb, state::Instance};
use nix::unistd::{Uid, User};

use crate::{apart, model};

use super::{
    FieldFault, Inherited, Isolation, Later, Order, Output, Runtime, StartError, Started, Unit,
    accounts::{Account, account},
    capabilities,
    config::{self, Command as Config},
    exec::Identity,
    field_faults,
    files::{self, Readers},
    mounts::{Bind, Hidden},
    shim::{PAIR, Plan},
};
use keeper::Keep;
use keeper_folder::{KeeperFolder, Record};
use kept::Kept;
use running::Process;

/// Variables of the agent's own environment passed on to workloads.
const PASSED_ON: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Retries of a start before a workload is given up.
const MOST_RETRIES: u32 = 5;
/// Pause before the first retry; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Starts the workloads of this node.
#[derive(Debug)]
pub struct Launcher {
    /// This program; started again, it is the shim.
    program: PathBuf,
    isolation: Isolation,
    around: Around,
    /// What an earlier agent has left, until it is taken over.
    left: Mutex<BTreeMap<Instance, Left>>,
}

/// Settings shared by all workloads of this agent.
#[derive(Clone, Debug)]
pub struct Around {
    /// Name of this agent.
    pub agent: String,
    /// Parent of the agent's folder for each workload.
    pub folder: PathBuf,
    /// Folders hidden from all workloads, where isolation allows.
    pub hidden: Vec<Hidden>,
    /// What the starter of the agent gave it.
    pub inherited: Inherited,
    /// Whether processes outlive this agent.
    pub keeps: bool,
    /// Bound on the bytes kept of the output of one process.
    pub log_bytes: u64,
    /// Time for a process to end before it is killed.
    pub grace: Duration,
}

/// What an earlier agent has left of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// A process that runs, or one whose end is known.
    Process,
    /// Nothing but a log: its keeper was killed.
    Log,
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
            let left = Mutex::new(find_left(&around));
            return Ok(Self { program, isolation: *isolation, around, left });
        }
        let name = wanted.map_or("none", Isolation::name);
        Err(io::Error::other(format!("isolation '{name}' is not possible here")))
    }

    /// The isolation of all workloads.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Makes the plan for a workload, with its pair open.
    async fn prepare(&self, order: &Order) -> Result<Plan, StartError> {
        let text = order.config().to_owned();
        let config = apart::start(text.len(), move || config::parse(&text)).await;
        let config =
            config.map_err(|fault| StartError::Wrong(format!("runtimeConfig, {fault}")))?;
        let account = config.user.as_deref().map(account).transpose()?;
        let owner = account.as_ref().map(|user| (user.uid, user.gid));
        let pair = order.open_pair(owner).await?;
        self.plan(&config, order, account, pair)
    }

    async fn start_kept(&self, order: &Order, plan: Plan) -> Result<Kept, StartError> {
        let record = Record::new(&order.instance, order.has_pair());
        let keep = Keep {
            folder: KeeperFolder::of(&order.folder),
            program: self.program.clone(),
            isolation: self.isolation,
            plan,
            log: order.log.as_ref().map(|log| log.folder().to_owned()),
            log_bytes: self.around.log_bytes,
            grace_ms: u64::try_from(self.around.grace.as_millis()).unwrap_or(u64::MAX),
        };
        let started = Kept::start(&self.program, &record, &keep, order.log.clone()).await;
        match started {
            Ok(kept) => Ok(kept),
            Err(reason) => {
                kept::end(&keep.folder).await.map_err(StartError::Failed)?;
                Err(StartError::Failed(reason))
            }
        }
    }

    /// Goes on with what an earlier agent has left of an instance. `None` if it is to be started.
    async fn take_over(&self, order: &Order) -> Result<Option<Kept>, StartError> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&order.instance);
        let folder = KeeperFolder::of(&order.folder);
        if left != Some(Left::Process) {
            return Ok(None);
        }
        let Some(record) = folder.record() else { return Ok(None) };
        // The mounts of a process are those of its start.
        if record.has_pair != order.has_pair() {
            return Ok(None);
        }
        // It belongs to its user already.
        order.open_pair(None).await?;
        let found = Kept::find(&folder, order.log.clone(), &record).await;
        if found.is_none() {
            log::warn!("{} is started anew: its keeper does not answer", order.instance);
            folder.kill();
        }
        Ok(found)
    }

    /// Ends what is left of an instance, in order.
    async fn end_left(&self, instance: &Instance) -> Result<(), String> {
        let folder = KeeperFolder::of(&self.around.folder.join(model::folder_name(instance)));
        let Some(record) = folder.record() else { return Ok(()) };
        if folder.is_held()
            && let Some(kept) = Kept::find(&folder, None, &record).await
        {
            return Box::new(kept).stop(self.around.grace).await.map(drop);
        }
        kept::end(&folder).await
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
            inherited: self.around.inherited,
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

/// What an earlier agent of this name has left. What one of another name has left is ended: nobody else
/// takes it over, as this agent has its run directory.
fn find_left(around: &Around) -> BTreeMap<Instance, Left> {
    let mut found = BTreeMap::new();
    for (folder, record) in KeeperFolder::all(&around.folder) {
        let instance = record.instance();
        let runs = folder.is_held() || folder.exit().is_some();
        if instance.agent == around.agent {
            found.insert(instance, if runs { Left::Process } else { Left::Log });
        } else {
            log::warn!("{instance} is ended: an agent of another name has left it here");
            folder.kill();
        }
    }
    found
}

impl Runtime for Launcher {
    fn start(self: Arc<Self>, order: Order) -> Later<'static, Result<Started, StartError>> {
        Box::pin(async move {
            if let Some(kept) = self.take_over(&order).await? {
                let (unit, output) = (Box::new(kept), Output::InLog);
                return Ok(Started { unit, output, taken_over: true });
            }
            self.end_left(&order.instance).await.map_err(StartError::Failed)?;
            let plan = self.prepare(&order).await?;
            if self.around.keeps {
                let kept = self.start_kept(&order, plan).await?;
                let (unit, output) = (Box::new(kept), Output::InLog);
                return Ok(Started { unit, output, taken_over: false });
            }
            let (process, stdout, stderr) = Process::start(&self.program, self.isolation, &plan)
                .await
                .map_err(StartError::Failed)?;
            let (unit, output) = (Box::new(process), Output::Pipes(stdout, stderr));
            Ok(Started { unit, output, taken_over: false })
        })
    }

    fn keeps_logs(&self) -> bool {
        false
    }

    fn outlives_agent(&self) -> bool {
        self.around.keeps
    }

    /// What a start creates on the node, such as placeholders, is removed at the end of its process.
    fn finishes_starts(&self) -> bool {
        true
    }

    fn pause_before(&self, retry: u32) -> Option<Duration> {
        (retry <= MOST_RETRIES).then(|| FIRST_PAUSE * 2_u32.pow(retry - 1))
    }

    fn left(&self) -> Vec<(Instance, bool)> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.iter().map(|(own, left)| (own.clone(), *left == Left::Process)).collect()
    }

    /// Shims see the end of the agent, and end their processes. Keepers do not.
    fn abandon_all(&self) {
        KeeperFolder::all(&self.around.folder).for_each(|(folder, _)| folder.kill());
    }

    fn remove<'a>(&'a self, instance: &'a Instance) -> Later<'a, Result<(), String>> {
        Box::pin(self.end_left(instance))
    }
}

/// The faults of a workload that no start gets over.
pub(super) fn faults(config: &str, files: &[pb::File]) -> Vec<FieldFault> {
    let check_file = |file: &pb::File| files::target_and_content(file).map(drop);
    field_faults(config::parse(config).map(drop), files, check_file)
}
