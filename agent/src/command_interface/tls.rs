//! Mutual TLS of the command interface: PEM files go in, a server comes out, and another one when they are replaced.
//!
//! No content of a file is ever part of a message: one of them is a private key.

use std::{fs, io, path::Path, time::Duration};

use tokio::{sync::mpsc, task};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::options::Pems;
use crate::{
    dial::private,
    fingerprint::Fingerprint,
    folders::{named, regular},
};

/// Time of a client for the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The content of the PEM files of a server.
struct Contents {
    ca: Vec<u8>,
    crt: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    /// Reads authority, certificate and key.
    ///
    /// # Errors
    /// A file cannot be read, or others can read the key.
    fn read([ca, crt, key]: &Pems) -> io::Result<Self> {
        let read = |path: &Path| fs::read(path).map_err(|error| named(path, &error));
        let contents = Self { ca: read(ca)?, crt: read(crt)?, key: private(key)? };
        for (path, content, label) in [
            (ca, &contents.ca, "CERTIFICATE"),
            (crt, &contents.crt, "CERTIFICATE"),
            (key, &contents.key, "PRIVATE KEY"),
        ] {
            let text = String::from_utf8_lossy(content);
            // A key may be an `EC PRIVATE KEY`.
            let end = format!("{label}-----");
            let is_begin =
                |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&end);
            if !text.lines().any(is_begin) {
                let noun = label.to_lowercase();
                return Err(named(path, &format!("there is no {noun} in it, as a PEM text")));
            }
        }
        Ok(contents)
    }

    /// Stands for them: a key is not kept for a comparison.
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&[&self.ca, &self.crt, &self.key])
    }

    /// A server with these certificates.
    ///
    /// # Errors
    /// They do not fit together.
    fn server(self) -> io::Result<Server> {
        let identity = Identity::from_pem(self.crt, self.key);
        let config = ServerTlsConfig::new().identity(identity);
        let config = config.client_ca_root(Certificate::from_pem(self.ca)).timeout(HANDSHAKE);
        Server::builder().tls_config(config).map_err(|_| {
            io::Error::other(
                "the PEM files of TLS do not fit together, or one of them is none".to_owned(),
            )
        })
    }
}

/// The certificates of a socket, which can be read again; none if it has no TLS.
#[derive(Debug, Default)]
pub(crate) struct Certificates(Option<InUse>);

#[derive(Debug)]
struct InUse {
    files: Pems,
    fingerprint: Fingerprint,
    replace: mpsc::Sender<Server>,
}

impl Certificates {
    /// Reads the files. Returns the server with them, and where later ones come from.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn open(files: &Pems) -> io::Result<(Self, Server, mpsc::Receiver<Server>)> {
        let contents = Contents::read(files)?;
        let (replace, later) = mpsc::channel(1);
        let in_use = InUse { files: files.clone(), fingerprint: contents.fingerprint(), replace };
        Ok((Self(Some(in_use)), contents.server()?, later))
    }

    /// Reads the files again. From now on connections get the new certificates, and those that are open go on. Logs
    /// what was done; files that cannot be used change nothing.
    pub(crate) async fn read_again(&mut self) {
        let Some(own) = &mut self.0 else { return };
        match own.read_again().await {
            Ok(true) => log::info!("the certificates of the command interface were read again"),
            Ok(false) => log::debug!("the certificates of the command interface are the same"),
            Err(error) => {
                log::error!("the certificates of the command interface stay as they were: {error}");
            }
        }
    }
}

impl InUse {
    /// Returns whether there are others now.
    async fn read_again(&mut self) -> io::Result<bool> {
        let files = self.files.clone();
        // On a thread of its own: a file system may hang.
        let contents = task::spawn_blocking(move || {
            files.iter().try_for_each(|path| regular(path))?;
            Contents::read(&files)
        });
        let contents = contents.await.map_err(io::Error::other)??;
        let fingerprint = contents.fingerprint();
        if fingerprint == self.fingerprint {
            return Ok(false);
        }
        let server = contents.server()?;
        self.fingerprint = fingerprint;
        // Without a receiver the agent ends.
        let _ = self.replace.send(server).await;
        Ok(true)
    }
}
