//! Mutual TLS of the command interface: PEM files go in, a configuration comes out.
//!
//! No content of a file is ever part of a message: one of them is a private key.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// Time of a client for the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The configuration of a server by its files: authority, certificate, key.
///
/// # Errors
/// A file cannot be read, or others can read the key.
pub(super) fn server([ca, crt, key]: &[PathBuf; 3]) -> io::Result<ServerTlsConfig> {
    let (ca, crt) = (read(ca)?, read(crt)?);
    let identity = Identity::from_pem(crt, private(key)?);
    let config = ServerTlsConfig::new().identity(identity);
    Ok(config.client_ca_root(Certificate::from_pem(ca)).timeout(HANDSHAKE))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| named(path, &error))
}

/// Reads a key. Only its owner may have any right to it.
pub(crate) fn private(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path).map_err(|error| named(path, &error))?;
    let metadata = file.metadata().map_err(|error| named(path, &error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let text = format!("others may use this key, its mode is {mode:04o}: chmod 600 it");
        return Err(named(path, &text));
    }
    let our = nix::unistd::geteuid().as_raw();
    if metadata.uid() != our && metadata.uid() != 0 && our != 0 {
        return Err(named(path, &"another user owns this key"));
    }
    read(path)
}

fn named(path: &Path, what: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {what}", path.display()))
}
