//! Registry of open pairs and their access rules.
//!
//! Workload tasks open and close pairs; the main loop adapts the rules to each change of the state. A
//! restarted fifogate gets all pairs again, so a pair lives as long as its workload. Names of a pair that
//! were removed or replaced meanwhile, as by a cleaner of temporary files, are made again at the next start
//! of its workload.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use fifogate::{
    link::{AsyncLink, CallError, LinkError},
    pb::{
        agent_link::{AddWorkload, from_agent::Content},
        ank_base as pb,
    },
    state::{Instance, Tree},
};
use log::Level;
use nix::unistd::geteuid;
use tokio::sync::watch;

use crate::{
    log_text::{self, Quoted},
    model,
};

/// Device and inode behind each name of a pair; `None` for a missing name. fifogate keeps the FIFOs open, so
/// their inodes are not used again.
type Files = [Option<(u64, u64)>; 2];

/// All open pairs. Handles are cheap to clone.
#[derive(Clone, Debug)]
pub struct Pairs {
    run_dir: PathBuf,
    gate: watch::Receiver<Option<AsyncLink>>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    open: BTreeMap<Instance, OpenPair>,
    /// The state in effect for access rules.
    tree: Tree,
}

#[derive(Clone, Debug)]
struct OpenPair {
    /// The command that adds it to a fifogate.
    add: AddWorkload,
    /// Its FIFOs as its workload found them at the last start; `None` before the first one.
    files: Option<Files>,
}

/// Names of the FIFOs in the folder of a pair: the one that the workload reads, and the one it writes.
pub const FIFOS: [&str; 2] = ["input", "output"];

impl Pairs {
    /// Creates an empty registry; `gate` holds the current fifogate.
    #[must_use]
    pub fn new(run_dir: &Path, gate: watch::Receiver<Option<AsyncLink>>) -> Self {
        Self { run_dir: run_dir.to_owned(), gate, known: Arc::default() }
    }

    /// Prepares for the state `new`: each open pair keeps only rights granted both before and by `new`.
    /// This includes pairs of ending workloads, however long they take. Commands sent here take effect
    /// before the state and the responses sent to the same fifogate later.
    ///
    /// Returns the instances with different rules, for [`Pairs::widen`].
    pub async fn narrow(&self, gate: Option<&AsyncLink>, new: &Tree) -> Vec<Instance> {
        let narrowed = self.with(|known| known.narrow(new));
        tell_all(gate, &narrowed).await;
        narrowed.into_iter().map(|(instance, _)| instance).collect()
    }

    /// Completes [`Pairs::narrow`] when the new state is sent: workloads kept by it get all its rights.
    pub async fn widen(&self, gate: Option<&AsyncLink>, instances: Vec<Instance>) {
        let widened = self.with(|known| known.widen(instances));
        tell_all(gate, &widened).await;
    }

    /// Opens a pair for a start of its workload, or replaces the rules of an open one; returns its folder.
    /// Waits while there is no fifogate. If the state grants other rights by now, the pair gets the rights
    /// common to both. An open pair without its names is closed and made anew: no process uses it now.
    ///
    /// # Errors
    /// fifogate rejects the pair.
    pub async fn open(
        &self,
        instance: &Instance,
        access: pb::ControlInterfaceAccess,
        owner: Option<(u32, u32)>,
    ) -> Result<PathBuf, CallError> {
        let (access, unknown) = model::without_unknown_masks(access);
        for mask in unknown {
            let (name, mask) = (&instance.workload, Quoted(&mask));
            let text = format_args!(
                "the mask '{mask}' of a rule of {name} begins with no part of the state"
            );
            log_text::about(name, Level::Warn, text);
        }
        self.close_without_names(instance).await;
        let owner = owner.or_else(|| self.owner_of(instance));
        self.with(|known| {
            let add = AddWorkload {
                instance_name: Some(model::instance_name(instance)),
                access: Some(model::common_rights(&access, &known.rights_of(instance).0)),
                uid: owner.map(|(uid, _)| uid),
                gid: owner.map(|(_, gid)| gid),
            };
            // Registered before the call: a change of rules, or a restarted fifogate, finds the pair here.
            known.open.insert(instance.clone(), OpenPair { add, files: None })
        });
        if let Err(rejected) = self.add_until_acknowledged(instance).await {
            // Otherwise each later fifogate would be sent the rejected pair again.
            self.with(|known| known.open.remove(instance));
            return Err(rejected);
        }
        let folder = self.folder(instance);
        let files = files_in(&folder);
        self.with(|known| {
            if let Some(open) = known.open.get_mut(instance) {
                open.files = Some(files);
            }
        });
        Ok(folder)
    }

    /// Sends a registered pair to the current fifogate, and to the next ones until one acknowledges it.
    async fn add_until_acknowledged(&self, instance: &Instance) -> Result<(), CallError> {
        let mut gate = self.gate.clone();
        loop {
            // The sender lives as long as the agent.
            let current = gate.wait_for(Option::is_some).await.ok().and_then(|gate| gate.clone());
            // Read again: the rules may have been narrowed while there was no fifogate.
            let add = self.with(|known| known.open.get(instance).map(|open| open.add.clone()));
            let (Some(current), Some(add)) = (current, add) else {
                return Err(LinkError::Closed.into());
            };
            match current.call(Content::AddWorkload(add)).await {
                Ok(()) => return Ok(()),
                Err(CallError::Link(_)) => {
                    // The main loop sends the pair to the next fifogate; sent once more here, it is
                    // acknowledged.
                    let _ = gate.changed().await;
                }
                Err(rejected @ CallError::Rejected(_)) => return Err(rejected),
            }
        }
    }

    /// Notes that the FIFOs of an open pair have got another owner, for the next fifogate.
    pub fn note_owner(&self, instance: &Instance, (uid, gid): (u32, u32)) {
        self.with(|known| {
            if let Some(open) = known.open.get_mut(instance) {
                (open.add.uid, open.add.gid) = (Some(uid), Some(gid));
            }
        });
    }

    /// Closes a pair, if it is open.
    pub async fn close(&self, instance: &Instance) {
        // Unregistered first: a fifogate started from now on never gets this pair.
        if self.with(|known| known.open.remove(instance)).is_none() {
            return;
        }
        let gate = self.gate.borrow().clone();
        if let Some(gate) = gate {
            let removed = gate.remove_workload(model::instance_name(instance)).await;
            // A broken link has ended its fifogate, and the next one starts without this pair.
            if let Err(CallError::Rejected(rejected)) = removed {
                log::warn!("the pair of {instance} was not removed: {}", rejected.reason);
            }
        }
    }

    /// All open pairs, for a new fifogate.
    #[must_use]
    pub fn all(&self) -> Vec<AddWorkload> {
        self.with(|known| known.open.values().map(|open| open.add.clone()).collect())
    }

    /// The owner of a pair that is there already: fifogate takes over FIFOs of the right owner only.
    fn owner_of(&self, instance: &Instance) -> Option<(u32, u32)> {
        let found = fs::symlink_metadata(self.folder(instance).join(FIFOS[0])).ok()?;
        (found.uid() != geteuid().as_raw()).then(|| (found.uid(), found.gid()))
    }

    /// Closes a pair whose names are not those of the FIFOs that fifogate has open.
    async fn close_without_names(&self, instance: &Instance) {
        let files = self.with(|known| known.open.get(instance)?.files);
        let Some(files) = files else { return };
        let found = files_in(&self.folder(instance));
        // A name may have gone before it was looked at for the first time.
        if found != files || found.contains(&None) {
            let name = &instance.workload;
            log_text::about(
                name,
                Level::Warn,
                format_args!(
                    "a name of the pair of {} was removed or replaced; the pair is made again",
                    Quoted(name)
                ),
            );
            self.close(instance).await;
        }
    }

    /// The folder of the pair of an instance, whether it is open or not.
    #[must_use]
    pub fn folder(&self, instance: &Instance) -> PathBuf {
        self.run_dir.join(model::folder_name(instance)).join("control_interface")
    }

    /// Runs `f` under the lock. `f` cannot await, so the lock is never held for long.
    fn with<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks at the names of a pair. Only fifogate opens the files, and follows no link to them.
fn files_in(folder: &Path) -> Files {
    FIFOS.map(|name| {
        let found = fs::symlink_metadata(folder.join(name)).ok()?;
        Some((found.dev(), found.ino()))
    })
}

impl Known {
    fn rights_of(&self, instance: &Instance) -> (pb::ControlInterfaceAccess, bool) {
        model::rights_of(&self.tree, instance)
    }

    fn narrow(&mut self, new: &Tree) -> Vec<(Instance, AddWorkload)> {
        // At once, not in `widen`: a pair opened meanwhile gets no right the new state lacks.
        let old = std::mem::replace(&mut self.tree, new.clone());
        let mut narrowed = Vec::new();
        for change in model::workload_changes(&old, new) {
            let name = change.name.as_str();
            // Instances sort by workload first; the empty agent and id come before all others.
            let (agent, id) = (String::new(), String::new());
            let first = Instance { workload: name.to_owned(), agent, id };
            let own = self.open.range_mut(first..).take_while(|(own, _)| own.workload == name);
            for (instance, OpenPair { add, .. }) in own {
                let (rights, _) = model::rights_of(new, instance);
                if add.access.as_ref() != Some(&rights) {
                    let before = add.access.take().unwrap_or_default();
                    add.access = Some(model::common_rights(&before, &rights));
                    narrowed.push((instance.clone(), add.clone()));
                }
            }
        }
        narrowed
    }

    fn widen(&mut self, instances: Vec<Instance>) -> Vec<(Instance, AddWorkload)> {
        let mut widened = Vec::new();
        for instance in instances {
            let (rights, goes_on) = self.rights_of(&instance);
            if let Some(OpenPair { add, .. }) = self.open.get_mut(&instance)
                // An ending instance keeps its narrowed rules.
                && goes_on
                && add.access.as_ref() != Some(&rights)
            {
                add.access = Some(rights);
                widened.push((instance, add.clone()));
            }
        }
        widened
    }
}

async fn tell_all(gate: Option<&AsyncLink>, all: &[(Instance, AddWorkload)]) {
    let Some(gate) = gate else { return };
    for (_, add) in all {
        // Not acknowledged: the order of the commands on the link is enough.
        gate.send(Content::AddWorkload(add.clone())).await;
    }
}
