//! Connections to servers of the schema: another agent's command interface, or a server of Ankaios.
//!
//! An address and PEM files go in; an endpoint of tonic comes out. No content of a file is ever part of a
//! message: one of them is a private key.

use std::{
    error::Error,
    fmt, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::folders::named;

/// Name in the certificate of every server.
const SERVER: &str = "ank-server";

/// How often a silent connection is asked whether the other side is still there, and time for its answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A part of mutual TLS.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Pem {
    /// In this file, read for each connection.
    File(PathBuf),
    /// As it is.
    Text(String),
}

/// Authority, certificate and key.
pub(crate) type Pems = [Pem; 3];

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Text(_) => f.write_str("PEM"),
        }
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl Pem {
    fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::File(path) => fs::read(path).map_err(|error| named(path, &error)),
            Self::Text(text) => Ok(text.clone().into_bytes()),
        }
    }

    fn read_private(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::File(path) => private(path),
            Self::Text(_) => self.read(),
        }
    }
}

/// A server, and who connects to it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The option with the address, for messages.
    pub(crate) option: &'static str,
    /// `unix:PATH`, `http://HOST:PORT` or `https://HOST:PORT`.
    pub(crate) address: String,
    /// Who may sign the server's certificate.
    pub(crate) ca: Option<Pem>,
    /// Our certificate and its key.
    pub(crate) identity: Option<(Pem, Pem)>,
}

impl Target {
    /// The endpoint of a connection.
    ///
    /// # Errors
    /// The address or a file is of no use; the text is for the user.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, String> {
        let Self { option, address, ca, identity } = self;
        let unusable = |what: &str| format!("{option} {address}: {what}");
        let is_known =
            ["unix:", "http://", "https://"].iter().any(|scheme| address.starts_with(scheme));
        if !is_known {
            return Err(unusable("expected unix:PATH, http://HOST:PORT or https://HOST:PORT"));
        }
        let endpoint = Endpoint::from_shared(address.to_owned());
        let endpoint = endpoint.map_err(|_| unusable("this is no address"))?;
        let endpoint = endpoint
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        if !address.starts_with("https:") {
            return Ok(endpoint);
        }
        let Some(ca) = ca else {
            return Err(unusable("https needs --ca-pem, --crt-pem and --key-pem"));
        };
        let text = |error: io::Error| error.to_string();
        let ca = Certificate::from_pem(ca.read().map_err(text)?);
        let mut config = ClientTlsConfig::new().domain_name(SERVER).ca_certificate(ca);
        if let Some((crt, key)) = identity {
            let key = key.read_private().map_err(text)?;
            config = config.identity(Identity::from_pem(crt.read().map_err(text)?, key));
        }
        endpoint
            .tls_config(config)
            .map_err(|_| unusable("the PEM files do not fit together, or one of them is none"))
    }
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
    fs::read(path).map_err(|error| named(path, &error))
}

/// The innermost cause: the others say that a transport has failed.
pub(crate) fn cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
