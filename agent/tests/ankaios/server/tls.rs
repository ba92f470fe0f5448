//! Mutual TLS: certificates for both sides, and the name in one.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// Who signs certificates. Keys and certificates are in its folder.
pub(crate) struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    /// `ca.pem`, `NAME.pem` or `NAME.key`.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub(crate) fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// Makes the files `NAME.pem`, mode 0644, and `NAME.key`, mode 0600, of a certificate for this name.
    pub(crate) fn issue(&self, name: &str) {
        self.issue_for(name, vec![name.to_owned()]);
    }

    /// As [`Authority::issue`], for these names in place of its own.
    pub(crate) fn issue_for(&self, file: &str, names: Vec<String>) {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer);
        let write = |file: String, text: String, mode| {
            fs::write(self.path(&file), text).unwrap();
            fs::set_permissions(self.path(&file), Permissions::from_mode(mode)).unwrap();
        };
        write(format!("{file}.pem"), certificate.unwrap().pem(), 0o644);
        write(format!("{file}.key"), key.serialize_pem(), 0o600);
    }

    /// The configuration of the server, with a certificate for `ank-server`.
    pub(crate) fn server(&self) -> ServerTlsConfig {
        self.issue("ank-server");
        let identity = Identity::from_pem(self.text("ank-server.pem"), self.text("ank-server.key"));
        let ca = Certificate::from_pem(self.text("ca.pem"));
        ServerTlsConfig::new().identity(identity).client_ca_root(ca)
    }
}

/// The names of hosts for which a certificate is; none without the extension.
pub(super) fn host_names(der: &[u8]) -> Option<Vec<String>> {
    // The object identifier 2.5.29.17, and behind it an octet string with a sequence of names. A certificate
    // of a test has names of less than 128 bytes, so each length is one byte.
    let oid = [0x06, 0x03, 0x55, 0x1d, 0x11];
    let at = der.windows(oid.len()).position(|window| window == oid)? + oid.len();
    let mut rest = der.get(at..)?;
    if rest.first() == Some(&0x01) {
        rest = rest.get(3..)?; // whether the extension is critical
    }
    let [0x04, _, 0x30, len, names @ ..] = rest else { return None };
    let mut names = names.get(..usize::from(*len))?;
    let mut found = Vec::new();
    while let [tag, len, more @ ..] = names {
        let (name, more) = more.split_at_checked(usize::from(*len))?;
        if *tag == 0x82 {
            found.push(String::from_utf8_lossy(name).into_owned());
        }
        names = more;
    }
    Some(found)
}
