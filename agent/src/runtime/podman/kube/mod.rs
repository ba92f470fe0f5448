//! The kind of the runtime `podman-kube`: the pods and deployments of a Kubernetes manifest.
//!
//! Two volumes lead to the pods of an instance, as Ankaios names them: `<workload.id.agent>.config` with
//! its `runtimeConfig`, and `<workload.id.agent>.pods` with the ids of its pods.

mod config;
mod manifest;
mod volumes;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fifogate::{pb::ank_base as pb, state::Instance};

use crate::{apart, model::states};

use super::{
    AllContainers, EXITED, Kind, Made, RUNNING, STARTING, STOPPING, Shared,
    command::{self, Listed, PodmanError},
    pair,
};
use crate::runtime::{Change, Ended, FieldFault, Order, StartError, has_pair, yaml::Fault};
use config::Play;
use volumes::{Kept, Volumes};

const FILES: &str =
    "Workload files are not supported for podman-kube runtime. Use ConfigMaps instead.";
const NO_TARGET: &str = "Control interface target not specified in runtime config.";

/// Characters of the id of a pod in the name of its infra container.
const SHORT_ID: usize = 12;

/// Makes pods.
#[derive(Debug)]
pub(super) struct Pods {
    shared: Arc<Shared>,
    /// The pods of started instances: podman's list of containers does not lead to them.
    started: Mutex<BTreeMap<Instance, Vec<String>>>,
}

impl Kind for Pods {
    const WHAT: &'static str = "pods";

    async fn left(&self) -> Result<Vec<(Instance, bool)>, PodmanError> {
        let left = Volumes::list(&self.shared).await?.instances();
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let all = command::list(None).await?;
        let runs = |kept: &Kept| {
            let pods = kept.pods.as_deref().unwrap_or_default();
            all.iter().any(|one| pods.contains(&one.pod) && one.state == RUNNING)
        };
        Ok(left.into_iter().map(|(instance, kept)| (instance, runs(&kept))).collect())
    }

    /// Plays a manifest, or finds its pods running.
    async fn ensure(&self, order: &Order) -> Result<Made, StartError> {
        let workload = order.workload.clone();
        let checked = apart::start(order.config().len(), move || check(&workload)).await;
        let play = checked.map_err(|fault| StartError::Wrong(fault.1))?;
        let kept = Volumes::list(&self.shared).await?.of(&order.instance);
        let made = match self.take_over(order, &play, kept).await? {
            Some(made) => made,
            None => self.replace(order, &play).await?,
        };
        self.started().insert(order.instance.clone(), made.pods.clone());
        Ok(made)
    }

    /// The worst state of all containers. The infra container of a pod does not count: it only holds the
    /// namespaces of the others.
    fn change(made: &Made, all: &AllContainers) -> Change {
        let in_pods = || all.values().filter(|one| made.pods.contains(&one.pod));
        if in_pods().next().is_none() {
            return Change::Ended(Ended::lost("its pods are gone"));
        }
        let is_gone = |pod: &String| !in_pods().any(|one| one.pod == *pod);
        let own = || in_pods().filter(|one| !one.is_infra);
        let is_in = |states: &[&str]| own().any(|one| states.contains(&one.state.as_str()));
        let is_known = |one: &Listed| {
            let known = [&[RUNNING, EXITED][..], &STARTING, &STOPPING];
            known.iter().any(|states| states.contains(&one.state.as_str()))
        };
        if let Some(failed) = own().find(|one| one.state == EXITED && one.exit_code != 0) {
            return Change::Ended(Ended::with_code(failed.exit_code));
        }
        Change::State(if is_in(&STARTING) {
            states::starting("starting container")
        } else if made.pods.iter().any(is_gone) || !own().all(is_known) {
            states::failed_unknown("unknown container state")
        } else if is_in(&[RUNNING]) {
            states::running()
        } else if is_in(&STOPPING) {
            states::stopping("stopping container")
        } else {
            return Change::Ended(Ended::Succeeded);
        })
    }

    async fn remove(&self, instance: &Instance) -> Result<(), PodmanError> {
        let Some(kept) = Volumes::list(&self.shared).await?.of(instance) else { return Ok(()) };
        let play = kept.config.as_deref().and_then(|text| config::parse(text).ok());
        let named = match &play {
            Some(play) => pods_named(&play.manifest).await?,
            None => Vec::new(),
        };
        // Without ids, as after a failed play: the names were free when it began.
        let pods = kept.pods.as_ref().unwrap_or(&named);
        // It goes by names, and somebody else may have one of them by now. It ends at the first pod that is
        // missing, and the ids decide below.
        if let Some(play) = &play
            && named.iter().all(|pod| pods.contains(pod))
            && !named.is_empty()
        {
            let down = ["kube", "down"].into_iter();
            let down = down.chain(play.down_options.iter().map(String::as_str)).chain(["-"]);
            let _ = command::run_with(down, &play.manifest).await;
        }
        if !pods.is_empty() {
            let ids = pods.iter().map(String::as_str);
            command::run(["pod", "rm", "--force", "--ignore"].into_iter().chain(ids)).await?;
        }
        if kept.pods.is_none() {
            // The play was cut off, and so may have been the creation of a container.
            let text = play.as_ref().map_or("", |play| play.manifest.as_str());
            let is_own = |name: &str| {
                let of = name.strip_suffix("-infra");
                let is_infra =
                    of.is_some_and(|id| pods.iter().any(|own| own.get(..SHORT_ID) == Some(id)));
                is_infra || manifest::makes_container(text, name)
            };
            command::remove_unfinished(is_own).await?;
        }
        volumes::remove(&kept).await?;
        self.started().remove(instance);
        Ok(())
    }

    fn abandon_all(&self, _: &AllContainers) {
        let pods: Vec<_> = self.started().values().flatten().cloned().collect();
        let ids = pods.iter().map(String::as_str);
        command::run_detached(&["pod", "rm", "--force", "--time=0"], ids);
    }
}

impl Pods {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, started: Mutex::default() }
    }

    fn started(&self) -> MutexGuard<'_, BTreeMap<Instance, Vec<String>>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with pods that all run. `None` if they have to be replaced.
    async fn take_over(
        &self,
        order: &Order,
        play: &Play,
        kept: Option<Kept>,
    ) -> Result<Option<Made>, StartError> {
        let kept = kept.filter(|kept| kept.config.as_deref() == Some(order.config()));
        let Some(pods) = kept.and_then(|kept| kept.pods) else { return Ok(None) };
        let all = command::list(None).await?;
        let runs = |pod: &String| {
            let mut own = all.iter().filter(|one| one.pod == *pod && !one.is_infra).peekable();
            own.peek().is_some() && own.all(|one| one.state == RUNNING)
        };
        if pods.is_empty() || !pods.iter().all(runs) {
            return Ok(None);
        }
        let target = target_in(&all, &pods, play).map(|target| target.id.as_str());
        if order.has_pair() && target.is_none()
            || !pair::open_again(order, target.unwrap_or_default()).await?
        {
            return Ok(None);
        }
        Ok(Some(Made { taken_over: true, ..made(pods, &all) }))
    }

    /// Removes what is left of an instance, and plays its manifest.
    async fn replace(&self, order: &Order, play: &Play) -> Result<Made, StartError> {
        self.remove(&order.instance).await?;
        // Pods with these names are of somebody else: a clean-up must not touch them.
        let named = manifest::named_in(&play.manifest).map_err(wrong)?;
        for pod in command::ask(["pod", "ps", "--format={{.Name}}"]).await?.lines() {
            if named.iter().any(|own| own.makes(pod)) {
                return Err(StartError::Failed(format!(
                    "a pod '{pod}' is there already, and is not of this workload"
                )));
            }
        }
        let created = self.create(order, play).await;
        if created.is_err() {
            // Why it did not start is what its author needs; the next try removes what is left.
            let _ = self.remove(&order.instance).await;
        }
        created
    }

    async fn create(&self, order: &Order, play: &Play) -> Result<Made, StartError> {
        let folder = order.open_pair(None).await?;
        let text = match (&folder, &play.target) {
            (Some(folder), Some((pod, container))) => {
                manifest::with_pair(&play.manifest, (pod, container), folder).map_err(wrong)?
            }
            _ => play.manifest.clone(),
        };
        let volumes = volumes::Names::of(&order.instance);
        volumes.keep_config(&self.shared, order.config()).await?;
        let general = || play.general_options.iter().map(String::as_str);
        let options = general()
            .chain(["kube", "play", "--quiet"])
            .chain(play.play_options.iter().map(String::as_str));
        // In steps for a pair, as it is to be its user's own before the first instruction.
        let options = options.chain(folder.as_ref().map(|_| "--start=false")).chain(["-"]);
        let pods = pods_in(&command::run_with(options, &text).await?);
        volumes.keep_pods(&self.shared, &pods).await?;
        let all = command::list(None).await?;
        let Some(folder) = folder else { return Ok(made(pods, &all)) };
        let target = target_in(&all, &pods, play).ok_or_else(|| {
            StartError::Failed("podman has not made the container of controlInterfaceTarget".into())
        })?;
        pair::hand_over(order, general(), &target.id, &folder).await?;
        for pod in &pods {
            command::run(general().chain(["pod", "start", pod])).await?;
        }
        Ok(made(pods, &all))
    }
}

/// Pods with their containers in a list.
fn made(pods: Vec<String>, all: &[Listed]) -> Made {
    let own = all.iter().filter(|one| pods.contains(&one.pod) && !one.is_infra);
    let containers = own.map(|one| one.id.clone()).collect();
    Made { pods, containers, taken_over: false }
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
    let all = command::ask(["pod", "ps", "--no-trunc", "--format={{.Name}} {{.ID}}"]).await?;
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
