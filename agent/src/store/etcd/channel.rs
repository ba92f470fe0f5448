//! The way to one etcd: HTTP/2 through TCP, with TLS if that is wanted.
//!
//! Beside what the client of etcd would make itself, requests are gathered: see [`Gathered`].

mod gathered;

use std::time::Duration;

use etcd_client::{Channel, TlsOptions};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tonic::transport::{Endpoint, Error};
use tower::{Service, service_fn};

use super::connect::{ANSWER, Trouble, with_causes};
use gathered::Gathered;

/// How often etcd is asked whether it is there. More than one ping in five seconds is taken for an
/// attack by etcd; a lease tells sooner.
const PING: Duration = Duration::from_secs(6);

/// A channel to `HOST:PORT` or an URL. It connects when something is asked, and again after it was cut
/// off.
///
/// # Errors
/// It is no URL, not what TLS takes, or without TLS where TLS is set up.
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
    let mut tcp = HttpConnector::new();
    // TLS is put around it, so it is not to refuse what is not http.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector = service_fn(move |uri| {
        let connecting = tcp.clone().call(uri);
        async { connecting.await.map(|tcp| TokioIo::new(Gathered::new(tcp.into_inner()))) }
    });
    Ok(Channel::Tonic(endpoint.connect_with_connector_lazy(connector)))
}
