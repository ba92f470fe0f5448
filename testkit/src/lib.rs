//! The harness of the tests and benchmarks: it starts fifogate, the reference agent and etcd, and speaks
//! for workloads and agents.
//!
//! Every child process is owned by a [`Process`], which kills it when it is dropped, also while a test panics.
//! Every wait ends after [`PATIENCE`]. Operations panic when they fail; those named `try_` return the error,
//! for tests in which the other side may go away.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure in here is the failure of a test

mod agent;
mod authority;
mod bench;
mod commander;
mod etcd;
mod forwarder;
mod link_agent;
mod manifest;
mod namespace;
mod podman;
mod process;
mod reader;
mod server;
mod session;
mod small_disk;

use std::{
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::statvfs::statvfs,
};
use tempfile::TempDir;

pub use agent::{Agent, Seen, processes_with, shell, state_of, workload, workload_with};
pub use authority::Authority;
pub use bench::Harness;
pub use commander::Commander;
pub use etcd::Etcd;
pub use forwarder::{Forwarder, Network};
pub use link_agent::{
    BOTH, LinkAgent, Transport, access, add, altered, configs, end_of, instance, spawn,
};
pub use manifest::{ALL_RIGHTS, manifest, manifest_with};
pub use namespace::{is_done_elsewhere, is_run_elsewhere};
pub use podman::{IMAGE, Podman, container};
pub use process::{Process, memory_kib};
pub use reader::{Found, Reader};
pub use server::{FOREGROUND, TestServer};
#[cfg(feature = "manifest")]
pub use session::update;
pub use session::{Session, accepted, frame_of, hello_of, removal_of};
pub use small_disk::SmallDisk;

/// The longest wait of a test for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The end of a wait that begins now.
pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// The folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Free space in memory above which [`memory_dir`] uses it: an etcd allocates 64 MiB for its log at once.
const MUCH_MEMORY: u64 = 2 << 30;

/// A folder in memory where there is much of it, and on disk otherwise. Run directories are in memory on a
/// node as well, and a disk under load stops an etcd for seconds.
pub fn memory_dir() -> TempDir {
    let free = statvfs("/dev/shm").map(|memory| memory.blocks_available() * memory.fragment_size());
    if free.is_ok_and(|free| free > MUCH_MEMORY)
        && let Ok(folder) = tempfile::tempdir_in("/dev/shm")
    {
        return folder;
    }
    tempfile::tempdir().unwrap()
}

/// A file below `fixtures/`.
pub fn fixture(path: &str) -> PathBuf {
    repository().join("fixtures").join(path)
}

/// The program `fifogate`, built with the running test.
pub fn fifogate() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| program("fifogate"));
    &PATH
}

/// The program `fifogate-agent`, built with the running test.
pub fn fifogate_agent() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| program("fifogate-agent"));
    &PATH
}

/// Cargo puts tests and benchmarks into `deps/` of the folder of the programs.
fn program(name: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().with_file_name(name);
    assert!(path.is_file(), "{} is missing: `cargo build --workspace` first", path.display());
    path.into_os_string().into_string().unwrap()
}

/// Asks until there is an answer.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = soon();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the test runs as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says that the calling test is skipped, or a part of it, and why; past the capture of passing tests.
pub fn skip(reason: &str) {
    let test = thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {reason}");
}

/// Whether this is root; says otherwise that the calling test is skipped.
pub fn is_root_or_skip() -> bool {
    if !is_root() {
        skip("it needs root");
    }
    is_root()
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Whether a descriptor gets ready before `end`.
fn is_ready(file: &impl AsFd, flags: PollFlags, end: Instant) -> io::Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), flags)], timeout) {
            Err(Errno::EINTR) => {} // a child of another test ended
            count => return Ok(count? > 0),
        }
    }
}
