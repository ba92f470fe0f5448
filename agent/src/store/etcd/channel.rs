//! Transport to one etcd server: HTTP/2 over TCP, optionally with TLS.
//!
//! An endpoint and TLS options go in; a lazily connecting channel comes out.

use std::time::Duration;

use etcd_client::{Channel, TlsOptions};
use tonic::transport::{Endpoint, Error};

use super::connect::{ANSWER, Trouble, with_causes};

/// Interval of pings to etcd. etcd treats more than one ping in five seconds as an attack; the lease
/// detects a failure sooner.
const PING: Duration = Duration::from_secs(6);

/// A channel to `HOST:PORT` or a URL. It connects at the first request, and again after a disconnect.
///
/// # Errors
/// The URL or the TLS options are invalid, or TLS is set up but the URL has none.
pub(super) fn channel(endpoint: &str, tls: Option<TlsOptions>) -> Result<Channel, Trouble> {
    let scheme = if tls.is_some() { "https://" } else { "http://" };
    let url = if endpoint.contains("://") { endpoint.into() } else { [scheme, endpoint].concat() };
    let is_secure = url.starts_with("https://");
    if tls.is_some() && !is_secure {
        let text = "certificates are given, but the URL is not https";
        return Err(Trouble::Lasting(text.to_owned()));
    }
    let wrong = |error: Error| Trouble::Lasting(with_causes(error.to_string(), &error));
    let mut endpoint = Endpoint::from_shared(url)
        .map_err(wrong)?
        .connect_timeout(ANSWER)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(ANSWER)
        .keep_alive_while_idle(true);
    if is_secure {
        endpoint = endpoint.tls_config(tls.unwrap_or_default()).map_err(wrong)?;
    }
    // Lazy, so the time limit of the first request covers the connection, too.
    Ok(Channel::Tonic(endpoint.connect_lazy()))
}
