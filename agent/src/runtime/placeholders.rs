//! Empty files and folders on the node below the mounts of a workload.
//!
//! A mount needs something below it. A missing mount point goes in; an empty file or folder of that name
//! comes out. It is created with the rights of the workload's user alone, so a mount point makes nothing
//! that this user could not make. Where the user has no such right, nothing is created.
//!
//! A placeholder file is empty and has mode 0. Each workload with a mount on it holds a shared lock of
//! it; the last one removes it. Nobody else's file has this form, so one left by a killed agent is used,
//! and removed, by the next workload with this mount point. A folder is removed by its maker, if it is
//! empty.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Error},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid, setgroups},
};
use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, mkdirat, openat,
        unlinkat,
    },
    io::Errno,
};

use crate::folders::{Found, Place, Trusted, walk};

/// Bound on the tries for one placeholder, while other workloads remove it.
const MOST_TRIES: usize = 100;
/// Pause while another workload removes a placeholder.
const PAUSE: Duration = Duration::from_millis(10);
/// Bound on the mounts on one placeholder.
const MOST_MOUNTS: usize = 2048;

/// The placeholders of one workload.
#[derive(Debug)]
pub(super) struct Placeholders {
    trusted: Trusted,
    /// The user and group of the workload; absent if it has those of this process.
    user: Option<(u32, u32)>,
    /// In the order of their creation: a folder is before its entries.
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    id: (u64, u64),
    /// A shared lock of a file; absent for a folder.
    lock: Option<OwnedFd>,
}

impl Placeholders {
    pub(super) fn new(user: Option<(u32, u32)>) -> Self {
        Self { trusted: Trusted::here(), user, held: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Creates all missing folders of a path with the rights of this process. They stay.
    ///
    /// # Errors
    /// A link of another user is on the way, or a folder cannot be created. Missing rights are no error.
    pub(super) fn make_folders(&self, path: &Path) -> io::Result<()> {
        let Found::Missing(mut folder, names) = walk(path, self.trusted)? else { return Ok(()) };
        for name in names {
            let Some((next, _)) = permitted(make_folder(&folder, &name))? else { break };
            folder = next;
        }
        Ok(())
    }

    /// Creates a missing file and the missing folders above it, unless the workload's user may not.
    /// Keeps a placeholder of another workload from its removal.
    ///
    /// # Errors
    /// A link of another user is on the way, or the file cannot be created for another reason than
    /// missing rights.
    pub(super) fn hold(&mut self, path: &Path) -> io::Result<()> {
        for _ in 0..MOST_TRIES {
            match walk(path, self.trusted)? {
                Found::There(place) if !is_placeholder(&place.stat) => return Ok(()),
                Found::There(place) => match lock(&place)? {
                    Lock::Held(lock) => {
                        let id = id(&place.stat);
                        self.held.push(Held { path: place.path, id, lock: Some(lock) });
                        return Ok(());
                    }
                    Lock::Impossible => return Ok(()),
                    Lock::Removed => thread::sleep(PAUSE),
                },
                Found::Missing(folder, names) => {
                    if !self.make(folder, &names)? {
                        return Ok(());
                    }
                }
            }
        }
        Err(Error::other("its placeholder is removed all the time"))
    }

    /// Creates the missing end of a path below `folder`. False, and nothing is left, if the user may not.
    fn make(&mut self, folder: Place, names: &[OsString]) -> io::Result<bool> {
        let before = self.held.len();
        let user = self.user;
        let made = as_user(user, || self.make_each(folder, names)).and_then(|made| made);
        let made = permitted(made);
        if !matches!(made, Ok(Some(()))) {
            let partly = self.held.split_off(before);
            self.remove_all(partly);
        }
        Ok(made?.is_some())
    }

    fn make_each(&mut self, mut folder: Place, names: &[OsString]) -> io::Result<()> {
        let Some((last, above)) = names.split_last() else { return Ok(()) };
        for name in above {
            let (next, is_ours) = make_folder(&folder, name)?;
            if is_ours {
                let path = next.path.clone();
                self.held.push(Held { path, id: id(&next.stat), lock: None });
            }
            folder = next;
        }
        let flags =
            OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&folder.fd, last, flags, Mode::empty()) {
            // Another workload may have created it meanwhile; the caller looks again.
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Unmounts from all placeholders and removes them, except for those of other workloads, and folders
    /// with entries.
    pub(super) fn remove(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.remove_all(held);
    }

    fn remove_all(&self, held: Vec<Held>) {
        for held in held.into_iter().rev() {
            // What cannot be removed is empty, and the next workload with this mount point uses it.
            let _ = self.remove_one(&held);
        }
    }

    fn remove_one(&self, held: &Held) -> io::Result<()> {
        if let Some(lock) = &held.lock {
            // If this fails, the last of the other workloads removes it.
            flock(lock, FlockOperation::NonBlockingLockExclusive)?;
        }
        let (Some(folder), Some(name)) = (held.path.parent(), held.path.file_name()) else {
            return Ok(());
        };
        let Found::There(folder) = walk(folder, self.trusted)? else { return Ok(()) };
        let place = uncovered(&folder, name, held.id)?;
        let flags = match &held.lock {
            None => AtFlags::REMOVEDIR,
            // It has been written on the node meanwhile.
            Some(_) if !is_placeholder(&place.stat) => return Ok(()),
            Some(_) => AtFlags::empty(),
        };
        // With the rights of this process: the user of the last workload may not be the one of the first.
        // Whoever exchanges the name just now may remove the other file from this folder anyway.
        Ok(unlinkat(&folder.fd, name, flags)?)
    }
}

/// Unmounts everything on an entry, until it is the one with this device and inode.
fn uncovered(folder: &Place, name: &OsStr, wanted: (u64, u64)) -> io::Result<Place> {
    for _ in 0..MOST_MOUNTS {
        let place = folder.entry(name)?;
        if id(&place.stat) == wanted {
            return Ok(place);
        }
        // This fails if it is no mount but another file.
        umount2(&place.link(), MntFlags::MNT_DETACH)?;
    }
    Err(Error::other("too many mounts"))
}

enum Lock {
    Held(OwnedFd),
    /// It is removed by another workload, or was already.
    Removed,
    /// This user may not open it.
    Impossible,
}

fn lock(place: &Place) -> io::Result<Lock> {
    // By its descriptor: exactly the file with the checked form is opened.
    let Ok(file) = File::open(place.link()) else { return Ok(Lock::Impossible) };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) if fstat(&file)?.st_nlink == 0 => Ok(Lock::Removed),
        Ok(()) => Ok(Lock::Held(file.into())),
        Err(Errno::WOULDBLOCK) => Ok(Lock::Removed),
        Err(errno) => Err(errno.into()),
    }
}

/// Creates a folder, or finds the one created by somebody else meanwhile. Returns whether it is ours.
fn make_folder(parent: &Place, name: &OsStr) -> io::Result<(Place, bool)> {
    let is_ours = match mkdirat(&parent.fd, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno.into()),
    };
    // Not followed if it is a link by now.
    let place = parent.entry(name)?;
    match place.kind() {
        FileType::Directory => Ok((place, is_ours)),
        _ => Err(Errno::NOTDIR.into()),
    }
}

/// `None` if a right is missing, or the file system takes no new files.
fn permitted<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Runs `work` with the file system rights of a user and its main group.
fn as_user<T>(user: Option<(u32, u32)>, work: impl FnOnce() -> T) -> io::Result<T> {
    let Some((uid, gid)) = user else { return Ok(work()) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if (uid, gid) == (geteuid(), getegid()) {
        return Ok(work());
    }
    // Supplementary groups count for files, and the workload has none.
    setgroups(&[])?;
    setfsgid(gid);
    setfsuid(uid);
    // Both report no failure: a second call returns the user in effect.
    let is_changed = (setfsuid(uid), setfsgid(gid)) == (uid, gid);
    let done = if is_changed { Ok(work()) } else { Err(Errno::PERM.into()) };
    setfsuid(geteuid());
    setfsgid(getegid());
    done
}

fn is_placeholder(stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    kind == FileType::RegularFile && stat.st_size == 0 && stat.st_mode & 0o7777 == 0
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
