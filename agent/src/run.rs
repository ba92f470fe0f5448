//! `fifogate-agent run`: assembles an agent, runs it, and ends it in order: workloads, fifogate, store.
//!
//! Options of the command line go in; an error with its exit status comes out.

use std::{
    ffi::OsString,
    future::pending,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fifogate::link::{CallError, LinkError};
use tokio::{
    runtime::Builder,
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    cli::{CliError, ConfigFile},
    command_interface::{Certificates, Commanders, Interface, Listen, Settings},
    fence::{self, Ending},
    figures::Figures,
    http::{Bound, HttpArgs, Sources},
    link::GateConfig,
    log_text,
    logs::{Logs, OtherAgents},
    main_loop::{Agent, Parts},
    model,
    pairs::Pairs,
    reload::Reload,
    runtime::{Around, Inherited, Isolation, Launcher, PROCESS, Runtimes, podman_runtimes},
    service,
    signals::Signals,
    status,
    store::{Events, Store, ankaios, etcd},
    supervisor::{Reports, Shared, Supervisor},
};

mod opening;
mod own_folders;

use opening::{Manifest, open_store};
use own_folders::{Folders, hidden};

/// Time for work left after the end, such as writing to a slow disk.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Options of the command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) manifest: Option<PathBuf>,
    /// The manifest counts for a state that was kept, too.
    pub(crate) applies: bool,
    pub(crate) name: String,
    pub(crate) etcd: Option<etcd::Options>,
    pub(crate) server: Option<ankaios::Options>,
    /// The only runtimes to serve; `None` for all.
    pub(crate) runtimes: Option<Vec<String>>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) run_dir: PathBuf,
    pub(crate) fifogate: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) grace: Duration,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) ends_all: bool,
    pub(crate) keeps: bool,
    pub(crate) log_bytes: u64,
    pub(crate) listen: Listen,
    pub(crate) http: HttpArgs,
    pub(crate) gate_verbosity: Option<&'static str>,
    pub(crate) gate_options: Vec<OsString>,
}

/// Runs an agent until its end.
///
/// # Errors
/// It cannot run, or did not end in order.
pub(crate) fn run(options: Options, config: ConfigFile) -> Result<(), CliError> {
    // First: all files of the agent are private to its user, whichever code creates them.
    let inherited = Inherited::replace();
    let manifest = options.manifest.as_deref().map(|path| Manifest::read(path, &options));
    let manifest = manifest.transpose()?;
    // One thread: a shim ends with the thread of its start.
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(error.to_string()))?;
    // A task, as `block_on` would poll its own future only after looking for I/O.
    let files = Files { config, manifest };
    let node = runtime.spawn(async move { run_node(&options, files, inherited).await });
    let done = runtime.block_on(node);
    runtime.shutdown_timeout(LAST_PATIENCE);
    done.map_err(|error| CliError::Failed(error.to_string()))?
}

/// The files that were read at the start, and are read again by SIGHUP.
struct Files {
    config: ConfigFile,
    manifest: Option<Manifest>,
}

async fn run_node(options: &Options, files: Files, inherited: Inherited) -> Result<(), CliError> {
    // From here on a signal ends everything in order, or is remembered.
    let mut signals = Signals::catch().map_err(failed)?;
    let reload = Arc::new(Notify::new());
    let folders = Folders::open(options)?;
    let http = Bound::open(&options.http).await.map_err(failed)?;
    let opened = tokio::select! {
        opened = open_store(options, &folders.alone, files.manifest.as_ref()) => opened,
        // Waiting for the name may take long.
        name = signals.stop(&reload) => {
            log::info!("stopping: {name}");
            return Ok(());
        }
    };
    let (store, events) = opened?;
    // Before any workload starts: from now on no process outlives the agent's name.
    let ending = guarded(options, &store).map_err(failed)?;
    let runtimes = tokio::select! {
        found = runtimes(options, &folders, inherited) => found?,
        name = signals.stop(&reload) => {
            log::info!("stopping: {name}");
            return Ok(());
        }
    };
    let (parts, stop) = assemble(options, &folders, &runtimes, (store.clone(), events))?;
    tokio::spawn(log_text::count_for_ever());
    let (mut agent, interface, certificates) = serve(options, &folders, parts, http).await?;
    let tasks = Tasks::begin(options, files, &store, certificates, Arc::clone(&reload));
    log::info!("{} runs; pairs are in {}", options.name, options.run_dir.display());
    service::ready(&format!("{} is running", options.name));
    let (mut reason, mut refused) = (None, None);
    let stopped = async {
        tokio::select! {
            name = signals.stop(&reload) => log::info!("stopping: {name}"),
            text = has_to_end(ending, &runtimes) => {
                log::info!("stopping");
                reason = Some(text);
            }
            text = store.refused() => {
                log::info!("stopping");
                refused = Some(text);
            }
        }
    };
    agent.run(stopped).await;
    service::stopping();
    tasks.end();
    interface.finish().await;
    // An agent that loses its name leaves nothing to another one of this name.
    stop.ends_all.send_replace(options.ends_all || reason.is_some());
    stop.stop.send_replace(true);
    let finished = finish(agent, options.grace).await;
    // Last: it gives the name up to other agents (docs/etcd.md#one-name-one-agent).
    let all_ended = finished.is_ok() && (!options.keeps || reason.is_some());
    store.close(all_ended).await;
    reason.or(refused).map_or(finished, |text| Err(CliError::Failed(text)))
}

/// Starts the agent, and serves those who command it and look at it.
async fn serve(
    options: &Options,
    folders: &Folders,
    parts: Parts,
    http: Bound,
) -> Result<(Agent, Interface, Certificates), CliError> {
    let commanders = parts.commanders.clone();
    let gate = parts.gate.subscribe();
    let (store, logs) = (parts.store.clone(), parts.logs.clone());
    let sources = Sources::of(&parts);
    let agent = Agent::start(parts).await.map_err(|error| no_gate(options, &error))?;
    // After fifogate: the first client is served at once.
    let settings =
        Settings { listen: &options.listen, run_dir: &folders.run.path, commanders, gate };
    let (interface, certificates) = Interface::serve(settings).await.map_err(failed)?;
    http.serve(sources).map_err(failed)?;
    store.serve_logs(&logs).await;
    Ok((agent, interface, certificates))
}

/// What goes on beside the main loop.
struct Tasks([JoinHandle<()>; 2]);

impl Tasks {
    fn begin(
        options: &Options,
        Files { config, manifest }: Files,
        store: &Store,
        certificates: Certificates,
        asked: Arc<Notify>,
    ) -> Self {
        // The status of this node is there for the first reads of workloads.
        let status = tokio::spawn(status::report(store.clone(), options.name.clone()));
        let reload = Reload {
            agent: options.name.clone(),
            config: Arc::new(config),
            certificates,
            manifest: manifest.map(Manifest::into_file),
            store: store.clone(),
        };
        Self([status, tokio::spawn(reload.serve(asked))])
    }

    fn end(self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

fn failed(error: io::Error) -> CliError {
    CliError::Failed(error.to_string())
}

async fn runtimes(
    options: &Options,
    folders: &Folders,
    inherited: Inherited,
) -> Result<Runtimes, CliError> {
    let hidden = hidden(&folders.run, folders.state.as_ref()).map_err(failed)?;
    let around = Around {
        agent: options.name.clone(),
        folder: folders.run.path.join("agent"),
        hidden,
        inherited,
        keeps: options.keeps,
        log_bytes: options.log_bytes,
        grace: options.grace,
    };
    let is_served =
        |name: &str| options.runtimes.as_ref().is_none_or(|all| all.iter().any(|own| own == name));
    let mut runtimes = Runtimes::default();
    if is_served(PROCESS) {
        let launcher = Launcher::probe(options.program.clone(), around, options.isolation)
            .map_err(|error| CliError::Failed(format!("cannot start workloads: {error}")))?;
        runtimes.add(PROCESS, Arc::new(launcher));
    }
    for (name, runtime) in podman_runtimes(&options.name, &folders.run.path).await {
        if is_served(name) {
            runtimes.add(name, runtime);
        }
    }
    Ok(runtimes)
}

/// Ends all workloads.
struct Stop {
    /// Whether those end, too, that could go on without the agent.
    ends_all: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

/// Makes the parts of the agent, and what ends its workloads.
fn assemble(
    options: &Options,
    folders: &Folders,
    runtimes: &Runtimes,
    (store, events): (Store, Events),
) -> Result<(Parts, Stop), CliError> {
    let Folders { run, state, .. } = folders;
    let run_dir = run.path.clone();
    let folder = run_dir.join("agent");
    let logs = open_logs(options, state.as_ref().map_or(&folder, |state| &state.path), runtimes)?;
    let (follow, tree) = watch::channel(model::empty());
    let (gate, follow_gate) = watch::channel(None);
    let (stop, stopped) = watch::channel(false);
    let (ends_all, follow_ends_all) = watch::channel(false);
    let (reports, figures) = (Reports::default(), Figures::default());
    let pairs = Pairs::new(&run_dir, follow_gate);
    let supervisor = Supervisor::new(Shared {
        agent: options.name.clone(),
        tree,
        pairs: pairs.clone(),
        runtimes: runtimes.clone(),
        ends_all: follow_ends_all,
        logs: logs.clone(),
        folder,
        grace: options.grace,
        stop: stopped,
        reports: reports.clone(),
        figures: figures.clone(),
        delete_conditions: store.delete_conditions(),
    });
    let config = GateConfig {
        program: options.fifogate.clone(),
        run_dir,
        agent_name: options.name.clone(),
        verbosity: options.gate_verbosity,
        options: options.gate_options.clone(),
        keeps_old_pairs: runtimes.may_have_left(),
    };
    tokio::spawn(reports.deliver(store.clone()));
    let first_state = opening::first_state(options, &store);
    let commanders = Commanders::default();
    let other_agents = OtherAgents::new(store.clone(), options.listen.pems.clone());
    let parts = Parts {
        config,
        store,
        events,
        follow,
        gate,
        pairs,
        logs,
        other_agents,
        commanders,
        supervisor,
        figures,
        first_state,
    };
    Ok((parts, Stop { ends_all, stop }))
}

/// Starts the watchdog of the lease, if there is one: workloads end if the name cannot be kept.
fn guarded(
    options: &Options,
    store: &Store,
) -> io::Result<Option<watch::Receiver<Option<Ending>>>> {
    let lease = store.lease();
    let start = |lease| fence::start(lease, &options.program, &options.name, options.grace);
    lease.map(start).transpose()
}

/// Waits until everything is to end in order, and returns the reason. If time is too short for it, ends
/// this process: its workloads end with it.
async fn has_to_end(
    ending: Option<watch::Receiver<Option<Ending>>>,
    runtimes: &Runtimes,
) -> String {
    let Some(mut ending) = ending else { return pending().await };
    let ending = ending.wait_for(Option::is_some).await.ok().and_then(|ending| ending.clone());
    match ending {
        Some(Ending::InOrder(text)) => text,
        Some(Ending::AtOnce(text)) => {
            let _ = writeln!(io::stderr().lock(), "error: {text}; all workloads are ended");
            runtimes.abandon_all();
            // Nothing is dropped on the way: each shim ends its process when its socket closes.
            std::process::exit(1)
        }
        None => pending().await,
    }
}

fn open_logs(options: &Options, folder: &Path, runtimes: &Runtimes) -> Result<Logs, CliError> {
    let folder = folder.join("logs");
    let left = runtimes.left().into_iter().map(|left| left.instance).collect();
    Logs::new(&folder, options.log_bytes, &left)
        .map_err(|error| CliError::Failed(format!("{}: {error}", folder.display())))
}

fn no_gate(options: &Options, error: &CallError) -> CliError {
    let program = options.fifogate.display();
    CliError::Failed(match error {
        // A fifogate that refuses to serve has printed its reason already.
        CallError::Link(LinkError::NoHello) => format!(
            "{program} ended before it greeted; if it printed no error above, is --fifogate right?"
        ),
        _ => format!("{program} cannot be started: {error}; is --fifogate right?"),
    })
}

async fn finish(agent: Agent, grace: Duration) -> Result<(), CliError> {
    // Processes are killed at the end of their grace. Containers have a time of their own, and it is not known here.
    let patience = grace * 2 + Duration::from_secs(30);
    let late = |_| CliError::Failed("not all workloads ended in time".to_owned());
    timeout(patience, agent.finish()).await.map_err(late)
}
