//! The floors: what the kernel alone takes for the same bytes. Each is this program once more, as a
//! process of its own.

mod echo;
mod fan;

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use clap::{Subcommand, ValueEnum};
use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

use crate::{caller::Caller, readers::Readers, world::Publisher};

/// The task of a server process.
#[derive(Clone, Debug, Subcommand)]
#[command(hide = true)]
pub(crate) enum Floor {
    /// Answers each request with the same bytes
    #[command(hide = true)]
    Echo {
        #[arg(value_enum)]
        hops: Hops,
        dir: PathBuf,
        request_len: usize,
        /// Size of the pipe to the client; 0: as the kernel makes it
        pipe: usize,
    },
    /// Writes the same bytes to many pipes when it is asked to
    #[command(hide = true)]
    Fan { dir: PathBuf, request_len: usize, count: usize },
}

/// The way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hops {
    /// Blocking calls
    Blocking,
    /// An event loop
    Mio,
    /// An event loop, a channel to a worker, a channel back and a waker, as in fifogate
    Worker,
}

impl Hops {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blocking => "bare, blocking",
            Self::Mio => "bare, mio",
            Self::Worker => "bare, mio + worker thread",
        }
    }
}

impl Floor {
    /// Serves until the client has gone.
    pub(crate) fn serve(&self) {
        match self {
            Self::Echo { hops, dir, request_len, pipe } => {
                echo::serve(*hops, dir, *request_len, *pipe);
            }
            Self::Fan { dir, request_len, count } => fan::serve(dir, *request_len, *count),
        }
    }
}

/// A floor that runs. It ends when its client hangs up.
pub(crate) struct Server {
    child: Child,
    _dir: TempDir,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn start(dir: TempDir, args: &[&str]) -> Self {
        let own = std::env::current_exe().unwrap();
        Self { child: Command::new(own).args(args).spawn().unwrap(), _dir: dir }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A floor that gives the answers that `like` gets, and its client.
pub(crate) fn echo(hops: Hops, like: &Caller, pipe: usize) -> (Server, Caller) {
    let dir = folder(&["output", "input"]);
    fs::write(dir.path().join("response"), &like.response).unwrap();
    let (path, name) = (dir.path().to_owned(), hops.to_possible_value().unwrap());
    let (len, pipe) = (like.request.len().to_string(), pipe.to_string());
    let at = path.to_str().unwrap();
    let server = Server::start(dir, &["echo", name.get_name(), at, &len, &pipe]);
    (server, Caller::at(&path, like.request.clone(), like.response.clone()))
}

/// A floor that writes `event` to `count` pipes when it is asked as `like` asks, and its clients.
pub(crate) fn fan(like: &Publisher, event: &[u8], count: usize) -> (Server, Publisher, Readers) {
    let dir = folder(&["output", "input"]);
    let inputs: Vec<_> = (0..count).map(|index| dir.path().join(format!("{index}"))).collect();
    inputs.iter().for_each(|path| fifo(path));
    let (request, response) = like.bytes();
    fs::write(dir.path().join("response"), response).unwrap();
    fs::write(dir.path().join("event"), event).unwrap();
    let (path, len, count) = (dir.path().to_owned(), request.len().to_string(), count.to_string());
    let server = Server::start(dir, &["fan", path.to_str().unwrap(), &len, &count]);
    let caller = Caller::at(&path, request.to_vec(), response.to_vec());
    let readers = Readers::new(inputs.iter().map(|path| File::open(path).unwrap()).collect());
    (server, Publisher::over(caller), readers)
}

fn folder(fifos: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fifos.iter().for_each(|name| fifo(&dir.path().join(name)));
    dir
}

fn fifo(path: &Path) {
    mkfifo(path, Mode::S_IRWXU).unwrap();
}

/// The server's ends: opened in the order in which the client opens its own, as each waits for the
/// other.
fn ends(dir: &Path) -> (File, File) {
    let output = File::open(dir.join("output")).unwrap();
    (output, to_client(&dir.join("input")))
}

fn to_client(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}
