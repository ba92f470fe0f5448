//! Mutual TLS: the configuration of the server, and the names in a certificate.

use testkit::Authority;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// The configuration of the server, with a certificate for `ank-server`.
pub(crate) fn server_config(authority: &Authority) -> ServerTlsConfig {
    authority.issue("ank-server");
    let [pem, key] = ["ank-server.pem", "ank-server.key"].map(|file| authority.text(file));
    let ca = Certificate::from_pem(authority.text("ca.pem"));
    ServerTlsConfig::new().identity(Identity::from_pem(pem, key)).client_ca_root(ca)
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
