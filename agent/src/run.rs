//! `fifogate-agent run`: puts a node together, runs it, and ends it in the right order.

use std::{
    ffi::OsString,
    fmt, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fifogate::{manifest, state::Tree};
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
    link::GateConfig,
    log_text,
    logs::Logs,
    model,
    node::{Node, Parts},
    pairs::Pairs,
    runtime::{Isolation, Launcher},
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
    let seed = options.manifest.as_deref().map(read_manifest).transpose()?;
    // One thread: a workload's keeper ends with the thread that started it.
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(error.to_string()))?;
    // A task like all others: what a runtime blocks on is polled only when it has looked for I/O.
    let node = runtime.spawn(async move { run_node(&options, seed.as_ref()).await });
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

async fn run_node(options: &Options, seed: Option<&Tree>) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::Failed(error.to_string());
    // From here on a signal ends all in order.
    let terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let run_dir = make_folder(&options.run_dir)?;
    let _alone = lock(&run_dir)?;
    let (store, events) = open_store(options, seed).await?;
    let folder = run_dir.join("agent");
    let log_folder = options.state_dir.as_deref().unwrap_or(&folder).join("logs");
    let logs = Logs::new(&log_folder, options.log_bytes)
        .map_err(|error| CliError::Failed(format!("{}: {error}", log_folder.display())))?;
    let launcher =
        Launcher::probe(options.program.clone(), vec![run_dir.clone()], options.isolation)
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
    tokio::spawn(log_text::count_for_ever());
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

/// Sees to it that nobody else runs workloads from this folder, as long as what is given back lives.
fn lock(run_dir: &Path) -> Result<Flock<fs::File>, CliError> {
    let path = run_dir.join("agent/lock");
    let named = |what: &dyn fmt::Display| CliError::Failed(format!("{}: {what}", path.display()));
    let file = fs::File::create(&path).map_err(|error| named(&error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EAGAIN => named(&"another agent runs here: stop it, or give another --run-dir"),
        errno => named(&errno),
    })
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

/// The folder, which exists then, by a path that holds wherever a workload begins.
fn make_folder(path: &Path) -> Result<PathBuf, CliError> {
    let named = |error: io::Error| {
        CliError::Failed(format!("cannot make run directory {}: {error}", path.display()))
    };
    // For nobody else: what is in it is who may say what.
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path.join("agent")).map_err(named)?;
    fs::canonicalize(path).map_err(named)
}
