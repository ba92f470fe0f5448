//! `fifogate-agent run`: assembles an agent, runs it, and ends it in order: workloads, fifogate, store.
//!
//! Options of the command line go in; an error with its exit status comes out.

use std::{
    ffi::OsString,
    fmt, fs,
    future::pending,
    io::{self, Write},
    mem,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fifogate::{
    link::{CallError, LinkError},
    manifest,
    state::Tree,
};
use log::Level;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};

use crate::{
    cli::CliError,
    command_interface::{Commanders, Interface, Listen, Settings},
    fence::{self, Ending},
    figures::Figures,
    folders::{Private, Readable},
    http::{Bound, HttpArgs, Sources},
    link::GateConfig,
    log_text,
    logs::{Logs, OtherAgents},
    main_loop::{Agent, FirstState, Parts},
    model,
    pairs::Pairs,
    runtime::{Around, Hidden, Inherited, Isolation, Launcher, PROCESS, Runtimes, podman_runtimes},
    service, status,
    store::{Ankaios, Etcd, Events, Local, OpenError, Store, ankaios, etcd},
    supervisor::{Reports, Shared, Supervisor},
};

/// Time for work left after the end, such as writing to a slow disk.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Options of the command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) manifest: Option<PathBuf>,
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

pub(crate) fn run(options: Options) -> Result<(), CliError> {
    // First: all files of the agent are private to its user, whichever code creates them.
    let inherited = Inherited::replace();
    let seed = options.manifest.as_deref().map(read_manifest).transpose()?;
    // One thread: a shim ends with the thread of its start.
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(error.to_string()))?;
    // A task, as `block_on` would poll its own future only after looking for I/O.
    let node = runtime.spawn(async move { run_node(&options, seed.as_ref(), inherited).await });
    let done = runtime.block_on(node);
    runtime.shutdown_timeout(LAST_PATIENCE);
    done.map_err(|error| CliError::Failed(error.to_string()))?
}

fn read_manifest(path: &Path) -> Result<Tree, CliError> {
    let manifest =
        manifest::read_or_stdin(path).map_err(|error| CliError::Unusable(error.to_string()))?;
    for warning in &manifest.warnings {
        log::warn!("{warning}");
    }
    Ok(manifest.updated.tree)
}

async fn run_node(
    options: &Options,
    seed: Option<&Tree>,
    inherited: Inherited,
) -> Result<(), CliError> {
    // From here on a signal ends everything in order.
    let mut signals = Signals::catch().map_err(failed)?;
    let folders = Folders::open(options)?;
    let http = Bound::open(&options.http).await.map_err(failed)?;
    let opened = tokio::select! {
        opened = open_store(options, &folders.alone, seed) => opened,
        // Waiting for the name may take long.
        name = signals.wait() => {
            log::info!("stopping: {name}");
            return Ok(());
        }
    };
    let (store, events) = opened?;
    // Before any workload starts: from now on no process outlives the agent's name.
    let ending = guarded(options, &store).map_err(failed)?;
    let runtimes = tokio::select! {
        found = runtimes(options, &folders, inherited) => found?,
        name = signals.wait() => {
            log::info!("stopping: {name}");
            return Ok(());
        }
    };
    let (parts, stop) = assemble(options, &folders, &runtimes, (store.clone(), events))?;
    tokio::spawn(log_text::count_for_ever());
    let commanders = parts.commanders.clone();
    let gate = parts.gate.subscribe();
    let logs = parts.logs.clone();
    let sources = Sources::of(&parts);
    let mut agent = Agent::start(parts).await.map_err(|error| no_gate(options, &error))?;
    // After fifogate: the first client is served at once.
    let settings =
        Settings { listen: &options.listen, run_dir: &folders.run.path, commanders, gate };
    let interface = Interface::serve(settings).await.map_err(failed)?;
    http.serve(sources).map_err(failed)?;
    // The status of this node is there for the first reads of workloads.
    let status = tokio::spawn(status::report(store.clone(), options.name.clone()));
    log::info!("{} runs; pairs are in {}", options.name, options.run_dir.display());
    service::ready(&format!("{} is running", options.name));
    store.serve_logs(&logs).await;
    let (mut reason, mut refused) = (None, None);
    let stopped = async {
        tokio::select! {
            name = signals.wait() => log::info!("stopping: {name}"),
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
    status.abort();
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
    let first_state = first_state(options, &store);
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

fn first_state(options: &Options, store: &Store) -> FirstState {
    if options.etcd.is_some() {
        return FirstState { source: "state in etcd", level: Level::Info };
    }
    if options.server.is_some() {
        return FirstState { source: "state of the server", level: Level::Info };
    }
    let source = if store.is_seeded() { "manifest" } else { "kept state" };
    FirstState { source, level: Level::Warn }
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

/// Signals for an end in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        // Ignored if `nohup` started this agent: the end of a terminal is not to end it.
        let hangup = (!is_hangup_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { terminate, interrupt, hangup })
    }

    /// Waits for one of them, and returns its name.
    async fn wait(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }
}

fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    // SIGHUP is signal 1, in the lowest bit.
    ignored.is_some_and(|set| set & 1 == 1)
}

async fn finish(agent: Agent, grace: Duration) -> Result<(), CliError> {
    // Processes are killed at the end of their grace. Containers have a time of their own, and it is not known here.
    let patience = grace * 2 + Duration::from_secs(30);
    let late = |_| CliError::Failed("not all workloads ended in time".to_owned());
    timeout(patience, agent.finish()).await.map_err(late)
}

/// The agent's own folders, checked before anything in them is read.
struct Folders {
    run: Private,
    state: Option<Private>,
    /// Lock against other agents in the same run directory.
    alone: Flock<fs::File>,
}

impl Folders {
    fn open(options: &Options) -> Result<Self, CliError> {
        let run_dir = options.run_dir.display();
        let named =
            |error| CliError::Failed(format!("cannot make run directory {run_dir}: {error}"));
        // fifogate refuses a folder readable by others, too.
        let run = Private::open(&options.run_dir, Readable::Refused).map_err(named)?;
        let state = options.state_dir.as_deref().map(|path| Private::open(path, Readable::Closed));
        let state = state
            .transpose()
            .map_err(|error| CliError::Failed(format!("cannot keep the state: {error}")))?;
        let agent = run.folder("agent").map_err(named)?;
        // Before the store is opened: a second agent here changes nothing in it.
        let alone = lock(&agent)?;
        Ok(Self { run, state, alone })
    }
}

/// Time for an agent that was just killed to let go of its lock: its process ends some time after the signal.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two attempts to take the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn lock(folder: &Private) -> Result<Flock<fs::File>, CliError> {
    let file = folder.file("lock").map_err(|error| CliError::Failed(error.to_string()))?;
    let path = folder.path.join("lock");
    let named = |what: &dyn fmt::Display| CliError::Failed(format!("{}: {what}", path.display()));
    let end = Instant::now() + LOCK_PATIENCE;
    let (mut file, mut waits) = (file, false);
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EAGAIN)) if Instant::now() < end => file = again,
            Err((_, Errno::EAGAIN)) => {
                let text = "another agent runs here: stop it, or give another --run-dir";
                return Err(named(&text));
            }
            Err((_, errno)) => return Err(named(&errno)),
        }
        if !mem::replace(&mut waits, true) {
            log::info!(
                "{} is locked by another agent: waiting up to {LOCK_PATIENCE:?} for its end",
                path.display()
            );
        }
        thread::sleep(LOCK_PAUSE);
    }
}

/// The folders to hide from workloads, without those inside of another one.
fn hidden(run: &Private, state: Option<&Private>) -> io::Result<Vec<Hidden>> {
    let all: Vec<&Private> = [Some(run), state].into_iter().flatten().collect();
    let is_within = |own: &Private, other: &Private| {
        own.path != other.path && own.path.starts_with(&other.path)
    };
    let mut found: Vec<Hidden> = Vec::new();
    for own in &all {
        let again = found.iter().any(|known| known.path == own.path);
        if !again && !all.iter().any(|other| is_within(own, other)) {
            let metadata = fs::File::from(own.fd.try_clone()?).metadata()?;
            found.push(Hidden { path: own.path.clone(), file: (metadata.dev(), metadata.ino()) });
        }
    }
    Ok(found)
}

/// Place of this process: another process can check whether it still runs.
fn place(lock: &Flock<fs::File>) -> etcd::Place {
    let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let file = lock.metadata().map(|own| format!("{}:{}", own.dev(), own.ino()));
    etcd::Place {
        machine: read("/etc/machine-id"),
        boot: read("/proc/sys/kernel/random/boot_id"),
        lock: file.unwrap_or_default(),
    }
}

async fn open_store(
    options: &Options,
    alone: &Flock<fs::File>,
    seed: Option<&Tree>,
) -> Result<(Store, Events), CliError> {
    if let Some(server) = &options.server {
        let opened = Ankaios::open(server.clone()).await;
        return opened.map_err(|refused| CliError::Failed(refused.to_string()));
    }
    let opened = match &options.etcd {
        Some(etcd) => {
            let etcd = etcd::Options { place: place(alone), ..etcd.clone() };
            Etcd::open(etcd, seed).await
        }
        None => Local::open(seed, options.state_dir.as_deref()),
    };
    opened.map_err(|error| match (&error, &options.manifest) {
        (OpenError::Seed(_), Some(file)) => {
            CliError::Unusable(format!("{}: {error}", file.display()))
        }
        // It names etcd and what is wrong with it.
        _ if options.etcd.is_some() => CliError::Failed(format!("cannot use {error}")),
        _ => CliError::Failed(format!("cannot keep the state: {error}")),
    })
}
