//! The folder of a keeper, shared by the agent and the keeper of an instance.
//!
//! `lock` is held by the keeper as long as it lives, and has its process id. `instance` has the kept instance,
//! it listens at `socket`, and it leaves the end of the process in `exit`.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use fifogate::state::Instance;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open},
    io::Errno,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::running::Exit;

/// Its name in the agent's folder of an instance.
const NAME: &str = "keeper";

/// The kept instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    agent: String,
    workload: String,
    id: String,
    /// Whether the process was started with a pair.
    pub(super) has_pair: bool,
}

impl Record {
    pub(super) fn new(instance: &Instance, has_pair: bool) -> Self {
        let Instance { workload, agent, id } = instance.clone();
        Self { agent, workload, id, has_pair }
    }

    pub(super) fn instance(&self) -> Instance {
        let Self { agent, workload, id, .. } = self.clone();
        Instance { workload, agent, id }
    }
}

/// The folder of one keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeeperFolder(PathBuf);

impl KeeperFolder {
    /// The one in the agent's folder of an instance.
    pub(super) fn of(instance_folder: &Path) -> Self {
        Self(instance_folder.join(NAME))
    }

    /// The folders of all instances.
    pub(super) fn all(folder: &Path) -> impl Iterator<Item = (Self, Record)> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let own = Self::of(&entry.path());
            let record = own.record()?;
            Some((own, record))
        })
    }

    /// Makes it anew for an instance, and returns the file with the lock.
    pub(super) fn make(&self, record: &Record) -> io::Result<File> {
        self.remove()?;
        DirBuilder::new().mode(0o700).recursive(true).create(&self.0)?;
        let lock = private(&self.0.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // Last: from here on the next agent finds it.
        self.write("instance", record)?;
        Ok(lock)
    }

    /// Removes it; nobody keeps anything by it any more.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The kept instance, if there ever was one.
    pub(super) fn record(&self) -> Option<Record> {
        self.read("instance")
    }

    /// The end of the process, if the keeper has seen it.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.read("exit")
    }

    pub(super) fn write_exit(&self, exit: Exit) -> io::Result<()> {
        self.write("exit", &exit)
    }

    /// Whether its keeper lives.
    pub(super) fn is_held(&self) -> bool {
        // Without the file nobody ever held it.
        let Ok(lock) = File::open(self.0.join("lock")) else { return false };
        flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// Kills its keeper; the process ends with it.
    pub(super) fn kill(&self) {
        let pid = fs::read_to_string(self.0.join("lock")).ok();
        let pid = pid.and_then(|text| text.trim().parse().ok());
        // The number may be another's once the lock is free.
        if let Some(pid) = pid
            && self.is_held()
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        self.at_socket(|path| UnixListener::bind(path))
    }

    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        self.at_socket(|path| UnixStream::connect(path))
    }

    /// Calls `f` with a path to the socket that is never too long for an address.
    fn at_socket<T>(&self, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(&self.0, flags, Mode::empty())?;
        f(&crate::folders::link_of(&folder.as_fd()).join("socket"))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.0.join(name)).ok()?).ok()
    }

    /// Writes a file as a whole, or not at all.
    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let new = self.0.join(format!("{name}.new"));
        private(&new)?.write_all(&serde_json::to_vec(value)?)?;
        fs::rename(new, self.0.join(name))
    }
}

/// Notes the process id of this keeper in its lock.
pub(super) fn note_pid(lock: &mut impl Write) -> io::Result<()> {
    writeln!(lock, "{}", std::process::id())
}

fn private(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeper_is_seen_as_long_as_it_holds_the_lock_and_its_exit_stays() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance { workload: "w".into(), agent: "agent_A".into(), id: "1".into() };
        let folder = KeeperFolder::of(&dir.path().join("w.1"));
        assert_eq!((folder.record(), folder.is_held()), (None, false));
        let record = Record::new(&instance, true);
        let lock = folder.make(&record).unwrap();
        assert!(folder.is_held());
        assert_eq!(KeeperFolder::all(dir.path()).collect::<Vec<_>>(), [(folder.clone(), record)]);
        folder.write_exit(Exit::Code(3)).unwrap();
        drop(lock);
        assert_eq!((folder.exit(), folder.is_held()), (Some(Exit::Code(3)), false));
        folder.make(&Record::new(&instance, false)).unwrap();
        assert_eq!(folder.exit(), None, "the exit of the process before");
        folder.remove().unwrap();
        assert_eq!(KeeperFolder::all(dir.path()).count(), 0);
    }

    #[test]
    fn socket_is_reached_by_a_path_longer_than_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let folder = KeeperFolder::of(&dir.path().join("w".repeat(200)));
        let instance = Instance { workload: "w".into(), agent: "agent_A".into(), id: "1".into() };
        folder.make(&Record::new(&instance, true)).unwrap();
        let listener = folder.listen().unwrap();
        folder.connect().unwrap();
        listener.accept().unwrap();
    }
}
