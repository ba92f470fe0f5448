//! How to reach a server of Ankaios: what was said about it, checked before anything is connected.
//!
//! No content of a PEM file is ever part of a message: one of them is a private key.

use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt};

use tonic::codegen::http::Uri;

use super::super::withheld::has_pem;
use crate::{
    dial::{Pem, Pems, private},
    folders::named,
    store::ankaios,
};

/// Where a server is if nothing else is said.
pub(super) const DEFAULT_URL: &str = "https://127.0.0.1:25551";

/// The options of authority, certificate and key.
const NAMES: [&str; 3] = ["--ca_pem", "--crt_pem", "--key_pem"];

/// What was said about a server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) url: String,
    /// It may be joined without TLS.
    pub(super) is_insecure: bool,
    /// Authority, certificate and key.
    pub(super) pems: [Option<Pem>; 3],
    /// Tags of this agent.
    pub(super) tags: BTreeMap<String, String>,
}

impl Server {
    /// Checks it all for the agent of this name.
    ///
    /// # Errors
    /// A text for the user.
    pub(super) fn check(self, agent: &str) -> Result<ankaios::Options, String> {
        let given = self.pems.iter().flatten().count();
        let pems = match self.pems {
            [Some(ca), Some(crt), Some(key)] => {
                if self.is_insecure {
                    log::warn!("--insecure counts for nothing: the PEM files for TLS are given");
                }
                Some([ca, crt, key])
            }
            _ if self.is_insecure => {
                if given > 0 {
                    log::warn!(
                        "the PEM files count for nothing: only {given} of 3 are given, and --insecure"
                    );
                }
                None
            }
            pems => {
                let missing = pems.iter().zip(NAMES).filter(|(pem, _)| pem.is_none());
                let missing: Vec<_> = missing.map(|(_, name)| name).collect();
                return Err(format!(
                    "the connection needs TLS: give {}, or --insecure for a network of friends",
                    missing.join(" and ")
                ));
            }
        };
        // They are read again for each connection; faults at the start are reported at the start.
        pems.as_ref().map_or(Ok(()), check_files).map_err(|error| error.to_string())?;
        if !is_url(&self.url) {
            let url = self.url.escape_debug();
            return Err(format!("'{url}' is no http://HOST:PORT or https://HOST:PORT of a server"));
        }
        let mut options = ankaios::Options::new(self.url, agent, self.tags, pems);
        options.target.option = "--server-url";
        options.target.endpoint()?;
        Ok(options)
    }
}

fn is_url(url: &str) -> bool {
    let is_known = url.starts_with("http://") || url.starts_with("https://");
    let has_host = |uri: Uri| uri.host().is_some_and(|host| !host.is_empty());
    is_known && url.parse().is_ok_and(has_host)
}

/// Checks that the files can be read, and are changed and used by their owner alone.
fn check_files(pems: &Pems) -> io::Result<()> {
    for (pem, name) in pems.iter().zip(NAMES) {
        if matches!(pem, Pem::File(path) if has_pem(&path.to_string_lossy())) {
            let key = name.trim_start_matches('-');
            return Err(io::Error::other(format!(
                "{name} is a PEM text: give the path of its file, or {key}_content in the configuration file"
            )));
        }
    }
    let [ca, crt, key] = pems;
    for pem in [ca, crt] {
        let Pem::File(path) = pem else { continue };
        let text = fs::metadata(path).and_then(|own| fs::read(path).map(|_| own));
        let mode = text.map_err(|error| named(path, &error))?.permissions().mode() & 0o777;
        if mode & 0o133 != 0 {
            let text = format!(
                "others may write to this certificate, or it is executable, its mode is {mode:04o}: \
                 chmod 644 it"
            );
            return Err(named(path, &text));
        }
    }
    let Pem::File(path) = key else { return Ok(()) };
    let metadata = fs::metadata(path).map_err(|error| named(path, &error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if ![0o600, 0o400].contains(&mode) {
        let text = format!("the mode of this key is {mode:04o}, not 0600 or 0400: chmod 600 it");
        return Err(named(path, &text));
    }
    private(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, is_insecure: bool, pems: [Option<Pem>; 3]) -> Result<String, String> {
        let server = Server { url: url.to_owned(), is_insecure, pems, tags: BTreeMap::new() };
        server.check("agent_A").map(|options| options.target.address)
    }

    #[test]
    fn url_has_a_scheme_and_a_host_and_goes_without_tls_by_either() {
        let plain = |url| server(url, true, [None, None, None]);
        assert_eq!(plain(DEFAULT_URL).unwrap(), "http://127.0.0.1:25551");
        assert_eq!(plain("http://node.example").unwrap(), "http://node.example");
        for wrong in ["", "https://", "ftp://a", "127.0.0.1:25551", "http://:1", "http://a b"] {
            assert!(plain(wrong).unwrap_err().contains("is no http://HOST:PORT"), "{wrong}");
        }
    }

    #[test]
    fn missing_parts_of_tls_are_named_and_given_ones_never_printed() {
        let pems = [None, Some(Pem::Text("SECRET".to_owned())), None];
        assert!(!format!("{pems:?}").contains("SECRET"));
        let text = "the connection needs TLS: give --ca_pem and --key_pem, or --insecure for a network of friends";
        assert_eq!(server(DEFAULT_URL, false, pems).unwrap_err(), text);
        let pems = [0; 3].map(|_| Some(Pem::Text("SECRET".to_owned())));
        let refused = server(DEFAULT_URL, false, pems).unwrap_err();
        assert!(!refused.contains("SECRET"), "{refused}");
    }
}
