//! The runtime `podman-kube`: the pods and deployments of a Kubernetes manifest, which outlive this agent.
//!
//! Two volumes lead to the pods of an instance, as Ankaios names them: `<workload.id.agent>.config` with
//! its `runtimeConfig`, and `<workload.id.agent>.pods` with the ids of its pods.

mod config;
mod manifest;
mod volumes;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use fifogate::{
    pb::ank_base::{self as pb, ExecutionState},
    state::Instance,
};
use tokio::{sync::watch::Receiver, time::Instant};

use crate::{apart, model::states};

use super::{
    EXITED, Logs, Podman, RUNNING,
    command::{self, Listed, PodmanError},
    longest_pause, pair, random_part,
    watch::{Seen, Watch},
};
use crate::runtime::{
    Change, Ended, FieldFault, Later, Order, Output, Runtime, StartError, Started, Unit, has_pair,
    yaml::Fault,
};
use config::Play;

/// Its name in the `runtime` field of a workload.
pub const PODMAN_KUBE: &str = "podman-kube";

const FILES: &str =
    "Workload files are not supported for podman-kube runtime. Use ConfigMaps instead.";
const NO_TARGET: &str = "Control interface target not specified in runtime config.";

/// Runs the pods of manifests by the program podman.
#[derive(Debug)]
pub struct Kube {
    agent: String,
    run_dir: String,
    /// `None` if podman did not list them.
    left: Option<Vec<(Instance, bool)>>,
    watch: Arc<OnceLock<Watch>>,
    /// The pods of started instances.
    pods: Mutex<BTreeMap<Instance, Vec<String>>>,
}

impl Kube {
    /// Looks for the pods of this agent that an earlier one has left; `podman` shares its watch.
    pub async fn find(agent: &str, run_dir: &Path, podman: &Podman) -> Self {
        let (agent, run_dir) = (agent.to_owned(), run_dir.display().to_string());
        let watch = Arc::clone(&podman.watch);
        let mut kube = Self { agent, run_dir, left: None, watch, pods: Mutex::default() };
        if !command::is_installed() {
            kube.left = Some(Vec::new());
            return kube;
        }
        match kube.look_for_left().await {
            Ok(left) => kube.left = Some(left),
            Err(error) => log::warn!("pods of an earlier agent are not found: podman: {error}"),
        }
        kube
    }

    async fn look_for_left(&self) -> Result<Vec<(Instance, bool)>, PodmanError> {
        let left = volumes::instances(&self.agent, &self.run_dir).await?;
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let all = command::list(None).await?;
        let mut found = Vec::new();
        for instance in left {
            let pods = volumes::pods(&instance).await?.unwrap_or_default();
            let runs = all.iter().any(|one| pods.contains(&one.pod) && one.state == RUNNING);
            found.push((instance, runs));
        }
        Ok(found)
    }

    /// Runs `f` under the lock.
    fn with_pods<T>(&self, f: impl FnOnce(&mut BTreeMap<Instance, Vec<String>>) -> T) -> T {
        f(&mut self.pods.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn watch(&self) -> &Watch {
        self.watch.get_or_init(Watch::start)
    }

    /// Plays a manifest, or finds its pods running.
    async fn ensure(&self, order: &Order) -> Result<Vec<String>, StartError> {
        let workload = order.workload.clone();
        let checked = apart::start(order.config().len(), move || check(&workload)).await;
        let play = checked.map_err(|fault| StartError::Wrong(fault.1))?;
        if let Some(pods) = self.take_over(order, &play).await? {
            return Ok(pods);
        }
        self.remove_instance(&order.instance).await?;
        // Pods with these names are of somebody else: a clean-up must not touch them.
        let named = manifest::named_in(&play.manifest).map_err(wrong)?;
        for pod in command::run(["pod", "ps", "--format={{.Name}}"]).await?.lines() {
            if named.iter().any(|own| own.makes(pod)) {
                return Err(StartError::Failed(format!(
                    "a pod '{pod}' is there already, and is not of this workload"
                )));
            }
        }
        let created = self.create(order, &play).await;
        if created.is_err() {
            // Why it did not start is what its author needs; the next try removes what is left.
            let _ = self.remove_instance(&order.instance).await;
        }
        created
    }

    /// Goes on with pods that all run. `None` if they have to be replaced.
    async fn take_over(
        &self,
        order: &Order,
        play: &Play,
    ) -> Result<Option<Vec<String>>, StartError> {
        let instance = &order.instance;
        if !volumes::is_of(instance, &self.run_dir).await?
            || volumes::config(instance).await?.as_deref() != Some(order.config())
        {
            return Ok(None);
        }
        let Some(pods) = volumes::pods(instance).await? else { return Ok(None) };
        let all = command::list(None).await?;
        let run = |pod: &String| {
            let mut own = all.iter().filter(|one| one.pod == *pod && !one.is_infra).peekable();
            own.peek().is_some() && own.all(|one| one.state == RUNNING)
        };
        if pods.is_empty() || !pods.iter().all(run) {
            return Ok(None);
        }
        if !order.has_pair() {
            order.open_pair(None).await?;
            return Ok(Some(pods));
        }
        let Some(target) = target_in(&all, &pods, play) else { return Ok(None) };
        if !pair::is_mounted(&target.id, &order.pairs.folder(instance)).await? {
            return Ok(None);
        }
        order.open_pair(pair::user_of(&target.id).await.ok()).await?;
        Ok(Some(pods))
    }

    async fn create(&self, order: &Order, play: &Play) -> Result<Vec<String>, StartError> {
        let folder = order.open_pair(None).await?;
        let text = match (&folder, &play.target) {
            (Some(folder), Some((pod, container))) => {
                manifest::with_pair(&play.manifest, (pod, container), folder).map_err(wrong)?
            }
            _ => play.manifest.clone(),
        };
        volumes::keep_config(&order.instance, &self.run_dir, order.config()).await?;
        let general = || play.general_options.iter().map(String::as_str);
        let options = general()
            .chain(["kube", "play", "--quiet"])
            .chain(play.play_options.iter().map(String::as_str));
        // In steps for a pair, as only an initialised container tells its user, and the pair is to be its
        // own before its first instruction.
        let options = options.chain(folder.as_ref().map(|_| "--start=false")).chain(["-"]);
        let pods = pods_in(&command::run_with(options, &text).await?);
        volumes::keep_pods(&order.instance, &self.run_dir, &pods).await?;
        let Some(folder) = folder else { return Ok(pods) };
        let all = command::list(None).await?;
        let target = target_in(&all, &pods, play).ok_or_else(|| {
            StartError::Failed("podman has not made the container of controlInterfaceTarget".into())
        })?;
        command::run(general().chain(["init", &target.id])).await?;
        let owner = pair::user_of(&target.id).await?;
        pair::give(&folder, owner)?;
        order.pairs.note_owner(&order.instance, owner);
        for pod in &pods {
            command::run(general().chain(["pod", "start", pod])).await?;
        }
        Ok(pods)
    }

    async fn remove_instance(&self, instance: &Instance) -> Result<(), PodmanError> {
        if !volumes::is_of(instance, &self.run_dir).await? {
            return Ok(());
        }
        let config = volumes::config(instance).await?;
        let play = config.as_deref().and_then(|text| config::parse(text).ok());
        // Without ids, as after a failed play: the names were free when it began.
        let pods = match (volumes::pods(instance).await?, &play) {
            (Some(pods), _) => pods,
            (None, Some(play)) => pods_named(&play.manifest).await?,
            (None, None) => Vec::new(),
        };
        if let Some(play) = play {
            let down = ["kube", "down"].into_iter();
            let down = down.chain(play.down_options.iter().map(String::as_str)).chain(["-"]);
            // It ends at the first pod that is missing, and the ids decide below.
            let _ = command::run_with(down, &play.manifest).await;
        }
        if !pods.is_empty() {
            let ids = pods.iter().map(String::as_str);
            command::run(["pod", "rm", "--force", "--ignore"].into_iter().chain(ids)).await?;
        }
        volumes::remove(instance).await?;
        self.with_pods(|all| all.remove(instance));
        Ok(())
    }
}

impl Runtime for Kube {
    fn start(self: Arc<Self>, order: Order) -> Later<'static, Result<Started, StartError>> {
        Box::pin(async move {
            if !command::is_installed() {
                return Err(StartError::Failed(command::missing()));
            }
            // Before the pods: no state of them is missed.
            let watch = self.watch().clone();
            let pods = self.ensure(&order).await?;
            self.with_pods(|all| all.insert(order.instance.clone(), pods.clone()));
            let all = command::list(None).await?;
            let own = all.into_iter().filter(|one| pods.contains(&one.pod) && !one.is_infra);
            let ids = own.map(|one| one.id).collect();
            let (since, seen) = (Instant::now(), watch.seen());
            let instance = order.instance;
            let unit = Running { kube: self, instance, pods, since, seen, told: states::running() };
            watch.look();
            Ok(Started { unit: Box::new(unit), output: Output::Kept(Arc::new(Logs { ids })) })
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
        Some(longest_pause(retry).mul_f64(random_part()))
    }

    fn left(&self) -> Vec<(Instance, bool)> {
        self.left.clone().unwrap_or_default()
    }

    fn may_have_left(&self) -> bool {
        self.left.as_ref().is_none_or(|left| !left.is_empty())
    }

    fn abandon_all(&self) {
        let pods = self.with_pods(|pods| pods.values().flatten().cloned().collect::<Vec<_>>());
        let args = ["pod", "rm", "--force"];
        command::run_detached(args, pods.iter().map(String::as_str));
    }

    fn remove<'a>(&'a self, instance: &'a Instance) -> Later<'a, Result<(), String>> {
        Box::pin(async move {
            // Nothing was ever there. A podman that went away leaves its pods.
            if !command::is_installed() && self.watch.get().is_none() && !self.may_have_left() {
                return Ok(());
            }
            self.remove_instance(instance).await.map_err(|error| error.to_string())
        })
    }
}

/// Started pods.
#[derive(Debug)]
struct Running {
    kube: Arc<Kube>,
    instance: Instance,
    pods: Vec<String>,
    /// What was seen before this time does not count.
    since: Instant,
    seen: Receiver<Seen>,
    /// The state that was told last.
    told: ExecutionState,
}

impl Unit for Running {
    fn change(&mut self) -> Later<'_, Change> {
        Box::pin(async move {
            let (pods, since) = (&self.pods, self.since);
            super::next_change(&mut self.seen, since, &mut self.told, |seen| change(pods, seen))
                .await
        })
    }

    fn stop(self: Box<Self>, _: Duration) -> Later<'static, Result<String, String>> {
        Box::pin(async move {
            let removed = self.kube.remove_instance(&self.instance).await;
            removed.map(|()| "removed".to_owned()).map_err(|error| error.to_string())
        })
    }
}

/// The worst state of all containers. The infra container of a pod does not count: it only holds the
/// namespaces of the others.
fn change(pods: &[String], seen: &Seen) -> Change {
    let Some(all) = &seen.containers else {
        return Change::State(states::failed_unknown("Error getting state from Podman."));
    };
    let own = || all.values().filter(|one| pods.contains(&one.pod));
    if own().next().is_none() {
        return Change::Ended(Ended::lost("its pods are gone"));
    }
    let is_gone = |pod: &String| !own().any(|one| one.pod == *pod);
    let found =
        |words: &[&str]| own().any(|one| !one.is_infra && words.contains(&one.state.as_str()));
    let mut ended = own().filter(|one| !one.is_infra && one.state == EXITED);
    let running = [RUNNING];
    let starting = ["created", "configured", "initialized"];
    let stopping = ["stopping", "stopped", "removing"];
    let is_unknown = |one: &Listed| {
        let known = [&running[..], &starting, &stopping, &[EXITED]];
        !one.is_infra && !known.iter().any(|words| words.contains(&one.state.as_str()))
    };
    if let Some(failed) = ended.find(|one| one.exit_code != 0) {
        return Change::Ended(Ended::Failed(format!("Exit code: '{}'", failed.exit_code)));
    }
    Change::State(if found(&starting) {
        states::starting("starting container")
    } else if pods.iter().any(is_gone) || own().any(is_unknown) {
        states::failed_unknown("unknown container state")
    } else if found(&running) {
        states::running()
    } else if found(&stopping) {
        states::stopping("stopping container")
    } else {
        return Change::Ended(Ended::Succeeded);
    })
}

/// The container of `controlInterfaceTarget`.
fn target_in<'a>(all: &'a [Listed], pods: &[String], play: &Play) -> Option<&'a Listed> {
    let (pod, container) = play.target.as_ref()?;
    // podman names a container `POD-CONTAINER`, and a pod of a deployment may have a number behind.
    let is_target = |name: &String| {
        let rest = name.strip_prefix(pod.as_str()).and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|rest| rest == container || rest.strip_prefix("0-") == Some(container))
    };
    all.iter().find(|one| {
        pods.contains(&one.pod) && !one.is_infra && one.names.iter().flatten().any(is_target)
    })
}

/// The ids of the pods that have the names of a manifest.
async fn pods_named(manifest: &str) -> Result<Vec<String>, PodmanError> {
    let named = manifest::named_in(manifest).unwrap_or_default();
    let all = command::run(["pod", "ps", "--no-trunc", "--format={{.Name}} {{.ID}}"]).await?;
    let all = all.lines().filter_map(|line| line.split_once(' '));
    let own = all.filter(|(name, _)| named.iter().any(|own| own.makes(name)));
    Ok(own.map(|(_, id)| id.to_owned()).collect())
}

/// The ids of pods in the output of `podman kube play`: each is on the line behind `Pod:`.
fn pods_in(printed: &str) -> Vec<String> {
    let mut lines = printed.lines().map(str::trim);
    let mut pods = Vec::new();
    while let Some(line) = lines.next() {
        if line == "Pod:" {
            pods.extend(lines.next().map(str::to_owned));
        }
    }
    pods
}

fn wrong(fault: Fault) -> StartError {
    StartError::Wrong(format!("manifest, {fault}"))
}

/// Checks a workload, without what only podman knows.
fn check(workload: &pb::Workload) -> Result<Play, FieldFault> {
    let at = |field: &str, text: String| (vec![field.to_owned()], text);
    let in_config = |what: String| at("runtimeConfig", what);
    if workload.files.as_ref().is_some_and(|files| !files.files.is_empty()) {
        return Err(at("files", FILES.to_owned()));
    }
    let play = config::parse(workload.runtime_config())
        .map_err(|fault| in_config(format!("runtimeConfig, {fault}")))?;
    let in_manifest = |fault| in_config(format!("manifest, {fault}"));
    manifest::named_in(&play.manifest).map_err(in_manifest)?;
    if has_pair(workload) {
        let target = play.target.as_ref().ok_or_else(|| in_config(NO_TARGET.to_owned()))?;
        manifest::with_pair(&play.manifest, (&target.0, &target.1), Path::new("/"))
            .map_err(in_manifest)?;
    }
    volumes::check_size(workload.runtime_config()).map_err(in_config)?;
    Ok(play)
}

/// The fault of a workload that no start gets over.
pub(in crate::runtime) fn faults(workload: &pb::Workload) -> Vec<FieldFault> {
    check(workload).err().into_iter().collect()
}
