//! Certificates for mutual TLS.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519, date_time_ymd,
};
use tempfile::TempDir;

/// Signs certificates. Its own one is `ca.pem` in its folder, which has all keys and certificates.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one with a folder of its own.
    #[allow(clippy::new_without_default)] // it makes files
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    /// The path of `ca.pem`, `NAME.pem` or `NAME.key`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The content of such a file.
    pub fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// The paths of `ca.pem`, `NAME.pem` and `NAME.key`.
    pub fn files(&self, name: &str) -> [String; 3] {
        ["ca.pem".to_owned(), format!("{name}.pem"), format!("{name}.key")]
            .map(|file| self.path(&file).to_str().unwrap().to_owned())
    }

    /// Makes the files of a certificate for this name: `NAME.pem`, mode 0644, and `NAME.key`, mode 0600.
    pub fn issue(&self, name: &str) {
        self.issue_for(name, name);
    }

    /// As [`Authority::issue`]; the certificate is for this host in place of the name.
    pub fn issue_for(&self, name: &str, host: &str) {
        self.sign(name, CertificateParams::new(vec![host.to_owned()]).unwrap());
    }

    /// As [`Authority::issue`], valid until this year.
    pub fn issue_until(&self, name: &str, year: i32) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        self.sign(name, params);
    }

    fn sign(&self, name: &str, params: CertificateParams) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |file: String, text: String, mode| {
            fs::write(self.path(&file), text).unwrap();
            fs::set_permissions(self.path(&file), Permissions::from_mode(mode)).unwrap();
        };
        write(format!("{name}.pem"), certificate.pem(), 0o644);
        write(format!("{name}.key"), key.serialize_pem(), 0o600);
    }
}
