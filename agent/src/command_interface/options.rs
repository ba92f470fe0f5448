//! Options of the command interface.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, builder::BoolishValueParser};

/// Most commanders at a time, if nothing else is said.
pub(crate) const MOST_COMMANDERS: u32 = 1024;

/// Options of `run` about the command interface.
#[derive(Debug, Args)]
#[command(next_help_heading = "Command interface")]
pub(crate) struct CommandArgs {
    /// Serves operators and their tools at this TCP address, too, as 127.0.0.1:25551; without it only
    /// at `command.sock` in the run directory
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Serves this address without TLS: whoever reaches it may do everything. Joins --server without it
    #[arg(long, value_parser = BoolishValueParser::new())]
    #[arg(env = "ANKSERVER_INSECURE", hide_env_values = true)]
    insecure: bool,
    /// PEM file of who may sign the certificates of clients
    #[arg(long, value_name = "FILE", alias = "ca_pem")]
    #[arg(env = "ANKSERVER_CA_PEM", hide_env_values = true)]
    ca_pem: Option<PathBuf>,
    /// PEM file of our certificate, for the name `ank-server`
    #[arg(long, value_name = "FILE", alias = "crt_pem")]
    #[arg(env = "ANKSERVER_CRT_PEM", hide_env_values = true)]
    crt_pem: Option<PathBuf>,
    /// PEM file of its key, readable by us alone
    #[arg(long, value_name = "FILE", alias = "key_pem")]
    #[arg(env = "ANKSERVER_KEY_PEM", hide_env_values = true)]
    key_pem: Option<PathBuf>,
    /// Where other agents of the cluster reach this address, to fetch logs; default: as --listen
    #[arg(long, value_name = "HOST:PORT", requires = "listen")]
    advertise: Option<String>,
    /// Most commanders at a time, and as many connections of each socket
    #[arg(long, value_name = "COUNT", default_value_t = MOST_COMMANDERS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_commanders: u32,
}

/// Where the command interface is served beside its socket, and its limits.
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) tcp: Option<(SocketAddr, Security)>,
    /// URL for the other agents of the cluster, if they can reach this one.
    pub(crate) advertised: Option<String>,
    /// The files of TLS: authority, certificate, key. An agent that does not listen is a client by them.
    pub(crate) pems: Option<Pems>,
    /// A server may be joined without TLS.
    pub(crate) is_insecure: bool,
    pub(crate) most: usize,
}

/// Authority, certificate and key.
pub(crate) type Pems = [PathBuf; 3];

/// The protection of a TCP address.
#[derive(Debug)]
pub(crate) enum Security {
    /// None.
    Insecure,
    /// Mutual TLS by these files: authority, certificate, key.
    Tls(Pems),
}

impl CommandArgs {
    /// Checks that the options belong together. The error is for the user.
    pub(crate) fn check(self) -> Result<Listen, String> {
        let most = usize::try_from(self.max_commanders).unwrap_or(usize::MAX);
        let files = [self.ca_pem, self.crt_pem, self.key_pem];
        let given = files.iter().flatten().count();
        let pems = match files {
            [Some(ca), Some(crt), Some(key)] => Some([ca, crt, key]),
            _ if given > 0 => {
                return Err(
                    "--ca-pem, --crt-pem and --key-pem belong together: give all three".into()
                );
            }
            _ => None,
        };
        let is_insecure = self.insecure;
        let Some(address) = self.listen else {
            return Ok(Listen { tcp: None, advertised: None, pems, is_insecure, most });
        };
        let security = match &pems {
            Some(pems) => {
                if self.insecure {
                    log::warn!("--insecure counts for nothing: the PEM files for TLS are given");
                }
                Security::Tls(pems.clone())
            }
            None if !self.insecure => {
                return Err(format!(
                    "--listen {address} needs TLS: give --ca-pem, --crt-pem and --key-pem, or \
                     --insecure for a network of friends"
                ));
            }
            None => Security::Insecure,
        };
        if matches!(security, Security::Insecure) && !address.ip().is_loopback() {
            log::warn!("whoever reaches {address} may do everything: it is served without TLS");
        }
        let scheme = if pems.is_some() { "https" } else { "http" };
        // Nobody reaches an unspecified address, or a port that is chosen later.
        let is_reached = !address.ip().is_unspecified() && address.port() != 0;
        let reached = self.advertise.or_else(|| is_reached.then(|| address.to_string()));
        let advertised = reached.map(|reached| format!("{scheme}://{reached}"));
        Ok(Listen { tcp: Some((address, security)), advertised, pems, is_insecure, most })
    }
}
