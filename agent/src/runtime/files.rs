//! The files of a workload, written into the agent's folder as sources of mounts.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Component, Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fifogate::pb::ank_base::{self as pb, file::FileContent};
use nix::unistd::Uid;

use super::{StartError, mounts::Bind};

/// Who may read the files in the workload. No process outside of it reaches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// The owner alone, a user and a group. A daemon started by root reads them when it has become
    /// another user; a workload of another user cannot change its user.
    Owner(Option<(u32, u32)>),
    /// Whoever it runs as.
    All,
}

/// Writes the files into `folder`, and returns a read-only mount for each.
pub(super) fn write(
    folder: &Path,
    files: &[pb::File],
    readers: Readers,
) -> Result<Vec<Bind>, StartError> {
    if let Some((_, fault)) = overlaps(files).into_iter().next() {
        return Err(StartError::Wrong(fault));
    }
    let mut binds = Vec::new();
    for file in files {
        let (target, content) = target_and_content(file).map_err(StartError::Wrong)?;
        let source = folder.join(name_for(&file.mount_point));
        write_file(folder, &source, &content, readers).map_err(|error| {
            StartError::Failed(format!("cannot write {}: {error}", source.display()))
        })?;
        binds.push(Bind { source, target, read_only: true });
    }
    Ok(binds)
}

/// The name in the agent's folder of the file for a mount point. A container that is started again finds its
/// own files, whatever files were added meanwhile and whatever version of the agent made it: so this is
/// FNV-1a, and not the hash of the standard library, which may change.
fn name_for(mount_point: &str) -> String {
    let hash = mount_point.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The mount point of a file, and its bytes.
///
/// # Errors
/// One of them cannot be used.
pub(super) fn target_and_content(file: &pb::File) -> Result<(PathBuf, Vec<u8>), String> {
    let target = PathBuf::from(&file.mount_point);
    let wrong = |what: &str| fault(file, what);
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !target.is_absolute() || !target.components().all(plain) || target.file_name().is_none() {
        return Err(wrong("a mountPoint is an absolute path of a file without `..`"));
    }
    let content = match &file.file_content {
        Some(FileContent::Data(text)) => text.as_bytes().to_vec(),
        Some(FileContent::BinaryData(text)) => STANDARD
            .decode(text.trim())
            .map_err(|error| wrong(&format!("binaryData is no base64: {error}")))?,
        None => Vec::new(),
    };
    Ok((target, content))
}

/// The files at or below the place of another one, by their numbers, with the fault of each.
pub(super) fn overlaps(files: &[pb::File]) -> Vec<(usize, String)> {
    let mut places = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        places.entry(Path::new(&file.mount_point)).or_insert(number);
    }
    let overlap = |(number, file): (usize, &pb::File)| {
        let own = Path::new(&file.mount_point);
        let outer = own
            .ancestors()
            .find(|outer| places.get(outer).is_some_and(|other| *other != number))?;
        Some((number, fault(file, &format!("another file is at {}", outer.display()))))
    };
    files.iter().enumerate().filter_map(overlap).collect()
}

fn fault(file: &pb::File, what: &str) -> String {
    format!("file with mountPoint '{}': {what}", file.mount_point)
}

fn mode(content: &[u8], readers: Readers) -> u32 {
    let for_all = match readers {
        Readers::Owner(None) => Uid::effective().is_root(),
        Readers::Owner(Some((uid, _))) => uid == 0,
        Readers::All => true,
    };
    let is_program = content.starts_with(b"#!") || content.starts_with(b"\x7fELF");
    match (for_all, is_program) {
        (true, true) => 0o555,
        (true, false) => 0o444,
        (false, true) => 0o500,
        (false, false) => 0o400,
    }
}

fn write_file(folder: &Path, path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A file of an earlier start is replaced, never written into.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    if let Readers::Owner(Some((uid, gid))) = readers {
        fchown(&file, Some(uid), Some(gid))?;
    }
    // Whatever the umask.
    file.set_permissions(Permissions::from_mode(mode(content, readers)))
}
