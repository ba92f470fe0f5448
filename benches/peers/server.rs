//! A server as a process, with a folder in memory.

use std::{
    fs,
    net::TcpListener,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use testkit::{Process, memory_dir, wait_for};

/// It is killed when it is dropped, and its folder is removed.
pub(crate) struct Server {
    process: Process,
    dir: TempDir,
}

impl Server {
    /// Starts a program in its folder. `prepare` is told the folder, and adds what is to be given.
    pub(crate) fn start(program: &str, prepare: impl FnOnce(&mut Command, &TempDir)) -> Self {
        let dir = memory_dir();
        let mut command = Command::new(program);
        // A server in Go has as many threads at work as it has processors: here that is one.
        command.env("GOMAXPROCS", "1").current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        prepare(&mut command, &dir);
        Self { process: Process::start(&mut command), dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it listens there.
    pub(crate) fn wait_for_socket(&mut self, name: &str) {
        let path = self.path(name);
        wait_for("a socket of a server", || {
            assert!(self.process.try_wait().unwrap().is_none(), "a server ended at its start");
            UnixStream::connect(&path).ok()
        });
    }

    pub(crate) fn connect(&self, name: &str) -> UnixStream {
        UnixStream::connect(self.path(name)).unwrap()
    }
}

/// Whether there is such a program.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The first number with points in what a program says of itself.
pub(crate) fn version(program: &str, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    let mut numbers = words.filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    numbers.next().unwrap_or("?").to_owned()
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn write(path: PathBuf, text: &str) {
    fs::write(path, text).unwrap();
}
