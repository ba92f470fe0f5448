//! The runtime `podman`: containers, which outlive this agent.
//!
//! A container has the name, the labels and the mounts that Ankaios gives it, so its tools see ours, and
//! either agent takes over what the other has left. Its labels lead to its instance; no file remembers
//! containers.

mod command;
mod config;
pub(super) mod kube;
mod pair;
mod watch;

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use fifogate::{
    pb::ank_base::{self as pb, ExecutionState, LogsRequest},
    state::Instance,
};
use tokio::{process::Command, sync::watch::Receiver, time::Instant};

use crate::{apart, log_text::Quoted, logs::KeptLog, model::states};

use super::{
    Change, Ended, FieldFault, Later, Order, Output, Runtime, StartError, Started, Unit,
    field_faults,
    files::{self, Readers},
    shim::PAIR,
    yaml::Fault,
};
use command::{Listed, PodmanError};
use config::Container;
use watch::{Seen, Watch};

/// Its name in the `runtime` field of a workload.
pub const PODMAN: &str = "podman";

/// Label with the instance of a container, as `workload.id.agent`.
const NAME_LABEL: &str = "name";
/// Label with the agent of a container.
const AGENT_LABEL: &str = "agent";
/// Label with the run directory of the agent that made a container. Ankaios has none.
const RUN_DIR_LABEL: &str = "fifogate.run-dir";
/// States of a container in the words of podman.
const RUNNING: &str = "running";
const EXITED: &str = "exited";
/// Characters of the id of an instance in the name of its container.
const SHORT_ID: usize = 7;
/// The longest pause before a retry: the first one is at most half a second, and it doubles each time.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Runs containers by the program podman.
#[derive(Debug)]
pub struct Podman {
    agent: String,
    run_dir: String,
    /// `None` if podman did not list them.
    left: Option<Vec<(Instance, bool)>>,
    /// Started with the first container, and shared with `podman-kube`: most agents have none.
    watch: Arc<OnceLock<Watch>>,
}

impl Podman {
    /// Looks for podman and for the containers of this agent that an earlier one has left.
    pub async fn find(agent: &str, run_dir: &Path) -> Self {
        let (agent, run_dir) = (agent.to_owned(), run_dir.display().to_string());
        let mut podman = Self { agent, run_dir, left: None, watch: Arc::default() };
        if !command::is_installed() {
            log::info!("workloads of the runtime '{PODMAN}' cannot run: {}", command::missing());
            podman.left = Some(Vec::new());
            return podman;
        }
        match command::list(Some(format!("{AGENT_LABEL}={}", podman.agent))).await {
            Ok(all) => {
                let (own, others): (Vec<_>, Vec<_>) =
                    all.iter().partition(|one| is_of(one, &podman.run_dir));
                if let Some(other) = others.first() {
                    log::warn!(
                        "containers of '{}' are left alone ({}): the first one is of the agent with the \
                         run directory {}",
                        podman.agent,
                        others.len(),
                        Quoted(other.label(RUN_DIR_LABEL).unwrap_or_default())
                    );
                }
                let instance = |one: &&Listed| instance_of(one, &podman.agent);
                podman.left = Some(own.iter().filter_map(instance).collect());
            }
            Err(error) => {
                log::warn!("containers of an earlier agent are not found: podman ps: {error}");
            }
        }
        podman
    }

    fn watch(&self) -> &Watch {
        self.watch.get_or_init(Watch::start)
    }

    async fn containers_of(&self, instance: &Instance) -> Result<Vec<Listed>, PodmanError> {
        let mut all = command::list(Some(format!("{NAME_LABEL}={instance}"))).await?;
        all.retain(|one| is_of(one, &self.run_dir));
        Ok(all)
    }

    /// Starts a container, or finds it running. One that has done its work is started again; any other
    /// is replaced.
    async fn ensure(&self, order: &Order) -> Result<String, StartError> {
        let text = order.config().to_owned();
        let config = apart::start(text.len(), move || config::parse(&text)).await;
        let config =
            config.map_err(|fault| StartError::Wrong(format!("runtimeConfig, {fault}")))?;
        let here = self.containers_of(&order.instance).await?;
        if let [one] = &here[..]
            && let Some(id) = self.take_over(order, &config, one).await?
        {
            return Ok(id);
        }
        self.remove_all(&here).await?;
        let created = self.create(order, &config).await;
        if created.is_err() {
            // A container that was made and could not start is in the way of the next try, which removes it
            // if this fails; why it did not start is what its author needs.
            let _ = self.remove_instance(&order.instance).await;
        }
        created
    }

    /// Goes on with a container that runs, and starts one again that has done its work. `None` if it has to
    /// be replaced.
    async fn take_over(
        &self,
        order: &Order,
        config: &Container,
        one: &Listed,
    ) -> Result<Option<String>, StartError> {
        let has_ended = one.state == EXITED && one.exit_code == 0;
        if !is_running(one) && !has_ended {
            return Ok(None);
        }
        if order.has_pair() {
            // Its pair belongs to its user already, and is of use only if the container has it.
            let folder = order.pairs.folder(&order.instance);
            if !pair::is_mounted(&one.id, &folder).await? {
                return Ok(None);
            }
            order.open_pair(pair::user_of(&one.id).await.ok()).await?;
        } else {
            order.open_pair(None).await?;
        }
        if has_ended {
            self.write_files(order)?;
            let general = config.general_options.iter().map(String::as_str);
            // What it was made with may be gone, and then a new one is made.
            let started = command::run(general.chain(["start", &one.id])).await;
            return Ok(started.is_ok().then(|| one.id.clone()));
        }
        Ok(Some(one.id.clone()))
    }

    async fn create(&self, order: &Order, config: &Container) -> Result<String, StartError> {
        let folder = order.open_pair(None).await?;
        let mounts = self.write_files(order)?;
        let mut options = vec!["--name".to_owned(), name_of(&order.instance)];
        options.extend(config.command_options.iter().cloned());
        if let Some(folder) = &folder {
            check_mount(folder).map_err(|error| StartError::Wrong(error.to_string()))?;
            options
                .push(format!("--mount=type=bind,source={},destination={PAIR}", folder.display()));
        }
        options.extend(mounts);
        // Behind the options of the workload: the last label of a name counts.
        options.push(format!("--label={NAME_LABEL}={}", order.instance));
        options.push(format!("--label={AGENT_LABEL}={}", self.agent));
        options.push(format!("--label={RUN_DIR_LABEL}={}", self.run_dir));
        options.push(config.image.clone());
        options.extend(config.command_args.iter().cloned());
        let general = || config.general_options.iter().map(String::as_str);
        let options = options.iter().map(String::as_str);
        let Some(folder) = folder else {
            let run = general().chain(["run", "--detach"]).chain(options);
            return Ok(id_in(&command::run(run).await?)?);
        };
        // In steps, as only an initialised container tells its user, and the pair is to be its own
        // before its first instruction.
        let id = id_in(&command::run(general().chain(["create"]).chain(options)).await?)?;
        command::run(general().chain(["init", &id])).await?;
        let owner = pair::user_of(&id).await?;
        pair::give(&folder, owner)?;
        order.pairs.note_owner(&order.instance, owner);
        command::run(general().chain(["start", &id])).await?;
        Ok(id)
    }

    /// Writes the files of a workload, and returns the options that mount them.
    fn write_files(&self, order: &Order) -> Result<Vec<String>, StartError> {
        let binds = files::write(&order.folder.join("files"), order.files(), Readers::All)?;
        let options = binds.into_iter().map(|bind| {
            for path in [&bind.source, &bind.target] {
                check_mount(path).map_err(|error| StartError::Wrong(error.to_string()))?;
            }
            let (source, target) = (bind.source.display(), bind.target.display());
            Ok(format!("--mount=type=bind,source={source},destination={target},readonly=true"))
        });
        options.collect()
    }

    async fn remove_instance(&self, instance: &Instance) -> Result<(), PodmanError> {
        self.remove_all(&self.containers_of(instance).await?).await
    }

    /// Stops and removes containers, within podman's own time for a stop.
    async fn remove_all(&self, all: &[Listed]) -> Result<(), PodmanError> {
        for one in all {
            remove(&one.id).await?;
        }
        Ok(())
    }
}

impl Runtime for Podman {
    fn start(self: Arc<Self>, order: Order) -> Later<'static, Result<Started, StartError>> {
        Box::pin(async move {
            if !command::is_installed() {
                return Err(StartError::Failed(command::missing()));
            }
            // Before the container: no state of it is missed.
            let watch = self.watch().clone();
            let id = self.ensure(&order).await?;
            let unit = Running {
                id: id.clone(),
                since: Instant::now(),
                seen: watch.seen(),
                told: states::running(),
            };
            watch.look();
            Ok(Started {
                unit: Box::new(unit),
                output: Output::Kept(Arc::new(Logs { ids: vec![id] })),
            })
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
        let Some(watch) = self.watch.get() else { return };
        let seen = watch.seen().borrow().containers.clone().unwrap_or_default();
        let own = seen
            .values()
            .filter(|one| one.label(AGENT_LABEL) == Some(&self.agent) && is_of(one, &self.run_dir));
        command::run_detached(["rm", "--force", "--time=0"], own.map(|one| one.id.as_str()));
    }

    fn remove<'a>(&'a self, instance: &'a Instance) -> Later<'a, Result<(), String>> {
        Box::pin(async move {
            // Nothing was ever there. A podman that went away leaves its containers.
            if !command::is_installed() && self.watch.get().is_none() && !self.may_have_left() {
                return Ok(());
            }
            self.remove_instance(instance).await.map_err(|error| error.to_string())
        })
    }
}

/// Checks a `runtimeConfig`.
pub(super) fn check_config(text: &str) -> Result<(), Fault> {
    config::parse(text).map(drop)
}

/// The faults of a workload that no start gets over.
pub(super) fn faults(config: &str, files: &[pb::File]) -> Vec<FieldFault> {
    let check_file = |file: &pb::File| {
        let (target, _) = files::target_and_content(file)?;
        check_mount(&target).map_err(|error| error.to_string())
    };
    field_faults(check_config(config), files, check_file)
}

/// podman would read what is behind a comma of a path as a field of its own.
fn check_mount(path: &Path) -> Result<(), PodmanError> {
    match path.display().to_string() {
        path if path.contains(',') => {
            Err(PodmanError::because(format_args!("podman cannot mount '{path}': it has a comma")))
        }
        _ => Ok(()),
    }
}

/// A running container.
#[derive(Debug)]
struct Running {
    id: String,
    /// What was seen before this time does not count.
    since: Instant,
    seen: Receiver<Seen>,
    /// The state that was told last.
    told: ExecutionState,
}

impl Unit for Running {
    fn change(&mut self) -> Later<'_, Change> {
        let (id, since) = (&self.id, self.since);
        Box::pin(next_change(&mut self.seen, since, &mut self.told, move |seen| change(id, seen)))
    }

    fn stop(self: Box<Self>, _: Duration) -> Later<'static, Result<String, String>> {
        Box::pin(async move {
            let removed = remove(&self.id).await;
            removed.map(|()| "removed".to_owned()).map_err(|error| error.to_string())
        })
    }
}

/// Waits for a state other than the one that was told last, or the end.
async fn next_change(
    all: &mut Receiver<Seen>,
    since: Instant,
    told: &mut ExecutionState,
    change: impl Fn(&Seen) -> Change,
) -> Change {
    loop {
        let seen = all.borrow_and_update().clone();
        match (seen.asked >= since).then(|| change(&seen)) {
            Some(Change::State(state)) if state == *told => {}
            Some(change) => {
                if let Change::State(state) = &change {
                    *told = state.clone();
                }
                return change;
            }
            None => {}
        }
        if all.changed().await.is_err() {
            // The watch lives as long as the runtime, and the runtime as long as the agent.
            return Change::Ended(Ended::lost("podman is not watched"));
        }
    }
}

fn change(id: &str, seen: &Seen) -> Change {
    let Some(all) = &seen.containers else {
        return Change::State(states::failed_unknown("Error getting state from Podman."));
    };
    let Some(one) = all.get(id) else {
        return Change::Ended(Ended::lost("its container is gone"));
    };
    let word = one.state.as_str();
    Change::State(match word {
        RUNNING => states::running(),
        EXITED if one.exit_code == 0 => return Change::Ended(Ended::Succeeded),
        EXITED => return Change::Ended(Ended::Failed(format!("Exit code: '{}'", one.exit_code))),
        "created" | "configured" | "initialized" => states::starting(word),
        "stopping" | "stopped" | "removing" => states::stopping(word),
        _ => states::failed_unknown(word),
    })
}

async fn remove(id: &str) -> Result<(), PodmanError> {
    let stopped = command::run(["stop", "--ignore", id]).await;
    if stopped.is_err() || command::run(["rm", "--ignore", id]).await.is_err() {
        // A paused container is not stopped.
        command::run(["rm", "--force", "--ignore", id]).await?;
    }
    Ok(())
}

fn is_running(one: &Listed) -> bool {
    one.state == RUNNING
}

/// Whether a container is of the agent with this run directory, or of an agent of Ankaios.
fn is_of(one: &Listed, run_dir: &str) -> bool {
    one.label(RUN_DIR_LABEL).is_none_or(|own| own == run_dir)
}

/// The name of the container of an instance.
fn name_of(instance: &Instance) -> String {
    let short: String = instance.id.chars().take(SHORT_ID).collect();
    format!("{}.{short}.{}", instance.workload, instance.agent)
}

/// The instance in the labels of a container, and whether it runs.
fn instance_of(one: &Listed, agent: &str) -> Option<(Instance, bool)> {
    let mut parts = one.label(NAME_LABEL)?.split('.').map(str::to_owned);
    let (workload, id, own) = (parts.next()?, parts.next()?, parts.next()?);
    let instance = Instance { workload, id, agent: own };
    (parts.next().is_none() && instance.agent == agent).then(|| (instance, is_running(one)))
}

/// The id that podman printed last, behind what it may have said of its image.
fn id_in(printed: &str) -> Result<String, PodmanError> {
    let last = printed.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map(str::to_owned).ok_or_else(|| PodmanError::because("podman printed no container id"))
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

/// What containers have written, kept by podman.
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
