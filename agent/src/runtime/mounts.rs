//! What a workload sees of the file system, in its own mount namespace: its pair and its files are
//! mounted where it looks for them, although nothing may be there on the host.
//!
//! Nothing is ever made on the host. Where a mount point is missing, the nearest folder above it is
//! covered by one in memory that shows all of the old one's entries, and has room for the new.

use std::{
    fs,
    io::{self, Error},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::stat::Mode,
};
use serde::{Deserialize, Serialize};

/// Entries that a folder may have to be shown anew, one mount each.
const MOST_ENTRIES: usize = 1000;

/// One thing to be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bind {
    /// What is shown.
    pub(super) source: PathBuf,
    /// Where it is shown.
    pub(super) target: PathBuf,
    pub(super) read_only: bool,
}

/// Nothing that is mounted here from now on is seen outside.
pub(super) fn make_private() -> io::Result<()> {
    let none: Option<&str> = None;
    Ok(mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?)
}

/// Shows the processes of this namespace, and no others.
pub(super) fn mount_proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    Ok(mount(Some("proc"), "/proc", Some("proc"), flags, none)?)
}

/// Mounts all of `binds`, then hides `hidden`: what is mounted from there stays.
pub(super) fn mount_all(binds: &[Bind], hidden: &[PathBuf]) -> Result<(), String> {
    for bind in binds {
        let named = |error| format!("cannot mount {}: {error}", bind.target.display());
        mount_one(bind).map_err(named)?;
    }
    for folder in hidden {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let hide = mount(Some("none"), folder, Some("tmpfs"), flags, Some("size=4k,mode=755"));
        hide.map_err(|error| format!("cannot hide {}: {error}", folder.display()))?;
    }
    Ok(())
}

fn mount_one(bind: &Bind) -> io::Result<()> {
    let is_folder = fs::metadata(&bind.source)?.is_dir();
    match fs::metadata(&bind.target) {
        Ok(found) if found.is_dir() == is_folder => {}
        Ok(_) => return Err(Error::other("something of another kind is there already")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_target(&bind.target, is_folder)?;
        }
        Err(error) => return Err(error),
    }
    bind_to(&bind.source, &bind.target)?;
    if bind.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let none: Option<&str> = None;
        mount(none, &bind.target, none, flags, none)?;
    }
    Ok(())
}

fn bind_to(source: &Path, target: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    Ok(mount(Some(source), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?)
}

fn make_target(target: &Path, is_folder: bool) -> io::Result<()> {
    let missing = || Error::other("a mount point needs a folder above it");
    let parent = target.parent().ok_or_else(missing)?;
    let existing = parent.ancestors().find(|folder| folder.is_dir()).ok_or_else(missing)?;
    if existing == Path::new("/") {
        return Err(Error::other("nothing can be mounted right below the root folder"));
    }
    cover(existing)?;
    fs::create_dir_all(parent)?;
    if is_folder { fs::create_dir(target) } else { fs::File::create(target).map(drop) }
}

/// Covers a folder with one in memory that shows the same.
fn cover(folder: &Path) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // By its descriptor it can be reached below what covers it.
    let below: OwnedFd = open(folder, flags, Mode::empty())?;
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    if entries.len() > MOST_ENTRIES {
        return Err(Error::other(format!(
            "{} has {} entries, which are too many to show them anew; make the mount point \
             beforehand",
            folder.display(),
            entries.len()
        )));
    }
    let mode = fs::metadata(folder)?.mode() & 0o7777;
    let options = format!("mode={mode:o}");
    mount(Some("none"), folder, Some("tmpfs"), MsFlags::MS_NODEV, Some(options.as_str()))?;
    let below = PathBuf::from(format!("/proc/self/fd/{}", below.as_raw_fd()));
    for entry in entries {
        let (old, new) = (below.join(entry.file_name()), folder.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(&old)?, &new)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&new)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        } else {
            fs::File::create(&new)?;
        }
        bind_to(&old, &new)?;
    }
    Ok(())
}
