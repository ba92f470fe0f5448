//! Task of one workload name, from its entry in the state to the end of its process.
//!
//! The state goes in; execution states come out. At most one instance of a name runs at a time. An
//! instance is reported as removed only after its process has ended.

use std::{convert::Infallible, fmt, future::pending, sync::Arc, time::Duration};

use fifogate::{
    internal::state::{DESIRED_STATE, WORKLOAD_STATES},
    pb::ank_base as pb,
    state::{Instance, Node, Tree},
};
use log::Level;
use tokio::{
    process::{ChildStderr, ChildStdout},
    task::{JoinError, JoinHandle},
    time::{Instant, sleep},
};

use crate::{
    apart,
    log_text::{self, Quoted},
    logs::{Captured, Log},
    model,
    render::{self, configs_of},
    runtime::{Exit, LaunchContext, PROCESS, Process, StartError, config},
};

use super::{
    Shared,
    conditions::{dependents, may_start, may_stop},
    states, wanted,
};

/// Retries of a start before a workload is given up.
const MOST_RETRIES: u32 = 5;
/// Pause before the first retry; doubled each time.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Run time of a process from which its next restart has the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// The task of one workload name, for one instance after the other.
#[derive(Debug)]
pub(super) struct Task {
    name: String,
    shared: Shared,
    /// A start that is under way.
    starting: Option<JoinHandle<Started>>,
    /// The running process.
    process: Option<Process>,
    /// Its output.
    output: Option<Captured>,
}

/// A process with its output pipes.
type Started = Result<(Process, ChildStdout, ChildStderr), StartError>;

/// A workload to run.
struct Wanted {
    workload: Node,
    instance: Instance,
    message: pb::Workload,
    /// Whether contents of configs are filled in.
    shows_configs: bool,
}

impl Wanted {
    /// The reason of a failed start, for execution states. It may quote fields with contents of
    /// configs, and readers of execution states may lack the right to read configs.
    fn told<'a>(&self, reason: &'a str) -> &'a str {
        if self.shows_configs { WHY_IS_IN_THE_LOG } else { reason }
    }
}

const WHY_IS_IN_THE_LOG: &str = "why is only in the agent's log, as the reason may quote configs that \
                                 the workload refers to";

impl Task {
    pub(super) fn new(name: String, shared: Shared) -> Self {
        Self { name, shared, starting: None, process: None, output: None }
    }

    /// Follows the state until nothing of this name is wanted or left, or all workloads end.
    pub(super) async fn run(mut self) {
        loop {
            // Marked as seen, so a change during the work below starts another round.
            let tree = self.shared.tree.borrow_and_update().clone();
            // Of the effective state: its fields are rendered, and its agent is known.
            let wanted = self.wanted(&tree);
            self.remove_all_but(&tree, wanted.as_ref().map(|wanted| &wanted.instance)).await;
            if *self.shared.stop.borrow() {
                return;
            }
            match wanted {
                Some(wanted) => self.live(&tree, wanted).await,
                // A later workload of this name gets a new task. All tasks share one thread, so no
                // state arrives between this check and the end of the task.
                None if !self.shared.tree.has_changed().unwrap_or(false) => return,
                None => {}
            }
        }
    }

    fn wanted(&self, tree: &Tree) -> Option<Wanted> {
        let workload = wanted(tree, &self.shared.agent, &self.name)?;
        let message = model::workload(&workload);
        let instance = Instance::of(&self.name, &workload);
        let desired = tree.get(&[DESIRED_STATE, "workloads", &self.name]);
        let shows_configs = desired.is_some_and(|own| configs_of(own).next().is_some());
        Some(Wanted { workload, instance, message, shows_configs })
    }

    /// Reports the end of instances of this name in the state, but not wanted. None of them runs: they
    /// are left from an earlier agent, or came and went before their start.
    async fn remove_all_but(&self, tree: &Tree, stays: Option<&Instance>) {
        for (id, _) in tree.entries(&[WORKLOAD_STATES, &self.shared.agent, &self.name]) {
            let instance = Instance {
                workload: self.name.clone(),
                agent: self.shared.agent.clone(),
                id: id.to_string(),
            };
            if stays != Some(&instance) {
                self.shared.pairs.close(&instance).await;
                self.shared.logs.remove(&instance);
                self.report(&instance, states::removed());
            }
        }
    }

    /// Runs one instance until the state wants another, or all workloads end.
    async fn live(&mut self, tree: &Tree, wanted: Wanted) {
        // The last state with this workload: its dependents may disappear together with it.
        let mut last = tree.clone();
        let log = self.shared.logs.open(&wanted.instance);
        let (mut shared, name) = (self.shared.clone(), self.name.clone());
        let superseded = async {
            loop {
                let tree = shared.tree.borrow_and_update().clone();
                if super::wanted(&tree, &shared.agent, &name).as_ref() != Some(&wanted.workload) {
                    return;
                }
                last = tree;
                tokio::select! {
                    changed = shared.tree.changed() => if changed.is_err() { return },
                    _ = shared.stop.wait_for(|stop| *stop) => return,
                }
            }
        };
        tokio::select! {
            () = superseded => {}
            never = self.keep_running(&wanted, log.as_ref()) => match never {},
        }
        let needing = dependents(&last, &self.name);
        self.end(&wanted, &needing).await;
        if let Some(log) = log {
            log.finish();
        }
    }

    /// Starts a workload, and restarts it by its restart policy.
    async fn keep_running(&mut self, wanted: &Wanted, log: Option<&Log>) -> Infallible {
        if !may_start(&self.shared.tree.borrow(), &wanted.workload) {
            self.report(&wanted.instance, states::waiting_to_start());
            let mut tree = self.shared.tree.clone();
            let _ = tree.wait_for(|tree| may_start(tree, &wanted.workload)).await;
        }
        self.report(&wanted.instance, states::starting("Triggered at runtime."));
        let mut delay = FIRST_DELAY;
        loop {
            if !self.start_with_retries(wanted, log).await {
                break;
            }
            self.report(&wanted.instance, states::running());
            let began = Instant::now();
            let exit = match &mut self.process {
                Some(process) => process.wait().await,
                None => Exit::Lost,
            };
            self.process = None;
            self.report_exit(&wanted.instance, &exit);
            if !restarts(&wanted.message, &exit) {
                break;
            }
            if began.elapsed() >= HEALTHY_AFTER {
                delay = FIRST_DELAY;
            }
            sleep(delay).await;
            delay = (delay * 2).min(LONGEST_DELAY);
            self.report(&wanted.instance, states::starting(format!("Restart after {exit}")));
        }
        self.drain().await;
        if let Some(log) = log {
            log.finish();
        }
        // The task stays here until the caller drops this future.
        pending().await
    }

    /// Waits for the last output of the process.
    async fn drain(&mut self) {
        if let Some(output) = self.output.take() {
            output.drained().await;
        }
    }

    fn report_exit(&self, instance: &Instance, exit: &Exit) {
        self.log(Level::Info, format_args!("ended: {exit}"));
        self.report(
            instance,
            match exit {
                exit if exit.is_success() => states::succeeded(),
                Exit::Lost => states::lost(exit.to_string()),
                exit => states::failed(exit.to_string()),
            },
        );
    }

    /// Starts the process, with retries. Returns false after the reason was reported.
    async fn start_with_retries(&mut self, wanted: &Wanted, log: Option<&Log>) -> bool {
        let mut delay = FIRST_DELAY;
        for retry in 1.. {
            let error = match self.start(wanted, log).await {
                Ok((process, output)) => {
                    self.log(Level::Info, format_args!("started"));
                    (self.process, self.output) = (Some(process), Some(output));
                    return true;
                }
                Err(error) => error,
            };
            let (prefix, reason) = match error {
                StartError::Failed(reason) if retry <= MOST_RETRIES => {
                    let info = format!("Retry {retry}: {}", wanted.told(&reason));
                    self.report(&wanted.instance, states::starting(info));
                    sleep(delay).await;
                    delay = (delay * 2).min(LONGEST_DELAY);
                    continue;
                }
                StartError::Failed(reason) => ("No more retries: ", reason),
                StartError::Wrong(reason) => ("", reason),
            };
            self.log(Level::Warn, format_args!("cannot be started: {}", Quoted(&reason)));
            let info = format!("{prefix}{}", wanted.told(&reason));
            self.report(&wanted.instance, states::starting_failed(info));
            return false;
        }
        // Never reached: the loop has no end of its own.
        false
    }

    async fn start(
        &mut self,
        wanted: &Wanted,
        log: Option<&Log>,
    ) -> Result<(Process, Captured), StartError> {
        let workload = &wanted.message;
        let runtime = workload.runtime.as_deref().unwrap_or_default();
        if runtime != PROCESS {
            let text = format!("unknown runtime '{runtime}'; this agent has '{PROCESS}'");
            return Err(StartError::Wrong(text));
        }
        let config = self.read_config(wanted).await?;
        let account = config.user.as_deref().map(crate::runtime::account).transpose()?;
        let owner = account.as_ref().map(|user| (user.uid, user.gid));
        let mut around = LaunchContext {
            account,
            files: workload.files.clone().unwrap_or_default().files,
            folder: self.shared.folder.join(format!("{}.{}", self.name, wanted.instance.id)),
            pair: None,
        };
        let access = workload.control_interface_access.clone().unwrap_or_default();
        if !access.allow_rules.is_empty() {
            // Before the process: it finds its pair at once (docs/agent-link.md#write-an-agent).
            let pair = self.shared.pairs.open(&wanted.instance, access, owner).await;
            around.pair = Some(pair.map_err(|error| StartError::Failed(error.to_string()))?);
        } else {
            // The same instance may have had rights, and its pair, before.
            self.shared.pairs.close(&wanted.instance).await;
        }
        let launcher = Arc::clone(&self.shared.launcher);
        // In a task of its own: a start that is given up half way would be killed, and what it has created on
        // the node would stay.
        let start = tokio::spawn(async move { launcher.start(&config, &around).await });
        let done = self.starting.insert(start).await;
        self.starting = None;
        let (process, stdout, stderr) = started(done)?;
        Ok((process, self.shared.logs.capture(&self.name, log.cloned(), stdout, stderr)))
    }

    /// Parses the `runtimeConfig`, or returns the fault of its rendering.
    async fn read_config(&self, wanted: &Wanted) -> Result<config::Command, StartError> {
        let text = wanted.message.runtime_config.clone().unwrap_or_default();
        let fault_in = render::is_unrendered(&wanted.workload)
            .then(|| (self.shared.tree.borrow().clone(), self.name.clone()));
        let bytes = if fault_in.is_some() { apart::LARGE } else { text.len() };
        let config = apart::start(bytes, move || match fault_in {
            Some((tree, name)) => {
                let fault = render::fault_of(&tree, &name);
                Err(fault.unwrap_or_else(|| "it is not rendered".to_owned()))
            }
            None => config::parse(&text).map_err(|fault| format!("runtimeConfig, {fault}")),
        });
        config.await.map_err(StartError::Wrong)
    }

    /// Stops the process, and removes everything of the instance unless it goes on.
    async fn end(&mut self, wanted: &Wanted, needing: &[Instance]) {
        let instance = &wanted.instance;
        if let Some(starting) = self.starting.take() {
            // Without its output, whose reader is gone.
            self.process = started(starting.await).ok().map(|(process, ..)| process);
        }
        let stopping = *self.shared.stop.borrow();
        // All workloads end together with the agent, so dependents are not waited for then.
        if self.process.is_some() && !stopping && !may_stop(&self.shared.tree.borrow(), needing) {
            self.report(instance, states::waiting_to_stop());
            let (mut tree, mut stop) = (self.shared.tree.clone(), self.shared.stop.clone());
            tokio::select! {
                _ = tree.wait_for(|tree| may_stop(tree, needing)) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        self.report(instance, states::stop_requested());
        if let Some(process) = self.process.take() {
            let exit = process.stop(self.shared.grace).await;
            self.log(Level::Info, format_args!("stopped: {exit}"));
        }
        self.drain().await;
        let next = self.wanted(&self.shared.tree.borrow().clone());
        // Other fields of the instance have changed, or the agent ends: its pair and its log stay.
        if stopping || next.is_some_and(|next| next.instance == *instance) {
            return;
        }
        self.shared.pairs.close(instance).await;
        self.shared.logs.remove(instance);
        let folder = self.shared.folder.join(format!("{}.{}", self.name, instance.id));
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!("cannot remove {}: {error}", folder.display());
        }
        self.report(instance, states::removed());
    }

    fn log(&self, level: Level, text: fmt::Arguments<'_>) {
        log_text::about(&self.name, level, format_args!("{} {text}", Quoted(&self.name)));
    }

    fn report(&self, instance: &Instance, state: pb::ExecutionState) {
        let instance_name = Some(model::instance_name(instance));
        let report = pb::WorkloadState { instance_name, execution_state: Some(state) };
        self.shared.reports.add(report);
    }
}

/// The result of a start, from the task that made it.
fn started(done: Result<Started, JoinError>) -> Started {
    done.unwrap_or_else(|error| Err(StartError::Failed(error.to_string())))
}

/// Whether the restart policy restarts a workload after this exit.
fn restarts(workload: &pb::Workload, exit: &Exit) -> bool {
    match workload.restart_policy() {
        pb::RestartPolicy::Never => false,
        pb::RestartPolicy::OnFailure => !exit.is_success(),
        pb::RestartPolicy::Always => true,
    }
}
