//! The kind of the runtime `podman`: one container for each workload. Its labels lead to its instance.

use std::{path::Path, sync::Arc};

use fifogate::{pb::ank_base as pb, state::Instance};

use crate::{apart, log_text::Quoted, model::states};

use super::{
    AllContainers, EXITED, Kind, Made, PAIR, RUN_DIR_LABEL, RUNNING, STARTING, STOPPING, Shared,
    command::{self, Listed, PodmanError},
    config::{self, Container},
    instance_in, pair,
};
use crate::runtime::{
    Change, Ended, FieldFault, Order, StartError, field_faults,
    files::{self, Readers},
    yaml::Fault,
};

/// Label with the instance of a container, as `workload.id.agent`.
const NAME_LABEL: &str = "name";
/// Label with the agent of a container.
const AGENT_LABEL: &str = "agent";
/// Characters of the id of an instance in the name of its container.
const SHORT_ID: usize = 7;

/// Makes containers.
#[derive(Debug)]
pub(super) struct Containers(pub(super) Arc<Shared>);

impl Kind for Containers {
    const WHAT: &'static str = "containers";

    async fn left(&self) -> Result<Vec<(Instance, bool)>, PodmanError> {
        let agent = &self.0.agent;
        let all = command::list(Some(format!("{AGENT_LABEL}={agent}"))).await?;
        let (own, others): (Vec<_>, Vec<_>) = all.iter().partition(|one| self.is_own(one));
        if let Some(other) = others.first() {
            log::warn!(
                "containers of '{agent}' are left alone ({}): the first one is of the agent with the run \
                 directory {}",
                others.len(),
                Quoted(other.label(RUN_DIR_LABEL).unwrap_or_default())
            );
        }
        let found = |one: &&Listed| {
            Some((instance_in(one.label(NAME_LABEL)?, agent)?, one.state == RUNNING))
        };
        Ok(own.iter().filter_map(found).collect())
    }

    async fn ensure(&self, order: &Order) -> Result<Made, StartError> {
        let text = order.config().to_owned();
        let config = apart::start(text.len(), move || config::parse(&text)).await;
        let config =
            config.map_err(|fault| StartError::Wrong(format!("runtimeConfig, {fault}")))?;
        let here = self.containers_of(&order.instance).await?;
        if let [one] = &here[..]
            && let Some(made) = self.take_over(order, &config, one).await?
        {
            return Ok(made);
        }
        remove_all(&here).await?;
        let created = self.create(order, &config).await;
        if created.is_err() {
            // A container that was made and could not start is in the way of the next try, which removes it
            // if this fails; why it did not start is what its author needs.
            let _ = self.remove(&order.instance).await;
        }
        created.map(made)
    }

    fn change(made: &Made, all: &AllContainers) -> Change {
        let Some(one) = made.containers.first().and_then(|id| all.get(id)) else {
            return Change::Ended(Ended::lost("its container is gone"));
        };
        let word = one.state.as_str();
        Change::State(match word {
            RUNNING => states::running(),
            EXITED => return Change::Ended(Ended::with_code(one.exit_code)),
            _ if STARTING.contains(&word) => states::starting(word),
            _ if STOPPING.contains(&word) => states::stopping(word),
            _ => states::failed_unknown(word),
        })
    }

    async fn remove(&self, instance: &Instance) -> Result<(), PodmanError> {
        let all = self.containers_of(instance).await?;
        if all.is_empty() {
            let name = name_of(instance);
            command::remove_unfinished(|own| own == name).await?;
        }
        remove_all(&all).await
    }

    fn abandon_all(&self, all: &AllContainers) {
        let is_ours =
            |one: &&Listed| one.label(AGENT_LABEL) == Some(&self.0.agent) && self.is_own(one);
        let ids = all.values().filter(is_ours).map(|one| one.id.as_str());
        command::run_detached(&["rm", "--force", "--time=0"], ids);
    }
}

impl Containers {
    /// Whether a container is of the agent with this run directory, or of an agent of Ankaios.
    fn is_own(&self, one: &Listed) -> bool {
        self.0.made(one.label(RUN_DIR_LABEL))
    }

    async fn containers_of(&self, instance: &Instance) -> Result<Vec<Listed>, PodmanError> {
        let mut all = command::list(Some(format!("{NAME_LABEL}={instance}"))).await?;
        all.retain(|one| self.is_own(one));
        Ok(all)
    }

    /// Goes on with a container that runs, and starts one again that has done its work. `None` if it has to
    /// be replaced.
    async fn take_over(
        &self,
        order: &Order,
        config: &Container,
        one: &Listed,
    ) -> Result<Option<Made>, StartError> {
        let has_ended = one.state == EXITED && one.exit_code == 0;
        if one.state != RUNNING && !has_ended {
            return Ok(None);
        }
        if !pair::open_again(order, &one.id).await? {
            return Ok(None);
        }
        if has_ended {
            self.write_files(order)?;
            let general = config.general_options.iter().map(String::as_str);
            // What it was made with may be gone, and then a new one is made.
            let started = command::run(general.chain(["start", &one.id])).await;
            return Ok(started.is_ok().then(|| made(one.id.clone())));
        }
        Ok(Some(Made { taken_over: true, ..made(one.id.clone()) }))
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
        options.push(format!("--label={AGENT_LABEL}={}", self.0.agent));
        options.push(format!("--label={RUN_DIR_LABEL}={}", self.0.run_dir));
        options.push(config.image.clone());
        options.extend(config.command_args.iter().cloned());
        let general = || config.general_options.iter().map(String::as_str);
        let options = options.iter().map(String::as_str);
        let Some(folder) = folder else {
            let run = general().chain(["run", "--detach"]).chain(options);
            return Ok(id_in(&command::run(run).await?)?);
        };
        // In steps, as the pair is to be its user's own before its first instruction.
        let id = id_in(&command::run(general().chain(["create"]).chain(options)).await?)?;
        pair::hand_over(order, general(), &id, &folder).await?;
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
}

/// A container that was started.
fn made(id: String) -> Made {
    Made { containers: vec![id], ..Made::default() }
}

/// Stops and removes containers.
async fn remove_all(all: &[Listed]) -> Result<(), PodmanError> {
    for one in all {
        remove(&one.id).await?;
    }
    Ok(())
}

async fn remove(id: &str) -> Result<(), PodmanError> {
    let stopped = command::run(["stop", "--ignore", id]).await;
    if stopped.is_err() || command::run(["rm", "--ignore", id]).await.is_err() {
        // A paused container is not stopped.
        command::run(["rm", "--force", "--ignore", id]).await?;
    }
    Ok(())
}

/// Checks a `runtimeConfig`.
pub(in crate::runtime) fn check_config(text: &str) -> Result<(), Fault> {
    config::parse(text).map(drop)
}

/// The faults of a workload that no start gets over.
pub(in crate::runtime) fn faults(config: &str, files: &[pb::File]) -> Vec<FieldFault> {
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

/// The name of the container of an instance.
fn name_of(instance: &Instance) -> String {
    let short: String = instance.id.chars().take(SHORT_ID).collect();
    format!("{}.{short}.{}", instance.workload, instance.agent)
}

/// The id that podman printed last, behind what it may have said of its image.
fn id_in(printed: &str) -> Result<String, PodmanError> {
    let last = printed.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map(str::to_owned).ok_or_else(|| PodmanError::because("podman printed no container id"))
}

#[cfg(test)]
mod tests;
