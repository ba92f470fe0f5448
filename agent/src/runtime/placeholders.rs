//! Empty files and folders on the node below the mounts of a workload.
//!
//! A mount needs something below it. A missing mount point goes in; an empty file or folder of that name
//! comes out. The way to it is looked up, and it is created, with the rights of the workload's user alone:
//! a mount point makes nothing that this user could not make. Where the user has no such right, nothing is
//! created.
//!
//! A placeholder file is empty, has mode 0, and a time of modification that no clock gives it. Each
//! workload with a mount on it holds a shared lock of it; the last one removes it. So one left by a killed
//! agent is used, and removed, by the next workload with this mount point, and an empty file of the node
//! never is. A folder is removed by its maker, if it is empty.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Error},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::statfs::{
        BPF_FS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, FsType,
        PROC_SUPER_MAGIC, SECURITYFS_MAGIC, SELINUX_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC,
    },
    unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid, setgroups},
};
use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, flock, fstat,
        futimens, mkdirat, openat, unlinkat,
    },
    io::Errno,
};

use crate::folders::{Found, Place, Trusted, walk};

/// Bound on the tries for one placeholder, while other workloads remove it.
const MOST_TRIES: usize = 100;
/// Pause while another workload removes a placeholder.
const PAUSE: Duration = Duration::from_millis(10);
/// Age up to which an empty file of mode 0 may be a placeholder without its time yet.
const BEING_MADE: Duration = Duration::from_millis(500);
/// The time of modification of a placeholder: seconds since 1970, and nanoseconds.
const MARK: (i64, i64) = (0x00f1_f00a, 905_101_501);
/// Bound on the mounts on one placeholder.
const MOST_MOUNTS: usize = 2048;

/// File systems of the kernel.
const KERNEL: [FsType; 9] = [
    BPF_FS_MAGIC,
    CGROUP_SUPER_MAGIC,
    CGROUP2_SUPER_MAGIC,
    DEBUGFS_MAGIC,
    PROC_SUPER_MAGIC,
    SECURITYFS_MAGIC,
    SELINUX_MAGIC,
    SYSFS_MAGIC,
    TRACEFS_MAGIC,
];

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
                Found::There(place) if may_be_in_the_making(&place.stat) => thread::sleep(PAUSE),
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
                Found::Missing(..) => match self.make(path)? {
                    Made::Held | Made::NotPermitted => return Ok(()),
                    Made::Again => thread::sleep(PAUSE),
                },
            }
        }
        Err(Error::other("its placeholder is removed all the time"))
    }

    /// Creates the missing end of a path. Nothing is left of it unless it is held.
    fn make(&mut self, path: &Path) -> io::Result<Made> {
        let before = self.held.len();
        let (user, trusted) = (self.user, self.trusted);
        // The walk as well: a folder that the user cannot reach is one where the user can make nothing.
        let made = as_user(user, || match walk(path, trusted)? {
            Found::There(_) => Ok(Made::Again),
            Found::Missing(folder, names) => self.make_each(folder, &names),
        });
        let made =
            permitted(made.and_then(|made| made)).map(|made| made.unwrap_or(Made::NotPermitted));
        if !matches!(made, Ok(Made::Held)) {
            let partly = self.held.split_off(before);
            self.remove_all(partly);
        }
        made
    }

    fn make_each(&mut self, mut folder: Place, names: &[OsString]) -> io::Result<Made> {
        let Some((last, above)) = names.split_last() else { return Ok(Made::Again) };
        if is_of_the_kernel(&folder)? {
            return Ok(Made::NotPermitted);
        }
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
        let file = match openat(&folder.fd, last, flags, Mode::empty()) {
            Ok(file) => file,
            // Another workload has created it meanwhile, or removed a folder on the way.
            Err(Errno::EXIST | Errno::NOENT) => return Ok(Made::Again),
            Err(errno) => return Err(errno.into()),
        };
        // Before its time is set: nobody takes it for one that is left.
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        let (sec, nsec) = MARK;
        let mark = Timespec { tv_sec: sec, tv_nsec: nsec };
        futimens(&file, &Timestamps { last_access: mark, last_modification: mark })?;
        let stat = fstat(&file)?;
        if !is_placeholder(&stat) {
            // This file system keeps no modes or times: nobody could tell the file from one of the node.
            unlinkat(&folder.fd, last, AtFlags::empty())?;
            return Ok(Made::NotPermitted);
        }
        self.held.push(Held { path: folder.path.join(last), id: id(&stat), lock: Some(file) });
        Ok(Made::Held)
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
        // Whoever exchanges the name just now has the right to write in this folder.
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

/// What became of a missing file.
enum Made {
    Held,
    /// The workload's user may not create it.
    NotPermitted,
    /// Somebody else made or removed something on the way.
    Again,
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

/// True for file systems whose names are objects of the kernel: creating one there has an effect.
fn is_of_the_kernel(folder: &Place) -> io::Result<bool> {
    let kind = nix::sys::statfs::fstatfs(&folder.fd)?.filesystem_type();
    Ok(KERNEL.contains(&kind))
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
    let is_empty = stat.st_size == 0 && stat.st_mode & 0o7777 == 0;
    let time = (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(-1));
    kind == FileType::RegularFile && is_empty && time == MARK
}

/// True for an empty file of mode 0 that is so young that its maker may not have set its time yet.
fn may_be_in_the_making(stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_empty = stat.st_size == 0 && stat.st_mode & 0o7777 == 0;
    let made = u64::try_from(stat.st_mtime).unwrap_or(0);
    let made = UNIX_EPOCH + Duration::new(made, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
    let is_young = SystemTime::now().duration_since(made).is_ok_and(|age| age < BEING_MADE);
    kind == FileType::RegularFile && is_empty && is_young
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
