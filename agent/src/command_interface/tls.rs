//! Mutual TLS of the command interface: PEM files go in, a configuration comes out.
//!
//! No content of a file is ever part of a message: one of them is a private key.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::dial::{named, private};

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
