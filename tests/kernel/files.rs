//! The names of a FIFO, and the way to one that does not depend on them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::stat::{Mode, fchmod, fstat},
    unistd::mkfifo,
};

use super::fifo::{Fifo, reopen, through_proc};

#[test]
fn making_a_fifo_follows_and_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link, file) =
        (dir.path().join("target"), dir.path().join("link"), dir.path().join("file"));
    symlink(&target, &link).unwrap();
    fs::write(&file, "precious").unwrap();
    for taken in [&link, &file] {
        assert_eq!(mkfifo(taken, Mode::S_IRWXU), Err(Errno::EEXIST));
    }
    assert!(!target.exists());
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn handle_leads_to_the_same_fifo_whatever_becomes_of_its_name() {
    let fifo = Fifo::new();
    let handle = fifo.handle();
    let victim = fifo.dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::remove_file(&fifo.path).unwrap();
    symlink(&victim, &fifo.path).unwrap();
    let (mut reader, mut writer) =
        (reopen(&handle, OFlag::O_RDONLY).unwrap(), reopen(&handle, OFlag::O_WRONLY).unwrap());
    writer.write_all(b"frame").unwrap();
    let mut bytes = [0; 5];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!((&bytes, fs::read_to_string(&victim).unwrap().as_str()), (b"frame", "precious"));
    assert_eq!(fstat(&handle).unwrap().st_ino, reader.metadata().unwrap().ino());
}

#[test]
fn name_that_is_opened_again_leads_to_whatever_has_it_now() {
    let fifo = Fifo::new();
    let victim = fifo.dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::remove_file(&fifo.path).unwrap();
    symlink(&victim, &fifo.path).unwrap();
    fifo.writer().write_all(b"frame").unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "frameous", "a file of the host was written");
    fs::remove_file(&fifo.path).unwrap();
    fs::hard_link(&victim, &fifo.path).unwrap();
    fifo.open(OFlag::O_WRONLY | OFlag::O_NOFOLLOW).unwrap().write_all(b"FRAME").unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "FRAMEous", "O_NOFOLLOW stops only links");
    assert!(!fifo.reader().metadata().unwrap().file_type().is_fifo());
}

#[test]
fn handle_of_a_symbolic_link_is_the_link_and_does_not_open() {
    let fifo = Fifo::new();
    let link = fifo.dir.path().join("link");
    symlink(&fifo.path, &link).unwrap();
    let handle = Fifo { path: link, ..fifo }.handle();
    assert_eq!(fstat(&handle).unwrap().st_mode & 0o170_000, 0o120_000);
    assert_eq!(reopen(&handle, OFlag::O_RDONLY).unwrap_err(), Errno::ELOOP);
}

#[test]
fn mode_is_set_through_proc_or_a_working_descriptor_and_outlives_them() {
    let fifo = Fifo::new();
    let handle = fifo.handle();
    assert_eq!(fchmod(&handle, Mode::S_IRUSR), Err(Errno::EBADF));
    let mode = || fs::metadata(&fifo.path).unwrap().permissions().mode() & 0o7777;
    fs::set_permissions(through_proc(&handle), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(mode(), 0o600);
    let reader = fifo.reader();
    fchmod(&reader, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_ISVTX).unwrap();
    drop((reader, handle));
    assert_eq!(mode(), 0o1600, "the sticky bit means nothing on a FIFO, and stays");
}
