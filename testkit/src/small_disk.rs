//! A disk that is soon full.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;

/// A tmpfs of a few MiB. It is mounted in a namespace of the calling thread, so only this thread and the
/// processes that it starts see it, and it goes with them. Needs `CAP_SYS_ADMIN`: see
/// [`is_done_elsewhere`](crate::is_done_elsewhere).
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts one of this size.
    pub fn mount(mib: usize) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let (none, alone) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, alone, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={mib}m,mode=700");
        mount(none, dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { dir }
    }

    /// A path on it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes it read-only, or writable again. Nothing on it may be open for writing.
    pub fn set_read_only(&self, read_only: bool) {
        let flags = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        let none = None::<&str>;
        mount(none, self.dir.path(), none, MsFlags::MS_REMOUNT | flags, none).unwrap();
    }

    /// Takes all free space, until the returned guard is dropped.
    pub fn fill(&self) -> Filled {
        let path = self.path("fill");
        let mut file = File::create(&path).unwrap();
        // Small pieces, so that nothing is left.
        while file.write_all(&[0; 512]).map_err(|error| error.kind())
            != Err(io::ErrorKind::StorageFull)
        {}
        Filled { path }
    }
}

/// The space of a [`SmallDisk`] while it is taken.
pub struct Filled {
    path: PathBuf,
}

impl Drop for Filled {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}
