//! Logs of workloads: standard output and standard error, kept up to a bound, and sent on request
//! (docs/protocol.md#logs).
//!
//! The output pipes of processes go in; lines with their times come out through campaigns. A process
//! waits for slow readers only for a bounded time, and never for want of a log.

mod campaign;
mod elsewhere;
mod kept;
mod record;
mod segmented_log;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, DirBuilder},
    future::poll_fn,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, ready},
    time::Duration,
};

use fifogate::{pb::ank_base::LogsRequest, state::Instance};
use jiff::Timestamp;
use log::Level;
use tokio::{
    io::{AsyncRead, ReadBuf},
    process::{ChildStderr, ChildStdout, Command},
    task::JoinSet,
};

pub use campaign::{Campaigns, Requested};
pub(crate) use campaign::{Collector, serve};
pub use elsewhere::OtherAgents;
pub use segmented_log::{Ends, Layout, Log};

use crate::{
    log_text::{self, Quoted},
    model,
};
use record::Lines;

/// Bytes read from a workload's pipe at a time.
const READ_BUFFER: usize = 64 << 10;

/// Time for the last output of a process to reach its log. It is longer than readers may hold it back.
pub(crate) const DRAIN: Duration = Duration::from_secs(15);

/// The output of a workload that its runtime keeps.
pub trait KeptLog: fmt::Debug + Send + Sync {
    /// The command that prints the lines of a request; its times are valid. It ends with the output if
    /// the request follows it.
    fn command(&self, request: &LogsRequest) -> Command;
}

/// The log of an instance.
#[derive(Clone, Debug)]
enum Source {
    /// Kept by this agent.
    Own(Log),
    /// Kept by the runtime.
    Kept(Arc<dyn KeptLog>),
}

/// The logs of this agent's instances. Handles are cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs {
    folder: PathBuf,
    /// Bound on the bytes kept for one instance.
    limit: u64,
    all: Arc<Mutex<BTreeMap<Instance, Source>>>,
}

impl Logs {
    /// Creates the folder of all logs, and removes those of an earlier agent but for the instances that are
    /// `left`. The folder above it is private to our user, so no name below it belongs to others.
    ///
    /// # Errors
    /// The folder cannot be created or read, or a log in it cannot be removed.
    pub fn new(folder: &Path, limit: u64, left: &BTreeSet<Instance>) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
        let stay: BTreeSet<_> = left.iter().map(model::folder_name).collect();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| stay.contains(name)) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { folder: folder.to_owned(), limit, all: Arc::default() })
    }

    /// Opens the log of an instance, or creates it; `None` if it cannot be created.
    #[must_use]
    pub fn open(&self, instance: &Instance) -> Option<Log> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Source::Own(log)) = all.get(instance) {
            // The instance starts again, so its readers wait for further lines.
            log.go_on();
            return Some(log.clone());
        }
        let folder = self.folder.join(model::folder_name(instance));
        match Log::open(&folder, self.limit) {
            Ok(log) => {
                all.insert(instance.clone(), Source::Own(log.clone()));
                Some(log)
            }
            Err(error) => {
                log::error!("the output of {instance} is lost: {}: {error}", folder.display());
                None
            }
        }
    }

    /// Notes that the runtime keeps the log of an instance.
    pub fn keep(&self, instance: &Instance, log: Arc<dyn KeptLog>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(instance.clone(), Source::Kept(log));
    }

    fn get(&self, instance: &Instance) -> Option<Source> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(instance).cloned()
    }

    /// Removes the log of an instance, with its files.
    pub fn remove(&self, instance: &Instance) {
        let log = self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
        match log {
            Some(Source::Own(log)) => log.remove(),
            Some(Source::Kept(_)) => {}
            // One that an earlier agent has left, perhaps.
            None => _ = fs::remove_dir_all(self.folder.join(model::folder_name(instance))),
        }
    }
}

/// The output of a process on its way to the log.
#[derive(Debug)]
pub struct Captured(JoinSet<()>);

impl Captured {
    /// Begins to read all output of a process until its end. Without a log the output is discarded, so the
    /// process does not block. What does not get into the log is told to `lost`.
    #[must_use]
    pub fn begin(
        log: Option<Log>,
        stdout: ChildStdout,
        stderr: ChildStderr,
        lost: impl Fn(&io::Error) + Clone + Send + Sync + 'static,
    ) -> Self {
        let mut streams = JoinSet::new();
        streams.spawn(copy(log.clone(), stdout, lost.clone()));
        streams.spawn(copy(log, stderr, lost));
        Self(streams)
    }

    /// Waits until all output is in the log, after the end of the process. Processes left behind may
    /// keep the pipes open, so the wait is bounded.
    pub async fn drained(mut self) {
        // At the timeout the set is dropped, and its tasks with it: the pipes are closed then.
        let all = async { while self.0.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, all).await;
    }
}

async fn copy(log: Option<Log>, mut stream: impl AsyncRead + Unpin, lost: impl Fn(&io::Error)) {
    let mut lines = Lines::default();
    loop {
        let (records, is_at_end) = read(&mut stream, |bytes| {
            let mut records = Vec::new();
            // One time for all lines of a read: they have arrived together.
            let micros = Timestamp::now().as_microsecond();
            if bytes.is_empty() {
                lines.finish(|line| record::put(&mut records, micros, line));
            } else {
                lines.feed(bytes, |line| record::put(&mut records, micros, line));
            }
            (records, bytes.is_empty())
        })
        .await;
        if let Some(log) = &log
            && let Err(error) = log.append_patiently(records).await
        {
            lost(&error);
        }
        if is_at_end {
            return;
        }
    }
}

/// Waits for bytes of a stream and lets them be taken; none at its end. A failed read counts as the end.
///
/// The buffer is of the thread, as nothing waits with bytes in it: a silent workload has none.
async fn read<T>(stream: &mut (impl AsyncRead + Unpin), mut take: impl FnMut(&[u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BUFFER]);
    }
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            let result = ready!(Pin::new(&mut *stream).poll_read(context, &mut read));
            Poll::Ready(take(if result.is_ok() { read.filled() } else { &[] }))
        })
    })
    .await
}

/// Says in the log of this agent that output of a workload did not get into its own.
pub fn report_loss(workload: &str, reason: impl fmt::Display) {
    let text = format_args!("output of {} is lost: {reason}", Quoted(workload));
    log_text::about(workload, Level::Warn, text);
}
