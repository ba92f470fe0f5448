//! Desired state and agent tags on disk, one record per item, in a redb file.
//!
//! Changes go in; after a restart all items come back. A change returned by [`Disk::keep`] as written
//! survives a crash.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    string::FromUtf8Error,
};

use fifogate::pb::ank_base as pb;
use prost::Message;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::task::JoinError;

use super::{Change, log_left_out, undecodable};
use crate::folders::{Private, Readable};

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const WORKLOADS: Table = TableDefinition::new("workloads");
const CONFIGS: Table = TableDefinition::new("configs");
/// The part of agents set by workloads: their tags.
const AGENTS: Table = TableDefinition::new("agents");
const META: Table = TableDefinition::new("meta");

const API_VERSION: &str = "apiVersion";
const FILE: &str = "desired-state.redb";

/// The file of the desired state cannot be used.
#[derive(Debug)]
pub enum DiskError {
    /// The folder or the file cannot be opened.
    Folder(io::Error),
    /// The file is no database, or another process has it open.
    Open(PathBuf, DatabaseError),
    /// The database cannot be read or written.
    Database(Box<redb::Error>),
    /// The version of the state is no text.
    Version(FromUtf8Error),
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
            Self::Database(error) => error.fmt(f),
            Self::Version(error) => error.fmt(f),
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

/// An open file of desired state. No other process can open it meanwhile.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
}

impl Disk {
    pub(super) fn open(dir: &Path) -> Result<Self, DiskError> {
        // Opened here, since the database would follow a symbolic link.
        let folder = Private::open(dir, Readable::Closed).map_err(DiskError::Folder)?;
        let file = folder.file(FILE).map_err(DiskError::Folder)?;
        let database = Database::builder().create_file(file);
        let database = database.map_err(|error| DiskError::Open(dir.join(FILE), error))?;
        Ok(Self { database })
    }

    /// Reads the desired state and the agents' tags, item by item; `None` if the file was never written.
    /// An undecodable item is logged and left in the file.
    pub(super) fn load(&self) -> Result<Option<Vec<Change>>, DiskError> {
        let Some(Stored { version, items }) = self.read()? else { return Ok(None) };
        let version = String::from_utf8(version).map_err(DiskError::Version)?;
        let mut changes = vec![Change::ApiVersion(version)];
        changes.extend(items);
        Ok(Some(changes))
    }

    fn read(&self) -> Result<Option<Stored>, redb::Error> {
        let transaction = self.database.begin_read()?;
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

    /// Writes changes; they are on disk when this returns.
    pub(super) fn keep(&self, changes: &[Change]) -> Result<(), DiskError> {
        Ok(self.write(changes)?)
    }

    fn write(&self, changes: &[Change]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
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
                        let own = tags.map(|tags| pb::AgentAttributes {
                            tags: Some(tags),
                            ..Default::default()
                        });
                        put(&mut agents, name, own.as_ref())?;
                    }
                    // Not written: after a restart the process is gone, and its last state means
                    // nothing.
                    Change::WorkloadState(..) => {}
                }
            }
        }
        // One transaction for all changes: after a crash there are all of them or none.
        transaction.commit()?;
        Ok(())
    }
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
