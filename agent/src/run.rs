//! `fifogate-agent run`: puts a node together, runs it, and ends it in the right order.

use std::{
    ffi::OsString,
    fmt, fs,
    future::pending,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
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
    fence::{self, Ending},
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
    let mut signals = Signals::catch().map_err(failed)?;
    let run_dir = make_folder(&options.run_dir)?;
    let alone = lock(&run_dir)?;
    let opened = tokio::select! {
        opened = open_store(options, &alone, seed) => opened,
        // It may wait long for its name.
        () = signals.wait() => return Ok(()),
    };
    let (store, events) = opened?;
    let ending = guarded(options, &store).map_err(failed)?;
    let folder = run_dir.join("agent");
    let logs = open_logs(options, &folder)?;
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
    let mut reason = None;
    let stopped = async {
        tokio::select! {
            () = signals.wait() => {}
            text = has_to_end(ending) => reason = Some(text),
        }
    };
    node.run(stopped).await;
    log::info!("stopping");
    status.abort();
    stop.send_replace(true);
    let finished = finish(node, options.grace).await;
    store.close().await;
    reason.map_or(finished, |text| Err(CliError::Failed(text)))
}

/// From when on workloads end if our name cannot be kept.
fn guarded(
    options: &Options,
    store: &Store,
) -> io::Result<Option<watch::Receiver<Option<Ending>>>> {
    let lease = store.lease();
    let start = |lease| fence::start(lease, &options.program, &options.name, options.grace);
    lease.map(start).transpose()
}

/// Waits until all is to end in order, and gives the reason. If there is no time for that, ends this
/// process: its workloads end with it.
async fn has_to_end(ending: Option<watch::Receiver<Option<Ending>>>) -> String {
    let Some(mut ending) = ending else { return pending().await };
    let ending = ending.wait_for(Option::is_some).await.ok().and_then(|ending| ending.clone());
    match ending {
        Some(Ending::InOrder(text)) => text,
        Some(Ending::AtOnce(text)) => {
            let _ = writeln!(io::stderr().lock(), "error: {text}; all workloads are ended");
            // Nothing is to be dropped on the way: keepers end all that they keep when their sockets
            // close.
            std::process::exit(1)
        }
        None => pending().await,
    }
}

fn open_logs(options: &Options, folder: &Path) -> Result<Logs, CliError> {
    let folder = options.state_dir.as_deref().unwrap_or(folder).join("logs");
    Logs::new(&folder, options.log_bytes)
        .map_err(|error| CliError::Failed(format!("{}: {error}", folder.display())))
}

fn no_gate(options: &Options, error: &io::Error) -> CliError {
    let program = options.fifogate.display();
    CliError::Failed(format!("{program} cannot be started: {error}; is --fifogate right?"))
}

/// The signals that end the agent in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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

/// Where this process runs: another process can find out whether it still does.
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
