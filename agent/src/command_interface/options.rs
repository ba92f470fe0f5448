//! Options of the command interface.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, builder::BoolishValueParser};

/// Options of `run` about the command interface.
#[derive(Debug, Args)]
#[command(next_help_heading = "Command interface")]
pub(crate) struct CommandArgs {
    /// Serves operators and their tools at this TCP address, too, as 127.0.0.1:25551; without it only
    /// at `command.sock` in the run directory
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Serves this address without TLS: whoever reaches it may do everything
    #[arg(long, env = "ANKSERVER_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,
    /// PEM file of who may sign the certificates of clients
    #[arg(long, value_name = "FILE", env = "ANKSERVER_CA_PEM", alias = "ca_pem")]
    ca_pem: Option<PathBuf>,
    /// PEM file of our certificate, for the name `ank-server`
    #[arg(long, value_name = "FILE", env = "ANKSERVER_CRT_PEM", alias = "crt_pem")]
    crt_pem: Option<PathBuf>,
    /// PEM file of its key, readable by us alone
    #[arg(long, value_name = "FILE", env = "ANKSERVER_KEY_PEM", alias = "key_pem")]
    key_pem: Option<PathBuf>,
    /// Most commanders at a time, and as many connections
    #[arg(long, value_name = "COUNT", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_commanders: u32,
}

/// Where the command interface is served beside its socket, and its limits.
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) tcp: Option<(SocketAddr, Security)>,
    pub(crate) most: usize,
}

/// The protection of a TCP address.
#[derive(Debug)]
pub(crate) enum Security {
    /// None.
    Insecure,
    /// Mutual TLS by these files: authority, certificate, key.
    Tls([PathBuf; 3]),
}

impl CommandArgs {
    /// Checks that the options belong together. The error is for the user.
    pub(crate) fn check(self) -> Result<Listen, String> {
        let most = usize::try_from(self.max_commanders).unwrap_or(usize::MAX);
        let Some(address) = self.listen else { return Ok(Listen { tcp: None, most }) };
        let files = [self.ca_pem, self.crt_pem, self.key_pem];
        let given = files.iter().flatten().count();
        let security = match files {
            [Some(ca), Some(crt), Some(key)] => {
                if self.insecure {
                    log::warn!("--insecure counts for nothing: the PEM files for TLS are given");
                }
                Security::Tls([ca, crt, key])
            }
            _ if given > 0 => {
                return Err(
                    "--ca-pem, --crt-pem and --key-pem belong together: give all three".into()
                );
            }
            _ if !self.insecure => {
                return Err(format!(
                    "--listen {address} needs TLS: give --ca-pem, --crt-pem and --key-pem, or \
                     --insecure for a network of friends"
                ));
            }
            _ => Security::Insecure,
        };
        if matches!(security, Security::Insecure) && !address.ip().is_loopback() {
            log::warn!("whoever reaches {address} may do everything: it is served without TLS");
        }
        Ok(Listen { tcp: Some((address, security)), most })
    }
}
