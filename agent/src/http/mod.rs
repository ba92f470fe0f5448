//! What the agent serves by HTTP: metrics with health, and the live page.
//!
//! It is read-only, and without TLS. Bounds: connections at a time, the time for a request and its answer, the
//! size of a request's head. A connection has one request.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::Request,
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use fifogate::link::AsyncLink;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Notify, Semaphore, watch},
    time::{sleep, timeout},
};

use crate::{command_interface::Commanders, figures::Figures, main_loop::Parts};

mod gate_status;
mod metrics;
mod options;
mod page;
mod view;

pub(crate) use options::HttpArgs;

/// Most connections of one address at a time; more wait in the backlog.
const MOST_CONNECTIONS: usize = 32;
/// Time for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// Time for a request with its answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Most bytes of a request's head.
const MOST_HEAD: usize = 16 << 10;
/// Pause after a failed accept, as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// What is shown.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    agent: String,
    run_dir: PathBuf,
    figures: Figures,
    commanders: Commanders,
    gate: watch::Receiver<Option<AsyncLink>>,
}

impl Sources {
    pub(crate) fn of(parts: &Parts) -> Self {
        Self {
            agent: parts.config.agent_name.clone(),
            run_dir: parts.config.run_dir.clone(),
            figures: parts.figures.clone(),
            commanders: parts.commanders.clone(),
            gate: parts.gate.subscribe(),
        }
    }
}

/// The addresses, not yet served.
#[derive(Debug)]
pub(crate) enum Bound {
    /// Each at its own, as far as it is wanted.
    Apart { metrics: Option<TcpListener>, page: Option<TcpListener> },
    /// At one address.
    Together(TcpListener),
}

impl Bound {
    /// Takes the addresses.
    ///
    /// # Errors
    /// An address cannot be taken.
    pub(crate) async fn open(args: &HttpArgs) -> io::Result<Self> {
        if let (Some(metrics), Some(page)) = (&args.metrics, &args.page)
            // Port 0 is another one for each.
            && metrics == page && !metrics.ends_with(":0")
        {
            return Ok(Self::Together(bind("--metrics and --page", metrics).await?));
        }
        let metrics = match &args.metrics {
            Some(address) => Some(bind("--metrics", address).await?),
            None => None,
        };
        let page = match &args.page {
            Some(address) => Some(bind("--page", address).await?),
            None => None,
        };
        Ok(Self::Apart { metrics, page })
    }

    /// Serves them until the end of the process.
    pub(crate) fn serve(self, sources: Sources) -> io::Result<()> {
        match self {
            Self::Apart { metrics, page } => {
                if let Some(listener) = metrics {
                    begin(listener, metrics::router(sources.clone()), &[METRICS])?;
                }
                if let Some(listener) = page {
                    begin(listener, page::router(sources), &[PAGE])?;
                }
            }
            Self::Together(listener) => {
                let router = metrics::router(sources.clone()).merge(page::router(sources));
                begin(listener, router, &[METRICS, PAGE])?;
            }
        }
        Ok(())
    }
}

/// A part of a line of the log, and a path.
type Told = (&'static str, &'static str);
const METRICS: Told = ("metrics are", "/metrics");
const PAGE: Told = ("the page is", "/");

async fn bind(option: &str, address: &str) -> io::Result<TcpListener> {
    let named = |error| io::Error::other(format!("{option} {address}: {error}"));
    TcpListener::bind(address).await.map_err(named)
}

fn begin(listener: TcpListener, router: Router, told: &[Told]) -> io::Result<()> {
    let address = listener.local_addr()?;
    for (what, path) in told {
        log::info!("{what} at http://{address}{path}");
    }
    let is_private = address.ip().is_loopback();
    if !is_private {
        log::warn!("whoever reaches {address} may read what is there: it is served without TLS");
    }
    let router = if is_private { router.layer(middleware::from_fn(refuse_others)) } else { router };
    tokio::spawn(accept(listener, router, address));
    Ok(())
}

async fn accept(listener: TcpListener, router: Router, address: SocketAddr) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut is_told = false;
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                is_told = false;
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    log::warn!("a connection to {address} was not accepted: {error}");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MOST_HEAD)
        .keep_alive(false);
    let stream_of = Arc::new(Streaming::default());
    let router = router.layer(Extension(Arc::clone(&stream_of)));
    let served = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    // A client that goes away, or is slow, is told nothing.
    if timeout(PATIENCE, &mut served).await.is_err() && stream_of.is_begun.load(Relaxed) {
        tokio::select! {
            _ = served => {}
            () = stream_of.given_up.notified() => {}
        }
    }
}

/// An answer without an end on a connection.
#[derive(Debug, Default)]
struct Streaming {
    is_begun: AtomicBool,
    /// Its client does not read it.
    given_up: Notify,
}

/// Refuses requests for a name that is not of the loopback: a page of another site whose name was made to
/// point to us (DNS rebinding) is not to read from here.
async fn refuse_others(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    // Browsers always send it.
    if host.is_none_or(|host| host.to_str().is_ok_and(is_loopback)) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "this address is for localhost\n").into_response()
}

/// Whether a `Host` is of the loopback, with or without a port.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, "0"),
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    port.parse::<u16>().is_ok()
        && (name.eq_ignore_ascii_case("localhost")
            || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_are_served_there() {
        for own in ["localhost", "LOCALHOST:80", "127.0.0.1:9100", "127.1.2.3", "[::1]:1", "[::1]"]
        {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["", "evil.example", "localhost.evil.example:80", "10.0.0.1", "127.0.0.1:x"] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
