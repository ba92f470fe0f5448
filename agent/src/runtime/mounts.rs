//! Mount namespace of a workload: mounts its pair and its files, and hides the agent's own folders.
//!
//! A missing mount point becomes a placeholder on the node where the workload's user has the right to
//! create one. Elsewhere nothing is created on the node: a tmpfs covers the nearest folder above the mount
//! point, shows all entries of the covered folder, and takes the new name. The user has no right to
//! write in this folder, so no file of the workload gets lost in the tmpfs.
//!
//! No race with other processes: names in a tmpfs are created through its descriptor, unknown to
//! everybody else. Sources and targets are mounted through the descriptors checked before, so
//! exchanging a name meanwhile has no effect.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Error},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Uid, chownat, fstat, fstatvfs,
        mkdirat, openat, symlinkat,
    },
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};
use serde::{Deserialize, Serialize};

use crate::folders::{Found, Place, Trusted, link_of, target_of, walk};

use super::placeholders::Placeholders;

/// Bound on the entries of a covered folder, as each takes one mount.
const MOST_ENTRIES: usize = 1000;

/// Parts of `/proc` writable for root without any capability: writes there change the node's kernel.
const KERNEL: [&str; 5] =
    ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bind {
    /// Path on the node.
    pub(super) source: PathBuf,
    /// Path seen by the workload.
    pub(super) target: PathBuf,
    pub(super) read_only: bool,
}

/// A folder hidden from workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    /// Its path, without links.
    pub path: PathBuf,
    /// Its device and inode: another folder in its place is an error, and is not hidden instead.
    pub file: (u64, u64),
}

/// A mount for a workload failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountError {
    /// The source of a mount cannot be used.
    #[error("cannot show {}: {}", .0.display(), .1)]
    Show(PathBuf, io::Error),
    /// A folder of the agent cannot be hidden.
    #[error("cannot hide {}: {}", .0.display(), .1)]
    Hide(PathBuf, io::Error),
    /// Nothing can be mounted on this target.
    #[error("cannot mount {}: {}", .0.display(), .1)]
    Mount(PathBuf, io::Error),
    /// A file of the kernel cannot be made read-only.
    #[error("cannot protect {}: {}", .0.display(), .1)]
    Protect(PathBuf, io::Error),
}

/// Makes all mounts private: nothing mounted here from now on is visible outside.
pub(super) fn make_private() -> io::Result<()> {
    let none: Option<&str> = None;
    Ok(mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?)
}

/// Mounts `/proc` of this PID namespace, without processes of others.
pub(super) fn mount_proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    Ok(mount(Some("proc"), "/proc", Some("proc"), flags, none)?)
}

/// Hides the folders of `hidden`, then mounts `binds`. Their sources may be in hidden folders.
/// `placeholders` gets what is created on the node, also if this fails.
pub(super) fn mount_all(
    binds: &[Bind],
    hidden: &[Hidden],
    placeholders: &mut Placeholders,
) -> Result<(), MountError> {
    let mut sources = Vec::new();
    let mut frozen = BTreeSet::new();
    for Bind { source, read_only, .. } in binds {
        let named = |error| MountError::Show(source.clone(), error);
        // Once for each folder, as each time adds a mount.
        if *read_only && let Some(folder) = source.parent().filter(|own| !frozen.contains(*own)) {
            freeze(folder).map_err(named)?;
            frozen.insert(folder);
        }
        sources.push(there(source).map_err(named)?);
    }
    // Sources are reached by descriptor from here on, so their folders can be hidden. Hidden first,
    // these cannot come into view again by a later mount.
    for own in hidden {
        hide(own).map_err(|error| MountError::Hide(own.path.clone(), error))?;
    }
    // All of them before the first mount: a cover mounted later shows them too, and has no mounts in it.
    for (Bind { target, .. }, source) in binds.iter().zip(&sources) {
        let made = match source.kind() {
            // The folder of the pair: its place is the same for all workloads, and needs no removal.
            FileType::Directory => placeholders.make_folders(target),
            _ => placeholders.hold(target),
        };
        made.map_err(|error| MountError::Mount(target.clone(), error))?;
    }
    let mut covers = Covers { trusted: Trusted::here(), devices: BTreeSet::new() };
    for (bind, source) in binds.iter().zip(&sources) {
        let named = |error| MountError::Mount(bind.target.clone(), error);
        covers.show(source, &bind.target).map_err(named)?;
    }
    Ok(())
}

/// Makes kernel files below `/proc` read-only for a workload running as root. They ask for no
/// capability, for example the name of the program handling crashes of all processes.
pub(super) fn protect_kernel() -> Result<(), MountError> {
    for path in KERNEL.map(Path::new).iter().filter(|path| path.exists()) {
        freeze(path).map_err(|error| MountError::Protect(path.to_path_buf(), error))?;
    }
    Ok(())
}

fn there(path: &Path) -> io::Result<Place> {
    match walk(path, Trusted::here())? {
        Found::There(place) => Ok(place),
        Found::Missing(..) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Mounts a path on itself, read-only. Binds from below it are read-only, too.
fn freeze(path: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    let place = there(path)?;
    bind(&place.fd, &place.fd)?;
    // Open it again: the remount is of the new mount, not of the folder below it.
    let path = there(path)?;
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    // A user namespace forbids a remount without these flags.
    let kept = fstatvfs(&path.fd)?.f_flag;
    for (flag, own) in [
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
        (StatVfsMountFlags::NODIRATIME, MsFlags::MS_NODIRATIME),
        (StatVfsMountFlags::RELATIME, MsFlags::MS_RELATIME),
    ] {
        if kept.contains(flag) {
            flags |= own;
        }
    }
    Ok(mount(none, &path.link(), none, flags, none)?)
}

fn hide(hidden: &Hidden) -> io::Result<()> {
    let folder = there(&hidden.path)?;
    if (folder.stat.st_dev, folder.stat.st_ino) != hidden.file {
        return Err(Error::other("another folder has taken its place; start the agent again"));
    }
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("none"), &folder.link(), Some("tmpfs"), flags, Some("size=4k,mode=755"))?)
}

/// Mounts the file of one descriptor on the file of the other, without looking up a name.
fn bind(source: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(&link_of(source)), &link_of(target), none, flags, none)?)
}

/// The tmpfs folders covering other folders.
struct Covers {
    trusted: Trusted,
    /// Their devices: a folder on one of these was made here, and is invisible to others.
    devices: BTreeSet<u64>,
}

impl Covers {
    fn show(&mut self, source: &Place, target: &Path) -> io::Result<()> {
        let is_folder = source.kind() == FileType::Directory;
        let target = match walk(target, self.trusted)? {
            Found::There(place) => place,
            Found::Missing(folder, names) => self.make(folder, &names, is_folder)?,
        };
        match (is_folder, target.kind() == FileType::Directory) {
            (true, false) => return Err(Error::other("something that is no folder is there")),
            (false, true) => return Err(Error::other("a folder is there already")),
            _ => {}
        }
        bind(&source.fd, &target.fd)
    }

    /// Creates the missing end of a path below `folder`, covered by a tmpfs first if it is not on one.
    fn make(&mut self, folder: Place, names: &[OsString], is_folder: bool) -> io::Result<Place> {
        let mut folder =
            if self.devices.contains(&folder.stat.st_dev) { folder } else { self.cover(&folder)? };
        let Some((last, above)) = names.split_last() else { return Ok(folder) };
        for name in above {
            folder = make_entry(&folder, name, true)?;
        }
        make_entry(&folder, last, is_folder)
    }

    /// Covers a folder with a tmpfs showing the same entries.
    fn cover(&mut self, below: &Place) -> io::Result<Place> {
        // A mount on `/` is invisible to processes with this root already.
        if below.path == Path::new("/") {
            return Err(Error::other("nothing can be mounted right below the root folder"));
        }
        if below.stat.st_dev == there(Path::new("/proc"))?.stat.st_dev {
            return Err(Error::other("nothing can be added to /proc"));
        }
        let entries = fs::read_dir(below.link())?.collect::<Result<Vec<_>, _>>()?;
        if entries.len() > MOST_ENTRIES {
            return Err(Error::other(format!(
                "{} has {} entries, which are too many to show them anew; make the mount point \
                 beforehand",
                below.path.display(),
                entries.len()
            )));
        }
        let cover = mount_memory(below)?;
        self.devices.insert(cover.stat.st_dev);
        for entry in entries {
            match below.entry(&entry.file_name()) {
                Ok(old) => show_again(&old, &cover, &entry.file_name())?,
                // The entry was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(cover)
    }
}

/// Mounts an empty tmpfs on a folder, with its mode and owner, and returns the new folder.
fn mount_memory(below: &Place) -> io::Result<Place> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", format!("{:o}", below.stat.st_mode & 0o7777))?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let fd = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // Before the mount becomes visible: its owner never changes in view.
    give_to_owner_of(below, &fd, "")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&fd, "", &below.fd, "", flags)?;
    Ok(Place { stat: fstat(&fd)?, fd, path: below.path.clone() })
}

/// Shows one entry of a covered folder in its cover.
fn show_again(old: &Place, cover: &Place, name: &OsStr) -> io::Result<()> {
    if old.kind() == FileType::Symlink {
        // A symbolic link cannot be a mount point, so it is copied.
        symlinkat(target_of(old)?, &cover.fd, name)?;
        return give_to_owner_of(old, &cover.fd, name);
    }
    let new = make_entry(cover, name, old.kind() == FileType::Directory)?;
    bind(&old.fd, &new.fd)
}

/// Copies the owner. A user not mapped into the user namespace cannot own anything there; it is
/// skipped.
fn give_to_owner_of(old: &Place, folder: &OwnedFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(old.stat.st_uid), Gid::from_raw(old.stat.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    match chownat(folder, name.as_ref(), Some(uid), Some(gid), flags) {
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Creates an entry in a tmpfs folder, where its name is free.
fn make_entry(folder: &Place, name: &OsStr, is_folder: bool) -> io::Result<Place> {
    if is_folder {
        mkdirat(&folder.fd, name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&folder.fd, name, flags, Mode::RUSR | Mode::WUSR)?;
    }
    folder.entry(name)
}
