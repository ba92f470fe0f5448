//! Desired state and agent tags on disk, one record per item, in a redb file.
//!
//! Changes go in; after a restart all items come back. A change returned by [`Disk::keep`] as written
//! survives a crash; one returned as failed is undone, also if a part of it had reached the disk.

use std::{
    error::Error,
    fmt, fs, io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    string::FromUtf8Error,
    sync::{Mutex, PoisonError},
};

use fifogate::pb::ank_base as pb;
use nix::fcntl::{Flock, FlockArg};
use prost::Message;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use tokio::task::JoinError;

use super::{Change, log_left_out, undecodable};
use crate::{
    fingerprint::{Fingerprint, Fingerprinting},
    folders::{Private, Readable},
};

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const WORKLOADS: Table = TableDefinition::new("workloads");
const CONFIGS: Table = TableDefinition::new("configs");
/// The part of agents set by workloads: their tags.
const AGENTS: Table = TableDefinition::new("agents");
const META: Table = TableDefinition::new("meta");

const API_VERSION: &str = "apiVersion";
const FILE: &str = "desired-state.redb";
/// Its name until it is a database: an empty file of the other name has lost its content.
const NEW_FILE: &str = "desired-state.redb.new";

/// The file of the desired state cannot be used.
#[derive(Debug)]
pub enum DiskError {
    /// The folder or the file cannot be opened.
    Folder(io::Error),
    /// The file is no database, or another process has it open.
    Open(PathBuf, DatabaseError),
    /// The content of the file is damaged.
    Damaged(PathBuf),
    /// The database cannot be read or written.
    Database(Box<redb::Error>),
    /// The version of the state is no text.
    Version(FromUtf8Error),
    /// The agent ends.
    Closed,
    /// The task that writes has panicked.
    Task(JoinError),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Open(path, DatabaseError::DatabaseAlreadyOpen) => {
                write!(f, "{}: another agent has this file open", path.display())
            }
            Self::Open(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(path) => write!(
                f,
                "{} is damaged; restore a backup, or move it away to begin with the manifest",
                path.display()
            ),
            Self::Database(error) => error.fmt(f),
            Self::Version(error) => error.fmt(f),
            Self::Closed => f.write_str("the agent ends"),
            Self::Task(error) => error.fmt(f),
        }
    }
}

impl Error for DiskError {}

impl From<redb::Error> for DiskError {
    fn from(error: redb::Error) -> Self {
        Self::Database(Box::new(error))
    }
}

/// The content of a file.
struct Stored {
    version: Vec<u8>,
    items: Vec<Change>,
}

/// A file of desired state. No other process can open it meanwhile.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    file: Mutex<DatabaseFile>,
}

/// A database, or the step that has to be done before its next use.
#[derive(Debug)]
enum DatabaseFile {
    Open(Database),
    /// Closed after a failed write: redb refuses all further use of an open database then. It is not
    /// known whether the write reached the disk, so these changes undo it.
    Failed(Vec<Change>),
    /// Closed for good.
    Closed,
}

impl Disk {
    pub(super) fn open(dir: &Path) -> Result<Self, DiskError> {
        let file = Mutex::new(DatabaseFile::Open(open_database(dir)?));
        Ok(Self { dir: dir.to_owned(), file })
    }

    /// Reads the desired state and the agents' tags, item by item; `None` if the file was never written.
    /// An undecodable item is logged and left in the file.
    pub(super) fn load(&self) -> Result<Option<Vec<Change>>, DiskError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let database = self.reopened(&mut file)?;
        let stored = intact(&self.dir, || Ok(read(database)?))?;
        let Some(Stored { version, items }) = stored else { return Ok(None) };
        let version = String::from_utf8(version).map_err(DiskError::Version)?;
        let mut changes = vec![Change::ApiVersion(version)];
        changes.extend(items);
        Ok(Some(changes))
    }

    /// Writes changes; they are on disk when this returns. If they are not, `undo` gives the changes
    /// that lead back.
    pub(super) fn keep(
        &self,
        changes: &[Change],
        undo: impl FnOnce() -> Vec<Change>,
    ) -> Result<(), DiskError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let database = self.reopened(&mut file)?;
        let written = intact(&self.dir, || Ok(write(database, changes)?));
        if written.is_err() {
            self.replace(&mut file, DatabaseFile::Failed(undo()));
        }
        written
    }

    /// Closes the file, behind a write under way.
    pub(super) fn close(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(&mut file, DatabaseFile::Closed);
    }

    fn replace(&self, file: &mut DatabaseFile, next: DatabaseFile) {
        let closed = mem::replace(file, next);
        // A close writes, too. If it fails, the next open repairs the file.
        let _ = intact(&self.dir, || {
            drop(closed);
            Ok(())
        });
    }

    /// The database, opened again after a failed write, without this write.
    fn reopened<'a>(&self, file: &'a mut DatabaseFile) -> Result<&'a Database, DiskError> {
        if let DatabaseFile::Failed(undo) = file {
            let database = open_database(&self.dir)?;
            intact(&self.dir, || Ok(write(&database, undo)?))?;
            *file = DatabaseFile::Open(database);
        }
        match file {
            DatabaseFile::Open(database) => Ok(database),
            DatabaseFile::Failed(_) => Err(DiskError::Damaged(self.dir.join(FILE))),
            DatabaseFile::Closed => Err(DiskError::Closed),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

fn open_database(dir: &Path) -> Result<Database, DiskError> {
    let path = || dir.join(FILE);
    let (file, is_new) = open_file(dir)?;
    intact(dir, || {
        let mut database = match Database::builder().create_file(file) {
            // No database at all, as of a torn or mistaken copy.
            Err(DatabaseError::Storage(StorageError::Io(error)))
                if error.kind() == io::ErrorKind::InvalidData =>
            {
                return Err(DiskError::Damaged(path()));
            }
            opened => opened.map_err(|error| DiskError::Open(path(), error))?,
        };
        if is_new {
            let named = fs::rename(dir.join(NEW_FILE), path());
            let synced = named.and_then(|()| fs::File::open(dir)?.sync_all());
            synced.map_err(DiskError::Folder)?;
        }
        check(&mut database, dir)?;
        Ok(database)
    })
}

/// The file, or a new one that is to get its name; whether it is new.
fn open_file(dir: &Path) -> Result<(fs::File, bool), DiskError> {
    // Opened here, since the database would follow a symbolic link.
    let folder = Private::open(dir, Readable::Closed).map_err(DiskError::Folder)?;
    let there = fs::symlink_metadata(dir.join(FILE));
    if !there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        let file = folder.file(FILE).map_err(DiskError::Folder)?;
        let size = file.metadata().map_err(DiskError::Folder)?.len();
        // The database would begin anew, and all workloads that go on would end.
        return if size == 0 { Err(DiskError::Damaged(dir.join(FILE))) } else { Ok((file, false)) };
    }
    let file = folder.file(NEW_FILE).map_err(DiskError::Folder)?;
    let busy = |_| DiskError::Open(dir.join(FILE), DatabaseError::DatabaseAlreadyOpen);
    let file =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| busy(errno))?;
    // It has half of a database, if an agent was killed while it made one.
    file.set_len(0).map_err(DiskError::Folder)?;
    Ok((file.unlock().map_err(|(_, errno)| busy(errno))?, true))
}

/// A disk that changed bits is told at the start, not by items that are silently missing.
fn check(database: &mut Database, dir: &Path) -> Result<(), DiskError> {
    let path = || dir.join(FILE);
    let before = intact(dir, || Ok(fingerprint(database)?)).ok();
    match database.check_integrity() {
        Ok(true) => Ok(()),
        Ok(false) => {
            // redb also repairs its list of free pages, which may be another one after any stop. Then all items
            // are as they were.
            if before.is_none() || fingerprint(database).ok() != before {
                log::warn!("{} was damaged; its newest changes may be lost", path().display());
            }
            Ok(())
        }
        Err(DatabaseError::Storage(StorageError::Corrupted(_))) => Err(DiskError::Damaged(path())),
        Err(error) => Err(DiskError::Open(path(), error)),
    }
}

/// The result of a step that panics if the file in `dir` is damaged, as redb does in many places.
fn intact<T>(dir: &Path, step: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
    // Nothing of the step is used again after a panic.
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(DiskError::Damaged(dir.join(FILE))))
}

fn read(database: &Database) -> Result<Option<Stored>, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        // A new file: its tables are made with the first write.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(version) = meta.get(API_VERSION)? else { return Ok(None) };
    let version = version.value().to_vec();
    let workload = |name, own: Option<_>| Change::Workload(name, own.map(Box::new));
    let mut changes = items(&transaction.open_table(WORKLOADS)?, workload)?;
    changes.extend(items(&transaction.open_table(CONFIGS)?, Change::Config)?);
    changes.extend(items(&transaction.open_table(AGENTS)?, Change::Agent)?);
    Ok(Some(Stored { version, items: changes }))
}

/// Stands for all items of a file, whatever they decode to.
fn fingerprint(database: &Database) -> Result<Fingerprint, redb::Error> {
    let transaction = database.begin_read()?;
    let mut all = Fingerprinting::default();
    for name in [META, WORKLOADS, CONFIGS, AGENTS] {
        let table = match transaction.open_table(name) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        for item in table.iter()? {
            let (key, value) = item?;
            all.add(key.value().as_bytes());
            all.add(value.value());
        }
    }
    Ok(all.finish())
}

fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    // One transaction for all changes: after a crash there are all of them or none.
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut workloads = transaction.open_table(WORKLOADS)?;
        let mut configs = transaction.open_table(CONFIGS)?;
        let mut agents = transaction.open_table(AGENTS)?;
        if meta.get(API_VERSION)?.is_none() {
            meta.insert(API_VERSION, "v1".as_bytes())?;
        }
        for change in changes {
            match change {
                Change::ApiVersion(version) => {
                    meta.insert(API_VERSION, version.as_bytes())?;
                }
                Change::Workload(name, workload) => {
                    put(&mut workloads, name, workload.as_deref())?;
                }
                Change::Config(name, config) => put(&mut configs, name, config.as_ref())?,
                Change::Agent(name, attributes) => {
                    // The status of an agent is measured anew after a restart.
                    let tags = attributes.as_ref().and_then(|own| own.tags.clone());
                    let own = tags
                        .map(|tags| pb::AgentAttributes { tags: Some(tags), ..Default::default() });
                    put(&mut agents, name, own.as_ref())?;
                }
                // Not written: after a restart the process is gone, and its last state means
                // nothing.
                Change::WorkloadState(..) => {}
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// The changes read from a database with these records: the part of the fuzz entry for this store.
pub(super) fn changes_of(records: &[super::fuzz::Record]) -> Option<Vec<Change>> {
    let backend = redb::backends::InMemoryBackend::new();
    let database = Database::builder().create_with_backend(backend).ok()?;
    write(&database, &[]).ok()?;
    let transaction = database.begin_write().ok()?;
    for (key, value) in records {
        let Some((folder, name)) = key.rsplit_once('/') else { continue };
        let table = match folder {
            "desired/workloads" => WORKLOADS,
            "desired/configs" => CONFIGS,
            "agents" => AGENTS,
            _ => continue,
        };
        let mut table = transaction.open_table(table).ok()?;
        match value {
            Some(value) => table.insert(name, value.as_slice()).map(drop).ok()?,
            None => table.remove(name).map(drop).ok()?,
        }
    }
    transaction.commit().ok()?;
    Some(read(&database).ok()??.items)
}

/// The items of a table. An undecodable item is skipped alone.
fn items<M: Message + Default>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    change: impl Fn(String, Option<M>) -> Change,
) -> Result<Vec<Change>, redb::StorageError> {
    let mut items = Vec::new();
    for entry in table.iter()? {
        let (name, bytes) = entry?;
        let name = name.value().to_owned();
        match M::decode(bytes.value()) {
            Ok(message) => items.push(change(name, Some(message))),
            Err(error) => log_left_out("on disk", &change(name, None), &undecodable(&error)),
        }
    }
    Ok(items)
}

fn put(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    name: &str,
    value: Option<&impl Message>,
) -> Result<(), redb::Error> {
    match value {
        Some(value) => {
            table.insert(name, value.encode_to_vec().as_slice())?;
        }
        None => {
            table.remove(name)?;
        }
    }
    Ok(())
}
