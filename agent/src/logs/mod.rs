//! What workloads write to standard output and standard error: kept for a while, and told to whoever
//! asks (docs/protocol.md#logs).

mod campaign;
mod record;
mod segmented_log;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fifogate::state::Instance;
use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{ChildStderr, ChildStdout},
    task::JoinSet,
};

pub use campaign::Campaigns;
pub use segmented_log::Log;

use record::Lines;

/// Bytes that are taken from a workload's pipe at a time.
const READ_BUFFER: usize = 64 << 10;

/// What the last output of a process may take to its log. It is more than what readers may hold it
/// back.
const DRAIN: Duration = Duration::from_secs(15);

/// The logs of this agent's instances. Handles are cheap.
#[derive(Clone, Debug)]
pub struct Logs {
    folder: PathBuf,
    /// Most bytes of one instance.
    limit: u64,
    all: Arc<Mutex<BTreeMap<Instance, Log>>>,
}

impl Logs {
    /// Logs in a folder of their own, in which nothing is left from before. The folder above it is
    /// for nobody but us, so no name below it is anybody else's.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn new(folder: &Path, limit: u64) -> io::Result<Self> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => DirBuilder::new().mode(0o700).recursive(true).create(folder)?,
        }
        Ok(Self { folder: folder.to_owned(), limit, all: Arc::default() })
    }

    /// The log of an instance, which may be new; `None` if there is no place for it.
    #[must_use]
    pub fn open(&self, instance: &Instance) -> Option<Log> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = all.get(instance) {
            log.go_on();
            return Some(log.clone());
        }
        let folder = self.folder.join(format!("{}.{}", instance.workload, instance.id));
        match Log::create(&folder, self.limit) {
            Ok(log) => {
                all.insert(instance.clone(), log.clone());
                Some(log)
            }
            Err(error) => {
                log::error!("what {instance} writes is lost: {}: {error}", folder.display());
                None
            }
        }
    }

    fn get(&self, instance: &Instance) -> Option<Log> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(instance).cloned()
    }

    /// Forgets what an instance wrote.
    pub fn remove(&self, instance: &Instance) {
        let log = self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
        if let Some(log) = log {
            log.remove();
        }
    }

    /// Takes all that a process writes, until it has ended. Without a log it is thrown away, so that
    /// the process does not have to wait.
    #[must_use]
    pub fn capture(&self, log: Option<Log>, stdout: ChildStdout, stderr: ChildStderr) -> Captured {
        let mut streams = JoinSet::new();
        streams.spawn(copy(log.clone(), stdout));
        streams.spawn(copy(log, stderr));
        Captured(streams)
    }
}

/// What a process writes, on its way to its log.
#[derive(Debug)]
pub struct Captured(JoinSet<()>);

impl Captured {
    /// Waits until all of it is in the log, after the process has ended. Something that it left behind
    /// may still have its output open; that is not waited for.
    pub async fn drained(mut self) {
        let all = async { while self.0.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, all).await;
    }
}

async fn copy(log: Option<Log>, mut stream: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; READ_BUFFER];
    let mut lines = Lines::default();
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        let Some(log) = log.clone() else { if read == 0 { return } else { continue } };
        let micros = Timestamp::now().as_microsecond();
        let mut records = Vec::new();
        if read == 0 {
            lines.finish(|line| record::put(&mut records, micros, line));
        } else {
            lines.feed(&buffer[..read], |line| record::put(&mut records, micros, line));
        }
        if !records.is_empty() {
            log.make_room(records.len()).await;
            let kept = tokio::task::spawn_blocking(move || log.append(&records)).await;
            if let Ok(Err(error)) = kept {
                log::warn!("output of a workload is lost: {error}");
            }
        }
        if read == 0 {
            return;
        }
    }
}
