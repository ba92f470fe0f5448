//! FIFO pairs on disk: makes, verifies, opens and removes the two FIFOs of a workload
//! (docs/pipes.md#names-and-files, docs/differences.md#21-pairs-are-opened-once).
//!
//! Invariants: everything below the run directory is reached from descriptors of our own folders, never
//! through a symbolic link. Each FIFO is opened by name once, with `O_PATH`, and then through that
//! descriptor: later changes of names are not followed. A served pair costs two descriptors.

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    libc::{dev_t, ino_t},
    sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, chown, geteuid, mkdir, mkfifoat, unlinkat},
};

use crate::{message::Owner, state::Instance};

/// Name of the FIFO read by the workload.
const TO_WORKLOAD: &str = "input";
/// Name of the FIFO written by the workload.
const FROM_WORKLOAD: &str = "output";
/// Folder of a pair, inside the folder of its workload.
const PAIR_DIR: &str = "control_interface";

/// The owner of a FIFO may read and write it, and nobody else.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
/// Mark on the FIFO read by the workload: a frame is being written in parts. The bit has no meaning for
/// a FIFO in the kernel, and survives a killed fifogate.
const IN_PARTS: Mode = Mode::S_ISVTX;

const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A file or folder below the run directory is unusable.
#[derive(Debug)]
pub(super) struct FifoError {
    path: PathBuf,
    what: What,
}

#[derive(Debug)]
enum What {
    Failed(&'static str, Errno),
    Wrong(String),
}

impl FifoError {
    fn failed(path: &Path, doing: &'static str) -> impl FnOnce(Errno) -> Self {
        let path = path.to_owned();
        move |errno| Self { path, what: What::Failed(doing, errno) }
    }

    /// True if there was no file of this name.
    fn is_missing(&self) -> bool {
        matches!(self.what, What::Failed(_, Errno::ENOENT))
    }

    pub(super) fn wrong(path: &Path, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), what: What::Wrong(what.into()) }
    }
}

impl fmt::Display for FifoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.what {
            What::Failed(doing, errno) => write!(f, "cannot {doing} {path}: {}", errno.desc()),
            What::Wrong(what) => write!(f, "{path} {what}"),
        }
    }
}

impl std::error::Error for FifoError {}

impl From<FifoError> for io::Error {
    fn from(error: FifoError) -> Self {
        match &error.what {
            What::Failed(_, errno) => Self::new(Self::from(*errno).kind(), error.to_string()),
            What::Wrong(_) => Self::new(io::ErrorKind::InvalidInput, error.to_string()),
        }
    }
}

/// The folder of all pairs. It belongs to our user alone.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    dir: OwnedFd,
}

impl RunDir {
    /// Opens the run directory, or makes it if it is missing (its parent has to exist).
    ///
    /// # Errors
    /// It cannot be made or opened, belongs to another user, or is open to others: a user with write
    /// access could replace its files and read the messages to every workload.
    pub(super) fn open(path: &Path) -> Result<Self, FifoError> {
        match mkdir(path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(Errno::ENOENT) => {
                let what = "is no run directory, and its parent folder is missing: make that first";
                return Err(FifoError::wrong(path, what));
            }
            Err(errno) => return Err(FifoError::failed(path, "make run directory")(errno)),
        }
        let dir = open(path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(FifoError::failed(path, "open run directory"))?;
        let stat = fstat(&dir).map_err(FifoError::failed(path, "look at"))?;
        check_owner(path, &stat)?;
        if stat.st_mode & 0o077 != 0 {
            // An empty folder holds nothing prepared by others, so it is closed to them instead.
            if !is_empty(path) {
                let mode = stat.st_mode & 0o777;
                let why = format!(
                    "is open to other users (mode {mode:04o}); run `chmod 700` on it, or give an \
                     empty or new folder"
                );
                return Err(FifoError::wrong(path, why));
            }
            fchmod(&dir, Mode::S_IRWXU).map_err(FifoError::failed(path, "restrict"))?;
        }
        // Agents and the status show this path: it has to hold in any working directory.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Ok(Self { path, dir })
    }

    /// Path of the run directory.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the pair of `instance`, or takes over an existing one.
    ///
    /// # Errors
    /// A folder or FIFO cannot be made, belongs to another user, or its name is taken by another file.
    pub(super) fn open_pair(
        &self,
        instance: &Instance,
        owner: Owner,
    ) -> Result<(PipePair, Unopened), FifoError> {
        // Without the agent's name: the broker refuses a second instance with this name and id.
        let name = format!("{}.{}", instance.workload, instance.id);
        let workload_path = self.path.join(&name);
        let workload_dir = make_dir(&self.dir, &name, &workload_path)?;
        let path = workload_path.join(PAIR_DIR);
        let dir = make_dir(&workload_dir, PAIR_DIR, &path)?;
        let to_workload = Fifo::make(&dir, TO_WORKLOAD, &path, owner)?;
        let from_workload = Fifo::make(&dir, FROM_WORKLOAD, &path, owner)?;
        let reused = to_workload.reused || from_workload.reused;
        let files =
            [(TO_WORKLOAD, Some(to_workload.file)), (FROM_WORKLOAD, Some(from_workload.file))];
        let fifos = Unopened {
            in_parts: to_workload.in_parts,
            to_workload: to_workload.fd,
            from_workload: from_workload.fd,
        };
        Ok((PipePair { name, path, files, reused }, fifos))
    }

    /// Removes the names of a pair, and its folders if they are empty then. Names of other files are
    /// left alone, and missing names are no error.
    ///
    /// # Errors
    /// A name cannot be removed, or no longer names our FIFO.
    pub(super) fn remove_pair(&self, pair: &PipePair) -> Result<(), FifoError> {
        let (workload_dir, dir) = match self.open_folders(pair) {
            Err(error) if error.is_missing() => {
                return remove_dir(&self.dir, &pair.name, &self.path.join(&pair.name));
            }
            found => found?,
        };
        for (name, file) in pair.files {
            let path = pair.path.join(name);
            match file_named(&dir, name) {
                Ok(named) if Some(named) == file => {
                    unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)
                        .map_err(FifoError::failed(&path, "remove"))?
                }
                Ok(_) => {
                    let why = "is not the FIFO that was made there; it is left alone";
                    return Err(FifoError::wrong(&path, why));
                }
                // Its workload may have removed the name itself.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(FifoError::failed(&path, "look at")(errno)),
            }
        }
        // From the inside out, as only an empty folder can be removed.
        remove_dir(&workload_dir, PAIR_DIR, &pair.path)?;
        remove_dir(&self.dir, &pair.name, &self.path.join(&pair.name))
    }

    /// The names of all folders with a FIFO of ours for a workload: pairs, maybe of an earlier server.
    pub(super) fn pairs(&self) -> Vec<String> {
        let entries = self.path.read_dir().into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| self.existing(name).is_ok_and(|pair| pair.is_some())).collect()
    }

    /// Removes an existing pair by the name of its folder, as [`RunDir::remove_pair`] does.
    ///
    /// # Errors
    /// A folder cannot be opened, or a name cannot be removed.
    pub(super) fn remove_named(&self, name: &str) -> Result<(), FifoError> {
        self.existing(name)?.map_or(Ok(()), |pair| self.remove_pair(&pair))
    }

    /// The pair in the folder `name`; `None` if there is no FIFO of ours.
    fn existing(&self, name: &str) -> Result<Option<PipePair>, FifoError> {
        let path = self.path.join(name).join(PAIR_DIR);
        let files = [(TO_WORKLOAD, None), (FROM_WORKLOAD, None)];
        let mut pair = PipePair { name: name.to_owned(), path, files, reused: true };
        let (_, dir) = self.open_folders(&pair)?;
        for (name, file) in &mut pair.files {
            let stat = fstatat(&dir, *name, AtFlags::AT_SYMLINK_NOFOLLOW);
            if let Ok(stat) = stat
                && SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFIFO
            {
                *file = Some((stat.st_dev, stat.st_ino));
            }
        }
        let is_ours = pair.files.iter().any(|(_, file)| file.is_some());
        Ok(is_ours.then_some(pair))
    }

    /// True if both names of a pair still name our FIFOs.
    #[must_use]
    pub(super) fn has_names_of(&self, pair: &PipePair) -> bool {
        self.open_folders(pair).is_ok_and(|(_, dir)| {
            pair.files.iter().all(|(name, file)| file_named(&dir, name).ok() == *file)
        })
    }

    /// Opens the workload's folder, and the folder of its pair.
    fn open_folders(&self, pair: &PipePair) -> Result<(OwnedFd, OwnedFd), FifoError> {
        let workload_path = self.path.join(&pair.name);
        let workload_dir = openat(&self.dir, pair.name.as_str(), DIR, Mode::empty())
            .map_err(FifoError::failed(&workload_path, "open"))?;
        let dir = openat(&workload_dir, PAIR_DIR, DIR, Mode::empty())
            .map_err(FifoError::failed(&pair.path, "open"))?;
        Ok((workload_dir, dir))
    }
}

/// Identity of a file while a descriptor keeps it open: the kernel reuses numbers at once.
type FileId = (dev_t, ino_t);

/// Names of a workload's two FIFOs, with the identities of their files.
#[derive(Debug)]
pub(super) struct PipePair {
    name: String,
    path: PathBuf,
    /// `None`: no FIFO had this name when the pair was found.
    files: [(&'static str, Option<FileId>); 2],
    reused: bool,
}

impl PipePair {
    /// Name of its folder in the run directory.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The folder shown to the workload.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// True if a FIFO existed before: its content may begin anywhere in a message.
    #[must_use]
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }
}

/// The two FIFOs of a workload, held by `O_PATH` descriptors without any effect on the pipes. Opening
/// them may sleep for as long as the workload likes (docs/pipes.md#opening-a-held-pipe-sleeps).
#[derive(Debug)]
pub(super) struct Unopened {
    to_workload: OwnedFd,
    from_workload: OwnedFd,
    /// A fifogate died while it wrote a frame to the workload in parts.
    in_parts: bool,
}

impl Unopened {
    /// True if a fifogate died while it wrote a frame to the workload in parts: the last frame in the
    /// pipe may then lack its end.
    #[must_use]
    pub(super) fn is_in_parts(&self) -> bool {
        self.in_parts
    }

    /// The `O_PATH` descriptor of the FIFO read by the workload.
    pub(super) fn to_workload(&self) -> &OwnedFd {
        &self.to_workload
    }

    /// Opens the FIFO written by the workload, for reading.
    ///
    /// # Errors
    /// As `open`.
    pub(super) fn open_from_workload(&self) -> io::Result<OwnedFd> {
        reopen(&self.from_workload, OFlag::O_RDONLY)
    }

    /// Opens the FIFO read by the workload, for writing. A write end needs a reader to open, so the
    /// server itself is that reader for a moment (docs/pipes.md#write-end-without-a-reader). Afterwards
    /// a blocking `open` of the workload succeeds at once, and the kernel reports readers that leave.
    ///
    /// # Errors
    /// As `open`.
    pub(super) fn open_to_workload(&self) -> io::Result<OwnedFd> {
        let _reader = reopen(&self.to_workload, OFlag::O_RDWR)?;
        reopen(&self.to_workload, OFlag::O_WRONLY)
    }
}

/// Opens the file of a descriptor again, independent of its name.
///
/// # Errors
/// As `open`; needs a mounted `/proc`.
pub(super) fn reopen(fd: &OwnedFd, mode: OFlag) -> io::Result<OwnedFd> {
    try_reopen(fd, mode).map_err(|errno| {
        let why = if errno == Errno::ENOENT { "; is /proc mounted?" } else { "" };
        let path = path_of(fd.as_raw_fd());
        let text = format!("cannot open {}: {}{why}", path.display(), errno.desc());
        io::Error::new(io::Error::from(errno).kind(), text)
    })
}

/// Like [`reopen`], for callers that handle single errors.
pub(super) fn try_reopen(fd: &OwnedFd, mode: OFlag) -> Result<OwnedFd, Errno> {
    // Without `O_NONBLOCK` an `open` would sleep until the other end is open.
    let flags = mode | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    open(&path_of(fd.as_raw_fd()), flags, Mode::empty())
}

/// Marks in the mode of the FIFO whether a frame is being written to it in parts, for the next fifogate
/// after a crash. Permissions set by an operator are kept.
///
/// # Errors
/// As `fstat` and `fchmod`.
pub(super) fn note_in_parts(to_workload: &OwnedFd, on: bool) -> Result<(), Errno> {
    let mut mode = Mode::from_bits_truncate(fstat(to_workload)?.st_mode);
    mode.set(IN_PARTS, on);
    fchmod(to_workload, mode)
}

/// Path to the file of a descriptor.
#[must_use]
pub(super) fn path_of(fd: RawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{fd}"))
}

/// A FIFO just made or found.
struct Fifo {
    fd: OwnedFd,
    file: FileId,
    reused: bool,
    in_parts: bool,
}

impl Fifo {
    fn make(dir: &OwnedFd, name: &str, parent: &Path, owner: Owner) -> Result<Self, FifoError> {
        let path = parent.join(name);
        let reused = match mkfifoat(dir, name, PRIVATE) {
            Ok(()) => false,
            Err(Errno::EEXIST) => true,
            Err(errno) => return Err(FifoError::failed(&path, "make FIFO")(errno)),
        };
        // The name may be a link, or be replaced by now (docs/pipes.md#making-follows-nothing).
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(dir, name, flags, Mode::empty())
            .map_err(FifoError::failed(&path, "open FIFO"))?;
        let stat = fstat(&fd).map_err(FifoError::failed(&path, "look at"))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind != SFlag::S_IFIFO {
            let why = format!("is a {}, and a FIFO belongs there; remove it", kind_name(kind));
            return Err(FifoError::wrong(&path, why));
        }
        // An existing FIFO may belong to its workload already.
        if owner.uid != Some(stat.st_uid) {
            check_owner(&path, &stat)?;
        }
        // `fchmod` refuses `O_PATH` (docs/pipes.md#mode-of-a-fifo); this path leads to the same file.
        let link = path_of(fd.as_raw_fd());
        if owner != Owner::default() {
            let (uid, gid) = (owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw));
            chown(&link, uid, gid).map_err(FifoError::failed(&path, "give to its workload"))?;
        }
        let in_parts = reused && stat.st_mode & IN_PARTS.bits() != 0;
        // Also for an existing FIFO, and against an unusual umask.
        if stat.st_mode & 0o777 != PRIVATE.bits() {
            let mode = if in_parts { PRIVATE | IN_PARTS } else { PRIVATE };
            fchmodat(nix::fcntl::AT_FDCWD, &link, mode, FchmodatFlags::FollowSymlink)
                .map_err(FifoError::failed(&path, "restrict"))?;
        }
        Ok(Self { fd, file: (stat.st_dev, stat.st_ino), reused, in_parts })
    }
}

fn file_named(dir: &OwnedFd, name: &str) -> Result<FileId, Errno> {
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn make_dir(parent: &impl AsFd, name: &str, path: &Path) -> Result<OwnedFd, FifoError> {
    let shared = Mode::from_bits_truncate(0o755);
    let made = match mkdirat(parent, name, shared) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(FifoError::failed(path, "make folder")(errno)),
    };
    let dir =
        openat(parent, name, DIR, Mode::empty()).map_err(FifoError::failed(path, "open folder"))?;
    let stat = fstat(&dir).map_err(FifoError::failed(path, "look at"))?;
    check_owner(path, &stat)?;
    if made {
        // A workload of another user has to pass through, whatever the umask.
        fchmod(&dir, shared).map_err(FifoError::failed(path, "open up"))?;
    }
    Ok(dir)
}

fn remove_dir(parent: &OwnedFd, name: &str, path: &Path) -> Result<(), FifoError> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        // Files of others are kept.
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
        Err(errno) => Err(FifoError::failed(path, "remove")(errno)),
    }
}

fn check_owner(path: &Path, stat: &FileStat) -> Result<(), FifoError> {
    let us = geteuid();
    if stat.st_uid == us.as_raw() {
        return Ok(());
    }
    let owner = stat.st_uid;
    Err(FifoError::wrong(path, format!("belongs to user {owner}, and fifogate runs as user {us}")))
}

fn is_empty(path: &Path) -> bool {
    path.read_dir().is_ok_and(|mut entries| entries.next().is_none())
}

fn kind_name(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFREG => "regular file",
        SFlag::S_IFDIR => "folder",
        SFlag::S_IFLNK => "symbolic link",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFCHR | SFlag::S_IFBLK => "device",
        _ => "file of another kind",
    }
}
