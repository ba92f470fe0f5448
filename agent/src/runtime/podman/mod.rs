//! Runtimes by the program podman: `podman` runs containers, `podman-kube` runs pods. Both outlive this
//! agent.
//!
//! One [`Runner`] starts, watches and removes the containers of a workload, and a [`Kind`] makes them of its
//! configuration. All names and labels are those of Ankaios, so its tools see our containers, and either agent takes
//! over the containers of the other. podman alone remembers them: no file of this agent does.

mod command;
mod config;
mod containers;
mod kube;
mod pair;
mod watch;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use fifogate::{
    pb::ank_base::{ExecutionState, LogsRequest},
    state::Instance,
};
use tokio::{
    process::Command,
    sync::watch::{Receiver, error::RecvError},
    time::{Instant, timeout},
};

use crate::{logs::KeptLog, model::states};

use super::{Change, Ended, Later, Order, Output, Runtime, StartError, Started, Unit, shim::PAIR};
use command::{Listed, PodmanError};
use containers::Containers;
use kube::Pods;
use watch::{Seen, Watch};

pub(super) use containers::{check_config, faults};
pub(super) use kube::faults as kube_faults;

/// The runtime of containers, in the `runtime` field of a workload.
pub(super) const PODMAN: &str = "podman";
/// The runtime of pods, in the `runtime` field of a workload.
pub(super) const PODMAN_KUBE: &str = "podman-kube";

/// Label of a container or a volume with the run directory of its agent. Ankaios has none.
const RUN_DIR_LABEL: &str = "fifogate.run-dir";
/// States of a container in the words of podman.
const RUNNING: &str = "running";
const EXITED: &str = "exited";
const STARTING: [&str; 3] = ["created", "configured", "initialized"];
const STOPPING: [&str; 3] = ["stopping", "stopped", "removing"];
/// The state of an ended container before its cleanup by podman.
const UNCLEAN: &str = "stopped";
/// Time for podman to clean up by itself. If that was killed, nothing else would do it.
const CLEANED_UP_AFTER: Duration = Duration::from_secs(5);
/// The longest pause before a retry: the first one is at most half a second, and it doubles each time.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Both runtimes, after a look for containers of an earlier agent of this name and run directory.
pub async fn runtimes(agent: &str, run_dir: &Path) -> [(&'static str, Arc<dyn Runtime>); 2] {
    let shared = Arc::new(Shared {
        agent: agent.to_owned(),
        run_dir: run_dir.display().to_string(),
        watch: OnceLock::new(),
    });
    if !command::is_installed() {
        log::info!("workloads of the runtime '{PODMAN}' cannot run: {}", command::missing());
    }
    // At once, as a podman that hangs is waited for.
    let (containers, pods) = tokio::join!(
        Runner::find(Containers(Arc::clone(&shared)), &shared),
        Runner::find(Pods::new(Arc::clone(&shared)), &shared),
    );
    [(PODMAN, Arc::new(containers)), (PODMAN_KUBE, Arc::new(pods))]
}

/// All containers in podman's list, by their ids.
type AllContainers = BTreeMap<String, Listed>;

/// Shared by both runtimes of an agent.
#[derive(Debug)]
struct Shared {
    agent: String,
    run_dir: String,
    /// Started with the first workload: most agents have none in containers.
    watch: OnceLock<Watch>,
}

impl Shared {
    fn watch(&self) -> &Watch {
        self.watch.get_or_init(Watch::start)
    }

    /// Whether something with this label of a run directory is of this agent, or of one of Ankaios.
    fn made(&self, run_dir: Option<&str>) -> bool {
        run_dir.is_none_or(|own| own == self.run_dir)
    }
}

/// The containers of one runtime.
trait Kind: fmt::Debug + Send + Sync + Sized + 'static {
    /// Its name in log messages.
    const WHAT: &'static str;

    /// Instances of an earlier agent, and whether each of them runs.
    fn left(&self) -> impl Future<Output = Result<Vec<(Instance, bool)>, PodmanError>> + Send;

    /// Makes and starts the containers of a workload, or finds them running. After an error none of them is
    /// left, as far as podman removes them.
    fn ensure(&self, order: &Order) -> impl Future<Output = Result<Made, StartError>> + Send;

    /// The state of made containers, among all of podman.
    fn change(made: &Made, all: &AllContainers) -> Change;

    /// Ends and removes all of an instance, within podman's own time for a stop.
    fn remove(&self, instance: &Instance) -> impl Future<Output = Result<(), PodmanError>> + Send;

    /// Begins to kill and remove everything, and returns at once.
    fn abandon_all(&self, all: &AllContainers);
}

/// The made containers of a workload.
#[derive(Clone, Debug, Default)]
struct Made {
    /// Ids of its pods. A workload of the runtime `podman` has none.
    pods: Vec<String>,
    /// Ids of its containers, without the holders of a pod's namespaces.
    containers: Vec<String>,
    /// They ran already.
    taken_over: bool,
}

/// Runs workloads of one kind.
#[derive(Debug)]
struct Runner<K> {
    kind: K,
    shared: Arc<Shared>,
    /// `None` if podman did not list them.
    left: Option<Vec<(Instance, bool)>>,
}

impl<K: Kind> Runner<K> {
    async fn find(kind: K, shared: &Arc<Shared>) -> Self {
        let left = match command::is_installed() {
            true => kind.left().await,
            false => Ok(Vec::new()),
        };
        if let Err(error) = &left {
            log::warn!("{} of an earlier agent are not found: podman: {error}", K::WHAT);
        }
        Self { kind, shared: Arc::clone(shared), left: left.ok() }
    }
}

impl<K: Kind> Runtime for Runner<K> {
    fn start(self: Arc<Self>, order: Order) -> Later<'static, Result<Started, StartError>> {
        Box::pin(async move {
            if !command::is_installed() {
                return Err(StartError::Failed(command::missing()));
            }
            // Before anything is made: no state of it is missed.
            let watch = self.shared.watch().clone();
            let made = self.kind.ensure(&order).await?;
            let logs = Logs { ids: made.containers.clone() };
            let taken_over = made.taken_over;
            let unit = Running {
                runner: self,
                instance: order.instance,
                made,
                policies: BTreeMap::new(),
                unclean: BTreeMap::new(),
                since: Instant::now(),
                seen: watch.seen(),
                told: states::running(),
            };
            watch.look();
            Ok(Started { unit: Box::new(unit), output: Output::Kept(Arc::new(logs)), taken_over })
        })
    }

    fn keeps_logs(&self) -> bool {
        true
    }

    fn outlives_agent(&self) -> bool {
        true
    }

    fn finishes_starts(&self) -> bool {
        false
    }

    fn pause_before(&self, retry: u32) -> Option<Duration> {
        // Anywhere below it: workloads that failed together are not all tried at once.
        Some(longest_pause(retry).mul_f64(random_part()))
    }

    fn left(&self) -> Vec<(Instance, bool)> {
        self.left.clone().unwrap_or_default()
    }

    fn may_have_left(&self) -> bool {
        self.left.as_ref().is_none_or(|left| !left.is_empty())
    }

    fn abandon_all(&self) {
        let Some(watch) = self.shared.watch.get() else { return };
        let seen = watch.seen().borrow().containers.clone().unwrap_or_default();
        self.kind.abandon_all(&seen);
    }

    fn remove<'a>(&'a self, instance: &'a Instance) -> Later<'a, Result<(), String>> {
        Box::pin(async move {
            // Nothing was ever there. A podman that went away leaves what it has made.
            let watched = self.shared.watch.get().is_some();
            if !command::is_installed() && !watched && !self.may_have_left() {
                return Ok(());
            }
            self.kind.remove(instance).await.map_err(|error| error.to_string())
        })
    }
}

/// The running containers of a workload.
#[derive(Debug)]
struct Running<K> {
    runner: Arc<Runner<K>>,
    instance: Instance,
    made: Made,
    /// podman's own restart policies of the exited containers.
    policies: BTreeMap<String, String>,
    /// Its ended containers without a cleanup by podman, since when.
    unclean: BTreeMap<String, Instant>,
    /// What was seen before this time does not count.
    since: Instant,
    seen: Receiver<Seen>,
    /// The last reported state.
    told: ExecutionState,
}

impl<K: Kind> Running<K> {
    /// The state in a view.
    async fn state_in(&mut self, seen: &Seen) -> Change {
        let Some(all) = &seen.containers else {
            return Change::State(states::failed_unknown("Error getting state from Podman."));
        };
        self.clean_up(all, seen.asked).await;
        let change = K::change(&self.made, all);
        let Change::Ended(end) = &change else { return change };
        match self.is_restarted_by_podman(end, all).await {
            true => Change::State(end.state()),
            false => change,
        }
    }

    /// Waits for the next view; asks for one if a container is to be cleaned up.
    async fn seen_next(&mut self) -> Result<(), RecvError> {
        let changed = self.seen.changed();
        if self.unclean.is_empty() {
            return changed.await;
        }
        timeout(CLEANED_UP_AFTER, changed).await.unwrap_or_else(|_| {
            self.runner.shared.watch().look();
            Ok(())
        })
    }

    /// Does what podman should have done long ago: until then a container has not exited.
    async fn clean_up(&mut self, all: &AllContainers, now: Instant) {
        let is_unclean = |id: &String| all.get(id).is_some_and(|one| one.state == UNCLEAN);
        self.unclean.retain(|id, _| is_unclean(id));
        for id in self.made.containers.iter().filter(|id| is_unclean(id)) {
            let since = self.unclean.entry(id.clone()).or_insert(now);
            if now.duration_since(*since) >= CLEANED_UP_AFTER {
                *since = now;
                if let Err(error) = command::ask(["container", "cleanup", id]).await {
                    log::warn!("a container cannot be cleaned up: {error}");
                }
                self.runner.shared.watch().look();
            }
        }
    }

    /// Whether podman itself restarts the exited containers. Then this is no end: it may be
    /// about to do so, and a view between has seen it.
    async fn is_restarted_by_podman(&mut self, end: &Ended, all: &AllContainers) -> bool {
        let failed = *end != Ended::Succeeded;
        let has_exited = |id: &&String| {
            all.get(*id).is_some_and(|one| one.state == EXITED && (one.exit_code != 0) == failed)
        };
        let exited: Vec<_> = self.made.containers.iter().filter(has_exited).cloned().collect();
        for id in &exited {
            if !self.policies.contains_key(id) {
                let asked = ["inspect", "--format={{.HostConfig.RestartPolicy.Name}}", id];
                // It is gone, and is restarted no more.
                let policy = command::ask(asked).await.unwrap_or_default();
                self.policies.insert(id.clone(), policy.trim().to_owned());
            }
        }
        let is_restarted = |id: &String| {
            self.policies.get(id).is_some_and(|policy| restarts_after(policy, failed))
        };
        !exited.is_empty() && exited.iter().all(is_restarted)
    }
}

impl<K: Kind> Unit for Running<K> {
    fn change(&mut self) -> Later<'_, Change> {
        Box::pin(async move {
            loop {
                let seen = self.seen.borrow_and_update().clone();
                if seen.asked >= self.since {
                    let change = self.state_in(&seen).await;
                    if change != Change::State(self.told.clone()) {
                        if let Change::State(state) = &change {
                            self.told = state.clone();
                        }
                        return change;
                    }
                }
                if self.seen_next().await.is_err() {
                    // The watch lives as long as the runtime, and the runtime as long as the agent.
                    return Change::Ended(Ended::lost("podman is not watched"));
                }
            }
        })
    }

    fn stop(self: Box<Self>, _: Duration) -> Later<'static, Result<String, String>> {
        Box::pin(async move {
            let removed = self.runner.kind.remove(&self.instance).await;
            removed.map(|()| "removed".to_owned()).map_err(|error| error.to_string())
        })
    }
}

/// Whether podman restarts a container with this policy of its own after it has failed or succeeded.
fn restarts_after(policy: &str, failed: bool) -> bool {
    match policy {
        "always" | "unless-stopped" => true,
        "on-failure" => failed,
        _ => false,
    }
}

/// The instance by its name in podman, if it is of this agent.
fn instance_in(name: &str, agent: &str) -> Option<Instance> {
    let mut parts = name.split('.').map(str::to_owned);
    let (workload, id, own) = (parts.next()?, parts.next()?, parts.next()?);
    let instance = Instance { workload, id, agent: own };
    (parts.next().is_none() && instance.agent == agent).then_some(instance)
}

/// The longest pause before a retry, from 1.
fn longest_pause(retry: u32) -> Duration {
    let doubled = Duration::from_millis(500) * 2_u32.pow(retry.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE)
}

/// A number from 0 to 1. Nothing depends on how good it is.
fn random_part() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0_u8) >> 32;
    bits as f64 / f64::from(u32::MAX)
}

/// The output of containers, kept by podman.
#[derive(Debug)]
struct Logs {
    ids: Vec<String>,
}

impl KeptLog for Logs {
    fn command(&self, request: &LogsRequest) -> Command {
        let mut args = vec!["logs".to_owned()];
        if request.follow() {
            args.push("--follow".to_owned());
        }
        if self.ids.len() > 1 {
            // In front of each line; podman would write the id there.
            args.push("--names".to_owned());
        }
        let times = [("since", &request.since), ("until", &request.until)];
        for (name, time) in times {
            if let Some(time) = time.as_deref().filter(|time| !time.is_empty()) {
                args.push(format!("--{name}={time}"));
            }
        }
        if let Some(tail) = request.tail.filter(|tail| *tail >= 0) {
            args.push(format!("--tail={tail}"));
        }
        args.extend(self.ids.iter().cloned());
        command::command(args)
    }
}

#[cfg(test)]
mod tests;
