//! Task of one workload name, from its entry in the state to the end of its workload.
//!
//! The state goes in; execution states come out. At most one instance of a name runs at a time. An
//! instance is reported as removed only after its workload has ended.

use std::{
    convert::Infallible, fmt, future::pending, io, path::PathBuf, sync::Arc, time::Duration,
};

use fifogate::{
    internal::state::{DESIRED_STATE, WORKLOAD_STATES},
    pb::ank_base as pb,
    state::{Instance, Node, Tree},
};
use log::Level;
use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, sleep},
};

use crate::{
    apart,
    log_text::{self, Quoted},
    logs::{Captured, Log, report_loss},
    model::{self, states},
    render::{self, configs_of},
    runtime::{Change, Ended, Left, Order, Output, Runtime, StartError, Started, Unit},
};

use super::{Shared, conditions::StopCondition, wanted};

/// Pause before the first restart; doubled each time.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Run time of a workload from which its next restart has the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// The task of one workload name, for one instance after the other.
#[derive(Debug)]
pub(super) struct Task {
    name: String,
    shared: Shared,
    /// What an earlier agent has left of this name.
    left: Vec<Left>,
    /// A start that is under way.
    starting: Option<JoinHandle<Result<Started, StartError>>>,
    /// The running workload.
    unit: Option<Box<dyn Unit>>,
    /// Its output, if it comes to this agent.
    output: Option<Captured>,
}

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
    pub(super) fn new(name: String, shared: Shared, left: Vec<Left>) -> Self {
        Self { name, shared, left, starting: None, unit: None, output: None }
    }

    /// Follows the state until nothing of this name is wanted or left, or all workloads end.
    pub(super) async fn run(mut self) {
        loop {
            // Marked as seen, so a change during the work below starts another round.
            let tree = self.shared.tree.borrow_and_update().clone();
            // Of the effective state: its fields are rendered, and its agent is known.
            let wanted = self.wanted(&tree);
            self.remove_left(wanted.as_ref()).await;
            self.remove_all_but(&tree, wanted.as_ref().map(|wanted| &wanted.instance)).await;
            if *self.shared.stop.borrow() {
                return;
            }
            match wanted {
                Some(wanted) => self.live(&tree, wanted).await,
                // A later workload of this name gets a new task. All tasks share one thread, so no
                // state arrives between this check and the end of the task.
                None if !self.shared.tree.has_changed().unwrap_or(false) => {
                    return self.shared.figures.forget(&self.name);
                }
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

    /// Removes what an earlier agent has left of this name, all but the wanted instance.
    async fn remove_left(&mut self, wanted: Option<&Wanted>) {
        let is_wanted = |left: &Left| {
            wanted.is_some_and(|wanted| {
                left.instance == wanted.instance && wanted.message.runtime() == left.runtime
            })
        };
        let (stay, go): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.left).into_iter().partition(is_wanted);
        self.left = stay;
        for left in go {
            let id = &left.instance.id;
            self.log(
                Level::Info,
                format_args!("{id} of an earlier agent is not wanted; it is ended"),
            );
            self.report(&left.instance, states::stop_requested());
            if let Ok(runtime) = self.shared.runtimes.get(left.runtime).cloned()
                && !self.remove(&*runtime, &left.instance).await
            {
                continue;
            }
            // It may be wanted from another runtime, and is started there next.
            self.forget(&left.instance).await;
        }
    }

    /// Removes all of an instance. Tries again until it is done; false if the agent ends before.
    async fn remove(&self, runtime: &dyn Runtime, instance: &Instance) -> bool {
        let mut delay = FIRST_DELAY;
        let mut stop = self.shared.stop.clone();
        while let Err(reason) = runtime.remove(instance).await {
            self.log(Level::Warn, format_args!("cannot be removed: {}", Quoted(&reason)));
            self.report(instance, states::delete_failed(reason));
            tokio::select! {
                () = sleep(delay) => {}
                _ = stop.wait_for(|stop| *stop) => return false,
            }
            delay = (delay * 2).min(LONGEST_DELAY);
        }
        true
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
                self.forget(&instance).await;
            }
        }
    }

    /// Runs one instance until the state wants another, or all workloads end.
    async fn live(&mut self, tree: &Tree, wanted: Wanted) {
        // The last state with this workload: its dependents may disappear together with it.
        let mut last = tree.clone();
        let runtime = self.shared.runtimes.get(wanted.message.runtime()).cloned();
        // A runtime that keeps the output has a log of its own.
        let keeps = runtime.as_ref().is_ok_and(|own| own.keeps_logs());
        let log = (!keeps).then(|| self.shared.logs.open(&wanted.instance)).flatten();
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
            never = self.keep_running(&wanted, &runtime, log.as_ref()) => match never {},
        }
        let condition = self.shared.stop_condition(&last, &self.name);
        self.end(&wanted, runtime.ok().as_deref(), &condition).await;
        if let Some(log) = log {
            log.finish();
        }
    }

    /// Starts a workload, and restarts it by its restart policy.
    async fn keep_running(
        &mut self,
        wanted: &Wanted,
        runtime: &Result<Arc<dyn Runtime>, StartError>,
        log: Option<&Log>,
    ) -> Infallible {
        // One that an earlier agent has left runs already, whatever it depends on.
        let runs = self.left.drain(..).any(|left| left.runs);
        let shared = &self.shared;
        if !runs && !shared.may_start(&shared.tree.borrow(), &wanted.workload) {
            self.report(&wanted.instance, states::waiting_to_start());
            let mut tree = shared.tree.clone();
            let _ = tree.wait_for(|tree| shared.may_start(tree, &wanted.workload)).await;
        }
        if !runs {
            self.report(&wanted.instance, states::starting("Triggered at runtime."));
        }
        let mut delay = FIRST_DELAY;
        let mut again = false;
        loop {
            if !self.start_with_retries(wanted, runtime, log).await {
                break;
            }
            self.shared.figures.count_start(&self.name, again);
            again = true;
            if self.unit.as_ref().is_none_or(|unit| !unit.has_ended()) {
                self.report(&wanted.instance, states::running());
            }
            let began = Instant::now();
            let end = self.until_end(&wanted.instance).await;
            self.unit = None;
            self.report_end(&wanted.instance, &end);
            if !restarts(&wanted.message, &end) {
                break;
            }
            if began.elapsed() >= HEALTHY_AFTER {
                delay = FIRST_DELAY;
            }
            sleep(delay).await;
            delay = (delay * 2).min(LONGEST_DELAY);
            self.report(&wanted.instance, states::starting(format!("Restart after {end}")));
        }
        self.drain().await;
        if let Some(log) = log {
            log.finish();
        }
        // The task stays here until the caller drops this future.
        pending().await
    }

    /// Waits for the end of the workload, and reports its states until then.
    async fn until_end(&mut self, instance: &Instance) -> Ended {
        loop {
            let change = match &mut self.unit {
                Some(unit) => unit.change().await,
                None => Change::Ended(Ended::lost("it is not there")),
            };
            match change {
                Change::State(state) => self.report(instance, state),
                Change::Ended(end) => return end,
            }
        }
    }

    /// Waits for the last output of the process.
    async fn drain(&mut self) {
        if let Some(output) = self.output.take() {
            output.drained().await;
        }
    }

    fn report_end(&self, instance: &Instance, end: &Ended) {
        self.log(Level::Info, format_args!("ended: {end}"));
        self.report(instance, end.state());
    }

    /// Starts the workload, with retries. Returns false after the reason was reported.
    async fn start_with_retries(
        &mut self,
        wanted: &Wanted,
        runtime: &Result<Arc<dyn Runtime>, StartError>,
        log: Option<&Log>,
    ) -> bool {
        for retry in 1.. {
            let started = match runtime {
                Ok(runtime) => self.start(wanted, runtime, log).await,
                Err(error) => Err(error.clone()),
            };
            let Err(error) = started else { return true };
            let pause = runtime.as_ref().ok().and_then(|own| own.pause_before(retry));
            let (prefix, reason) = match (error, pause) {
                (StartError::Failed(reason), Some(pause)) => {
                    let info = format!("Retry {retry}: {}", wanted.told(&reason));
                    self.report(&wanted.instance, states::starting(info));
                    sleep(pause).await;
                    continue;
                }
                (StartError::Failed(reason), None) => ("No more retries: ", reason),
                (StartError::Wrong(reason), _) => ("", reason),
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
        runtime: &Arc<dyn Runtime>,
        log: Option<&Log>,
    ) -> Result<(), StartError> {
        self.check_rendered(wanted).await?;
        let order = Order {
            instance: wanted.instance.clone(),
            workload: wanted.message.clone(),
            folder: self.folder(&wanted.instance),
            pairs: self.shared.pairs.clone(),
            log: log.cloned(),
        };
        // In a task of its own: a start that is given up half way would be killed, and what it has created on
        // the node would stay.
        let start = tokio::spawn(Arc::clone(runtime).start(order));
        let done = self.starting.insert(start).await;
        self.starting = None;
        let Started { unit, output, taken_over } = started(done)?;
        let text = if taken_over { "taken over from an earlier agent" } else { "started" };
        self.log(Level::Info, format_args!("{text}"));
        self.unit = Some(unit);
        let logs = &self.shared.logs;
        match output {
            Output::Pipes(stdout, stderr) => {
                let name = self.name.clone();
                let lost = move |error: &io::Error| report_loss(&name, error);
                self.output = Some(Captured::begin(log.cloned(), stdout, stderr, lost));
            }
            Output::InLog => {}
            Output::Kept(kept) => logs.keep(&wanted.instance, kept),
        }
        Ok(())
    }

    /// Returns the fault of the rendering of a workload.
    async fn check_rendered(&self, wanted: &Wanted) -> Result<(), StartError> {
        if !render::is_unrendered(&wanted.workload) {
            return Ok(());
        }
        let (tree, name) = (self.shared.tree.borrow().clone(), self.name.clone());
        let fault = apart::start(apart::LARGE, move || render::fault_of(&tree, &name)).await;
        Err(StartError::Wrong(fault.unwrap_or_else(|| "it is not rendered".to_owned())))
    }

    fn folder(&self, instance: &Instance) -> PathBuf {
        self.shared.folder.join(model::folder_name(instance))
    }

    /// Stops the workload, and removes everything of the instance unless it goes on.
    async fn end(
        &mut self,
        wanted: &Wanted,
        runtime: Option<&dyn Runtime>,
        condition: &StopCondition,
    ) {
        let instance = &wanted.instance;
        let stopping = *self.shared.stop.borrow();
        if stopping
            && !*self.shared.ends_all.borrow()
            && runtime.is_some_and(Runtime::outlives_agent)
        {
            // The next agent of this name takes it over.
            return;
        }
        self.end_start(runtime).await;
        // All workloads end together with the agent, so dependents are not waited for then.
        if self.unit.is_some() && !stopping && !condition.is_met(&self.shared.tree.borrow()) {
            self.report(instance, states::waiting_to_stop());
            let (mut tree, mut stop) = (self.shared.tree.clone(), self.shared.stop.clone());
            tokio::select! {
                _ = tree.wait_for(|tree| condition.is_met(tree)) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        self.report(instance, states::stop_requested());
        let stopped = match self.unit.take() {
            Some(unit) => unit.stop(self.shared.grace).await.ok(),
            // It has ended by itself, and a part of it may still be there.
            None => None,
        };
        let is_gone = match (stopped, runtime) {
            (Some(how), _) => {
                self.log(Level::Info, format_args!("stopped: {how}"));
                true
            }
            (None, Some(runtime)) => self.remove(runtime, instance).await,
            (None, None) => true,
        };
        self.drain().await;
        let next = self.wanted(&self.shared.tree.borrow().clone());
        // Other fields of the instance have changed, or the agent ends: its pair and its log stay.
        if stopping || !is_gone || next.is_some_and(|next| next.instance == *instance) {
            return;
        }
        self.forget(instance).await;
    }

    /// Removes all that this agent keeps of an instance that has ended, and reports its removal.
    async fn forget(&self, instance: &Instance) {
        self.shared.pairs.close(instance).await;
        self.shared.logs.remove(instance);
        let folder = self.folder(instance);
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!("cannot remove {}: {error}", folder.display());
        }
        self.report(instance, states::removed());
    }

    /// Ends a start that is under way: waits for it, or gives it up.
    async fn end_start(&mut self, runtime: Option<&dyn Runtime>) {
        let Some(starting) = self.starting.take() else { return };
        if runtime.is_some_and(|own| !own.finishes_starts()) {
            starting.abort();
            // Its program is killed when the task has let go of it.
            let _ = starting.await;
            return;
        }
        // Without its output, whose reader is gone.
        self.unit = started(starting.await).ok().map(|started| started.unit);
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
fn started(done: Result<Result<Started, StartError>, JoinError>) -> Result<Started, StartError> {
    done.unwrap_or_else(|error| Err(StartError::Failed(error.to_string())))
}

/// Whether the restart policy restarts a workload after this end.
fn restarts(workload: &pb::Workload, end: &Ended) -> bool {
    if matches!(end, Ended::Lost { counts_as_failure: false, .. }) {
        return false;
    }
    match workload.restart_policy() {
        pb::RestartPolicy::Never => false,
        pb::RestartPolicy::OnFailure => *end != Ended::Succeeded,
        pb::RestartPolicy::Always => true,
    }
}
