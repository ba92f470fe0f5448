//! `fifogate-agent run`: puts a node together, runs it, and ends it in the right order.

use std::{
    ffi::OsString,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fifogate::{manifest, state::Tree};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::stat::{Mode, umask},
};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};

use crate::{
    cli::CliError,
    folders::{Private, Readable},
    link::GateConfig,
    logs::Logs,
    model,
    node::{Node, Parts},
    pairs::Pairs,
    runtime::{Around, Hidden, Isolation, Launcher},
    status,
    store::{Etcd, Events, Local, OpenError, Store, etcd},
    supervisor::{Reports, Shared, Supervisor},
};

/// What may be left to do when all has ended, such as writing to a disk that is slow.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) manifest: Option<PathBuf>,
    pub(crate) name: String,
    pub(crate) etcd: Option<etcd::Options>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) run_dir: PathBuf,
    pub(crate) fifogate: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) grace: Duration,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) log_bytes: u64,
    pub(crate) gate_options: Vec<OsString>,
}

pub(crate) fn run(options: Options) -> Result<(), CliError> {
    // All that the agent makes is for its user alone, whoever makes it and however.
    let umask = umask(Mode::from_bits_truncate(0o077)).bits();
    let seed = options.manifest.as_deref().map(read_manifest).transpose()?;
    // One thread: a workload's keeper ends with the thread that started it.
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(error.to_string()))?;
    // A task like all others: what a runtime blocks on is polled only when it has looked for I/O.
    let node = runtime.spawn(async move { run_node(&options, seed.as_ref(), umask).await });
    let done = runtime.block_on(node);
    runtime.shutdown_timeout(LAST_PATIENCE);
    done.map_err(|error| CliError::Failed(error.to_string()))?
}

fn read_manifest(path: &Path) -> Result<Tree, CliError> {
    let manifest = manifest::read(path).map_err(|error| CliError::Unusable(error.to_string()))?;
    for warning in &manifest.warnings {
        log::warn!("{warning}");
    }
    Ok(manifest.updated.tree)
}

async fn run_node(options: &Options, seed: Option<&Tree>, umask: u32) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::Failed(error.to_string());
    // From here on a signal ends all in order.
    let terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let Folders { run, state, alone: _alone } = Folders::open(options)?;
    let run_dir = run.path.clone();
    let (store, events) = open_store(options, seed).await?;
    let folder = run_dir.join("agent");
    let log_folder = state.as_ref().map_or(&folder, |state| &state.path).join("logs");
    let logs = Logs::new(&log_folder, options.log_bytes)
        .map_err(|error| CliError::Failed(format!("{}: {error}", log_folder.display())))?;
    let around = Around { hidden: hidden(&run, state.as_ref()).map_err(failed)?, umask };
    let launcher = Launcher::probe(options.program.clone(), around, options.isolation)
        .map_err(|error| CliError::Failed(format!("cannot start workloads: {error}")))?;
    let (follow, tree) = watch::channel(model::empty());
    let (gate, follow_gate) = watch::channel(None);
    let (stop, stopped) = watch::channel(false);
    let reports = Reports::default();
    let pairs = Pairs::new(&run_dir, follow_gate);
    let supervisor = Supervisor::new(Shared {
        agent: options.name.clone(),
        tree,
        pairs: pairs.clone(),
        launcher: Arc::new(launcher),
        logs: logs.clone(),
        folder,
        grace: options.grace,
        stop: stopped,
        reports: reports.clone(),
    });
    let config = GateConfig {
        program: options.fifogate.clone(),
        run_dir,
        agent_name: options.name.clone(),
        options: options.gate_options.clone(),
    };
    tokio::spawn(reports.deliver(store.clone()));
    let parts =
        Parts { config, store: store.clone(), events, follow, gate, pairs, logs, supervisor };
    let mut node = Node::start(parts).await.map_err(|error| no_gate(options, &error))?;
    // This node is there when the first workload looks.
    let status = tokio::spawn(status::report(store.clone(), options.name.clone()));
    log::info!("{} runs; pairs are in {}", options.name, options.run_dir.display());
    node.run(stopped_by_signal(terminate, interrupt)).await;
    log::info!("stopping");
    status.abort();
    stop.send_replace(true);
    let finished = finish(node, options.grace).await;
    store.close().await;
    finished
}

fn no_gate(options: &Options, error: &io::Error) -> CliError {
    let program = options.fifogate.display();
    CliError::Failed(format!("{program} cannot be started: {error}; is --fifogate right?"))
}

async fn stopped_by_signal(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn finish(node: Node, grace: Duration) -> Result<(), CliError> {
    // Workloads that do not end are killed when their time is over; more than that is a defect.
    let patience = grace * 2 + Duration::from_secs(10);
    let late = |_| CliError::Failed("not all workloads ended in time".to_owned());
    timeout(patience, node.finish()).await.map_err(late)
}

/// The agent's own folders. They are checked before anything in them is looked at.
struct Folders {
    run: Private,
    state: Option<Private>,
    /// Sees to it that nobody else runs workloads from the run directory.
    alone: Flock<fs::File>,
}

impl Folders {
    fn open(options: &Options) -> Result<Self, CliError> {
        let run_dir = options.run_dir.display();
        let named =
            |error| CliError::Failed(format!("cannot make run directory {run_dir}: {error}"));
        // fifogate refuses one that others could read, too.
        let run = Private::open(&options.run_dir, Readable::Refused).map_err(named)?;
        let state = options.state_dir.as_deref().map(|path| Private::open(path, Readable::Closed));
        let state = state
            .transpose()
            .map_err(|error| CliError::Failed(format!("cannot keep the state: {error}")))?;
        let agent = run.folder("agent").map_err(named)?;
        let alone = lock(&agent)?;
        Ok(Self { run, state, alone })
    }
}

fn lock(folder: &Private) -> Result<Flock<fs::File>, CliError> {
    let file = folder.file("lock").map_err(|error| CliError::Failed(error.to_string()))?;
    let path = folder.path.join("lock");
    let named = |what: &dyn fmt::Display| CliError::Failed(format!("{}: {what}", path.display()));
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EAGAIN => named(&"another agent runs here: stop it, or give another --run-dir"),
        errno => named(&errno),
    })
}

/// The folders that no workload is to see, without those that are in another of them.
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

async fn open_store(options: &Options, seed: Option<&Tree>) -> Result<(Store, Events), CliError> {
    let opened = match &options.etcd {
        Some(etcd) => Etcd::open(etcd.clone(), seed).await,
        None => Local::open(seed, options.state_dir.as_deref()),
    };
    opened.map_err(|error| match (&error, &options.manifest) {
        (OpenError::Seed(_), Some(file)) => {
            CliError::Unusable(format!("{}: {error}", file.display()))
        }
        _ => CliError::Failed(format!("cannot keep the state: {error}")),
    })
}
