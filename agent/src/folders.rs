//! Safe path walks, for paths possibly prepared by other users.
//!
//! In: a path from the command line or from a workload. Out: a descriptor of exactly the named file, or
//! a refusal. A symbolic link is followed only if root or our user owns it, so nobody else decides
//! where a path leads.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, open, openat, readlinkat},
    io::Errno,
    process::geteuid,
};

/// Bound on the links in one path, as in the kernel.
const MOST_LINKS: usize = 40;
/// Owner shown for users not mapped into a user namespace.
const NOBODY: u32 = 65_534;

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A file found by a path.
#[derive(Debug)]
pub(crate) struct Place {
    /// An `O_PATH` descriptor.
    pub(crate) fd: OwnedFd,
    pub(crate) stat: Stat,
    /// Its path without links.
    pub(crate) path: PathBuf,
}

/// Result of a walk.
#[derive(Debug)]
pub(crate) enum Found {
    There(Place),
    /// The last existing folder, and the names missing in it.
    Missing(Place, Vec<OsString>),
}

/// Trusted owners of links and folders: root and our user. In a user namespace, files of the system's
/// root seem to belong to nobody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trusted {
    nobody: bool,
}

impl Trusted {
    /// The trusted users of this process.
    pub(crate) fn here() -> Self {
        let map = fs::read("/proc/self/uid_map").unwrap_or_default();
        // The initial user namespace maps all ids, by one line.
        let mut words = map.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        Self { nobody: words.nth(2).is_some_and(|count| count != b"4294967295") }
    }

    fn has(self, uid: u32) -> bool {
        uid == 0 || uid == geteuid().as_raw() || self.nobody && uid == NOBODY
    }
}

impl Place {
    fn new(fd: OwnedFd, path: PathBuf) -> io::Result<Self> {
        Ok(Self { stat: fstat(&fd)?, fd, path })
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// The entry of this name; a link is not followed.
    pub(crate) fn entry(&self, name: &OsStr) -> io::Result<Self> {
        Self::new(openat(&self.fd, name, PLACE, Mode::empty())?, self.path.join(name))
    }

    /// A path to exactly this file, whatever becomes of its name.
    pub(crate) fn link(&self) -> PathBuf {
        link_of(&self.fd)
    }
}

/// A path to the file of a descriptor.
pub(crate) fn link_of(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Checks that a path leads to a file: nobody may ever write to a FIFO, and a device has no end.
pub(crate) fn regular(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path).map_err(|error| named(path, &error))?;
    if metadata.is_file() { Ok(()) } else { Err(named(path, &"this is no file")) }
}

/// An error of a file, with its path.
pub(crate) fn named(path: &Path, what: &dyn fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {what}", path.display()))
}

/// A fault of a path, as the rest of the sentence.
fn error(path: &Path, what: impl fmt::Display) -> io::Error {
    io::Error::other(format!("{} {what}", path.display()))
}

/// Walks along an absolute path, one name after the other.
///
/// # Errors
/// A link of another user, a file in place of a folder on the way, or an error of `open`.
pub(crate) fn walk(path: &Path, trusted: Trusted) -> io::Result<Found> {
    Walk::new(trusted)?.to(path, |_| Ok(()))
}

/// A walk through the file system. All folders on the way stay open, so `..` leads back to the folder
/// before.
struct Walk {
    trusted: Trusted,
    folders: Vec<Place>,
    links: usize,
}

impl Walk {
    fn new(trusted: Trusted) -> io::Result<Self> {
        let root = open("/", PLACE | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { trusted, folders: vec![Place::new(root, "/".into())?], links: 0 })
    }

    /// Walks to the end of `path`. Passes each folder on the way, but not the end, to `look`.
    fn to(mut self, path: &Path, look: impl Fn(&Place) -> io::Result<()>) -> io::Result<Found> {
        let mut left: VecDeque<OsString> = names(path);
        while let Some(name) = left.pop_front() {
            let Some(folder) = self.folders.last() else { return Err(Errno::NOENT.into()) };
            look(folder)?;
            if name == ".." {
                // As in the kernel, `..` of the root is the root.
                if self.folders.len() > 1 {
                    self.folders.pop();
                }
                continue;
            }
            let found = match folder.entry(&name) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    left.push_front(name);
                    let Some(folder) = self.folders.pop() else { return Err(error) };
                    return Ok(Found::Missing(folder, left.into()));
                }
                Err(error) => return Err(error),
            };
            match found.kind() {
                FileType::Symlink => self.follow(&found, &mut left)?,
                FileType::Directory => self.folders.push(found),
                _ if left.is_empty() => return Ok(Found::There(found)),
                _ => return Err(error(&found.path, "is no folder")),
            }
        }
        self.folders.pop().map(Found::There).ok_or_else(|| Errno::NOENT.into())
    }

    fn follow(&mut self, link: &Place, left: &mut VecDeque<OsString>) -> io::Result<()> {
        let uid = link.stat.st_uid;
        if !self.trusted.has(uid) {
            let what =
                format!("is a symbolic link of another user (uid {uid}); it is not followed");
            return Err(error(&link.path, what));
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&link.fd, "", Vec::new())?.into_bytes();
        let target = PathBuf::from(OsString::from_vec(target));
        if target.is_absolute() {
            self.folders.truncate(1);
        }
        for name in names(&target).into_iter().rev() {
            left.push_front(name);
        }
        Ok(())
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

/// A folder of our user, closed to reads and writes of others.
#[derive(Debug)]
pub(crate) struct Private {
    /// Its path without links.
    pub(crate) path: PathBuf,
    /// For reading.
    pub(crate) fd: OwnedFd,
}

/// Treatment of folders readable by others so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readable {
    /// They are refused.
    Refused,
    /// They are closed to others: nobody could change their content.
    Closed,
}

impl Private {
    /// Creates a folder, or checks an existing one before anything in it is touched.
    ///
    /// # Errors
    /// It belongs to another user, others can write in it or replace it, or it cannot be created. The
    /// text says how to mend it.
    pub(crate) fn open(path: &Path, readable: Readable) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let trusted = Trusted::here();
        let place = match Walk::new(trusted)?.to(&path, |folder| check_above(folder, trusted))? {
            Found::There(place) => place,
            Found::Missing(mut folder, names) => {
                check_above(&folder, trusted)?;
                for name in names {
                    folder = make(&folder, &name)?;
                }
                folder
            }
        };
        Self::check(place, readable)
    }

    /// The folder of this name in this one, created if it is missing.
    ///
    /// # Errors
    /// As for [`Private::open`].
    pub(crate) fn folder(&self, name: &str) -> io::Result<Self> {
        let own = Place::new(self.fd.try_clone()?, self.path.clone())?;
        let place = match own.entry(name.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&own, name.as_ref())?,
            found => found?,
        };
        Self::check(place, Readable::Closed)
    }

    /// A file in this folder for reading and writing, created if it is missing, and never emptied.
    ///
    /// # Errors
    /// Another kind of file, or a file of another user, has its name.
    pub(crate) fn file(&self, name: &str) -> io::Result<fs::File> {
        let path = self.path.join(name);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => fd,
            Err(Errno::LOOP) => return Err(error(&path, "is a symbolic link; remove it")),
            Err(errno) => return Err(named(&path, &io::Error::from(errno))),
        };
        let stat = fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(error(&path, "is no regular file; remove it"));
        }
        check_owner(&path, &stat)?;
        // An older agent may have made it readable by others.
        fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
        Ok(fd.into())
    }

    fn check(place: Place, readable: Readable) -> io::Result<Self> {
        let Place { fd, stat, path } = place;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(error(&path, "is no folder"));
        }
        check_owner(&path, &stat)?;
        // Opened through the checked descriptor: its name is not looked up again.
        let fd = openat(&fd, ".", FOLDER & !OFlags::NOFOLLOW, Mode::empty())
            .map_err(|errno| named(&path, &io::Error::from(errno)))?;
        let (mode, others) = (stat.st_mode & 0o7777, stat.st_mode & 0o077);
        if others != 0 {
            let may_close = others & 0o022 == 0 && readable == Readable::Closed;
            // An empty folder holds nothing prepared by others, so it can be closed in any case.
            if !may_close && fs::read_dir(link_of(&fd))?.next().is_some() {
                let what = format!(
                    "is open to other users (mode {mode:04o}); run `chmod 700` on it if you trust \
                     what is in it, or give an empty or new folder"
                );
                return Err(error(&path, what));
            }
            log::warn!(
                "{} was open to other users, and is private now (its mode was {mode:04o})",
                path.display()
            );
        }
        if mode & 0o777 != 0o700 {
            fchmod(&fd, Mode::RWXU)?;
        }
        Ok(Self { path, fd })
    }
}

/// Creates a missing folder for our user alone, whatever the umask.
fn make(parent: &Place, name: &OsStr) -> io::Result<Place> {
    let path = parent.path.join(name);
    match mkdirat(&parent.fd, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(named(&path, &io::Error::from(errno))),
    }
    let place = parent.entry(name)?;
    if place.kind() != FileType::Directory {
        return Err(error(&path, "is no folder"));
    }
    // Another user may have created it meanwhile.
    check_owner(&path, &place.stat)?;
    if place.stat.st_mode & 0o700 != 0o700 {
        // A strange umask; without these bits no other descriptor of the folder can be opened.
        fs::set_permissions(place.link(), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    parent.entry(name)
}

fn check_owner(path: &Path, stat: &Stat) -> io::Result<()> {
    let us = geteuid().as_raw();
    if stat.st_uid == us {
        return Ok(());
    }
    let what = format!(
        "belongs to user {}, not to user {us}; give one of your own, or one that does not exist yet",
        stat.st_uid
    );
    Err(error(path, what))
}

/// Checks a folder on the way: only root and our user may replace its entries. Its group is trusted, as
/// many systems give each user an own group.
fn check_above(folder: &Place, trusted: Trusted) -> io::Result<()> {
    let (uid, mode) = (folder.stat.st_uid, folder.stat.st_mode);
    let is_sticky = mode & 0o1000 != 0;
    // The sticky bit lets only the owner of an entry replace it.
    if trusted.has(uid) && (mode & 0o002 == 0 || is_sticky) {
        return Ok(());
    }
    let what = format!(
        "has user {uid} and mode {:04o}, so others can replace what is in it; give a folder whose \
         parents belong to root or to you",
        mode & 0o7777
    );
    Err(error(&folder.path, what))
}

/// The target of a link, as bytes.
pub(crate) fn target_of(link: &Place) -> io::Result<OsString> {
    let target = readlinkat(&link.fd, "", Vec::new())?;
    Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
}
