//! Status socket: each connection gets one JSON object and is closed (docs/operations.md#status).
//!
//! Only our own user can connect, and nothing is read from a connection. Invariant: no write waits for a
//! slow client, and at most [`MOST_CLIENTS`] connections are open.

use std::{
    collections::HashMap,
    fs, io,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::{error::StartError, fifo::FifoError};

/// Name of the socket in the run directory.
pub(crate) const STATUS_SOCKET: &str = "status.sock";

/// Most connections at a time; more wait in the backlog.
const MOST_CLIENTS: usize = 16;

/// Time for another fifogate to answer before its socket is replaced.
const ALIVE: Duration = Duration::from_millis(300);

/// Id of a connection.
pub(super) type ClientId = usize;

pub(super) struct StatusSocket {
    path: PathBuf,
    listener: UnixListener,
    clients: HashMap<ClientId, Client>,
    next: ClientId,
}

struct Client {
    stream: UnixStream,
    rest: Vec<u8>,
}

impl StatusSocket {
    /// Listens in `run_dir`. Replaces the socket of a fifogate that died.
    pub(super) fn open(run_dir: &Path) -> Result<Self, StartError> {
        let path = run_dir.join(STATUS_SOCKET);
        // A link in the place of the socket is not followed, and refused like any other file.
        let found = fs::symlink_metadata(&path).ok();
        if found.as_ref().is_some_and(|found| !found.file_type().is_socket()) {
            return Err(FifoError::wrong(&path, "is no socket; remove it").into());
        }
        // Only an answer counts: the name alone may be left from a killed fifogate.
        if found.is_some() && is_alive(&path) {
            return Err(StartError::AlreadyRunning(run_dir.to_owned()));
        }
        match listen(&path, found.is_some()) {
            Ok(listener) => Ok(Self { path, listener, clients: HashMap::new(), next: 0 }),
            Err(error) => Err(StartError::StatusSocket(path, error)),
        }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// The descriptor of a connection.
    pub(super) fn client_descriptor(&self, id: ClientId) -> Option<RawFd> {
        self.clients.get(&id).map(|client| client.stream.as_raw_fd())
    }

    /// Accepts new connections. Returns those waiting for an answer.
    pub(super) fn accept(&mut self) -> Vec<ClientId> {
        let mut came = Vec::new();
        while self.clients.len() < MOST_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else { break };
            if stream.set_nonblocking(true).is_ok() {
                self.clients.insert(self.next, Client { stream, rest: Vec::new() });
                came.push(self.next);
                self.next += 1;
            }
        }
        came
    }

    /// Sets the answer of a connection and begins to write it. Returns true if some of it is left.
    pub(super) fn answer(&mut self, id: ClientId, answer: Vec<u8>) -> bool {
        if let Some(client) = self.clients.get_mut(&id) {
            client.rest = answer;
        }
        self.write_on(id)
    }

    /// Writes on. Returns true if some of the answer is left; otherwise the connection is closed.
    pub(super) fn write_on(&mut self, id: ClientId) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        while !client.rest.is_empty() {
            match client.stream.write(&client.rest) {
                Ok(count) if count > 0 => {
                    client.rest.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The client is gone, and nobody else waits for this answer.
                _ => break,
            }
        }
        self.clients.remove(&id);
        false
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // A later client would find the name and wait for an answer.
        let _ = fs::remove_file(&self.path);
    }
}

fn listen(path: &Path, replaces: bool) -> io::Result<UnixListener> {
    if replaces {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Between these two calls the mode of the run directory, 0700, keeps others out.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// True if a fifogate answers. A killed process kept alive by a workload still lets others connect, but
/// does not answer (docs/pipes.md#a-held-process-does-not-end).
fn is_alive(path: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    let _ = stream.set_read_timeout(Some(ALIVE));
    matches!(stream.read(&mut [0]), Ok(count) if count > 0)
}
